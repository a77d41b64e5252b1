package harbor

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
)

// robotName is Harbor's own rule.
var robotName = regexp.MustCompile(`^[a-z0-9]+(?:[._-][a-z0-9]+)*$`)

// A Permission is what an account may do, and where.
type Permission struct {
	Kind      string   `json:"kind"`      // "system", "project"
	Namespace string   `json:"namespace"` // "/", a project, or "*" for every project
	Access    []Access `json:"access"`
}

// An Access is one permission.
type Access struct {
	Resource string `json:"resource"`
	Action   string `json:"action"`
}

// RobotOptions say what a robot account is for. The fields after Project are
// those of the publisher's configuration.
type RobotOptions struct {
	Name    string // "importer" becomes robot$importer, or robot$PROJECT+importer
	Project string // the account's only project; with Create every project
	Create  bool   // may make projects: an account of the system
	// Labels, Scan, Immutable and Allowlist are optional steps.
	Labels, Scan, Immutable, Allowlist bool
	// Scanner lets the account register a scanner: one of the system.
	Scanner bool
}

// system reports whether only an account of the system will do.
func (o RobotOptions) system() bool { return o.Create || o.Scanner }

// RobotPermissions are the least that darkmirror needs for o.
func RobotPermissions(o RobotOptions) []Permission {
	access := []Access{
		{"repository", "pull"},
		{"repository", "push"},
		{"repository", "read"},
		{"repository", "list"},
		{"artifact", "read"},
		{"artifact", "list"},
		{"tag", "create"},
		{"tag", "list"},
		{"project", "read"},
		{"metadata", "read"},
	}
	for _, more := range []struct {
		on     bool
		access []Access
	}{
		{o.Labels, []Access{{"artifact-label", "create"}, {"label", "list"}, {"label", "create"}}},
		{o.Scan, []Access{{"scan", "create"}}},
		{o.Immutable, []Access{{"immutable-tag", "list"}, {"immutable-tag", "create"}}},
		{o.Allowlist, []Access{{"project", "update"}}},
		{o.Scanner, []Access{{"scanner", "create"}}},
	} {
		if more.on {
			access = append(access, more.access...)
		}
	}
	namespace := o.Project
	if o.Create {
		namespace = "*" // what is not there yet cannot be named
	}
	permissions := []Permission{{Kind: "project", Namespace: namespace, Access: access}}
	if !o.system() {
		return permissions
	}
	var system []Access
	if o.Create {
		system = append(system, Access{"project", "create"}, Access{"project", "list"})
	}
	if o.Scanner {
		system = append(system, Access{"scanner", "list"}, Access{"scanner", "create"}, Access{"scanner", "update"})
	}
	return append([]Permission{{Kind: "system", Namespace: "/", Access: system}}, permissions...)
}

// RobotBody is the body of POST /api/v2.0/robots that makes the account.
// Harbor shows its secret once, in the answer.
func RobotBody(o RobotOptions) ([]byte, error) {
	switch {
	case !robotName.MatchString(o.Name):
		return nil, fmt.Errorf("robot account %q: want lower-case words joined by . _ or -", o.Name)
	case !o.Create && !projectName.MatchString(o.Project):
		return nil, fmt.Errorf("robot account %q: %q cannot be a project", o.Name, o.Project)
	}
	level := "project"
	if o.system() {
		level = "system"
	}
	// One permission a line: operators read this, and paste it.
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n  \"name\": %q,\n  \"level\": %q,\n  \"duration\": -1,\n  \"permissions\": [", o.Name, level)
	for i, p := range RobotPermissions(o) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n    {\"kind\": %q, \"namespace\": %q, \"access\": [", p.Kind, p.Namespace)
		for j, a := range p.Access {
			if j > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, "\n      {\"resource\": %q, \"action\": %q}", a.Resource, a.Action)
		}
		b.WriteString("\n    ]}")
	}
	b.WriteString("\n  ]\n}\n")
	if !json.Valid(b.Bytes()) {
		return nil, fmt.Errorf("robot account %q cannot be written as JSON", o.Name)
	}
	return b.Bytes(), nil
}
