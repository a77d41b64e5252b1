package trivy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"strings"

	"github.com/aquasecurity/trivy/pkg/dependency/parser/python/packaging"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// readCore reads core metadata: METADATA or PKG-INFO.
func readCore(ctx context.Context, f *walk.File, ev *scan.Evidence) error {
	b, err := whole(f)
	if err != nil {
		return err
	}
	pkgs, _, err := packaging.NewParser().Parse(ctx, bytes.NewReader(b))
	if err != nil {
		return err
	}
	h, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(b))).ReadMIMEHeader()
	// Trivy's parser reads on after such a line; what it read is checked here.
	if e := textproto.ProtocolError(""); err != nil && !errors.As(err, &e) && len(h) == 0 {
		return err
	}
	for _, field := range []string{"Name", "Version"} {
		if n := len(h.Values(field)); n != 1 {
			// Two readers could take one each.
			return fmt.Errorf("has %d fields %q, want 1", n, field)
		}
	}
	for _, p := range pkgs {
		ev.Packages = append(ev.Packages, scan.Package{
			Type: "pypi", Name: strings.TrimSpace(p.Name), Version: strings.TrimSpace(p.Version), Licences: p.Licenses,
			Maintainer: firstOf(h, "Maintainer", "Maintainer-Email", "Author", "Author-Email"),
			Homepage:   homepage(h),
		})
	}
	if len(ev.Packages) != 1 || ev.Packages[0].Name == "" || ev.Packages[0].Version == "" {
		return errors.New("name or version is empty")
	}
	return nil
}

func firstOf(h textproto.MIMEHeader, fields ...string) string {
	for _, f := range fields {
		if v := strings.TrimSpace(h.Get(f)); v != "" && v != "UNKNOWN" {
			return v
		}
	}
	return ""
}

func homepage(h textproto.MIMEHeader) string {
	if v := firstOf(h, "Home-Page"); v != "" {
		return v
	}
	for _, u := range h.Values("Project-Url") {
		label, url, ok := strings.Cut(u, ",")
		if ok && strings.EqualFold(strings.TrimSpace(label), "homepage") {
			return strings.TrimSpace(url)
		}
	}
	return ""
}
