package oci

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

var published = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// A site is a target registry and a publisher into it.
type site struct {
	t   *testing.T
	reg *ocitest.Registry
	pub *Publisher
	dir string
}

func (w *world) site(cfg PublishConfig, opts ...ocitest.Option) *site {
	w.t.Helper()
	reg := ocitest.New(opts...)
	srv := httptest.NewServer(reg)
	w.t.Cleanup(srv.Close)
	s := &site{t: w.t, reg: reg, dir: w.t.TempDir()}
	cfg.Name, cfg.AllowHTTP = "platform", true
	cfg.Registry = srv.URL + cfg.Registry
	s.open(w, cfg)
	return s
}

func (s *site) open(w *world, cfg PublishConfig) {
	s.t.Helper()
	var err error
	s.pub, err = NewPublisher(cfg, "oci/platform", newClient(s.t, cfg.Fetch("oci/platform"), cfg.Address()), w.st, s.dir, nil, nil)
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) publish(snap *artifact.Snapshot) string {
	s.t.Helper()
	if err := s.pub.Verify(s.t.Context(), snap, nil); err != nil {
		s.t.Fatal(err)
	}
	text, err := s.pub.Publish(s.t.Context(), snap, 7, published)
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// same holds that the target has every manifest of a repository byte for byte,
// and every blob.
func (s *site) same(w *world, r *Repository, name string) {
	s.t.Helper()
	for _, m := range r.Manifests {
		want, err := w.st.ReadAll(m.Blob, spec.MaxManifest)
		if err != nil {
			s.t.Fatal(err)
		}
		raw, mediaType, _, ok := s.reg.Manifest(name, string(m.Digest))
		if !ok || string(raw) != string(want) || mediaType != m.MediaType {
			s.t.Errorf("manifest %s: there %v, %s", m.Digest, ok, mediaType)
		}
	}
	for _, b := range r.Blobs {
		if raw, ok := s.reg.Blob(name, b.Digest); !ok || int64(len(raw)) != b.Size {
			s.t.Errorf("blob %s: there %v", b.Digest, ok)
		}
	}
	for _, tag := range r.Tags() {
		if got := s.reg.Tags(name)[tag.Name]; got != tag.Digest {
			s.t.Errorf("tag %s: %s, want %s", tag.Name, got, tag.Digest)
		}
	}
}

func TestPublishIntoARegistry(t *testing.T) {
	for name, opts := range map[string][]ocitest.Option{
		"plain": nil, "no referrers API": {ocitest.NoReferrersAPI()}, "no mount": {ocitest.NoMount()}, "relative locations": {ocitest.RelativeLocation()},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "team/app:1.0", "team/twin:1.0")
			w.signed("team/app", "1.0", 1)
			w.signed("team/twin", "1.0", 1)
			snap, _ := w.resolve(nil)
			s := w.site(PublishConfig{Registry: "/mirror"}, opts...)
			if text := s.publish(snap); !strings.Contains(text, "2 pushed, 0 unchanged") {
				t.Errorf("text: %q", text)
			}
			set := w.set(snap)
			for i := range set.Repositories {
				r := &set.Repositories[i]
				target := "mirror/" + r.Name
				s.same(w, r, target)
				s.referrers(r, target)
			}
			s.order()
			// Again: nothing is sent.
			s.reg.ResetLog()
			if text := s.publish(snap); !strings.Contains(text, "0 pushed, 2 unchanged") {
				t.Errorf("text: %q", text)
			}
			if n := s.reg.Writes(); n != 0 {
				t.Errorf("%d requests changed something though nothing was new", n)
			}
		})
	}
}

// referrers holds that the target lists every referrer of the set.
func (s *site) referrers(r *Repository, target string) {
	s.t.Helper()
	for _, m := range r.Manifests {
		if m.Subject == "" {
			continue
		}
		list, _, err := s.pub.target.r.Referrers(s.t.Context(), target, m.Subject)
		if err != nil {
			s.t.Fatal(err)
		}
		found := false
		for _, d := range list {
			found = found || d.Digest == m.Digest && d.ArtifactType != ""
		}
		if !found {
			s.t.Errorf("%s is not listed as a referrer of %s: %+v", m.Digest, m.Subject, list)
		}
	}
}

