package harbor

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxCVE bounds an identifier in the allowlist; the longest kind in use,
// GHSA-..., has 19 characters.
const maxCVE = 64

// An Exception is a vulnerability that a waiver of ours lets pass.
type Exception struct {
	CVE     string
	Expires time.Time // it does not count from then on
}

// An allowlist as Harbor keeps it: one date for all entries, and no word on who
// made them.
type allowlist struct {
	Items   []allowed `json:"items"`
	Expires *int64    `json:"expires_at,omitempty"` // seconds; absent: never
}

type allowed struct {
	CVE string `json:"cve_id"`
}

// MergeAllowlist lets the exceptions in force pass the project's pull
// prevention, and answers how many entries it added or took out.
//
// Harbor's list has one date of expiry for all entries, and does not say whose
// they are. A list whose every entry is named by the exceptions is taken for
// ours: it then holds just those in force, and ends when the first of them does.
// In any other list nothing is taken out, and the date stays; what that leaves
// to be done by hand is a note. A project that uses Harbor's system-wide list is
// given one of its own only where the system's is empty.
func (c *Client) MergeAllowlist(ctx context.Context, exceptions []Exception) (changed int, err error) {
	return c.mergeAllowlist(ctx, exceptions, time.Now())
}

func (c *Client) mergeAllowlist(ctx context.Context, exceptions []Exception, now time.Time) (int, error) {
	wanted, err := c.wanted(ctx, exceptions)
	if err != nil {
		return 0, err
	}
	p, err := c.project(ctx)
	if err != nil {
		return 0, err
	}
	have := p.Allowlist
	next, notes := mergeLists(have, wanted, now)
	changed := differences(have.Items, next.Items)
	moved := changed > 0 || !sameExpiry(have.Expires, next.Expires)
	if reuse, ok := p.Metadata["reuse_sys_cve_allowlist"]; (!ok || reuse == "true") && len(next.Items) > 0 {
		blocked, err := c.systemAllowlist(ctx)
		if err != nil {
			return 0, err
		}
		if blocked > 0 {
			c.note(ctx, "project %s uses harbor's system-wide allowlist, which has %d entries: nothing was added; give the project an allowlist of its own first", c.cfg.Project, blocked)
			return 0, nil
		}
		moved = true
	}
	for _, n := range notes {
		c.note(ctx, "allowlist of project %s: %s", c.cfg.Project, n)
	}
	if !moved {
		return 0, nil
	}
	type metadata struct {
		Reuse string `json:"reuse_sys_cve_allowlist"`
	}
	// A list without its date would never expire: both are always sent.
	_, err = c.do(ctx, call{
		op: "write the allowlist of project " + c.cfg.Project, method: http.MethodPut, path: c.projectPath(""), needs: "project:update",
		in: struct {
			Allowlist allowlist `json:"cve_allowlist"`
			Metadata  metadata  `json:"metadata"`
		}{next, metadata{"false"}},
	})
	if err != nil {
		return 0, err
	}
	return changed, nil
}

// systemAllowlist counts the entries of the list that all projects share by
// default.
func (c *Client) systemAllowlist(ctx context.Context) (int, error) {
	var l allowlist
	_, err := c.get(ctx, call{op: "read the system's allowlist", path: "/system/CVEAllowlist"}, &l)
	return len(l.Items), err
}

// wanted sorts the exceptions. Of two for one vulnerability the later counts.
// What cannot be an identifier, as another scanner's finding, is left out.
func (c *Client) wanted(ctx context.Context, exceptions []Exception) ([]Exception, error) {
	byCVE := make(map[string]Exception)
	for _, e := range exceptions {
		if e.CVE == "" || len(e.CVE) > maxCVE || strings.ContainsFunc(e.CVE, func(r rune) bool { return r <= ' ' || r > '~' }) {
			c.note(ctx, "allowlist of project %s: %q is no identifier of a vulnerability and was left out", c.cfg.Project, clip(e.CVE))
			continue
		}
		if e.Expires.IsZero() {
			return nil, fmt.Errorf("%s: the exception for %s has no date of expiry", c.cfg.Name, e.CVE)
		}
		if had, ok := byCVE[e.CVE]; !ok || had.Expires.Before(e.Expires) {
			byCVE[e.CVE] = e
		}
	}
	var list []Exception
	for _, e := range byCVE {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Exception) int { return cmp.Compare(a.CVE, b.CVE) })
	return list, nil
}

// mergeLists answers the list to be, and what the operator must know of it.
func mergeLists(have allowlist, wanted []Exception, now time.Time) (next allowlist, notes []string) {
	inForce := func(e Exception) bool { return e.Expires.After(now) }
	names := func(cve string) bool {
		return slices.ContainsFunc(wanted, func(e Exception) bool { return e.CVE == cve })
	}
	if ours := !slices.ContainsFunc(have.Items, func(a allowed) bool { return !names(a.CVE) }); ours {
		return ourList(wanted, inForce), nil
	}
	next = allowlist{Items: slices.Clone(have.Items), Expires: have.Expires}
	for _, e := range wanted {
		there := slices.Contains(have.Items, allowed{e.CVE})
		switch {
		case !inForce(e) && there:
			notes = append(notes, e.CVE+" is still on it, although the waiver ended on "+day(e.Expires)+"; take it out by hand unless somebody else needs it")
			continue
		case !inForce(e):
			continue
		case !there:
			next.Items = append(next.Items, allowed{e.CVE})
		}
		switch {
		case have.Expires == nil:
			notes = append(notes, e.CVE+" must be taken out by hand when its waiver ends on "+day(e.Expires)+": the list has entries of others and never expires")
		case time.Unix(*have.Expires, 0).After(e.Expires):
			notes = append(notes, e.CVE+" must be taken out by hand when its waiver ends on "+day(e.Expires)+": the list has entries of others and expires only on "+day(time.Unix(*have.Expires, 0)))
		case !time.Unix(*have.Expires, 0).After(now):
			notes = append(notes, e.CVE+" has no effect: the list has entries of others and expired on "+day(time.Unix(*have.Expires, 0)))
		}
	}
	return next, notes
}

// ourList holds what is in force, until the first of it is not.
func ourList(wanted []Exception, inForce func(Exception) bool) allowlist {
	next := allowlist{Items: []allowed{}}
	for _, e := range wanted {
		if !inForce(e) {
			continue
		}
		next.Items = append(next.Items, allowed{e.CVE})
		if at := e.Expires.Unix(); next.Expires == nil || at < *next.Expires {
			next.Expires = &at
		}
	}
	return next
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// differences counts entries that one list has and the other has not.
func differences(a, b []allowed) (n int) {
	for _, x := range [2][2][]allowed{{a, b}, {b, a}} {
		for _, it := range x[0] {
			if !slices.Contains(x[1], it) {
				n++
			}
		}
	}
	return n
}

func sameExpiry(a, b *int64) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
