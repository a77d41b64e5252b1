package harbortest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// routes are the calls of the API.
func (h *Harbor) routes() http.Handler {
	mux := http.NewServeMux()
	const api, project, artifact = "/api/v2.0", "/api/v2.0/projects/{project}", "/api/v2.0/projects/{project}/repositories/{repo}/artifacts/{ref}"
	for pattern, fn := range map[string]http.HandlerFunc{
		"GET " + api + "/systeminfo":          h.systemInfo,
		"GET " + api + "/users/current":       h.currentUser,
		"PUT " + api + "/configurations":      h.configure,
		"GET " + api + "/permissions":         h.permissions,
		"POST " + api + "/robots":             h.addRobot,
		"GET " + api + "/quotas":              h.allowed("quota:list", func(w http.ResponseWriter, _ *http.Request) { answer(w, []any{}) }),
		"GET " + api + "/system/CVEAllowlist": h.systemAllowlist,

		"GET " + api + "/projects":               h.listProjects,
		"HEAD " + api + "/projects":              h.headProject,
		"POST " + api + "/projects":              h.createProject,
		"GET " + project:                         h.allowed("project:read", h.getProject),
		"PUT " + project:                         h.allowed("project:update", h.putProject),
		"GET " + project + "/summary":            h.allowed("project:read", h.summary),
		"GET " + project + "/immutabletagrules":  h.allowed("immutable-tag:list", h.listRules),
		"POST " + project + "/immutabletagrules": h.allowed("immutable-tag:create", h.addRule),
		"PUT " + project + "/scanner":            h.allowed("scanner:create", h.projectScanner),

		"GET " + api + "/labels":      h.listLabels,
		"POST " + api + "/labels":     h.addLabel,
		"POST " + api + "/retentions": h.addRetention,

		"GET " + artifact:                  h.allowed("artifact:read", h.at(h.getArtifact)),
		"DELETE " + artifact:               h.allowed("artifact:delete", h.at(h.deleteArtifact)),
		"GET " + artifact + "/accessories": h.allowed("accessory:list", h.at(h.accessories)),
		"POST " + artifact + "/tags":       h.allowed("tag:create", h.at(h.addTag)),
		"POST " + artifact + "/labels":     h.allowed("artifact-label:create", h.at(h.addMark)),
		"POST " + artifact + "/scan":       h.allowed("scan:create", h.at(h.scan)),

		"GET " + api + "/scanners":        h.allowed("scanner:list", h.listScanners),
		"POST " + api + "/scanners":       h.allowed("scanner:create", h.addScanner),
		"PUT " + api + "/scanners/{id}":   h.allowed("scanner:update", h.putScanner),
		"PATCH " + api + "/scanners/{id}": h.allowed("scanner:update", h.defaultScanner),
	} {
		mux.HandleFunc(pattern, fn)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, "NOT_FOUND", "path "+r.URL.Path+" was not found")
	})
	return mux
}

func (h *Harbor) systemInfo(w http.ResponseWriter, r *http.Request) {
	info := map[string]any{"auth_mode": "db_auth", "primary_auth_mode": false, "self_registration": false}
	if h.who(r) != nil {
		info["harbor_version"] = Version
		info["registry_url"] = r.Host
		info["registry_storage_provider_name"] = "filesystem"
		h.mu.Lock()
		info["read_only"] = h.readOnly
		h.mu.Unlock()
	}
	answer(w, info)
}

func (h *Harbor) currentUser(w http.ResponseWriter, r *http.Request) {
	switch a := h.who(r); {
	case a == nil:
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
	case a.robot:
		fail(w, http.StatusPreconditionFailed, "PRECONDITION", "get current user not available for security context: robot")
	default:
		answer(w, map[string]any{"username": a.name, "sysadmin_flag": a.admin})
	}
}

func (h *Harbor) configure(w http.ResponseWriter, r *http.Request) {
	var in struct {
		ReadOnly *bool `json:"read_only"`
	}
	if a := h.who(r); a == nil || !a.admin {
		fail(w, http.StatusForbidden, "FORBIDDEN", "forbidden")
		return
	}
	if decode(w, r, &in) && in.ReadOnly != nil {
		h.SetReadOnly(*in.ReadOnly)
	}
}

