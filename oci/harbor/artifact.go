package harbor

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// reportType is the one kind of report that Harbor 2.x shows in full.
const reportType = "application/vnd.security.vulnerability.report; version=1.1"

// An Artifact is what Harbor knows of a manifest.
type Artifact struct {
	Digest            string      `json:"digest"`
	Type              string      `json:"type"` // "IMAGE", "CHART", ...
	MediaType         string      `json:"media_type"`
	ManifestMediaType string      `json:"manifest_media_type"`
	ArtifactType      string      `json:"artifact_type"`
	Size              int64       `json:"size"` // with its blobs
	PushTime          time.Time   `json:"push_time"`
	Tags              []Tag       `json:"tags"`
	Labels            []Label     `json:"labels"`
	Accessories       []Accessory `json:"accessories"`
	References        []Reference `json:"references"` // an index's children
	// Scans are overviews of scans by type of report.
	Scans map[string]Scan `json:"scan_overview"`
}

// A Tag points at an artifact.
type Tag struct {
	Name      string `json:"name"`
	Immutable bool   `json:"immutable"`
}

// An Accessory is an artifact that is attached to another: a signature, an
// SBOM. It does not stand in the list of artifacts.
type Accessory struct {
	Digest  string `json:"digest"`
	Type    string `json:"type"` // "signature.cosign", "subject.accessory"
	Subject string `json:"subject_artifact_digest"`
}

// A Reference is one child of an index.
type Reference struct {
	Digest string `json:"child_digest"`
}

// A Scan is how one scan ended.
type Scan struct {
	Status   string `json:"scan_status"` // "Success", "Error", "Running", ...
	Severity string `json:"severity"`    // the gravest
	Summary  struct {
		Total   int            `json:"total"`
		Fixable int            `json:"fixable"`
		Counts  map[string]int `json:"summary"`
	} `json:"summary"`
}

// Tagged reports whether tag points at the artifact.
func (a *Artifact) Tagged(tag string) bool {
	return slices.ContainsFunc(a.Tags, func(t Tag) bool { return t.Name == tag })
}

// Scan is the overview of the last scan, if there was one.
func (a *Artifact) Scan() (Scan, bool) {
	if s, ok := a.Scans[reportType]; ok {
		return s, true
	}
	for _, s := range a.Scans { // an older scanner's; there is one
		return s, true
	}
	return Scan{}, false
}

// Artifact shows what is stored under a tag or a digest, and nil if nothing
// is. Unlike the registry's own answer it is not subject to the policies of the
// project: where these prevent pulling, this is how a push is verified. repo is
// the repository's full name, as the registry has it.
func (c *Client) Artifact(ctx context.Context, repo, ref string) (*Artifact, error) {
	path, err := c.artifactPath(repo, ref, "")
	if err != nil {
		return nil, err
	}
	k := call{
		op: "read artifact " + join(repo, ref), path: path, accept: reportType, needs: "artifact:read", ok: []int{http.StatusNotFound},
		query: url.Values{"with_tag": {"true"}, "with_accessory": {"true"}, "with_label": {"true"}, "with_scan_overview": {"true"}, "with_immutable_status": {"true"}},
	}
	var a Artifact
	r, err := c.get(ctx, k, &a)
	if err != nil || r.status == http.StatusNotFound {
		return nil, err
	}
	if !digestText.MatchString(a.Digest) || strings.Contains(ref, ":") && a.Digest != ref {
		return nil, &artifact.Refusal{
			Class: artifact.ErrIntegrity, Code: CodeReply, Subject: c.cfg.Name + ": " + k.op + " at " + c.host,
			Reason: "harbor shows another artifact", Want: ref, Got: clip(a.Digest), Err: &Error{RequestID: clip(r.header.Get("X-Request-Id"))},
		}
	}
	return &a, nil
}

func join(repo, ref string) string {
	if strings.Contains(ref, ":") {
		return repo + "@" + ref
	}
	return repo + ":" + ref
}

// Scan asks Harbor to scan an artifact. It does not wait. That there is no
// scanner, or none for this kind of artifact, is a note.
func (c *Client) Scan(ctx context.Context, repo, digest string) error {
	path, err := c.artifactPath(repo, digest, "/scan")
	if err != nil {
		return err
	}
	_, err = c.do(ctx, call{
		op: "scan " + join(repo, digest), method: http.MethodPost, path: path, needs: "scan:create",
		in: struct {
			Type string `json:"scan_type"`
		}{"vulnerability"},
		ok: []int{http.StatusAccepted, http.StatusConflict}, // it is being scanned already
	})
	switch {
	case hasStatus(err, http.StatusPreconditionFailed):
		c.note(ctx, "%s was not scanned: the project has no scanner, or it is off: %v", join(repo, digest), err)
		return nil
	case hasStatus(err, http.StatusBadRequest) && strings.Contains(err.Error(), "does not support scanning"),
		hasStatus(err, http.StatusUnprocessableEntity):
		c.note(ctx, "%s was not scanned: no scanner for its kind: %v", join(repo, digest), err)
		return nil
	}
	return err
}
