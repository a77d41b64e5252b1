package provenance

import (
	"strings"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// The kinds of publisher whose identity a certificate can show. Others are
// refused by name (ActiveState, for one, publishes but cannot attest).
const (
	KindGitHub   = "GitHub"
	KindGitLab   = "GitLab"
	KindGoogle   = "Google"
	KindCircleCI = "CircleCI"
)

// The issuers of the tokens that those publishers sign in with.
const (
	issuerGitHub   = "https://token.actions.githubusercontent.com"
	issuerGitLab   = "https://gitlab.com"
	issuerGoogle   = "https://accounts.google.com"
	issuerCircleCI = "https://oidc.circleci.com"
)

// A Publisher is a trusted publisher as the index names it. Which fields are
// set depends on the kind.
type Publisher struct {
	Kind       string
	Repository string // GitHub and GitLab: "owner/name"
	Workflow   string // GitHub: the file's name; GitLab: the path of the CI configuration
	// Environment is what the index says; nothing that is signed names it.
	Environment string
	Email       string // Google: the service account
	ProjectID   string // CircleCI
	PipelineID  string // CircleCI: the pipeline's definition
	Origin      string // CircleCI, optional: "github.com/owner/name"
	OriginRef   string // CircleCI, optional: "refs/heads/main"
}

// String names the publisher as [Require] does: "github.com/owner/name",
// "gitlab.com/group/name", "accounts.google.com/EMAIL" or
// "circleci.com/PROJECT-ID".
func (p Publisher) String() string {
	switch p.Kind {
	case KindGitHub:
		return "github.com/" + p.Repository
	case KindGitLab:
		return "gitlab.com/" + p.Repository
	case KindGoogle:
		return "accounts.google.com/" + p.Email
	case KindCircleCI:
		return "circleci.com/" + p.ProjectID
	}
	return p.Kind
}

func (r *reader) publisher() (p Publisher, err error) {
	var path string
	err = r.object(
		field{"kind", true, r.text(&p.Kind, false)},
		field{"repository", false, r.text(&p.Repository, false)},
		field{"workflow", false, r.text(&p.Workflow, false)},
		field{"workflow_filepath", false, r.text(&path, false)},
		field{"environment", false, r.text(&p.Environment, true)},
		field{"email", false, r.text(&p.Email, false)},
		field{"project_id", false, r.text(&p.ProjectID, false)},
		field{"pipeline_definition_id", false, r.text(&p.PipelineID, false)},
		field{"vcs_origin", false, r.text(&p.Origin, true)},
		field{"vcs_ref", false, r.text(&p.OriginRef, true)},
	)
	if p.Kind == KindGitLab {
		p.Workflow = path
	}
	return p, err
}

// check sees that the certificate was issued to the publisher. What is
// compared, and how, follows pypi-attestations.
func (p Publisher) check(c *certificate.Summary) error {
	switch p.Kind {
	case KindGitHub:
		return p.checkRepository(c, issuerGitHub, "https://github.com/"+p.Repository, "/.github/workflows/")
	case KindGitLab:
		return p.checkRepository(c, issuerGitLab, "https://gitlab.com/"+p.Repository, "//")
	case KindGoogle:
		if err := same("issuer", issuerGoogle, c.Issuer); err != nil {
			return err
		}
		return same("identity", p.Email, c.SubjectAlternativeName)
	case KindCircleCI:
		return p.checkCircleCI(c)
	}
	return refuse(CodePublisher, "a kind of publisher that cannot be verified", "GitHub, GitLab, Google or CircleCI", clip(p.Kind), nil)
}

// checkRepository compares the workflow that was started, not the one that
// signed: they differ where a workflow calls one of another repository. Its
// URI ends in a ref or a commit, which the publisher does not name; the
// certificate does.
func (p Publisher) checkRepository(c *certificate.Summary, issuer, repository, between string) error {
	if err := same("issuer", issuer, c.Issuer); err != nil {
		return err
	}
	if err := same("repository", repository, c.SourceRepositoryURI); err != nil {
		return err
	}
	workflow := repository + between + p.Workflow
	for _, ref := range []string{c.SourceRepositoryDigest, c.SourceRepositoryRef} {
		if ref != "" && c.BuildConfigURI == workflow+"@"+ref {
			return nil
		}
	}
	return same("workflow", workflow+"@(its ref or commit)", c.BuildConfigURI)
}

func (p Publisher) checkCircleCI(c *certificate.Summary) error {
	if err := same("issuer", issuerCircleCI, c.Issuer); err != nil {
		return err
	}
	if p.Origin != "" {
		if err := same("repository", p.Origin, c.SourceRepositoryURI); err != nil {
			return err
		}
	}
	if p.OriginRef != "" {
		if err := same("ref", p.OriginRef, c.SourceRepositoryRef); err != nil {
			return err
		}
	}
	return same("pipeline", "https://circleci.com/api/v2/projects/"+p.ProjectID+"/pipeline-definitions/"+p.PipelineID, c.BuildSignerURI)
}

// same compares one part of an identity.
func same(part, want, got string) error {
	if want == got {
		return nil
	}
	if got == "" {
		got = "none"
	}
	return refuse(CodePublisher, "the certificate is not that of the publisher: its "+part+" differs", clip(want), clip(got), nil)
}

// Require is what a policy asks of a file: attested at all, or attested by one
// publisher, written as [Publisher.String] does. The letter case counts.
type Require struct {
	Publisher string
}

// Check refuses where none of the verified attestations meets the policy. One
// that does is enough: it vouches for the same bytes as any other.
func (r Require) Check(as []Attestation) error {
	var others []string
	for _, a := range as {
		who := a.Publisher.String()
		if r.Publisher == "" || r.Publisher == who {
			return nil
		}
		others = append(others, who)
	}
	want, got := r.Publisher, strings.Join(others, ", ")
	if want == "" {
		want = "any publisher"
	}
	if got == "" {
		got = "no attestation"
	}
	return &artifact.Refusal{
		Class: artifact.ErrIntegrity, Code: CodePublisher, Subject: "attestation policy",
		Reason: "not attested as the policy requires", Want: want, Got: clip(got),
	}
}