func (h *Harbor) systemAllowlist(w http.ResponseWriter, r *http.Request) {
	if h.who(r) == nil {
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	answer(w, h.system.document())
}

type cve struct {
	ID string `json:"cve_id"`
}

type allowlistDocument struct {
	Items   []cve  `json:"items"`
	Expires *int64 `json:"expires_at"`
}

func (l Allowlist) document() allowlistDocument {
	d := allowlistDocument{Items: []cve{}}
	for _, id := range l.CVEs {
		d.Items = append(d.Items, cve{id})
	}
	if l.Expires != 0 {
		d.Expires = &l.Expires
	}
	return d
}

// listProjects shows the public ones to everybody, a wrong password included.
func (h *Harbor) listProjects(w http.ResponseWriter, r *http.Request) {
	a := h.who(r)
	h.mu.Lock()
	defer h.mu.Unlock()
	list := []map[string]any{}
	for _, p := range h.projects {
		if p.Metadata["public"] == "true" || a.can("/", "project:list") {
			list = append(list, map[string]any{"project_id": p.ID, "name": p.Name})
		}
	}
	answer(w, list)
}

func (h *Harbor) headProject(w http.ResponseWriter, r *http.Request) {
	switch {
	case h.who(r) == nil:
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
	case h.Project(r.URL.Query().Get("project_name")) == nil:
		fail(w, http.StatusNotFound, "NOT_FOUND", "project not found")
	}
}

var projectText = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

func (h *Harbor) createProject(w http.ResponseWriter, r *http.Request) {
	a := h.who(r)
	var in struct {
		Name     string            `json:"project_name"`
		Metadata map[string]string `json:"metadata"`
		Limit    int64             `json:"storage_limit"`
	}
	switch {
	case a == nil:
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "unauthorized")
		return
	case a.robot && !a.system:
		fail(w, http.StatusForbidden, "FORBIDDEN", "Only system level robot can create project")
		return
	case !a.can("/", "project:create"):
		fail(w, http.StatusForbidden, "FORBIDDEN", "Only system admin can create project")
		return
	case !decode(w, r, &in):
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case len(in.Name) > 255 || !projectText.MatchString(in.Name):
		fail(w, http.StatusBadRequest, "BAD_REQUEST", "project name is not in lower case or contains illegal characters")
	case h.projects[in.Name] != nil:
		fail(w, http.StatusConflict, "CONFLICT", fmt.Sprintf("The project named %s already exists", in.Name))
	default:
		public, limit := "false", in.Limit
		if in.Metadata["public"] == "true" {
			public = "true"
		}
		if limit == 0 {
			limit = -1 // the setting for new projects, as installed
		}
		p := h.addProject(in.Name, public, limit)
		w.Header().Set("Location", fmt.Sprintf("/api/v2.0/projects/%d", p.ID))
		w.WriteHeader(http.StatusCreated)
	}
}

func (h *Harbor) getProject(w http.ResponseWriter, r *http.Request) {
	p := h.Project(r.PathValue("project"))
	answer(w, map[string]any{
		"project_id": p.ID, "name": p.Name, "owner_name": "admin", "repo_count": 0,
		"metadata": p.Metadata, "cve_allowlist": p.Allowlist.document(),
	})
}

// putProject replaces the allowlist where one is sent: without a date it then
// has none. Metadata are merged.
func (h *Harbor) putProject(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Allowlist *allowlistDocument `json:"cve_allowlist"`
		Metadata  map[string]string  `json:"metadata"`
	}
	if !decode(w, r, &in) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.projects[r.PathValue("project")]
	for k, v := range in.Metadata {
		p.Metadata[k] = v
	}
	if in.Allowlist == nil {
		return
	}
	l := Allowlist{}
	for _, it := range in.Allowlist.Items {
		if strings.TrimSpace(it.ID) == "" || slices.Contains(l.CVEs, it.ID) {
			fail(w, http.StatusBadRequest, "BAD_REQUEST", "duplicate or empty CVE ID in allowlist: "+it.ID)
			return
		}
		l.CVEs = append(l.CVEs, it.ID)
	}
	if in.Allowlist.Expires != nil {
		l.Expires = *in.Allowlist.Expires
	}
	p.Allowlist = l
}

func (h *Harbor) summary(w http.ResponseWriter, r *http.Request) {
	p := h.Project(r.PathValue("project"))
	answer(w, map[string]any{
		"repo_count": 0,
		"quota":      map[string]any{"hard": map[string]int64{"storage": p.Quota}, "used": map[string]int64{"storage": p.Used}},
	})
}

type selector struct {
	Kind       string `json:"kind"`
	Decoration string `json:"decoration"`
	Pattern    string `json:"pattern"`
}

type ruleDocument struct {
	ID       int                   `json:"id"`
	Disabled bool                  `json:"disabled"`
	Action   string                `json:"action"`
	Template string                `json:"template"`
	Tags     []selector            `json:"tag_selectors"`
	Scope    map[string][]selector `json:"scope_selectors"`
}

