package oci

import (
	"log/slog"
	"sync"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/store"
	"github.com/darkmirror/darkmirror/oci/harbor"
)

// Verdicts answers Harbor's questions about images from what was imported: an
// image is inside because the outside's policy let it pass, with the findings
// that were waived. It follows imports without a restart and may be used
// concurrently.
type Verdicts struct {
	st  *store.Store
	log *slog.Logger

	mu      sync.Mutex
	sources []*judged
}

// judged is one source's verdicts as of its last import.
type judged struct {
	dir       string
	published Published
	verdicts  map[string]harbor.Verdict // by digest of the manifest
}

// NewVerdicts answers for the sources whose publishers' folders are given.
func NewVerdicts(dirs []string, st *store.Store, log *slog.Logger) *Verdicts {
	v := &Verdicts{st: st, log: log}
	for _, dir := range dirs {
		v.sources = append(v.sources, &judged{dir: dir})
	}
	return v
}

// Verdict answers for a manifest. Where a source cannot be read there is no
// verdict, which Harbor does not take for a clean one.
func (v *Verdicts) Verdict(digest string) (harbor.Verdict, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, j := range v.sources {
		if err := j.refresh(v.st); err != nil {
			v.log.Error("verdicts cannot be read", slog.String("dir", j.dir), slog.Any("error", err))
			continue
		}
		if verdict, ok := j.verdicts[digest]; ok {
			return verdict, true
		}
	}
	return harbor.Verdict{}, false
}

// refresh reads a source again if an import has changed it.
func (j *judged) refresh(st *store.Store) error {
	at, ok, err := ReadPublished(j.dir)
	if err != nil || !ok {
		j.verdicts = nil
		return err
	}
	if j.verdicts != nil && at == j.published {
		return nil
	}
	j.verdicts = nil
	b, err := st.ReadAll(at.Snapshot, artifact.MaxSnapshot)
	if err != nil {
		return err
	}
	snap, err := artifact.DecodeSnapshot(b)
	if err != nil {
		return err
	}
	waived, err := (&Publisher{st: st}).waivers(snap)
	if err != nil {
		return err
	}
	verdicts := make(map[string]harbor.Verdict)
	for _, a := range snap.Artifacts {
		found := findings(waived, a)
		for _, f := range a.Files {
			_, kind, d, err := splitPath(f.Path)
			if err != nil {
				return err
			}
			if kind != "manifests" {
				continue
			}
			known := verdicts[string(d)]
			verdicts[string(d)] = harbor.Verdict{
				Digest: string(d), Bundle: at.Seq, At: at.Time, Policy: "passed by the outside's policy",
				Findings: append(known.Findings, found...),
			}
		}
	}
	j.published, j.verdicts = at, verdicts
	return nil
}

// findings are what was waived of one artifact.
func findings(waived []Waiver, a artifact.Artifact) []harbor.Finding {
	var list []harbor.Finding
	for _, w := range waived {
		if w.Name != a.Name || w.Version != a.Version {
			continue
		}
		list = append(list, harbor.Finding{
			ID: w.Finding, Severity: w.Severity, Package: shortName(a.Name), Version: a.Version,
			Text: "waived by " + w.Owner + " until " + w.Expires + ": " + w.Reason,
		})
	}
	return list
}