// order holds that in each repository blobs came before manifests and tags
// last; a fallback tag is no tag of an image.
func (s *site) order() {
	s.t.Helper()
	stage := make(map[string]int)
	for _, q := range s.reg.Requests() {
		if q.Method == http.MethodGet || q.Method == http.MethodHead {
			continue
		}
		now := 1
		repo, ref, isManifest := strings.Cut(q.Path, "/manifests/")
		if !isManifest {
			repo, _, _ = strings.Cut(q.Path, "/blobs/")
			now = 0
		} else if !strings.HasPrefix(ref, "sha256") {
			now = 2
		}
		if now < stage[repo] {
			s.t.Errorf("%s %s came too late", q.Method, q.Path)
		}
		stage[repo] = now
	}
	if len(stage) == 0 {
		s.t.Error("nothing was pushed")
	}
}

// A manifest that is there is no proof that its layers are.
func TestPublishRepairsABlob(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	w.signed("team/app", "1.0", 1)
	snap, _ := w.resolve(nil)
	s := w.site(PublishConfig{})
	s.publish(snap)
	r := &w.set(snap).Repositories[0]
	s.reg.RemoveBlob(r.Name, r.Blobs[0].Digest)
	s.reg.ResetLog()
	s.publish(snap)
	s.same(w, r, r.Name)
	if n := s.reg.Count("PUT", "/manifests/"); n != 0 {
		t.Errorf("%d manifests were put again", n)
	}
}

func TestPublishMounts(t *testing.T) {
	w := newWorld(t, "team/app:1.0", "team/twin:1.0")
	w.signed("team/app", "1.0", 1)
	w.signed("team/twin", "1.0", 1)
	snap, _ := w.resolve(nil)
	s := w.site(PublishConfig{})
	s.publish(snap)
	set := w.set(snap)
	if n := s.reg.Count("PUT", "/blobs/uploads/"); n != len(set.Repositories[0].Blobs) {
		t.Errorf("%d blobs were sent for two repositories with the same %d", n, len(set.Repositories[0].Blobs))
	}
}

func TestTagPolicies(t *testing.T) {
	for name, c := range map[string]struct {
		policy string
		moved  bool
		code   string
		text   string
	}{
		"default":     {"", true, "", "moved from"},
		"move":        {"move", true, "", "moved from"},
		"keep":        {"keep", false, "", "kept at"},
		"fail":        {"fail", false, CodeTagMoved, ""},
		"digest-only": {"digest-only", false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "team/app:1.0")
			w.signed("team/app", "1.0", 1)
			snap, _ := w.resolve(nil)
			s := w.site(PublishConfig{Tags: c.policy})
			r := &w.set(snap).Repositories[0]
			s.reg.Put(r.Name, "1.0", ocitest.Image(ocitest.Noise(10, 99)))
			before := s.reg.Tags(r.Name)["1.0"]
			text, err := s.pub.Publish(t.Context(), snap, 7, published)
			if c.code == "" && err != nil {
				t.Fatal(err)
			}
			if c.code != "" {
				part, ok := errors.AsType[*artifact.Incomplete](err)
				if !ok {
					t.Fatalf("got %v", err)
				}
				wantCode(t, part.Items[0].Err, c.code)
			}
			if moved := s.reg.Tags(r.Name)["1.0"] != before; moved != c.moved {
				t.Errorf("moved: %v", moved)
			}
			if !strings.Contains(text, c.text) {
				t.Errorf("text: %q", text)
			}
			if _, _, _, ok := s.reg.Manifest(r.Name, string(r.Images[0].Root)); !ok {
				t.Error("the image is not there by digest")
			}
		})
	}
}

func TestImmutableTag(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	w.signed("team/app", "1.0", 1)
	snap, _ := w.resolve(nil)
	s := w.site(PublishConfig{})
	name := w.set(snap).Repositories[0].Name
	s.publish(snap)
	s.reg.Set(ocitest.ImmutableTags())
	s.publish(snap) // the same digest: no PUT, so no 412
	w.signed("team/app", "1.0", 60)
	snap, _ = w.resolve(snap)
	_, err := s.pub.Publish(t.Context(), snap, 8, published)
	part, ok := errors.AsType[*artifact.Incomplete](err)
	if !ok || len(part.Items) != 1 || part.Items[0].Name != name {
		t.Fatalf("got %v", err)
	}
	wantCode(t, part.Items[0].Err, CodeTagFrozen)
}

