package harbor

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/darkmirror/darkmirror/oci/harbortest"
)

var (
	now   = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	soon  = now.AddDate(0, 0, 10)
	later = now.AddDate(0, 0, 30)
	gone  = now.AddDate(0, 0, -1)
)

func TestMergeAllowlist(t *testing.T) {
	for name, tt := range map[string]struct {
		have       harbortest.Allowlist
		exceptions []Exception
		want       harbortest.Allowlist
		changed    int
		notes      []string // parts, in order
		idle       bool     // nothing is written
	}{
		"empty": {
			exceptions: []Exception{{"CVE-2", later}, {"CVE-1", soon}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-1", "CVE-2"}, Expires: soon.Unix()},
			changed:    2,
		},
		"nothing wanted": {idle: true},
		"ours, unchanged": {
			have:       harbortest.Allowlist{CVEs: []string{"CVE-1"}, Expires: soon.Unix()},
			exceptions: []Exception{{"CVE-1", soon}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-1"}, Expires: soon.Unix()},
			idle:       true,
		},
		"ours, one ended": {
			have:       harbortest.Allowlist{CVEs: []string{"CVE-1", "CVE-2"}, Expires: gone.Unix()},
			exceptions: []Exception{{"CVE-1", gone}, {"CVE-2", later}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-2"}, Expires: later.Unix()},
			changed:    1,
		},
		"ours, all ended": {
			have:       harbortest.Allowlist{CVEs: []string{"CVE-1"}, Expires: gone.Unix()},
			exceptions: []Exception{{"CVE-1", gone}},
			changed:    1,
		},
		"ours, never expiring": {
			have:       harbortest.Allowlist{CVEs: []string{"CVE-1"}},
			exceptions: []Exception{{"CVE-1", soon}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-1"}, Expires: soon.Unix()},
		},
		"others', never expiring": {
			have:       harbortest.Allowlist{CVEs: []string{"CVE-9"}},
			exceptions: []Exception{{"CVE-1", soon}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-9", "CVE-1"}},
			changed:    1,
			notes:      []string{"CVE-1 must be taken out by hand when its waiver ends on 2026-12-02"},
		},
		"others', earlier": {
			have:       harbortest.Allowlist{CVEs: []string{"CVE-9"}, Expires: soon.Unix()},
			exceptions: []Exception{{"CVE-1", later}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-9", "CVE-1"}, Expires: soon.Unix()},
			changed:    1,
		},
		"others', later": {
			have:       harbortest.Allowlist{CVEs: []string{"CVE-9"}, Expires: later.Unix()},
			exceptions: []Exception{{"CVE-1", soon}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-9", "CVE-1"}, Expires: later.Unix()},
			changed:    1,
			notes:      []string{"expires only on 2026-12-22"},
		},
		"others', expired": {
			have:       harbortest.Allowlist{CVEs: []string{"CVE-9"}, Expires: gone.Unix()},
			exceptions: []Exception{{"CVE-1", soon}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-9", "CVE-1"}, Expires: gone.Unix()},
			changed:    1,
			notes:      []string{"CVE-1 has no effect"},
		},
		"others', with one of ours that ended": {
			have:       harbortest.Allowlist{CVEs: []string{"CVE-9", "CVE-1"}},
			exceptions: []Exception{{"CVE-1", gone}, {"CVE-2", gone}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-9", "CVE-1"}},
			notes:      []string{"CVE-1 is still on it"},
			idle:       true,
		},
		"others', and nothing wanted": {
			have: harbortest.Allowlist{CVEs: []string{"CVE-9"}, Expires: soon.Unix()},
			want: harbortest.Allowlist{CVEs: []string{"CVE-9"}, Expires: soon.Unix()},
			idle: true,
		},
		"two waivers for one": {
			exceptions: []Exception{{"CVE-1", soon}, {"CVE-1", later}, {"CVE-1", gone}},
			want:       harbortest.Allowlist{CVEs: []string{"CVE-1"}, Expires: later.Unix()},
			changed:    1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.harbor.AddProject("platform", -1)
			w.harbor.Change("platform", func(p *harbortest.Project) {
				p.Allowlist = tt.have
				p.Metadata["reuse_sys_cve_allowlist"], p.Metadata["severity"] = "false", "high"
			})
			c := w.robot(RobotOptions{Project: "platform", Allowlist: true})
			changed, err := c.mergeAllowlist(t.Context(), tt.exceptions, now)
			if err != nil || changed != tt.changed {
				t.Fatalf("%d changed, %v; want %d", changed, err, tt.changed)
			}
			p := w.harbor.Project("platform")
			if d := cmp.Diff(tt.want, p.Allowlist); d != "" {
				t.Error(d)
			}
			if p.Metadata["severity"] != "high" {
				t.Errorf("the other settings are %v", p.Metadata)
			}
			got := c.Notes()
			if !slices.EqualFunc(got, tt.notes, strings.Contains) {
				t.Errorf("noted %q, want %q", got, tt.notes)
			}
			if n := w.harbor.Count(http.MethodPut, ""); n != 0 && tt.idle || n == 0 && !tt.idle {
				t.Errorf("%d writes", n)
			}
			// What was merged once stays as it is.
			if changed, err = c.mergeAllowlist(t.Context(), tt.exceptions, now); err != nil || changed != 0 {
				t.Errorf("the second time %d changed, %v", changed, err)
			}
			if d := cmp.Diff(tt.want, w.harbor.Project("platform").Allowlist); d != "" {
				t.Errorf("the second time: %s", d)
			}
		})
	}
}

// TestSystemAllowlist: a project uses the system's list until it is told not
// to. Entries of that list must not be lost to it.
func TestSystemAllowlist(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	c := w.robot(RobotOptions{Project: "platform", Allowlist: true})
	w.harbor.SetSystemAllowlist(harbortest.Allowlist{CVEs: []string{"CVE-9"}})
	want := []Exception{{"CVE-1", soon}}
	if n, err := c.mergeAllowlist(t.Context(), want, now); err != nil || n != 0 {
		t.Fatalf("%d changed, %v", n, err)
	}
	if got := notes(t, c, 1); !strings.Contains(got, "system-wide allowlist, which has 1 entries") {
		t.Errorf("noted %q", got)
	}
	if w.harbor.Count(http.MethodPut, "") != 0 {
		t.Error("the project was changed")
	}
	w.harbor.SetSystemAllowlist(harbortest.Allowlist{})
	if n, err := c.mergeAllowlist(t.Context(), want, now); err != nil || n != 1 {
		t.Fatalf("%d changed, %v", n, err)
	}
	if p := w.harbor.Project("platform"); p.Metadata["reuse_sys_cve_allowlist"] != "false" || len(p.Allowlist.CVEs) != 1 {
		t.Errorf("the project is %+v", p)
	}
}

// TestAllowlistLetsPull is the whole way: an image that is held up passes once
// its finding is waived.
func TestAllowlistLetsPull(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	w.harbor.Scanner()
	d := w.image(app)
	w.harbor.Vulnerable(d, harbortest.Vulnerability{ID: "CVE-1", Package: "p", Version: "1", Severity: "Critical"})
	w.harbor.Change("platform", func(p *harbortest.Project) { p.Metadata["prevent_vul"], p.Metadata["severity"] = "true", "high" })
	c := w.admin()
	if err := c.Scan(t.Context(), app, d); err != nil {
		t.Fatal(err)
	}
	pull := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/v2/"+app+"/manifests/1.0", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("admin", adminPassword)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // only the status counts
		return resp.StatusCode
	}
	if got := pull(); got != http.StatusPreconditionFailed {
		t.Fatalf("before: %d", got)
	}
	if n, err := c.MergeAllowlist(t.Context(), []Exception{{"CVE-1", time.Now().Add(time.Hour)}}); err != nil || n != 1 {
		t.Fatalf("%d changed, %v", n, err)
	}
	if got := pull(); got != http.StatusOK {
		t.Errorf("after: %d", got)
	}
}

func TestMergeAllowlistRefuses(t *testing.T) {
	w := newWorld(t)
	w.harbor.AddProject("platform", -1)
	c := w.admin()
	odd := []Exception{{"", soon}, {"Eicar Test", soon}, {"CVE-1\n", soon}, {strings.Repeat("C", 65), soon}}
	if n, err := c.mergeAllowlist(t.Context(), odd, now); err != nil || n != 0 {
		t.Errorf("%d changed, %v", n, err)
	}
	notes(t, c, len(odd))
	if _, err := c.MergeAllowlist(t.Context(), []Exception{{"CVE-1", time.Time{}}}); err == nil {
		t.Error("an exception for ever was taken")
	}
	if n := w.harbor.Count(http.MethodPut, ""); n != 0 {
		t.Errorf("%d writes", n)
	}
	_, err := w.robot(RobotOptions{Project: "platform"}).MergeAllowlist(t.Context(), []Exception{{"CVE-1", time.Now().Add(time.Hour)}})
	if r := refused(t, err, CodeForbidden); !strings.Contains(r.Reason, "project:update") {
		t.Errorf("%v does not name the permission", err)
	}
}

// FuzzMergeLists: whatever the lists are, nothing of others is lost, and what
// ended does not come back.
func FuzzMergeLists(f *testing.F) {
	f.Add("a b", "a", int64(0), int64(100))
	f.Add("", "a b c", int64(50), int64(-5))
	f.Add("x a", "a b", int64(-1), int64(5))
	f.Fuzz(func(t *testing.T, have, want string, expires, offset int64) {
		l := allowlist{Items: []allowed{}}
		for s := range strings.FieldsSeq(have) {
			if !slices.Contains(l.Items, allowed{s}) {
				l.Items = append(l.Items, allowed{s})
			}
		}
		if expires != 0 {
			l.Expires = &expires
		}
		var wanted []Exception
		for s := range strings.FieldsSeq(want) {
			if !slices.ContainsFunc(wanted, func(e Exception) bool { return e.CVE == s }) {
				wanted = append(wanted, Exception{s, now.Add(time.Duration(offset%1000) * time.Hour)})
				offset = -offset
			}
		}
		next, _ := mergeLists(l, wanted, now)
		for _, it := range l.Items {
			if !slices.ContainsFunc(wanted, func(e Exception) bool { return e.CVE == it.CVE }) && !slices.Contains(next.Items, it) {
				t.Errorf("%s of others was lost", it.CVE)
			}
		}
		for _, e := range wanted {
			in, was := slices.Contains(next.Items, allowed{e.CVE}), slices.Contains(l.Items, allowed{e.CVE})
			if e.Expires.After(now) && !in || !e.Expires.After(now) && in && !was {
				t.Errorf("%s, which ends %s, is on the list: %v, and was: %v", e.CVE, e.Expires, in, was)
			}
		}
		if again, _ := mergeLists(next, wanted, now); !slices.Equal(again.Items, next.Items) || !sameExpiry(again.Expires, next.Expires) {
			t.Error("a second merge changes it again")
		}
	})
}
