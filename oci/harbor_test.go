package oci

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/harbor"
	"github.com/darkmirror/darkmirror/oci/harbortest"
)

// A harborSite is a Harbor as the target of a publisher.
type harborSite struct {
	*site
	harbor *harbortest.Harbor
	url    string
}

func (w *world) harborSite(change func(*PublishConfig)) *harborSite {
	w.t.Helper()
	h := harbortest.New("admin-secret")
	srv := httptest.NewServer(h)
	w.t.Cleanup(srv.Close)
	s := &harborSite{site: &site{t: w.t, reg: h.Registry, dir: w.t.TempDir()}, harbor: h, url: srv.URL}
	cfg := PublishConfig{
		Name: "platform", Harbor: srv.URL + "/platform", AllowHTTP: true, User: "admin", PasswordFile: writeFile(w.t, "admin-secret"),
		Project: Project{Labels: true, Immutable: true, Scan: true, Allowlist: true},
	}
	if change != nil {
		change(&cfg)
	}
	s.open(w, cfg)
	return s
}

func TestPublishIntoHarbor(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	objects := w.signed("team/app", "1.0", 1)
	snap, _ := w.resolve(nil)
	s := w.harborSite(nil)
	s.harbor.Scanner()
	if text := s.publish(snap); !strings.Contains(text, "1 pushed, 0 unchanged") {
		t.Errorf("text: %q", text)
	}
	r := &w.set(snap).Repositories[0]
	name := "platform/" + r.Name
	s.same(w, r, name)
	s.referrers(r, name)
	p := s.harbor.Project("platform")
	if p == nil || p.Metadata["public"] != "false" || len(p.Rules) != 1 || !p.Rules[0].Excludes {
		t.Fatalf("project: %+v", p)
	}
	if d := cmp.Diff([]string{"darkmirror 000007", "darkmirror passed"}, s.harbor.Labels(name, string(objects.index.Digest))); d != "" {
		t.Errorf("labels: %s", d)
	}
	// Again, with tags that must not move: nothing is sent, nothing labelled.
	s.reg.ResetLog()
	s.harbor.ResetLog()
	if text := s.publish(snap); !strings.Contains(text, "0 pushed, 1 unchanged") {
		t.Errorf("text: %q", text)
	}
	if n := s.reg.Writes() + s.harbor.Count("POST", "/labels") + s.harbor.Count("POST", "/scan"); n != 0 {
		t.Errorf("%d requests changed something though nothing was new: %v", n, s.harbor.Requests())
	}
	// A tag that Harbor holds is told, and the image is there by digest.
	w.signed("team/app", "1.0", 60)
	snap, _ = w.resolve(snap)
	_, err := s.pub.Publish(t.Context(), snap, 8, published)
	part, ok := errors.AsType[*artifact.Incomplete](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	wantCode(t, part.Items[0].Err, CodeTagFrozen)
	if !strings.Contains(err.Error(), "immutable") {
		t.Errorf("got %v", err)
	}
}

func TestHarborRefusesBeforeTheFirstByte(t *testing.T) {
	no := false
	for name, c := range map[string]struct {
		change func(*PublishConfig)
		harbor func(*harbortest.Harbor)
		code   string
	}{
		"wrong password": {func(c *PublishConfig) { c.PasswordFile = writeFile(t, "wrong") }, func(*harbortest.Harbor) {}, harbor.CodeLogin},
		"read-only":      {func(*PublishConfig) {}, func(h *harbortest.Harbor) { h.AddProject("platform", -1); h.SetReadOnly(true) }, harbor.CodeReadOnly},
		"quota":          {func(*PublishConfig) {}, func(h *harbortest.Harbor) { h.AddProject("platform", 1000) }, harbor.CodeQuota},
		"no project":     {func(c *PublishConfig) { c.Project.Create = &no }, func(*harbortest.Harbor) {}, harbor.CodeProject},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "team/app:1.0")
			w.signed("team/app", "1.0", 1)
			snap, _ := w.resolve(nil)
			s := w.harborSite(c.change)
			c.harbor(s.harbor)
			_, err := s.pub.Publish(t.Context(), snap, 7, published)
			wantCode(t, err, c.code)
			if !errors.Is(err, artifact.ErrUnavailable) {
				t.Errorf("class of %v", err)
			}
			if n := s.reg.Writes(); n != 0 {
				t.Errorf("%d requests sent something", n)
			}
		})
	}
}