func (h *Harbor) listRules(w http.ResponseWriter, r *http.Request) {
	list := []ruleDocument{}
	for i, rule := range h.Project(r.PathValue("project")).Rules {
		decoration := "matches"
		if rule.Excludes {
			decoration = "excludes"
		}
		list = append(list, ruleDocument{
			ID: i + 1, Disabled: rule.Disabled, Action: "immutable", Template: "immutable_template",
			Tags:  []selector{{"doublestar", decoration, rule.Tags}},
			Scope: map[string][]selector{"repository": {{"doublestar", "repoMatches", "**"}}},
		})
	}
	answerPage(w, r, list)
}

func (h *Harbor) addRule(w http.ResponseWriter, r *http.Request) {
	var in ruleDocument
	if !decode(w, r, &in) {
		return
	}
	if in.Action != "immutable" || in.Template == "" || len(in.Tags) != 1 || in.Tags[0].Kind != "doublestar" || in.Tags[0].Pattern == "" || len(in.Scope["repository"]) == 0 {
		fail(w, http.StatusBadRequest, "BAD_REQUEST", "invalid immutable rule")
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.projects[r.PathValue("project")]
	p.Rules = append(p.Rules, Rule{Disabled: in.Disabled, Excludes: in.Tags[0].Decoration == "excludes", Tags: in.Tags[0].Pattern})
	w.Header().Set("Location", fmt.Sprintf("%s/%d", r.URL.Path, len(p.Rules)))
	w.WriteHeader(http.StatusCreated)
}

// answerPage sends one page of a list, ten long unless the client asks for
// another size, and a hundred at most.
func answerPage[T any](w http.ResponseWriter, r *http.Request, all []T) {
	q := r.URL.Query()
	page, err := strconv.Atoi(q.Get("page"))
	if err != nil {
		page = 1
	}
	size, err := strconv.Atoi(q.Get("page_size"))
	if err != nil {
		size = 10
	}
	if page < 1 || size < 1 || size > 100 {
		fail(w, http.StatusUnprocessableEntity, "UNPROCESSABLE_ENTITY", "page_size in query should be less than or equal to 100")
		return
	}
	start := min((page-1)*size, len(all))
	w.Header().Set("X-Total-Count", strconv.Itoa(len(all)))
	answer(w, append([]T{}, all[start:min(start+size, len(all))]...))
}

func (h *Harbor) listLabels(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id, err := strconv.Atoi(q.Get("project_id"))
	name := h.nameOf(id)
	switch {
	case q.Get("scope") != "p" || err != nil || id == 0:
		fail(w, http.StatusBadRequest, "BAD_REQUEST", "must with project ID when to query project labels")
		return
	case !h.allow(w, r, name, "label:list"):
		return
	}
	h.mu.Lock()
	list := []*label{}
	for _, l := range h.labels {
		if l.ProjectID == id && strings.Contains(l.Name, q.Get("name")) {
			list = append(list, l)
		}
	}
	h.mu.Unlock()
	answerPage(w, r, list)
}

// nameOf is the project of that number; empty if there is none.
func (h *Harbor) nameOf(id int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.projects {
		if p.ID == id {
			return p.Name
		}
	}
	return ""
}

func (h *Harbor) addLabel(w http.ResponseWriter, r *http.Request) {
	var in label
	if !decode(w, r, &in) {
		return
	}
	name := h.nameOf(in.ProjectID)
	switch {
	case in.Scope != "p" || name == "" || in.Name == "":
		fail(w, http.StatusBadRequest, "BAD_REQUEST", "invalid label")
		return
	case !h.allow(w, r, name, "label:create"):
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.ContainsFunc(h.labels, func(l *label) bool { return l.Name == in.Name && l.ProjectID == in.ProjectID }) {
		fail(w, http.StatusConflict, "CONFLICT", fmt.Sprintf("label %s already exists", in.Name))
		return
	}
	in.ID = int64(h.number())
	h.labels = append(h.labels, &in)
	w.Header().Set("Location", fmt.Sprintf("/api/v2.0/labels/%d", in.ID))
	w.WriteHeader(http.StatusCreated)
}

func (h *Harbor) addRetention(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Scope struct {
			Ref int `json:"ref"`
		} `json:"scope"`
	}
	if !decode(w, r, &in) || !h.allow(w, r, h.nameOf(in.Scope.Ref), "tag-retention:create") {
		return
	}
	w.WriteHeader(http.StatusCreated)
}
