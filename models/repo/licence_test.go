package repo_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/models/repo"
)

func TestLicenceOf(t *testing.T) {
	for _, c := range []struct {
		name, listing, card string
		want                repo.Licence
		says                []string
	}{
		{
			name: "a card", card: "---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# Model\nlicense: mit\n",
			want: repo.Licence{ID: "apache-2.0", Files: []string{"README.md"}},
		},
		{
			name:    "a licence of its own",
			listing: "8K LICENSE\n5K USE_POLICY.md\n1K Notice\n1K original/LICENSE.txt\n1K a/b/LICENSE\n1K license.py\n1K sub/README.md\n1K MODEL_LICENSE\n1K licenses.json\n1K LICENSE-2.0\n1K COPYING",
			card:    "---\r\nlicense: other\r\nlicense_name: team-community\r\nlicense_link: LICENSE\r\n---\r\ntext",
			want:    repo.Licence{ID: "other", Name: "team-community", Link: "LICENSE", Files: []string{"COPYING", "LICENSE", "LICENSE-2.0", "MODEL_LICENSE", "Notice", "README.md", "USE_POLICY.md", "original/LICENSE.txt"}},
		},
		{name: "two", card: "---\nlicense:\n- mit\n- 'cc-by-4.0'\n---\n", want: repo.Licence{ID: "mit, cc-by-4.0", Files: []string{"README.md"}}},
		{name: "behind a mark and empty lines", card: "\xef\xbb\xbf\n\n---\n\"license\": \"mit\" # so it is\n---", want: repo.Licence{ID: "mit", Files: []string{"README.md"}}},
		{name: "an error elsewhere", card: "---\nx: [\nlicense: mit\ny: *nothing\n---\n", want: repo.Licence{ID: "mit", Files: []string{"README.md"}}},
		{name: "no settings", card: "# Model\n---\nlicense: mit\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"names no licence"}},
		{name: "no licence", card: "---\nlicense: null\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"names no licence"}},
		{name: "in a block of text", card: "---\ndescription: |\n  license: mit\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"names no licence"}},
		{name: "no end", card: "---\nlicense: mit\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"have no end"}},
		{name: "twice", card: "---\nlicense: mit\nlicense: gpl\n---\n", want: repo.Licence{ID: "mit", Files: []string{"README.md"}}, says: []string{"license: stands twice"}},
		{name: "an alias", card: "---\nlicense_name: &a x\nlicense: mit\nlicense_link: *a\n---\n", want: repo.Licence{ID: "mit", Files: []string{"README.md"}}, says: []string{"license_name: anchors", "license_link: "}},
		{name: "a tree", card: "---\nlicense: {a: {b: c}}\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"license: want one word or a list"}},
		{name: "laughs", card: "---\nlicense: [&a [x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b]]\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"license: want one word or a list"}},
		{name: "brackets", card: "---\nlicense: " + strings.Repeat("[", 60_000) + "\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"license: not YAML"}},
		{name: "a long value", card: "---\nlicense: " + strings.Repeat("x", 5000) + "\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"license: a value of 5000 bytes"}},
		{name: "a longer setting", card: "---\nlicense: " + strings.Repeat("x", 70_000) + "\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"license: 70010 bytes, at most 65536"}},
		{name: "many values", card: "---\nlicense:\n" + strings.Repeat("- x\n", 2000) + "---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"license: 2000 values"}},
		{name: "long settings", card: "---\n" + strings.Repeat("x: y\n", 300_000) + "license: mit\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"settings of more than 1048576 bytes"}},
		{name: "a data set's long settings", card: "---\n" + strings.Repeat("- name: c\n  dtype: int64\n", 30_000) + "license: mit\n---\n", want: repo.Licence{ID: "mit", Files: []string{"README.md"}}},
		{name: "broken text", card: "---\nlicense: \xff\n---\n", want: repo.Licence{Files: []string{"README.md"}}, says: []string{"not valid UTF-8"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTree(t, c.listing, map[string]string{"README.md": c.card})
			got, notes := repo.LicenceOf(tr.files, tr.read)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("licence (-want +got):\n%s", diff)
			}
			if len(notes) != len(c.says) {
				t.Fatalf("notes %q, want %q", notes, c.says)
			}
			for i, s := range c.says {
				if !strings.Contains(notes[i], s) || len(notes[i]) > 400 {
					t.Errorf("%q does not say %q shortly", notes[i], s)
				}
			}
		})
	}
}

func TestLicenceWithoutCard(t *testing.T) {
	tr := newTree(t, "1K LICENSE\n1K config.json", nil)
	l, notes := repo.LicenceOf(tr.files, tr.read)
	if len(l.Files) != 1 || l.ID != "" || len(notes) != 1 || !strings.Contains(notes[0], "no README.md") {
		t.Errorf("%+v, %q", l, notes)
	}
	tr = newTree(t, "20M README.md", nil)
	if _, notes := repo.LicenceOf(tr.files, tr.read); len(notes) != 1 || !strings.Contains(notes[0], "20971520 bytes") {
		t.Errorf("a card of 20 MiB: %q", notes)
	}
	tr = newTree(t, "1K README.md", nil)
	if _, notes := repo.LicenceOf(tr.files, tr.read); len(notes) != 1 || !strings.Contains(notes[0], "does not exist") {
		t.Errorf("a card that cannot be read: %q", notes)
	}
}

// FuzzLicenceOf: never panics, and gives bounded words.
func FuzzLicenceOf(f *testing.F) {
	for _, s := range []string{
		"---\nlicense: mit\n---\n", "---\r\nlicense:\r\n- a\r\n- b\r\n---", "---\nlicense: &a [x, *a]\n---\n", "---\nlicense: !!binary aGk=\n---\n",
		"---\nlicense: |\n  a\n  b\nlicense_name: >-\n  c\n---\n", "---\nlicense: {<<: *x}\n---\n", "---\nlicense: [[[[\n---\n", "---\n? license\n: mit\n---\n", "---\nlicense: \"\\u0000\"\n---\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, _ := repo.LicenceOf([]repo.File{{Path: "README.md"}}, func(string, int64) ([]byte, error) { return b, nil })
		if most := len(b); len(l.ID) > 3*most || len(l.Name) > 3*most || len(l.Link) > 3*most {
			t.Errorf("%d bytes became %d, %d, %d", most, len(l.ID), len(l.Name), len(l.Link))
		}
		if !strings.HasPrefix(strings.TrimLeft(strings.TrimPrefix(string(b), "\xef\xbb\xbf"), " \t\r\n"), "---") && (l.ID != "" || l.Name != "" || l.Link != "") {
			t.Errorf("%q has no settings, %+v", b, l)
		}
	})
}
