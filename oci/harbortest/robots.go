package harbortest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Permissions that a robot may have, as far as the double knows them.
var (
	systemPermissions = []string{
		"project:create", "project:list", "quota:list", "quota:read",
		"scanner:create", "scanner:read", "scanner:list", "scanner:update", "scanner:delete",
	}
	projectPermissions = []string{
		"repository:pull", "repository:push", "repository:read", "repository:list", "repository:delete", "repository:update",
		"artifact:read", "artifact:list", "artifact:create", "artifact:delete", "artifact-label:create", "artifact-label:delete", "artifact-addition:read",
		"accessory:list", "tag:create", "tag:list", "tag:delete", "label:create", "label:read", "label:list", "label:update", "label:delete",
		"project:read", "project:update", "project:delete", "metadata:read", "metadata:create", "metadata:list", "metadata:update", "metadata:delete",
		"scan:create", "scan:read", "scan:stop", "scanner:create", "scanner:read", "quota:read",
		"immutable-tag:create", "immutable-tag:list", "immutable-tag:update", "immutable-tag:delete", "tag-retention:create", "tag-retention:read",
	}
)

func (h *Harbor) permissions(w http.ResponseWriter, r *http.Request) {
	if h.who(r) == nil {
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
		return
	}
	list := func(all []string) (out []map[string]string) {
		for _, s := range all {
			resource, action, _ := strings.Cut(s, ":")
			out = append(out, map[string]string{"resource": resource, "action": action})
		}
		return out
	}
	answer(w, map[string]any{"system": list(systemPermissions), "project": list(projectPermissions)})
}

type robotDocument struct {
	Name        string `json:"name"`
	Level       string `json:"level"`
	Duration    int64  `json:"duration"`
	Permissions []struct {
		Kind      string `json:"kind"`
		Namespace string `json:"namespace"`
		Access    []struct {
			Resource string `json:"resource"`
			Action   string `json:"action"`
		} `json:"access"`
	} `json:"permissions"`
}

// account makes an account of the document, or says what is wrong with it.
func (d robotDocument) account() (*account, string) {
	a := &account{robot: true, system: d.Level == "system", may: make(map[string]bool)}
	switch {
	case d.Duration != -1 && d.Duration < 1:
		return nil, fmt.Sprintf("bad request error duration input: %d, duration must be either -1(Never) or a positive integer", d.Duration)
	case d.Level != "system" && d.Level != "project":
		return nil, "bad request error level input: " + d.Level
	case len(d.Permissions) == 0 || d.Level == "project" && len(d.Permissions) > 1:
		return nil, "bad request permission"
	case !projectText.MatchString(d.Name):
		return nil, "robot name is not in lower case or contains illegal characters"
	}
	a.name = "robot$" + d.Name
	for _, p := range d.Permissions {
		known := projectPermissions
		switch {
		case p.Kind == "system":
			known = systemPermissions
		case p.Kind != "project":
			return nil, "bad request permission level: " + p.Kind
		}
		if d.Level == "project" {
			a.name = "robot$" + p.Namespace + "+" + d.Name
		}
		if len(p.Access) == 0 {
			return nil, "bad request empty access"
		}
		for _, x := range p.Access {
			what := x.Resource + ":" + x.Action
			if !slices.Contains(known, what) {
				return nil, "bad request permission: " + what
			}
			a.may[p.Namespace+" "+what] = true
		}
	}
	return a, ""
}

func (h *Harbor) addRobot(w http.ResponseWriter, r *http.Request) {
	var d robotDocument
	switch a := h.who(r); {
	case a == nil:
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
		return
	case !a.admin:
		fail(w, http.StatusForbidden, "FORBIDDEN", "forbidden")
		return
	case !decode(w, r, &d):
		return
	}
	a, why := d.account()
	if why != "" {
		fail(w, http.StatusBadRequest, "BAD_REQUEST", why)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[a.name] != nil {
		fail(w, http.StatusConflict, "CONFLICT", "robot account "+a.name+" already exists")
		return
	}
	id := h.number()
	a.password = fmt.Sprintf("Secret%dOfRobot", id)
	h.users[a.name] = a
	w.Header().Set("Location", fmt.Sprintf("/api/v2.0/robots/%d", id))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	write(w, map[string]any{"id": id, "name": a.name, "secret": a.password, "expires_at": -1})
}

// AddRobot makes a robot account as an administrator would by POST /robots, of
// the same body, and answers its name and secret.
func (h *Harbor) AddRobot(body []byte) (name, secret string, err error) {
	var d robotDocument
	if err := json.Unmarshal(body, &d); err != nil {
		return "", "", fmt.Errorf("robot account: %w", err)
	}
	a, why := d.account()
	if why != "" {
		return "", "", fmt.Errorf("robot account %s: 400 BAD_REQUEST %s", url.QueryEscape(d.Name), why)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	a.password = fmt.Sprintf("Secret%dOfRobot", h.number())
	h.users[a.name] = a
	return a.name, a.password, nil
}
