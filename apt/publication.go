package apt

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/internal/durable"
	"github.com/darkmirror/darkmirror/internal/strictjson"
	"github.com/darkmirror/darkmirror/mirror/artifact"
)

const (
	// publicationSchema names the encoding of a publication.
	publicationSchema = "darkmirror.apt-publication/v1"
	// maxPublication bounds one record; a million files need 200 MB.
	maxPublication = 256 << 20
	// retainCount and retainTime: what a client may still ask for by an older
	// InRelease stays until both have passed.
	retainCount = 3
	retainTime  = 7 * 24 * time.Hour
)

// A publication is a record of what was, or is about to be, published. It is
// written before the first InRelease changes, so that nothing a client may see
// is unknown here.
type publication struct {
	Schema string           `json:"schema"`
	Seq    uint64           `json:"seq"`
	At     time.Time        `json:"at"`
	Suites []publishedSuite `json:"suites"`
	Pool   []publishedFile  `json:"pool"`

	number int // of the record file
}

// A publishedSuite is one Release that we signed.
type publishedSuite struct {
	Path string          `json:"path"` // "debian/dists/bookworm"
	Body artifact.Digest `json:"body"` // of the Release without its times
	Date time.Time       `json:"date"`
	// Objects are the by-hash files below Path.
	Objects []string `json:"objects"`
}

// A publishedFile is one file of a pool.
type publishedFile struct {
	Path   string          `json:"path"` // below the tree
	Digest artifact.Digest `json:"digest"`
	Size   int64           `json:"size"`
}

func publicationsDir(dir string) string { return filepath.Join(dir, "publications") }

// loadPublications reads every record, the latest first.
func loadPublications(dir string) ([]*publication, error) {
	entries, err := os.ReadDir(publicationsDir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []*publication
	for _, e := range entries {
		var n int
		if strings.HasPrefix(e.Name(), durable.TempPrefix) {
			continue
		}
		if _, err := fmt.Sscanf(e.Name(), "%08d.json", &n); err != nil {
			return nil, fmt.Errorf("%s: not a publication", filepath.Join(publicationsDir(dir), e.Name()))
		}
		name := filepath.Join(publicationsDir(dir), e.Name())
		b, err := readLimited(name, maxPublication)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile, for its age
		}
		if err != nil {
			return nil, err
		}
		p := &publication{}
		if err := strictjson.Unmarshal(b, p); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if p.Schema != publicationSchema {
			return nil, fmt.Errorf("%s: schema %q, want %q", name, p.Schema, publicationSchema)
		}
		p.number = n
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *publication) int { return -cmp.Compare(a.number, b.number) })
	return all, nil
}

// save writes a record under its number.
func (p *publication) save(dir string) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return durable.WriteFile(p.file(dir), b, 0o600)
}

func (p *publication) file(dir string) string {
	return filepath.Join(publicationsDir(dir), fmt.Sprintf("%08d.json", p.number))
}

func (p *publication) suite(path string) *publishedSuite {
	for i := range p.Suites {
		if p.Suites[i].Path == path {
			return &p.Suites[i]
		}
	}
	return nil
}

// same reports whether two records publish the same state.
func (p *publication) same(q *publication) bool {
	sameSuite := func(a, b publishedSuite) bool {
		return a.Path == b.Path && a.Body == b.Body && a.Date.Equal(b.Date) && slices.Equal(a.Objects, b.Objects)
	}
	return slices.EqualFunc(p.Suites, q.Suites, sameSuite) && slices.Equal(p.Pool, q.Pool)
}

// expired splits off the records that nothing has to wait for: beyond the last
// retainCount, and followed by another one retainTime ago.
func expired(all []*publication, now time.Time) (kept, gone []*publication) {
	for i, p := range all {
		if i < retainCount || now.Sub(all[i-1].At) < retainTime {
			kept = append(kept, p)
		} else {
			gone = append(gone, p)
		}
	}
	return kept, gone
}
