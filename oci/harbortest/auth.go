package harbortest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// An account is a user or a robot.
type account struct {
	name, password string
	admin, robot   bool
	system         bool            // a robot of the system
	may            map[string]bool // "/ project:create", "platform repository:push", "* ..."
}

// can reports whether the account may do what, as "repository:push", in a
// project, or with project "/" in the system.
func (a *account) can(project, what string) bool {
	return a != nil && (a.admin || a.may[project+" "+what] || project != "/" && a.may["* "+what])
}

// A grant is what a token allows: no more than its account may.
type grant struct {
	account *account
	access  []access
}

type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// who is the account of a request to the API, nil for an anonymous one or one
// with a wrong password: Harbor treats the two alike.
func (h *Harbor) who(r *http.Request) *account {
	user, password, ok := r.BasicAuth()
	if !ok {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.users[user]
	if a == nil || a.password != password {
		return nil
	}
	return a
}

// allow answers 401 or 403 unless the request's account may do what.
func (h *Harbor) allow(w http.ResponseWriter, r *http.Request, project, what string) bool {
	a := h.who(r)
	switch {
	case a == nil:
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
	case !a.can(project, what):
		fail(w, http.StatusForbidden, "FORBIDDEN", "forbidden")
	default:
		return true
	}
	return false
}

// allowed is a call that needs a permission: in the project that the path
// names, or in the system.
func (h *Harbor) allowed(what string, fn http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		project := r.PathValue("project")
		if project == "" {
			project = "/"
		}
		if !h.allow(w, r, project, what) {
			return
		}
		switch {
		case project == "/" || h.Project(project) != nil:
			fn(w, r)
		case h.who(r).admin:
			fail(w, http.StatusNotFound, "NOT_FOUND", "project "+project+" not found")
		default: // a robot's
			fail(w, http.StatusForbidden, "FORBIDDEN", "forbidden")
		}
	}
}

var scopeText = regexp.MustCompile(`^repository:([^:]+):([a-z,*]+)$`)

// serveToken gives out a token for whatever is asked by whomever. What it
// allows may be nothing.
func (h *Harbor) serveToken(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		fail(w, http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "method not allowed")
		return
	}
	a := h.who(r)
	g := &grant{account: a}
	for _, scope := range r.URL.Query()["scope"] {
		for s := range strings.FieldsSeq(scope) {
			m := scopeText.FindStringSubmatch(s)
			if m == nil {
				continue
			}
			project, _, _ := strings.Cut(m[1], "/")
			actions := []string{}
			for action := range strings.SplitSeq(m[2], ",") {
				if h.Project(project) != nil && h.mayRegistry(a, project, action) {
					actions = append(actions, action)
				}
			}
			if a != nil { // a wrong password gets no list at all
				g.access = append(g.access, access{Type: "repository", Name: m[1], Actions: actions})
			}
		}
	}
	h.mu.Lock()
	token := fmt.Sprintf("harbor-token-%d", h.number())
	h.tokens[token] = g
	h.mu.Unlock()
	answer(w, map[string]any{"token": token, "access_token": "", "expires_in": 1800, "issued_at": "2026-11-22T00:00:00Z"})
}

// mayRegistry asks for a registry's action.
func (h *Harbor) mayRegistry(a *account, project, action string) bool {
	if action == "pull" {
		if p := h.Project(project); p != nil && p.Metadata["public"] == "true" {
			return true
		}
	}
	return a.can(project, "repository:"+action)
}

// admit answers for /v2/ unless the request may do action in repo.
func (h *Harbor) admit(w http.ResponseWriter, r *http.Request, repo, action string) bool {
	header := r.Header.Get("Authorization")
	challenge := func(message string) bool {
		value := `Basic realm="harbor"`
		if header == "" {
			scheme := "http"
			if r.TLS != nil {
				scheme = "https"
			}
			value = fmt.Sprintf(`Bearer realm="%s://%s/service/token",service="harbor-registry"`, scheme, r.Host)
			if repo != "" {
				value += fmt.Sprintf(`,scope="repository:%s:%s"`, repo, scopeOf(action))
			}
		}
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		w.Header().Set("Www-Authenticate", value)
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", message)
		return false
	}
	var g *grant
	if token, ok := strings.CutPrefix(header, "Bearer "); ok {
		h.mu.Lock()
		g = h.tokens[token]
		h.mu.Unlock()
	} else if a := h.who(r); a != nil {
		g = &grant{account: a}
	}
	if repo == "" {
		if g == nil || g.account == nil {
			return challenge("unauthorized: unauthorized")
		}
		return true
	}
	if header == "" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return challenge("authorize header needed to send HEAD to repository: authorize header needed to send HEAD to repository")
	}
	project, _, _ := strings.Cut(repo, "/")
	if h.Project(project) == nil {
		return challenge(fmt.Sprintf("project %s not found: project %s not found", project, project))
	}
	if !h.granted(g, repo, project, action) {
		text := fmt.Sprintf("unauthorized to access repository: %s, action: %s", repo, action)
		return challenge(text + ": " + text)
	}
	return true
}

func (h *Harbor) granted(g *grant, repo, project, action string) bool {
	if g == nil {
		return h.mayRegistry(nil, project, action)
	}
	if g.access == nil {
		return h.mayRegistry(g.account, project, action)
	}
	return slices.ContainsFunc(g.access, func(a access) bool { return a.Name == repo && slices.Contains(a.Actions, action) })
}

func scopeOf(action string) string {
	if action == "push" {
		return "pull,push"
	}
	return action
}