// When a registry has learned the referrers API, what came before is listed
// again.
func TestRegistryUpgrade(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	w.signed("team/app", "1.0", 1)
	snap, _ := w.resolve(nil)
	s := w.site(PublishConfig{}, ocitest.NoReferrersAPI())
	s.publish(snap)
	s.reg.Set(ocitest.ReferrersAPI())
	s.publish(snap)
	r := &w.set(snap).Repositories[0]
	s.referrers(r, r.Name)
}

func TestVerifyFull(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	w.signed("team/app", "1.0", 1)
	snap, _ := w.resolve(nil)
	s := w.site(PublishConfig{Verify: verifyFull})
	s.publish(snap)
	b := w.set(snap).Repositories[0].Blobs[0]
	s.reg.Set(ocitest.Replace(b.Digest, ocitest.Noise(int(b.Size), 77)))
	_, err := s.pub.Publish(t.Context(), snap, 7, published)
	wantCode(t, err, CodeDamaged)
}

// One repository that the target refuses does not keep the others out.
func TestPublishGoesOn(t *testing.T) {
	w := newWorld(t, "team/app:1.0", "team/other:1.0")
	w.signed("team/app", "1.0", 1)
	w.signed("team/other", "1.0", 40)
	snap, _ := w.resolve(nil)
	s := w.site(PublishConfig{}, ocitest.Before(refuse("/team/app/manifests/")))
	_, err := s.pub.Publish(t.Context(), snap, 7, published)
	part, ok := errors.AsType[*artifact.Incomplete](err)
	if !ok || len(part.Items) != 1 || part.Items[0].Name != "registry.example/team/app" || part.Items[0].Version != "1.0" {
		t.Fatalf("got %v", err)
	}
	if len(s.reg.Tags("registry.example/team/app")) != 0 {
		t.Error("an image that is not whole has a tag")
	}
	r := &w.set(snap).Repositories[1]
	s.same(w, r, r.Name)
	// The embedded server has both.
	at, ok, err := ReadPublished(s.dir)
	if err != nil || !ok || at.Seq != 7 || !at.Time.Equal(published) {
		t.Fatalf("published: %+v, %v, %v", at, ok, err)
	}
	set, err := at.Load(w.st)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w.set(snap), set); d != "" {
		t.Error(d)
	}
}

func TestVerifyRefuses(t *testing.T) {
	w := newWorld(t, "team/app:1.0")
	w.signed("team/app", "1.0", 1)
	good, _ := w.resolve(nil)
	p, err := NewPublisher(PublishConfig{Name: "platform"}, "oci/platform", nil, w.st, t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(*artifact.Snapshot)
		code  string
	}{
		"no record":       {func(s *artifact.Snapshot) { s.Meta = nil }, "OCI-RECORD"},
		"another record":  {func(s *artifact.Snapshot) { s.Meta[0].Digest = s.Artifacts[0].Files[0].Digest }, "OCI-RECORD"},
		"no blob":         {func(s *artifact.Snapshot) { drop(s, "/blobs/") }, CodeIncomplete},
		"no manifest":     {func(s *artifact.Snapshot) { drop(s, "/manifests/") }, CodeIncomplete},
		"another name":    {func(s *artifact.Snapshot) { s.Artifacts[0].Name = "registry.example/team/else" }, "OCI-RECORD"},
		"another version": {func(s *artifact.Snapshot) { s.Artifacts[0].Files[0].Size++ }, CodeIncomplete},
		"path": {func(s *artifact.Snapshot) {
			s.Artifacts[0].Files[0].Path = "registry.example/team/app/files/x"
		}, "OCI-RECORD"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := good.Encode()
			if err != nil {
				t.Fatal(err)
			}
			snap, err := artifact.DecodeSnapshot(b)
			if err != nil {
				t.Fatal(err)
			}
			c.spoil(snap)
			err = p.Verify(t.Context(), snap, nil)
			if !errors.Is(err, artifact.ErrIntegrity) {
				t.Fatalf("got %v", err)
			}
			wantCode(t, err, c.code)
		})
	}
}
