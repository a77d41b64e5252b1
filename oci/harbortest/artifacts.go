package harbortest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

func sum(b []byte) string {
	d := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(d[:])
}

type accessory struct {
	Digest  string `json:"digest"`
	Type    string `json:"type"`
	Size    int64  `json:"size"`
	Subject string `json:"subject_artifact_digest"`
}

type tag struct {
	Name      string `json:"name"`
	Immutable bool   `json:"immutable"`
}

type child struct {
	Digest string `json:"child_digest"`
}

type artifactView struct {
	Digest            string                 `json:"digest"`
	Type              string                 `json:"type"`
	MediaType         string                 `json:"media_type"`
	ManifestMediaType string                 `json:"manifest_media_type"`
	ArtifactType      string                 `json:"artifact_type"`
	Repository        string                 `json:"repository_name"`
	Size              int64                  `json:"size"`
	PushTime          string                 `json:"push_time"`
	Tags              []tag                  `json:"tags"`
	Labels            []*label               `json:"labels"`
	Accessories       []accessory            `json:"accessories"`
	References        []child                `json:"references"`
	Scans             map[string]scanSummary `json:"scan_overview,omitempty"`

	subject string
}

// image reports whether scanners are asked about it.
func (a *artifactView) image() bool { return a.Type == "IMAGE" && len(a.References) == 0 }

// view reads one manifest of the registry; nil if it is absent.
func (h *Harbor) view(repo, ref string) *artifactView {
	raw, mediaType, d, ok := h.Registry.Manifest(repo, ref)
	if !ok {
		return nil
	}
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	var m struct {
		ArtifactType string       `json:"artifactType"`
		Config       descriptor   `json:"config"`
		Layers       []descriptor `json:"layers"`
		Manifests    []descriptor `json:"manifests"`
		Subject      *descriptor  `json:"subject"`
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil
	}
	a := &artifactView{
		Digest: string(d), Type: "IMAGE", MediaType: m.Config.MediaType, ManifestMediaType: mediaType, ArtifactType: m.ArtifactType,
		Repository: repo, Size: int64(len(raw)) + m.Config.Size, PushTime: "2026-11-22T00:00:00.000Z", Labels: []*label{},
	}
	switch {
	case len(m.Manifests) > 0:
		a.MediaType = mediaType
	case strings.Contains(m.Config.MediaType, "helm"):
		a.Type = "CHART"
	case !strings.Contains(m.Config.MediaType, "oci.image.config") && !strings.Contains(m.Config.MediaType, "docker.container.image"):
		a.Type = "UNKNOWN"
	}
	for _, l := range m.Layers {
		a.Size += l.Size
	}
	for _, c := range m.Manifests {
		a.References = append(a.References, child{c.Digest})
	}
	if m.Subject != nil {
		a.subject = m.Subject.Digest
	}
	return a
}

// artifact is a manifest with what Harbor knows of it.
func (h *Harbor) artifact(repo, ref string) *artifactView {
	a := h.view(repo, ref)
	if a == nil {
		return nil
	}
	project, _ := below(repo)
	p := h.Project(project)
	tags := h.Registry.Tags(repo)
	for name, d := range tags {
		if string(d) == a.Digest {
			a.Tags = append(a.Tags, tag{name, p.holds(name)})
		}
		subject := strings.Replace(strings.TrimSuffix(name, ".sig"), "-", ":", 1)
		if strings.HasSuffix(name, ".sig") && subject == a.Digest {
			a.Accessories = append(a.Accessories, accessory{Digest: string(d), Type: "signature.cosign", Subject: a.Digest})
		}
	}
	slices.SortFunc(a.Tags, func(x, y tag) int { return strings.Compare(x.Name, y.Name) })
	h.mu.Lock()
	pushed := slices.Clone(h.pushed[repo])
	s := h.scans[repo+"@"+a.Digest]
	for _, id := range h.marks[repo+"@"+a.Digest] {
		i := slices.IndexFunc(h.labels, func(l *label) bool { return l.ID == id })
		a.Labels = append(a.Labels, h.labels[i])
	}
	h.mu.Unlock()
	for _, d := range pushed {
		if o := h.view(repo, d); o != nil && o.subject == a.Digest {
			a.Accessories = append(a.Accessories, accessory{Digest: d, Type: "subject.accessory", Size: o.Size, Subject: a.Digest})
		}
	}
	if s != nil {
		a.Scans = map[string]scanSummary{reportType: s.summary()}
	}
	return a
}

