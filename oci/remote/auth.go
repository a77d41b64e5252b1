package remote

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/mirror/fetch"
)

const (
	// defaultLife is a token's where its server names none (the token
	// protocol's own default), maxLife what is believed of it.
	defaultLife = 60 * time.Second
	maxLife     = 24 * time.Hour
)

// A need is what a request wants to be allowed.
type need struct {
	login bool   // nothing but to be known
	repo  string // to read from it
	push  bool   // and to write to it
	del   bool   // and to delete in it
	from  string // and to read from this one
}

// key names the ticket that covers the need. A mount has its own: a server
// may refuse a token altogether where one of its scopes is not allowed.
func (n need) key() string {
	if n.from != "" {
		return n.repo + " " + n.from
	}
	return n.repo
}

func (n need) scopes() []string {
	if n.repo == "" {
		return nil
	}
	actions := "pull"
	if n.push {
		actions += ",push"
	}
	if n.del {
		actions += ",delete"
	}
	list := []string{"repository:" + n.repo + ":" + actions}
	if n.from != "" {
		list = append(list, "repository:"+n.from+":pull")
	}
	return list
}

// needKey is where a request's context carries its need.
type needKey struct{}

func withNeed(ctx context.Context, n need) context.Context {
	return context.WithValue(ctx, needKey{}, n)
}

// An authority answers a registry's challenges. It sits below the retries of
// fetch and above its checks.
type authority struct {
	name    string
	base    *url.URL
	host    string
	login   *login
	log     *slog.Logger
	next    http.RoundTripper
	allowed func(rawURL, from string) error
	now     func() time.Time

	mu      sync.Mutex
	asked   *challenge // the newest that we can answer
	tickets map[string]*ticket
	basic   string // the last password that was sent, to hide it
}

// A ticket is a token and what it is for. Its semaphore lets one request
// fetch a new one while the others wait.
type ticket struct {
	sem     chan struct{}
	scopes  []string
	token   string
	expires time.Time
}

// wrap puts the authority in front of next.
func (a *authority) wrap(next http.RoundTripper) http.RoundTripper {
	a.next = next
	return a
}

// ours reports whether a URL is of the registry itself: only there does
// Authorization go.
func (a *authority) ours(u *url.URL) bool {
	host, err := fetch.Host(u.String())
	return err == nil && host == a.host && u.Scheme == a.base.Scheme
}

// RoundTrip sends a request with what the registry asks for.
func (a *authority) RoundTrip(req *http.Request) (*http.Response, error) {
	if !a.ours(req.URL) {
		return a.next.RoundTrip(req)
	}
	n, _ := req.Context().Value(needKey{}).(need)
	sent, err := a.authorization(req.Context(), n, "", nil)
	if err != nil {
		dropBody(req)
		return nil, err
	}
	resp, err := a.next.RoundTrip(with(req, sent))
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	asked, err := a.choose(resp)
	if err != nil {
		closeBody(resp)
		return nil, err
	}
	if asked == nil {
		return resp, nil
	}
	a.mu.Lock()
	a.asked = asked
	a.mu.Unlock()
	replay := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	fresh, err := a.authorization(req.Context(), n, sent, asked.scopes())
	if err != nil || !replay || fresh == sent || fresh == "" {
		if err != nil {
			closeBody(resp)
			return nil, err
		}
		return resp, nil // the caller sends its body again, with the new token
	}
	closeBody(resp)
	again := with(req, fresh)
	if req.GetBody != nil {
		if again.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return a.next.RoundTrip(again)
}

// dropBody closes the body of a request that is not sent.
func dropBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // it is ours, and holds nothing
	}
}

// with is req with the header; the caller's own never holds it, so that no
// library sends it on to where a redirect leads.
func with(req *http.Request, header string) *http.Request {
	r := req.Clone(req.Context())
	r.Body, r.GetBody = req.Body, req.GetBody
	if header != "" {
		r.Header.Set("Authorization", header)
	}
	return r
}

