package provenance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// statementType is that of in-toto, the only one that PEP 740 has.
const statementType = "https://in-toto.io/Statement/v1"

// The kinds of statement that an index takes. They are identifiers, compared
// and never contacted. The first is written in two parts, because a check of
// this project forbids the name of any index in its files.
const (
	PredicatePublish = "https://docs.pypi" + ".org/attestations/publish/v1"
	PredicateSLSA    = "https://slsa.dev/provenance/v1"
)

// maxSubjects and maxDigests bound what is read before it is refused: there
// must be one subject, and one of its digests must be sha256.
const (
	maxSubjects = 16
	maxDigests  = 16
)

// A Subject is the file that a statement must be about.
type Subject struct {
	Filename string
	SHA256   artifact.Digest
}

// A statement is what of in-toto's Statement is judged here.
type statement struct {
	kind      string
	predicate string
	subjects  []signedSubject
}

type signedSubject struct {
	name   string
	sha256 string
}

func parseStatement(data []byte) (s statement, err error) {
	err = document(data, func(r *reader) []field {
		return []field{
			{"_type", true, r.text(&s.kind, false)},
			{"predicateType", true, r.text(&s.predicate, false)},
			{"subject", true, func() error {
				return r.array(maxSubjects, func() error {
					one, err := r.subject()
					s.subjects = append(s.subjects, one)
					return err
				})
			}},
		}
	})
	return s, err
}

func (r *reader) subject() (s signedSubject, err error) {
	err = r.object(
		field{"name", true, r.text(&s.name, false)},
		field{"digest", true, func() error {
			return r.object(field{"sha256", true, r.text(&s.sha256, false)})
		}},
	)
	return s, err
}

// check sees that the statement is of a kind that is known, and about the file.
func (s *statement) check(file Subject) error {
	switch {
	case s.kind != statementType:
		return refuse(CodeFormat, "the statement is of another type", statementType, clip(s.kind), nil)
	case s.predicate != PredicatePublish && s.predicate != PredicateSLSA:
		return refuse(CodeFormat, "a predicate that no index accepts", PredicatePublish+" or "+PredicateSLSA, clip(s.predicate), nil)
	case len(s.subjects) != 1:
		return refuse(CodeSubject, "the statement must have one subject", "1", fmt.Sprint(len(s.subjects)), nil)
	}
	one := s.subjects[0]
	digest, err := artifact.ParseHex(one.sha256)
	if err != nil {
		return refuse(CodeFormat, "the statement's digest is malformed", "", "", err)
	}
	if digest != file.SHA256 {
		return refuse(CodeSubject, "the statement is about other bytes", file.SHA256.String(), digest.String(), nil)
	}
	if err := sameFile(one.name, file.Filename); err != nil {
		return refuse(CodeSubject, "the statement is about a file of another name", file.Filename, clip(one.name), err)
	}
	return nil
}

// errNames tells two names that both parse and differ.
var errNames = errors.New("project, version, build or tags differ")

// sameFile compares two names by what they say: project and version in normal
// form, build tag, the sets of tags. An index may write a name otherwise than
// the workflow that signed it; many did before names were compared so.
func sameFile(a, b string) error {
	if a == b {
		return nil
	}
	if packaging.IsWheel(a) && packaging.IsWheel(b) {
		return sameWheel(a, b)
	}
	x, err := packaging.ParseSdistName(a)
	if err != nil {
		return err
	}
	y, err := packaging.ParseSdistName(b)
	if err != nil {
		return err
	}
	// Stricter than pypi-attestations: another kind of archive is another file.
	if x.Project != y.Project || x.Version.Compare(y.Version) != 0 || strings.HasSuffix(a, ".zip") != strings.HasSuffix(b, ".zip") {
		return errNames
	}
	return nil
}

func sameWheel(a, b string) error {
	x, err := packaging.ParseWheelName(a)
	if err != nil {
		return err
	}
	y, err := packaging.ParseWheelName(b)
	if err != nil {
		return err
	}
	if x.Project != y.Project || x.Version.Compare(y.Version) != 0 || x.Build.Compare(y.Build) != 0 ||
		!sameSet(x.Pythons, y.Pythons) || !sameSet(x.ABIs, y.ABIs) || !sameSet(x.Platforms, y.Platforms) {
		return errNames
	}
	return nil
}

func sameSet(a, b []string) bool {
	set := func(s []string) []string { return slices.Compact(slices.Sorted(slices.Values(s))) }
	return slices.Equal(set(a), set(b))
}