// Where findings prevent pulling, Harbor's registry answers 412 to us too; its
// own API shows that everything is there.
func TestHarborPullPrevention(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	objects := w.signed("team/app", "1.0", 1)
	snap, _ := w.resolve(nil)
	s := w.harborSite(func(c *PublishConfig) { c.Project = Project{Scan: true} })
	s.harbor.Scanner()
	for _, o := range []string{string(objects.index.Digest), string(objects.amd64.Digest), string(objects.arm64.Digest)} {
		s.harbor.Vulnerable(o, harbortest.Vulnerability{ID: "CVE-2026-1111", Package: "x", Version: "1", Severity: "Critical"})
	}
	s.publish(snap)
	s.harbor.Change("platform", func(p *harbortest.Project) {
		p.Metadata["prevent_vul"], p.Metadata["severity"] = "true", "high"
	})
	name := "platform/" + w.set(snap).Repositories[0].Name
	resp, err := get(t, s.url+"/v2/"+name+"/manifests/"+string(objects.amd64.Digest)) // an index passes
	if err != nil || resp.StatusCode != http.StatusPreconditionFailed {
		t.Fatalf("the double does not prevent the pull: %v, %v", resp, err)
	}
	s.reg.ResetLog()
	if text := s.publish(snap); !strings.Contains(text, "0 pushed, 1 unchanged") {
		t.Errorf("text: %q", text)
	}
	if n := s.reg.Writes(); n != 0 {
		t.Errorf("%d requests sent something again", n)
	}
}

func get(t *testing.T, url string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth("admin", "admin-secret")
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		err = resp.Body.Close()
	}
	return resp, err
}

// What was waived outside passes Harbor's pull prevention until it expires, is
// shown as a label, and in the verdicts.
func TestWaiversInHarbor(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	objects := w.signed("team/app", "1.0", 1)
	snap, _ := w.resolve(nil)
	doc, err := json.Marshal(map[string]any{"schema": "darkmirror.waived/v1", "waived": []Waiver{{
		Source: "oci/platform", Name: "registry.example/team/app", Version: "1.0", Scanner: "s", Finding: "CVE-2026-2222", Severity: "high",
		Owner: "sec", Reason: "not reachable", Expires: "2099-12-31",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := w.st.PutBytes(doc)
	if err != nil {
		t.Fatal(err)
	}
	snap.Meta = append(snap.Meta, artifact.File{Path: waivedPath, Digest: d, Size: int64(len(doc))})
	s := w.harborSite(nil)
	s.publish(snap)
	if p := s.harbor.Project("platform"); !slices.Equal(p.Allowlist.CVEs, []string{"CVE-2026-2222"}) || p.Allowlist.Expires == 0 {
		t.Errorf("allowlist: %+v", p.Allowlist)
	}
	name := "platform/" + w.set(snap).Repositories[0].Name
	if got := s.harbor.Labels(name, string(objects.index.Digest)); !slices.Contains(got, "darkmirror waived") {
		t.Errorf("labels: %q", got)
	}
	v := NewVerdicts([]string{t.TempDir(), s.dir}, w.st, nil)
	verdict, ok := v.Verdict(string(objects.amd64.Digest))
	if !ok || verdict.Bundle != 7 || len(verdict.Findings) != 1 || verdict.Findings[0].ID != "CVE-2026-2222" {
		t.Errorf("verdict: %+v, %v", verdict, ok)
	}
	if verdict, ok := v.Verdict("sha256:" + strings.Repeat("0", 64)); ok {
		t.Errorf("a verdict of an unknown image: %+v", verdict)
	}
	// The next import is followed.
	if _, err := s.pub.Publish(t.Context(), snap, 9, published); err != nil {
		t.Fatal(err)
	}
}
