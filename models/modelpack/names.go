package modelpack

import (
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/models"
	"github.com/darkmirror/darkmirror/models/hub"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// repository is a repository's name in a registry, which knows no capitals.
func (k kind) repository(name hub.Repo) string { return strings.ToLower(name.String()) + k.suffix }

// names are what a set's revisions are called in a registry.
type names struct {
	owners map[string][]hub.Repo // by repository in the registry
	tags   map[*models.Revision][]string
}

// names gives them out. Branches that no tag can stand for are lost; their
// commits are not.
func (t *Target) names(set *models.Set) (*names, []artifact.Lost) {
	n := &names{owners: make(map[string][]hub.Repo), tags: make(map[*models.Revision][]string)}
	wanted := make(map[string][]*models.Revision) // by "team/model:tag"
	for i := range set.Revisions {
		r := &set.Revisions[i]
		for _, k := range t.kinds(r.Repo) {
			if at := k.repository(r.Repo); !slices.Contains(n.owners[at], r.Repo) {
				n.owners[at] = append(n.owners[at], r.Repo)
			}
		}
		for _, ref := range r.Refs {
			key := r.Repo.String() + ":" + tagOf(ref)
			if !slices.Contains(wanted[key], r) {
				wanted[key] = append(wanted[key], r)
			}
		}
	}
	var lost []artifact.Lost
	for i := range set.Revisions {
		r := &set.Revisions[i]
		n.tags[r] = []string{r.Commit}
		for _, ref := range r.Refs {
			tag := tagOf(ref)
			err := spec.CheckTag(tag)
			if err == nil && len(wanted[r.Repo.String()+":"+tag]) > 1 {
				err = fmt.Errorf("another branch of another commit would be the tag %s too", tag)
			}
			if err != nil {
				lost = append(lost, artifact.Lost{Name: r.Repo.String(), Version: ref, Err: t.refuse(r.Repo.String()+"@"+ref, "no tag can stand for it", err)})
			} else if !slices.Contains(n.tags[r], tag) {
				n.tags[r] = append(n.tags[r], tag)
			}
		}
	}
	return n, lost
}

// tagOf is the tag that stands for a branch.
func tagOf(ref string) string { return strings.ReplaceAll(ref, "/", "-") }

// taken refuses a repository whose name no registry takes, or would be that
// of another one too.
func (n *names) taken(t *Target, r *models.Revision) error {
	for _, k := range t.kinds(r.Repo) {
		at := k.repository(r.Repo)
		if err := spec.CheckName(at); err != nil {
			return t.refuse(r.Repo.String(), "no registry takes its name", err)
		}
		if list := n.owners[at]; len(list) > 1 {
			return t.refuse(r.Repo.String(), fmt.Sprintf("%s and %s would both be %s in a registry", list[0], list[1], at), nil)
		}
	}
	return nil
}
