package packages

import (
	"fmt"
	"slices"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// pth looks for the lines that site.addpackage executes: those that start
// with "import" and a space or a tab. What setuptools and pip write there is
// known by its whole form.
func pth(text string, _ place) []scan.Finding {
	for n, line := range lines(text) {
		if !strings.HasPrefix(line, "import ") && !strings.HasPrefix(line, "import\t") {
			continue
		}
		if slices.ContainsFunc(harmlessPTH, func(h string) bool { return sameForm(line, h) }) {
			continue
		}
		return one(CodePTH, scan.High, fmt.Sprintf("line %d is run whenever Python starts: %s", n, excerpt(line)))
	}
	return nil
}

// harmlessPTH are whole lines of well-known tools; a * stands for a module's
// or folder's name, in quotes or out of them.
var harmlessPTH = []string{
	// setuptools, distutils-precedence.pth
	`import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'; enabled and __import__('_distutils_hack').add_shim();`,
	`import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'; enabled and __import__('_distutils_hack').add_shim(); `,
	// setuptools, NAME-nspkg.pth
	`import sys, types, os;has_mfs = sys.version_info > (3, 5);p = os.path.join(sys._getframe(1).f_locals['sitedir'], *('*',));importlib = has_mfs and __import__('importlib.util');has_mfs and __import__('importlib.machinery');m = has_mfs and sys.modules.setdefault('*', importlib.util.module_from_spec(importlib.machinery.PathFinder.find_spec('*', [os.path.dirname(p)])));m = m or sys.modules.setdefault('*', types.ModuleType('*'));mp = (m or []) and m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)`,
	// coverage and pytest-cov
	`import os, sys;exec('if \'COV_CORE_SOURCE\' in os.environ:\n try:\n  from pytest_cov.embed import init\n  init()\n except ImportError:\n  sys.stderr.write("pytest-cov: Failed to setup subprocess coverage.\\n")')`,
}

// sameForm compares a line with a form in which a * stands for a name.
func sameForm(line, form string) bool {
	parts := strings.Split(strings.TrimRight(form, " "), "*")
	line = strings.TrimRight(line, " \r")
	for i, p := range parts {
		if i == 0 {
			if !strings.HasPrefix(line, p) {
				return false
			}
			line = line[len(p):]
			continue
		}
		// Forms use "*(" too: there the star is itself.
		at := 0
		for at < len(line) && isNameByte(line[at]) {
			at++
		}
		switch {
		case strings.HasPrefix(line, "*"+p):
			line = line[1+len(p):]
		case strings.HasPrefix(line[at:], p):
			line = line[at+len(p):]
		default:
			return false
		}
	}
	return line == ""
}

func isNameByte(c byte) bool {
	return c == '_' || c == '.' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// site: a module of that name at the root of what is installed is imported by
// every Python of the environment.
func site(text string, p place) []scan.Finding {
	if strings.TrimSpace(code(text)) == "" {
		return nil
	}
	return one(CodeSite, scan.High, p.base+" is run whenever Python starts")
}

// capabilities are words in the code of a setup.py that have no business
// there: to reach out, to run, to hide.
var capabilities = []struct {
	what  string
	words []string
}{
	{"reaches out", []string{"urllib", "urlopen", "requests", "http.client", "socket", "ftplib", "smtplib", "urlretrieve", "httpx"}},
	{"runs programs", []string{"os.system", "subprocess", "popen", "os.exec", "os.spawn", "pty.spawn"}},
	{"hides code", []string{"base64", "b64decode", "zlib.decompress", "marshal", "codecs.decode", "fromhex", "bytes.fromhex"}},
	{"evaluates code", []string{"exec(", "eval(", "compile(", "__import__("}},
	{"reads secrets", []string{".ssh", ".aws", ".netrc", "id_rsa", "os.environ[", "getpass"}},
}

// setup reads the code of a setup.py without comments and strings, apart from
// the paths that secrets lie at. One capability is common (compilers are run,
// a version is read by exec); reaching out or hiding together with another
// one in the same file is not.
func setup(text string, _ place) []scan.Finding {
	c := code(text)
	var has []string
	grave := false
	for _, k := range capabilities {
		in := c
		if k.what == "reads secrets" {
			in = text
		}
		if slices.ContainsFunc(k.words, func(w string) bool { return hasWord(in, w) }) {
			has = append(has, k.what)
			grave = grave || k.what == "reaches out" || k.what == "hides code"
		}
	}
	switch {
	case len(has) == 0:
		return nil
	case grave && len(has) > 1:
		return one(CodeSetup, scan.High, "runs at installation, and "+strings.Join(has, ", "))
	}
	return one(CodeSetup, scan.Low, "runs at installation, and "+strings.Join(has, ", "))
}

// hasWord finds w where no name goes on before it.
func hasWord(text, w string) bool {
	for at := 0; ; {
		i := strings.Index(text[at:], w)
		if i < 0 {
			return false
		}
		i += at
		// "retrieve_requests" is another name; "xeval(" too.
		if i == 0 || !isNameByte(text[i-1]) || text[i-1] == '.' || text[i-1] == '-' || !isNameByte(w[0]) {
			end := i + len(w)
			last := w[len(w)-1]
			if end == len(text) || !isNameByte(last) || !isNameByte(text[end]) || text[end] == '.' {
				return true
			}
		}
		at = i + 1
	}
}

// code is Python without its comments and strings: each becomes a space. It
// is a tokenizer's view, not a parser's; an unfinished string ends with the
// file.
func code(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		c := text[i]
		switch c {
		case '#':
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case '"', '\'':
			i = skipString(text, i)
			b.WriteByte(' ')
		default:
			b.WriteByte(c)
			i++
		}
	}
	return b.String()
}

func skipString(text string, i int) int {
	quote := text[i : i+1]
	if strings.HasPrefix(text[i:], strings.Repeat(quote, 3)) {
		quote = strings.Repeat(quote, 3)
	}
	for i += len(quote); i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case strings.HasPrefix(text[i:], quote):
			return i + len(quote)
		case text[i] == '\n' && len(quote) == 1:
			return i // a string of one line does not go on
		}
	}
	return len(text)
}