// choose picks the challenge to answer: Bearer, else Basic, or none that we
// could.
func (a *authority) choose(resp *http.Response) (*challenge, error) {
	list, err := challenges(resp.Header)
	if err != nil {
		return nil, a.refuse("its challenge cannot be read", err)
	}
	for _, scheme := range []string{"bearer", "basic"} {
		for i, c := range list {
			if c.scheme == scheme && (scheme == "basic" || c.params["realm"] != "") {
				return &list[i], nil
			}
		}
	}
	return nil, nil
}

// authorization is the header for a request. rejected is one that the
// registry has just refused, with the scopes that it asked for.
func (a *authority) authorization(ctx context.Context, n need, rejected string, more []string) (string, error) {
	a.mu.Lock()
	asked := a.asked
	a.mu.Unlock()
	if asked == nil {
		return "", nil
	}
	if asked.scheme == "basic" {
		return a.basicHeader(ctx, n, rejected)
	}
	t, err := a.take(ctx, n.key())
	if err != nil {
		return "", err
	}
	defer t.release()
	grew := t.want(slices.Concat(n.scopes(), more))
	if header := "Bearer " + t.token; t.token != "" && !grew && header != rejected && a.now().Before(t.expires) {
		return header, nil
	}
	if err := a.renew(ctx, t, n, asked, rejected != ""); err != nil {
		return "", err
	}
	return "Bearer " + t.token, nil
}

// basicHeader is our name and password; a helper is asked anew where they
// were refused.
func (a *authority) basicHeader(ctx context.Context, n need, rejected string) (string, error) {
	who, err := a.who(ctx, n.repo, rejected != "")
	if err != nil {
		return "", err
	}
	var header string
	switch {
	case who.RegistryToken != "":
		header = "Bearer " + who.RegistryToken
	case who.Username != "" || who.Password != "":
		header = "Basic " + base64.StdEncoding.EncodeToString([]byte(who.Username+":"+who.Password))
	}
	a.mu.Lock()
	a.basic = header
	a.mu.Unlock()
	return header, nil
}

// who is our login for a repository.
func (a *authority) who(ctx context.Context, repo string, fresh bool) (authn.AuthConfig, error) {
	who, err := a.login.config(ctx, repo, fresh)
	if err != nil && ctx.Err() == nil {
		err = a.refuse("no login from the credential helper "+a.login.helper, err)
	}
	return who, err
}

