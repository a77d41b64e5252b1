package harbor

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

// Codes of refusals. All are of class artifact.ErrUnavailable but the last.
const (
	CodeLogin     = "HARBOR-LOGIN"     // wrong user or password, or none
	CodeNoHarbor  = "HARBOR-NONE"      // what answers is not Harbor
	CodeProject   = "HARBOR-PROJECT"   // the project is absent, or not ours to push to
	CodeForbidden = "HARBOR-FORBIDDEN" // the account lacks a permission
	CodeQuota     = "HARBOR-QUOTA"     // the project's quota does not suffice
	CodeReadOnly  = "HARBOR-READ-ONLY" // Harbor is in read-only mode
	CodeDenied    = "HARBOR-DENIED"    // refused for another reason; the message says why
	CodeImmutable = "HARBOR-IMMUTABLE" // the tag must not move, or the artifact not go
	CodePolicy    = "HARBOR-POLICY"    // the project's policy prevents the pull
	CodeTooLarge  = "HARBOR-TOO-LARGE" // a proxy before Harbor bounds requests
	CodeReply     = "HARBOR-REPLY"     // a reply that makes no sense: ErrIntegrity
)

// Operations on a registry, for [Client.Explain]: one status means different
// things to each.
const (
	OpPush   = "push"
	OpRead   = "read"
	OpDelete = "delete"
)

// maxMessage bounds the text of a reply that enters an error. Harbor's longest
// known is about 400 bytes.
const maxMessage = 600

// An Error is a reply other than the one that was wanted, or none at all. It
// matches artifact.ErrUnavailable, unless the allow-list forbade the request.
type Error struct {
	Source    string // "oci/platform"
	Op        string // "read project platform"; with Source empty as the cause of a refusal, which says it
	Host      string
	Status    int    // 0 where there was no reply
	Code      string // Harbor's: "CONFLICT"
	Message   string // Harbor's, clipped
	RequestID string // X-Request-Id
	Err       error  // the cause, where there was no reply
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Source != "" {
		b.WriteString(e.Source + ": ")
	}
	if e.Op != "" {
		b.WriteString(e.Op + " at " + e.Host + ": ")
	}
	if e.Status != 0 {
		b.WriteString(strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))))
	}
	for _, s := range []string{e.Code, e.Message} {
		if s != "" {
			b.WriteString(": " + s)
		}
	}
	if e.Err != nil {
		b.WriteString(e.Err.Error())
	}
	if e.RequestID != "" {
		b.WriteString(" (X-Request-Id " + e.RequestID + ")")
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, artifact.ErrUnavailable) match.
func (e *Error) Is(target error) bool {
	return target == artifact.ErrUnavailable && !errors.Is(e.Err, fetch.ErrHost)
}

// Temporary reports whether another try, later, may succeed.
func (e *Error) Temporary() bool {
	return e.Status == 0 || e.Status == http.StatusTooManyRequests || e.Status >= http.StatusInternalServerError
}

// IsNotFound reports whether Harbor said that there is no such thing.
func IsNotFound(err error) bool { return hasStatus(err, http.StatusNotFound) }

// IsPolicy reports whether the project's policy prevented a pull: the artifact
// is there, and [Client.Artifact] shows it.
func IsPolicy(err error) bool { return hasCode(err, CodePolicy) }

// IsImmutable reports whether a tag or artifact may not change.
func IsImmutable(err error) bool { return hasCode(err, CodeImmutable) }

func hasStatus(err error, status int) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == status
}

func hasCode(err error, code string) bool {
	r, ok := errors.AsType[*artifact.Refusal](err)
	return ok && r.Code == code
}

// Explain says what a registry's answer to op means in Harbor. subject is what
// op was done to: a repository with a tag or a digest. body may be empty, as a
// HEAD request's is.
func (c *Client) Explain(op, subject string, status int, body []byte, requestID string) error {
	code, message := parseErrors(body)
	return c.ExplainCode(op, subject, status, code, message, requestID)
}

// ExplainCode is Explain for a caller that has read the body already.
func (c *Client) ExplainCode(op, subject string, status int, code, message, requestID string) error {
	return c.explain(call{op: op + " " + subject, kind: op}, status, clip(code), clip(message), requestID)
}

// explain maps a reply to a refusal, or to an *Error where there is nothing
// that only an operator can mend.
func (c *Client) explain(k call, status int, code, message, requestID string) error {
	cause := &Error{Status: status, Code: code, Message: message, RequestID: clip(requestID)}
	no := func(code, reason string) error {
		return &artifact.Refusal{
			Class: artifact.ErrUnavailable, Code: code, Subject: c.cfg.Name + ": " + k.op + " at " + c.host, Reason: reason, Err: cause,
		}
	}
	registry := k.kind == OpPush || k.kind == OpRead || k.kind == OpDelete
	switch {
	case status == http.StatusUnauthorized && registry:
		return no(CodeProject, "the project is absent, or "+c.who()+" may not "+k.kind+" there")
	case status == http.StatusUnauthorized:
		return no(CodeLogin, c.who()+" is not let in")
	case status == http.StatusForbidden && strings.Contains(message, "read only mode"):
		return no(CodeReadOnly, "harbor is in read-only mode")
	case status == http.StatusForbidden && strings.Contains(message, "exceed the configured upper limit"):
		return no(CodeQuota, "the quota of the project does not suffice")
	case status == http.StatusForbidden && code == "DENIED":
		return no(CodeDenied, "harbor denies it")
	case status == http.StatusForbidden:
		return no(CodeForbidden, c.who()+" lacks a permission"+k.wants())
	case status == http.StatusRequestEntityTooLarge:
		return no(CodeTooLarge, "harbor, or a proxy before it, takes no request of this size")
	case status == http.StatusPreconditionFailed && (code == "PROJECTPOLICYVIOLATION" || k.kind == OpRead):
		return no(CodePolicy, "the policy of the project prevents the pull")
	case status == http.StatusPreconditionFailed && (k.kind == OpPush || k.kind == OpDelete):
		return no(CodeImmutable, "a rule of the project makes it immutable")
	}
	cause.Source, cause.Op, cause.Host = c.cfg.Name, k.op, c.host
	return cause
}

func (c *Client) who() string {
	if c.cfg.User == "" {
		return "an anonymous user"
	}
	return "user " + c.cfg.User
}

// parseErrors reads {"errors":[{"code","message"}]}, which Harbor and every
// registry send. Anything else, such as a proxy's page, is its own message.
func parseErrors(body []byte) (code, message string) {
	var doc struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(body, &doc); err != nil || len(doc.Errors) == 0 {
		return "", clip(string(body[:min(len(body), maxMessage)]))
	}
	return clip(doc.Errors[0].Code), clip(doc.Errors[0].Message)
}

// clip makes a line of bounded length of text from outside.
func clip(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), 4*maxMessage)], "\uFFFD")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(s) <= maxMessage {
		return s
	}
	end := maxMessage
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}