// commands are names that nobody expects a package to bring.
var commands = []string{
	"apt", "apt-get", "awk", "bash", "cat", "chmod", "chown", "cp", "curl", "cut", "date", "dash", "dd", "df", "docker", "dpkg", "du", "echo", "env",
	"find", "git", "gpg", "grep", "gunzip", "gzip", "head", "id", "kill", "kubectl", "less", "ln", "ls", "mkdir", "mount", "mv", "nc", "openssl", "passwd",
	"perl", "pip", "pip3", "ps", "pwd", "python", "python2", "python3", "rm", "rsync", "scp", "sed", "sh", "ssh", "su", "sudo", "systemctl", "tail", "tar",
	"tee", "top", "touch", "uname", "vi", "vim", "wget", "which", "xargs", "zsh",
}

// owners are the projects whose command it is.
var owners = map[string][]string{"pip": {"pip"}, "pip3": {"pip"}}

// shadow reads the console_scripts of an entry_points.txt.
func shadow(text string, p place) []scan.Finding {
	section := ""
	for _, line := range lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		command, _, ok := strings.Cut(line, "=")
		if !ok || section != "console_scripts" && section != "gui_scripts" {
			continue
		}
		command = strings.ToLower(strings.TrimSpace(command))
		project, _, _ := strings.Cut(strings.ToLower(p.file), "-")
		if slices.Contains(commands, command) && !slices.Contains(owners[command], project) {
			return one(CodeShadow, scan.High, "installs a command called "+command)
		}
	}
	return nil
}

// binary: a wheel whose file name says that it is for any platform.
func binary(f *walk.File, p place) []scan.Finding {
	c := p.container()
	if !strings.HasSuffix(c, "-none-any.whl") {
		return nil
	}
	switch f.Kind {
	case walk.ELF, walk.PE, walk.MachO:
		return one(CodeBinary, scan.Medium, fmt.Sprintf("is %s in a wheel that says it runs anywhere", f.Kind))
	}
	return nil
}

// lines numbers lines from 1.
func lines(text string) func(func(int, string) bool) {
	return func(yield func(int, string) bool) {
		n := 0
		for line := range strings.Lines(text) {
			n++
			if !yield(n, strings.TrimRight(line, "\r\n")) {
				return
			}
		}
	}
}

// excerpt is a line for a report.
func excerpt(line string) string {
	line = strings.Join(strings.Fields(line), " ")
	if len(line) > 120 {
		line = line[:117] + "..."
	}
	return line
}
