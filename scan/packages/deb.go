package packages

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// maintainer are the scripts of deb-preinst(5) and its like.
var maintainer = []string{"preinst", "postinst", "prerm", "postrm", "config"}

func isMaintainerScript(p place) bool {
	return slices.Contains(maintainer, p.file) && len(p.inner) >= 2 && strings.HasPrefix(p.inner[len(p.inner)-2], "control.tar")
}

// risks are what a maintainer script seldom needs: to fetch, to run what it
// has decoded, to hand out rights.
var risks = []struct {
	what string
	re   *regexp.Regexp
}{
	{"fetches something", regexp.MustCompile(`(^|[\s;|&(` + "`" + `])(curl|wget|ncat|nc|ftp|scp)\s+[^=\s]`)},
	{"runs what it has decoded", regexp.MustCompile(`base64\s+(-d|--decode)[^|]*\|\s*(ba|da)?sh`)},
	{"runs a line of another language", regexp.MustCompile(`(python3?|perl|ruby)\s+-[ce]\s`)},
	{"sets rights to run as another", regexp.MustCompile(`chmod\s+(\S+\s+)*([ug]*\+s|[2467][0-7]{3})\s`)},
	{"lets somebody become root", regexp.MustCompile(`/etc/sudoers|authorized_keys`)},
}

// script lists a maintainer script, and the lines of it that a person should
// read. Debian's own packages have many scripts: the list is for the report.
func script(text string, p place) []scan.Finding {
	found := one(CodeScript, scan.Low, fmt.Sprintf("%s runs as root when the package is installed or removed, %d lines", p.file, strings.Count(text, "\n")))
	for n, line := range lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, r := range risks {
			if r.re.MatchString(line) {
				found = append(found, scan.Finding{
					Kind: scan.KindPackage, ID: CodeScriptRisk, Severity: riskOf(r.what),
					Text: fmt.Sprintf("line %d %s: %s", n, r.what, excerpt(line)),
				})
				break
			}
		}
	}
	return found
}

// riskOf: perl one-liners are common in Debian's own scripts.
func riskOf(what string) string {
	if what == "runs a line of another language" || what == "sets rights to run as another" {
		return scan.Medium
	}
	return scan.High
}

// usual are programs that Debian and Ubuntu install to run with other rights.
var usual = []string{
	"at", "bsd-write", "bwrap", "chage", "chfn", "chsh", "chrome-sandbox", "crontab", "dbus-daemon-launch-helper", "dotlockfile", "expiry", "fusermount",
	"fusermount3", "gpasswd", "mlocate", "mount", "mount.cifs", "mount.nfs", "newgidmap", "newgrp", "newuidmap", "passwd", "ping", "ping6", "pkexec",
	"plocate", "polkit-agent-helper-1", "postdrop", "postqueue", "screen", "snap-confine", "ssh-agent", "ssh-keysign", "su", "sudo", "sudoedit", "umount",
	"unix_chkpwd", "utempter", "vmware-user-suid-wrapper", "wall", "write", "write.ul", "xorg.wrap",
}

// setuid: a regular file that runs with its owner's or group's rights.
func setuid(f *walk.File) []scan.Finding {
	if f.Mode&(fs.ModeSetuid|fs.ModeSetgid) == 0 || slices.Contains(usual, strings.ToLower(path.Base(f.Name()))) {
		return nil
	}
	return one(CodeSetuid, scan.Medium, "runs with the rights of its owner or group: "+f.Mode.String())
}

// special: a device node hands out the device.
func special(f *walk.File) []scan.Finding {
	if f.Mode&fs.ModeDevice == 0 {
		return nil
	}
	return one(CodeSetuid, scan.Medium, "is a device: "+f.Mode.String())
}