// take waits for the ticket of that name.
func (a *authority) take(ctx context.Context, key string) (*ticket, error) {
	a.mu.Lock()
	t := a.tickets[key]
	if t == nil {
		t = &ticket{sem: make(chan struct{}, 1)}
		a.tickets[key] = t
	}
	a.mu.Unlock()
	select {
	case t.sem <- struct{}{}:
		return t, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (t *ticket) release() { <-t.sem }

// want adds scopes to a ticket, the newest first: some servers look at the
// first alone. It reports whether the token at hand lacks one.
func (t *ticket) want(scopes []string) (grew bool) {
	for _, s := range scopes {
		covers := func(have string) bool { return have == s || strings.HasPrefix(have, s+",") }
		if slices.ContainsFunc(t.scopes, covers) {
			continue
		}
		t.scopes = slices.DeleteFunc(t.scopes, func(have string) bool { return strings.HasPrefix(s, have+",") })
		t.scopes = slices.Insert(t.scopes, 0, s)
		grew = true
	}
	t.scopes = t.scopes[:min(len(t.scopes), maxScopes)]
	return grew
}

// renew fetches a token for the ticket's scopes.
func (a *authority) renew(ctx context.Context, t *ticket, n need, asked *challenge, again bool) error {
	who, err := a.who(ctx, n.repo, again && t.token != "")
	if err != nil {
		return err
	}
	a.keep(t, "", 0)
	if who.RegistryToken != "" {
		a.keep(t, who.RegistryToken, maxLife)
		return nil
	}
	tok, err := a.exchange(ctx, asked, who, t.scopes)
	if err != nil {
		return err
	}
	life := time.Duration(min(max(tok.ExpiresIn, 0), int(maxLife/time.Second))) * time.Second
	a.keep(t, cmp.Or(tok.AccessToken, tok.Token), cmp.Or(life, defaultLife))
	return nil
}

// keep puts a token on its ticket, to be renewed when three quarters of its
// life are over: before a chunk is sent in vain. The lock is for hide.
func (a *authority) keep(t *ticket, token string, life time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.token, t.expires = token, a.now().Add(life-life/4)
}

// exchange asks the realm for a token. The realm's host is held to the
// allow-list here; the library's own guard, which refuses every private
// address but the registry's, is told that the realm is the registry.
func (a *authority) exchange(ctx context.Context, asked *challenge, who authn.AuthConfig, scopes []string) (*transport.Token, error) {
	realm, err := url.Parse(asked.params["realm"])
	if err != nil || realm.Host == "" || realm.User != nil {
		return nil, a.refuse("its challenge names no token server", nil)
	}
	if err := a.allowed(realm.String(), a.host); err != nil {
		return nil, err
	}
	if a.base.Scheme == "https" && realm.Scheme != "https" {
		return nil, &fetch.HostError{Source: a.name, From: a.host, Host: realm.Host, Reason: "from https to http, which is never allowed"}
	}
	reg, err := name.NewRegistry(realm.Host, name.WeakValidation)
	if err != nil {
		return nil, a.refuse("its challenge names no token server", nil)
	}
	auth := authn.Anonymous
	if who != (authn.AuthConfig{}) {
		auth = authn.FromConfig(who)
	}
	tok, err := transport.Exchange(ctx, reg, auth, a.next, scopes, &transport.Challenge{
		Scheme: "bearer", Parameters: asked.params, Insecure: realm.Scheme == "http",
	})
	if err != nil {
		return nil, a.tokenError(ctx, realm, err)
	}
	return tok, nil
}

// tokenError says what a token server answered. The library's own words are
// not shown: they may hold its whole reply.
func (a *authority) tokenError(ctx context.Context, realm *url.URL, err error) error {
	if h, ok := errors.AsType[*fetch.HostError](err); ok {
		return h
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: token of %s: %w", a.name, realm.Host, ctx.Err())
	}
	e := &Error{Source: a.name, Op: "get token from " + realm.Host + " for", Registry: a.host}
	if reply, ok := errors.AsType[*transport.Error](err); ok {
		e.Status = reply.StatusCode
		if len(reply.Errors) > 0 {
			e.Code = a.hide(plainText(string(reply.Errors[0].Code), 64))
			e.Message = a.hide(plainText(reply.Errors[0].Message, maxMessage))
		}
		if busy(e.Status) {
			return e
		}
		e.Err = final("get token from", realm.Host, e.Status, errNoToken)
		r := &artifact.Refusal{Class: artifact.ErrUnavailable, Code: CodeAuth, Subject: a.name + ": " + a.host, Err: e}
		r.Reason = "the token server does not take our login"
		if a.login.anonymous() {
			r.Reason = "the token server wants a login, and none is configured for it"
		}
		return r
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		e.Err = clean(u.Err)
		return e
	}
	return a.refuse("the answer of its token server cannot be read", nil)
}

var errNoToken = errors.New("no token")

// refuse is a login that cannot be had, and is not tried again.
func (a *authority) refuse(reason string, err error) error {
	return &artifact.Refusal{
		Class: artifact.ErrUnavailable, Code: CodeAuth, Subject: a.name + ": " + a.host, Reason: reason,
		Err: final("log in at", a.host, http.StatusUnauthorized, err),
	}
}

// final is a cause that fetch does not try again. It names the host alone:
// the text of an error that holds a URL is made anew there, and its type lost.
func final(op, host string, status int, err error) error {
	return &fetch.Error{Op: op, URL: host, Status: status, Err: err}
}

// hide takes our secrets out of a registry's text, should it echo them.
func (a *authority) hide(s string) string {
	if s == "" {
		return s
	}
	secrets := a.login.secrets()
	a.mu.Lock()
	secrets = append(secrets, strings.TrimPrefix(a.basic, "Basic "))
	for _, t := range a.tickets {
		secrets = append(secrets, t.token)
	}
	a.mu.Unlock()
	for _, secret := range secrets {
		if len(secret) > 3 {
			s = strings.ReplaceAll(s, secret, "(secret)")
		}
	}
	return s
}
