package trivy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/aquasecurity/trivy/pkg/dependency/parser/nodejs/pnpm"
	"github.com/aquasecurity/trivy/pkg/dependency/parser/nodejs/yarn"
	"github.com/aquasecurity/trivy/pkg/dependency/parser/python/pip"
	"github.com/aquasecurity/trivy/pkg/dependency/parser/python/poetry"
	"github.com/aquasecurity/trivy/pkg/dependency/parser/python/pylock"
	"github.com/aquasecurity/trivy/pkg/dependency/parser/python/uv"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// unreadable marks the form of a lock file that could not be read. Where lock
// files count, that is a finding; in the test data of a package it is not.
const unreadable = " (unreadable)"

// lockForms are the forms of lock files, by base name.
var lockForms = map[string]string{
	"requirements.txt": "pypi", "poetry.lock": "pypi", "uv.lock": "pypi", "Pipfile.lock": "pypi", "pylock.toml": "pypi",
	"package-lock.json": "npm", "npm-shrinkwrap.json": "npm", "yarn.lock": "npm", "pnpm-lock.yaml": "npm",
}

// namedLock is the form of PEP 751's files with a name of their own.
var namedLock = regexp.MustCompile(`^pylock\.[^.]+\.toml$`)

func lockForm(base string) string {
	if namedLock.MatchString(base) {
		return "pylock.toml"
	}
	return base
}

// isLock tells the form of a lock file.
func isLock(form string) bool {
	_, ok := lockForms[strings.TrimSuffix(form, unreadable)]
	return ok
}

// A listing reads a lock file.
type listing func(context.Context, *bytes.Reader) ([]ftypes.Package, error)

// lockReader answers nil for a name that is not a lock file's.
func lockReader(base string) func(context.Context, *walk.File, *scan.Evidence) error {
	form := lockForm(base)
	typ, ok := lockForms[form]
	if !ok {
		return nil
	}
	read := lockReaders()[form]
	return func(ctx context.Context, f *walk.File, ev *scan.Evidence) (err error) {
		b, err := whole(f)
		if err != nil {
			return err
		}
		pkgs, err := calmly(ctx, read, b)
		if err == nil {
			err = addLocked(ev, typ, pkgs)
		}
		if err != nil {
			ev.Form += unreadable
			ev.Packages = nil
		}
		return nil
	}
}

// calmly makes an error of a parser's panic.
func calmly(ctx context.Context, read listing, b []byte) (pkgs []ftypes.Package, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return read(ctx, bytes.NewReader(b))
}

func addLocked(ev *scan.Evidence, typ string, pkgs []ftypes.Package) error {
	for _, p := range pkgs {
		if p.Name == "" || p.Version == "" || p.Relationship == ftypes.RelationshipRoot {
			// What is locked without a version, such as a local project, comes
			// from no index.
			continue
		}
		q := scan.Package{Type: typ, Name: p.Name, Version: p.Version, Licences: p.Licenses}
		if err := tidy(&q); err != nil {
			return err
		}
		ev.Packages = append(ev.Packages, q)
	}
	return nil
}

func lockReaders() map[string]listing {
	return map[string]listing{
		"requirements.txt": func(ctx context.Context, r *bytes.Reader) ([]ftypes.Package, error) {
			p, _, err := pip.NewParser(false).Parse(ctx, r)
			return p, err
		},
		"poetry.lock": func(ctx context.Context, r *bytes.Reader) ([]ftypes.Package, error) {
			p, _, err := poetry.NewParser().Parse(ctx, r)
			return p, err
		},
		"uv.lock": func(ctx context.Context, r *bytes.Reader) ([]ftypes.Package, error) {
			p, _, err := uv.NewParser().Parse(ctx, r)
			return p, err
		},
		"pylock.toml": func(ctx context.Context, r *bytes.Reader) ([]ftypes.Package, error) {
			p, _, err := pylock.NewParser().Parse(ctx, r)
			return p, err
		},
		"Pipfile.lock":        readPipfile,
		"package-lock.json":   readNpm,
		"npm-shrinkwrap.json": readNpm,
		"yarn.lock": func(ctx context.Context, r *bytes.Reader) ([]ftypes.Package, error) {
			p, _, _, err := yarn.NewParser().Parse(ctx, r)
			return p, err
		},
		"pnpm-lock.yaml": func(ctx context.Context, r *bytes.Reader) ([]ftypes.Package, error) {
			p, _, err := pnpm.NewParser().Parse(ctx, r)
			return p, err
		},
	}
}

// readPipfile reads pipenv's lock file; Trivy's parser of it needs an
// experiment of the Go compiler.
func readPipfile(_ context.Context, r *bytes.Reader) ([]ftypes.Package, error) {
	var lock struct {
		Default map[string]struct {
			Version string `json:"version"`
		} `json:"default"`
	}
	if err := json.NewDecoder(r).Decode(&lock); err != nil {
		return nil, err
	}
	if lock.Default == nil {
		return nil, errors.New("has no \"default\"")
	}
	var list []ftypes.Package
	for name, p := range lock.Default {
		list = append(list, ftypes.Package{Name: name, Version: strings.TrimPrefix(p.Version, "==")})
	}
	return list, nil
}

// A dependency is npm's, of lock file version 1.
type dependency struct {
	Version      string                `json:"version"`
	Dependencies map[string]dependency `json:"dependencies"`
}

// readNpm reads npm's lock file, versions 1 to 3, for the reason above.
func readNpm(_ context.Context, r *bytes.Reader) ([]ftypes.Package, error) {
	var lock struct {
		Version  int `json:"lockfileVersion"`
		Packages map[string]struct {
			Name    string `json:"name"`
			Version string `json:"version"`
			Link    bool   `json:"link"`
		} `json:"packages"`
		Dependencies map[string]dependency `json:"dependencies"`
	}
	if err := json.NewDecoder(r).Decode(&lock); err != nil {
		return nil, err
	}
	if lock.Version < 1 || lock.Version > 3 {
		return nil, fmt.Errorf("lockfileVersion %d, want 1 to 3", lock.Version)
	}
	var list []ftypes.Package
	for at, p := range lock.Packages {
		i := strings.LastIndex(at, "node_modules/")
		if i < 0 || p.Link {
			continue // a project of the repository itself
		}
		name := p.Name
		if name == "" {
			name = at[i+len("node_modules/"):]
		}
		list = append(list, ftypes.Package{Name: name, Version: p.Version})
	}
	if lock.Packages != nil {
		return list, nil
	}
	var add func(map[string]dependency)
	add = func(deps map[string]dependency) {
		for name, d := range deps {
			list = append(list, ftypes.Package{Name: name, Version: d.Version})
			add(d.Dependencies)
		}
	}
	add(lock.Dependencies)
	return list, nil
}

// readNode reads the package.json of a package that lies somewhere, installed
// or bundled. One without a name and a version is no package, and one that is
// no JSON cannot be loaded by anybody; both are common in test data.
func readNode(_ context.Context, f *walk.File, ev *scan.Evidence) error {
	b, err := whole(f)
	if err != nil {
		return err
	}
	var p struct {
		Name    any `json:"name"`
		Version any `json:"version"`
		Licence any `json:"license"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return errNothing
	}
	name, _ := p.Name.(string)
	version, _ := p.Version.(string)
	if name == "" || version == "" {
		return errNothing
	}
	pkg := scan.Package{Type: "npm", Name: name, Version: version}
	if l, ok := p.Licence.(string); ok {
		pkg.Licences = []string{l}
	}
	if tidy(&pkg) != nil {
		return errNothing
	}
	ev.Packages = []scan.Package{pkg}
	return nil
}