// at calls fn with the repository and the artifact that the path names.
func (h *Harbor) at(fn func(w http.ResponseWriter, r *http.Request, repo string, a *artifactView)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// The path was unescaped once; names with slashes are escaped twice.
		name, err := url.PathUnescape(r.PathValue("repo"))
		if err != nil {
			fail(w, http.StatusBadRequest, "BAD_REQUEST", err.Error())
			return
		}
		repo, ref := r.PathValue("project")+"/"+name, r.PathValue("ref")
		a := h.artifact(repo, ref)
		if a == nil {
			sep := ":"
			if strings.Contains(ref, ":") {
				sep = "@"
			}
			fail(w, http.StatusNotFound, "NOT_FOUND", fmt.Sprintf("artifact %s%s%s not found", repo, sep, ref))
			return
		}
		fn(w, r, repo, a)
	}
}

func (h *Harbor) getArtifact(w http.ResponseWriter, r *http.Request, _ string, a *artifactView) {
	q := r.URL.Query()
	if q.Get("with_tag") == "false" {
		a.Tags = nil
	}
	if q.Get("with_accessory") != "true" {
		a.Accessories = nil
	}
	if q.Get("with_label") != "true" {
		a.Labels = nil
	}
	if q.Get("with_scan_overview") != "true" || !strings.Contains(r.Header.Get("X-Accept-Vulnerabilities"), reportType) {
		a.Scans = nil
	}
	if q.Get("with_immutable_status") != "true" {
		for i := range a.Tags {
			a.Tags[i].Immutable = false
		}
	}
	answer(w, a)
}

func (h *Harbor) accessories(w http.ResponseWriter, _ *http.Request, _ string, a *artifactView) {
	answer(w, append([]accessory{}, a.Accessories...))
}

func (h *Harbor) addTag(w http.ResponseWriter, r *http.Request, repo string, a *artifactView) {
	var in struct {
		Name string `json:"name"`
	}
	if !decode(w, r, &in) {
		return
	}
	tags := h.Registry.Tags(repo)
	if _, ok := tags[in.Name]; ok {
		fail(w, http.StatusConflict, "CONFLICT", fmt.Sprintf("tag %s already exists", in.Name))
		return
	}
	_, _, d, ok := h.Registry.Manifest(repo, a.Digest)
	if !ok {
		fail(w, http.StatusNotFound, "NOT_FOUND", "artifact not found")
		return
	}
	h.Registry.Tag(repo, in.Name, d)
	w.WriteHeader(http.StatusCreated)
}

func (h *Harbor) deleteArtifact(w http.ResponseWriter, _ *http.Request, repo string, a *artifactView) {
	if tag := h.frozen(repo, a.Digest); tag != "" {
		fail(w, http.StatusPreconditionFailed, "PRECONDITION", immutableText(repo, tag))
		return
	}
	_, _, d, ok := h.Registry.Manifest(repo, a.Digest)
	if ok {
		h.Registry.RemoveManifest(repo, d)
	}
	w.WriteHeader(http.StatusOK)
}

// A label is one of a project.
type label struct {
	ID          int64  `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Color       string `json:"color"`
	Scope       string `json:"scope"`
	ProjectID   int    `json:"project_id"`
}

func (h *Harbor) addMark(w http.ResponseWriter, r *http.Request, repo string, a *artifactView) {
	var in struct {
		ID int64 `json:"id"`
	}
	if !decode(w, r, &in) {
		return
	}
	project, _ := below(repo)
	p := h.Project(project)
	h.mu.Lock()
	defer h.mu.Unlock()
	key := repo + "@" + a.Digest
	switch {
	case !slices.ContainsFunc(h.labels, func(l *label) bool { return l.ID == in.ID && l.ProjectID == p.ID }):
		fail(w, http.StatusNotFound, "NOT_FOUND", fmt.Sprintf("label %d not found", in.ID))
	case slices.Contains(h.marks[key], in.ID):
		fail(w, http.StatusConflict, "CONFLICT", fmt.Sprintf("label %d is already added to the artifact 1", in.ID))
	default:
		h.marks[key] = append(h.marks[key], in.ID)
		w.WriteHeader(http.StatusOK)
	}
}
