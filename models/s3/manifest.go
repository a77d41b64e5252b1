package s3

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	// manifestSchema names the encoding of a manifest.
	manifestSchema = "darkmirror.models-s3/v1"
	// maxManifest bounds it: about 200 bytes a file, and it is read whole.
	maxManifest = 32 << 20
	// maxManifests bounds the sources that share a prefix.
	maxManifests = 1000
	// maxETag bounds what is believed to be one; they are MD5 sums with a
	// number, or about as long.
	maxETag = 256
)

// A manifest is what a source has put below the prefix, or was about to put
// when its run was killed. Nothing else is ever deleted.
type manifest struct {
	Schema    string             `json:"schema"`
	Source    string             `json:"source"`
	Revisions []manifestRevision `json:"revisions"`
	Refs      []manifestRef      `json:"refs"`
}

type manifestRevision struct {
	Repo   string         `json:"repo"`
	Commit string         `json:"commit"`
	Files  []manifestFile `json:"files"`
}

type manifestFile struct {
	Path   string          `json:"path"`
	Size   int64           `json:"size"`
	SHA256 artifact.Digest `json:"sha256"`
	ETag   string          `json:"etag,omitempty"` // empty: perhaps not there
}

type manifestRef struct {
	Repo   string `json:"repo"`
	Ref    string `json:"ref"`
	Commit string `json:"commit"`
	ETag   string `json:"etag,omitempty"`
}

// encode writes the manifest of some objects; equal ones give equal bytes.
func (t *Target) encode(objects map[string]*object) ([]byte, error) {
	m := manifest{Schema: manifestSchema, Source: t.opt.Name, Revisions: []manifestRevision{}, Refs: []manifestRef{}}
	sorted := make([]*object, 0, len(objects))
	for _, o := range objects {
		sorted = append(sorted, o)
	}
	slices.SortFunc(sorted, func(a, b *object) int {
		return cmp.Or(strings.Compare(a.repo.String(), b.repo.String()), strings.Compare(commitOf(a), commitOf(b)), strings.Compare(a.path, b.path))
	})
	for _, o := range sorted {
		if o.ref {
			m.Refs = append(m.Refs, manifestRef{o.repo.String(), o.path, o.commit, o.etag})
			continue
		}
		if n := len(m.Revisions); n == 0 || m.Revisions[n-1].Repo != o.repo.String() || m.Revisions[n-1].Commit != o.commit {
			m.Revisions = append(m.Revisions, manifestRevision{Repo: o.repo.String(), Commit: o.commit})
		}
		r := &m.Revisions[len(m.Revisions)-1]
		r.Files = append(r.Files, manifestFile{o.path, o.size, o.digest, o.etag})
	}
	b, err := json.Marshal(&m)
	if err == nil && len(b) > maxManifest {
		err = fmt.Errorf("%s: the manifest has %d bytes, at most %d: split the source", t.opt.Name, len(b), maxManifest)
	}
	return b, err
}

// commitOf groups files; refs are sorted by their name alone.
func commitOf(o *object) string {
	if o.ref {
		return ""
	}
	return o.commit
}

// decode reads what [Target.encode] wrote. It lies where others may write, and
// says what is deleted: nothing in it leads out of the places that this
// package itself would choose.
func (t *Target) decode(b []byte) (map[string]*object, error) {
	var m manifest
	if err := strictjson.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if m.Schema != manifestSchema {
		return nil, fmt.Errorf("schema %q, want %q", printable(m.Schema), manifestSchema)
	}
	objects := make(map[string]*object)
	add := func(o *object, etag string) error {
		if o.etag = etag; len(etag) > maxETag || printable(etag) != etag {
			return fmt.Errorf("%s: not an etag", printable(o.key))
		}
		if objects[o.key] != nil {
			return fmt.Errorf("%s stands twice", printable(o.key))
		}
		objects[o.key] = o
		return nil
	}
	for _, r := range m.Revisions {
		name, err := hub.ParseRepo(r.Repo)
		if err != nil {
			return nil, err
		}
		if !hub.IsCommit(r.Commit) {
			return nil, fmt.Errorf("%s: %q is not a commit", r.Repo, printable(r.Commit))
		}
		for _, f := range r.Files {
			if err := hub.CheckFile(f.Path); err != nil {
				return nil, err
			}
			if f.Size < 0 || f.SHA256.IsZero() {
				return nil, fmt.Errorf("%s: size or digest missing", printable(f.Path))
			}
			if err := add(t.file(name, r.Commit, f.Path, f.Size, f.SHA256), f.ETag); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range m.Refs {
		name, err := hub.ParseRepo(r.Repo)
		if err != nil {
			return nil, err
		}
		if err := hub.CheckRevision(r.Ref); err != nil {
			return nil, err
		}
		if !hub.IsCommit(r.Commit) {
			return nil, fmt.Errorf("%s: %q is not a commit", r.Repo, printable(r.Commit))
		}
		if err := add(t.ref(name, r.Ref, r.Commit), r.ETag); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// readManifest reads a manifest that a list has shown.
func (t *Target) readManifest(ctx context.Context, key string) (b []byte, objects map[string]*object, err error) {
	err = t.try(ctx, opRead, key, func(ctx context.Context, _ context.CancelCauseFunc) error {
		body, _, _, err := t.c.GetObject(ctx, t.opt.Bucket, key, minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		b, err = io.ReadAll(io.LimitReader(body, maxManifest+1))
		return errors.Join(err, body.Close())
	})
	if err != nil {
		return nil, nil, err
	}
	if len(b) > maxManifest {
		err = fmt.Errorf("over %d bytes", maxManifest)
	} else {
		objects, err = t.decode(b)
	}
	if err != nil {
		return nil, nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: CodeManifest, Subject: t.opt.Name + ": " + t.name(key),
			Reason: "the manifest of what was put there cannot be read; restore it, or delete it, and what it lists is nobody's to take away", Err: err,
		}
	}
	return b, objects, nil
}

// manifests lists the manifests of all sources that share the prefix. It is
// the first request: it shows whether the bucket is there and lets us in.
func (t *Target) manifests(ctx context.Context) ([]string, error) {
	var keys []string
	err := t.list(ctx, t.base+manifestFolder+"/", func(o minio.ObjectInfo) error {
		if len(keys) == maxManifests {
			return &ownError{fmt.Errorf("over %d manifests", maxManifests)}
		}
		if strings.HasSuffix(o.Key, ".json") {
			keys = append(keys, o.Key)
		}
		return nil
	})
	return keys, err
}
