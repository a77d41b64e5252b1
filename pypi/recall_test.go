package pypi

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/pypitest"
)

// What the index takes back reaches the inside though nothing newer can be
// resolved, and because nothing newer can be.
func TestRecall(t *testing.T) {
	files := []pypitest.File{
		pypitest.Wheel("foo-1.0-py3-none-any.whl", ""), pypitest.Wheel("bar-1.0-py3-none-any.whl", ""),
		pypitest.Wheel("bar-2.0-py3-none-any.whl", ""), pypitest.Wheel("baz-1.0-py3-none-any.whl", ""),
	}
	lock := map[string]string{"r.txt": strings.Join([]string{pypitest.Pin(files[0]), pypitest.Pin(files[1]), pypitest.Pin(files[3])}, "\n")}
	prev, _, _ := newOutside(t, pypitest.New(files...), lock, nil).resolve(t)

	for name, c := range map[string]struct {
		change func(x *pypitest.Index, files []pypitest.File) []pypitest.File
		said   string   // in the notes; empty: nothing is taken back
		gone   []string // projects in quarantine
		yanked []string
		code   string
	}{
		"quarantine": {
			change: func(x *pypitest.Index, files []pypitest.File) []pypitest.File {
				x.Status["foo"] = "quarantined"
				return files
			},
			said: "foo is in quarantine", gone: []string{"foo"}, code: "PYPI-QUARANTINED",
		},
		"yanked, while another is gone": {
			change: func(_ *pypitest.Index, files []pypitest.File) []pypitest.File {
				files[1].Yanked, files[1].YankedReason = true, "leaks"
				files[2].Yanked = true // which was never carried
				return files[:3]       // without baz
			},
			said: "bar-1.0-py3-none-any.whl is yanked", yanked: []string{"bar-1.0-py3-none-any.whl"}, code: "PYPI-NOT-FOUND",
		},
		"nothing is taken back": {
			change: func(_ *pypitest.Index, files []pypitest.File) []pypitest.File { return files[:3] }, code: "PYPI-NOT-FOUND",
		},
		"an index that lies is not believed": {
			change: func(x *pypitest.Index, files []pypitest.File) []pypitest.File {
				x.Status["foo"] = "quarantined"
				files[3] = pypitest.Wheel("baz-1.0-py3-none-any.whl", "other")
				return files
			},
			code: "PYPI-HASH-MISMATCH",
		},
		"other bytes under the name": {
			change: func(_ *pypitest.Index, files []pypitest.File) []pypitest.File {
				files[1] = pypitest.Wheel("bar-1.0-py3-none-any.whl", "other")
				files[1].Yanked = true
				return files[:3]
			},
			code: "PYPI-HASH-MISMATCH",
		},
	} {
		t.Run(name, func(t *testing.T) {
			index := pypitest.New()
			now := c.change(index, slices.Clone(files))
			changed := pypitest.New(now...)
			changed.Status = index.Status
			o := newOutside(t, changed, lock, nil)
			// What was sealed before is in this source's store too.
			before, _, _ := func() (*artifact.Snapshot, []string, []string) {
				first := newOutside(t, pypitest.New(files...), lock, nil)
				first.store = o.store
				first.Source.store = o.store
				return first.resolve(t)
			}()
			if before.Meta[0].Digest != prev.Meta[0].Digest {
				t.Fatal("the same index gave two documents")
			}
			snap, notes, err := o.Resolve(t.Context(), before)
			r, ok := errors.AsType[*artifact.Refusal](err)
			if !ok || r.Code != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
			part, items := errors.AsType[*artifact.Incomplete](err)
			if c.said == "" {
				if snap != nil || items {
					t.Errorf("got a snapshot, %v", notes)
				}
				return
			}
			if !items || len(part.Items) != 1 || part.Items[0].Name != "" || len(notes) != 1 || !strings.HasSuffix(notes[0], ": "+c.said) {
				t.Fatalf("got %v and notes %q", err, notes)
			}
			doc, err := sealedIndex(o.store, snap)
			if err != nil {
				t.Fatal(err)
			}
			var gone, yanked []string
			for i := range doc.Projects {
				if doc.Projects[i].Status == quarantined {
					gone = append(gone, doc.Projects[i].Name)
				}
				for _, f := range doc.Projects[i].Files {
					if f.Yanked {
						yanked = append(yanked, f.Filename)
					}
				}
			}
			if !slices.Equal(gone, c.gone) || !slices.Equal(yanked, c.yanked) || len(snap.Artifacts) != 3 {
				t.Errorf("in quarantine %q, yanked %q, %d artifacts", gone, yanked, len(snap.Artifacts))
			}
		})
	}
}
