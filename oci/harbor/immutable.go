package harbor

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
)

// attached is the pattern of tags under which signatures and other things that
// refer to an image are kept: cosign's "sha256-....sig", and "sha256-..." where
// a registry has no referrers API. They change as more is attached.
const attached = "sha256-*"

// A Rule says which tags of the project are immutable.
type Rule struct {
	ID       int64                 `json:"id,omitempty"`
	Disabled bool                  `json:"disabled"`
	Action   string                `json:"action"`
	Template string                `json:"template"`
	Tags     []Selector            `json:"tag_selectors"`
	Scope    map[string][]Selector `json:"scope_selectors"`
}

// A Selector is a pattern of names.
type Selector struct {
	Kind       string `json:"kind"`       // "doublestar"
	Decoration string `json:"decoration"` // "matches", "excludes", "repoMatches", "repoExcludes"
	Pattern    string `json:"pattern"`
}

// mirrorRule makes every tag immutable but those of what is attached.
func mirrorRule() Rule {
	return Rule{
		Action: "immutable", Template: "immutable_template",
		Tags:  []Selector{{Kind: "doublestar", Decoration: "excludes", Pattern: attached}},
		Scope: map[string][]Selector{"repository": {{Kind: "doublestar", Decoration: "repoMatches", Pattern: "**"}}},
	}
}

// HoldsAttached reports whether the rule, in some repository, makes tags of
// signatures immutable: a second signature of an image is then refused.
func (r Rule) HoldsAttached() bool {
	if r.Disabled || len(r.Tags) == 0 {
		return false
	}
	const tag = "sha256-0123456789abcdef.sig"
	for _, s := range r.Tags {
		if matches(s.Pattern, tag) != (s.Decoration != "excludes") {
			return false
		}
	}
	return true
}

// matches is as much of Harbor's doublestar patterns as tags need: they have
// no slashes, so that "**" is "*".
func matches(pattern, tag string) bool {
	if before, rest, ok := strings.Cut(pattern, "{"); ok {
		if alternatives, after, ok := strings.Cut(rest, "}"); ok && !strings.Contains(alternatives, "{") {
			for a := range strings.SplitSeq(alternatives, ",") {
				if matches(before+a+after, tag) {
					return true
				}
			}
			return false
		}
	}
	ok, err := path.Match(strings.ReplaceAll(pattern, "**", "*"), tag)
	return ok && err == nil
}

// Immutable answers the rules of the project.
func (c *Client) Immutable(ctx context.Context) ([]Rule, error) {
	return list[Rule](ctx, c, call{
		op: "read the rules for immutable tags of project " + c.cfg.Project, path: c.projectPath("/immutabletagrules"), needs: "immutable-tag:list",
	})
}

// EnsureImmutableRule makes a rule that tags never move, those of signatures
// excepted, unless it is there. Rules of others stay; one that would hold up
// signatures, and ours where somebody has disabled it, are notes.
func (c *Client) EnsureImmutableRule(ctx context.Context) error {
	rules, err := c.Immutable(ctx)
	if err != nil {
		return err
	}
	want := mirrorRule()
	there := false
	for _, r := range rules {
		if r.HoldsAttached() {
			c.note(ctx, "rule %d of project %s makes the tags %s immutable: a second signature of an image will be refused", r.ID, c.cfg.Project, attached)
		}
		if !slices.Equal(r.Tags, want.Tags) || !slices.Equal(r.Scope["repository"], want.Scope["repository"]) {
			continue
		}
		if r.Disabled {
			c.note(ctx, "rule %d of project %s would keep tags from moving, but it is disabled", r.ID, c.cfg.Project)
		}
		there = true
	}
	if there {
		return nil
	}
	_, err = c.do(ctx, call{
		op: "make a rule for immutable tags of project " + c.cfg.Project, method: http.MethodPost, path: c.projectPath("/immutabletagrules"),
		in: want, needs: "immutable-tag:create", ok: []int{http.StatusConflict},
	})
	if err != nil {
		return fmt.Errorf("immutable tags: %w", err)
	}
	return nil
}
