package packaging

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVectorsNames(t *testing.T) {
	c := newTally(t, "names")
	for _, n := range loadVectors(t).Names {
		c.cases++
		got, err := NormalizeName(n.text)
		switch {
		case n.want.valid == nil && err == nil:
			c.differ("", "%q accepted as %s", n.text, got)
		case n.want.valid != nil && err != nil:
			c.differ(tooLong(n.text, maxName), "%q refused: %v", n.text, err)
		case err == nil && got != *n.want.valid:
			c.differ("", "%q: got %s, want %s", n.text, got, *n.want.valid)
		}
		if got := canonicalName(n.text); got != n.want.any {
			c.differ("", "%q: compared as %q, want %q", n.text, got, n.want.any)
		}
		if normal := err == nil && got == n.text; normal != n.want.normal {
			c.differ(tooLong(n.text, maxName), "%q: normal form %v, want %v", n.text, normal, n.want.normal)
		}
	}
	c.done(100)
}

func TestVectorsWheels(t *testing.T) {
	v := loadVectors(t)
	c := newTally(t, "wheel filenames")
	for _, w := range v.Wheels {
		c.cases++
		got, err := ParseWheelName(w.text)
		switch {
		case w.want == nil && err != nil:
		case w.want == nil:
			c.differ("", "%q accepted", w.text)
		case err != nil:
			c.differ(filenameRule(w.text, w.want.project, w.want.rest, w.want.tags), "%q refused: %v", w.text, err)
		default:
			want := [4]string{w.want.project, w.want.version, w.want.number, w.want.rest}
			if is := [4]string{got.Project, got.Version.String(), got.Build.number, got.Build.rest}; is != want || !slices.Equal(tagsOf(got), w.want.tags) {
				c.differ("", "%q: got %q and %q, want %q and %q", w.text, is, tagsOf(got), want, w.want.tags)
			}
		}
	}
	for _, s := range v.TagSets {
		c.cases++
		got, err := ParseWheelName("x-1-" + s.text + ".whl")
		switch {
		case s.want == nil && err != nil:
		case s.want == nil:
			c.differ("", "tags %q accepted", s.text)
		case err != nil:
			c.differ(filenameRule(s.text, "x", "", *s.want), "tags %q refused: %v", s.text, err)
		case !slices.Equal(tagsOf(got), *s.want):
			c.differ("", "%q: got %q, want %q", s.text, tagsOf(got), *s.want)
		}
	}
	c.done(150)
	c = newTally(t, "sdist filenames")
	for _, s := range v.Sdists {
		c.cases++
		got, err := ParseSdistName(s.text)
		switch {
		case s.want == nil && err != nil:
		case s.want == nil:
			c.differ("", "%q accepted", s.text)
		case err != nil:
			c.differ(filenameRule(s.text, s.want[0], "", nil), "%q refused: %v", s.text, err)
		case *s.want != [2]string{got.Project, got.Version.String()}:
			c.differ("", "%q: got %s %s, want %v", s.text, got.Project, got.Version, *s.want)
		}
	}
	c.done(60)
}

// tagsOf lists the tags that a wheel's filename stands for.
func tagsOf(w WheelName) []string {
	var out []string
	for _, py := range w.Pythons {
		for _, abi := range w.ABIs {
			for _, platform := range w.Platforms {
				out = append(out, Tag{py, abi, platform}.String())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// filenameRule explains why a filename is refused that the library takes.
func filenameRule(filename, project, build string, tags []string) string {
	if CheckFilename(filename) != nil || strings.ContainsFunc(filename, isSpace) {
		return "a filename that is not safe, or holds white space"
	}
	if n, err := NormalizeName(project); err != nil || n != project || !isASCII(filename) {
		return "a name that the library does not validate here"
	}
	if build != "" && !buildRE.MatchString("0"+build) || slices.ContainsFunc(tags, func(s string) bool {
		return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") != ""
	}) {
		return "a build tag or tag of other characters than ASCII letters, digits and _"
	}
	return ""
}

func TestVectorsTags(t *testing.T) {
	c := newTally(t, "tag generators")
	decode := func(b json.RawMessage, to any) {
		if err := json.Unmarshal(b, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, call := range loadVectors(t).Tags {
		c.cases++
		var python []int
		var interpreter, arch string
		var abis, platforms, got []string
		text := func(tags []Tag) {
			for _, tag := range tags {
				got = append(got, tag.String())
			}
		}
		switch call.function {
		case "mac_platforms":
			decode(call.args[0], &python)
			decode(call.args[1], &arch)
			got = macPlatforms(python[0], python[1], arch)
		case "cpython_tags":
			decode(call.args[0], &python)
			decode(call.args[1], &abis)
			decode(call.args[2], &platforms)
			text(cpythonTags(python, abis, platforms))
		case "generic_tags":
			decode(call.args[0], &interpreter)
			decode(call.args[1], &abis)
			decode(call.args[2], &platforms)
			text(genericTags(interpreter, abis, platforms))
		case "compatible_tags":
			decode(call.args[0], &python)
			decode(call.args[1], &interpreter)
			decode(call.args[2], &platforms)
			text(compatibleTags(python, interpreter, platforms))
		default:
			t.Fatalf("unknown function %s", call.function)
		}
		call.compare(c, call.function+" "+string(slices.Concat(call.args...)), got)
	}
	c.done(8)
}

// compare compares a list of tags with its digest.
func (l tagList) compare(c *tally, what string, got []string) {
	c.t.Helper()
	sum := sha256.Sum256([]byte(strings.Join(got, "\n")))
	if len(got) != l.count || hex.EncodeToString(sum[:]) != l.digest {
		c.differ("", "%s: %d tags, want %d: %q...", what, len(got), l.count, got[:min(len(got), 8)])
	}
}

func TestVectorsTargets(t *testing.T) {
	v := loadVectors(t)
	c := newTally(t, "targets")
	texts := func(tags []Tag) (out []string) {
		for _, tag := range tags {
			out = append(out, tag.String())
		}
		return out
	}
	for _, want := range v.Targets {
		c.cases++
		target := mustTarget(t, want.preset)
		want.compare(c, want.preset, texts(target.Tags()))
		if d := cmp.Diff(*environmentOf(t, want.env), target.Env); d != "" {
			c.differ("", "%s: %s", want.preset, d)
		}
		for i, tags := range v.WheelTags {
			c.cases++
			w, err := ParseWheelName("x-1-" + tags + ".whl")
			if err != nil {
				t.Fatal(err)
			}
			rank, ok := target.Rank(w)
			if !ok {
				rank = -1
			}
			if rank != want.ranks[i] {
				c.differ("", "%s: %s has rank %d, want %d", want.preset, tags, rank, want.ranks[i])
			}
		}
		// The same target, from what its interpreter would say of itself.
		told := Description{Name: want.preset, Markers: want.env, Tags: texts(target.Tags())}
		same, err := told.Target()
		if err != nil || cmp.Diff(same.Env, target.Env) != "" || !slices.Equal(same.Tags(), target.Tags()) {
			c.differ("", "%s: another target from its own words: %v", want.preset, err)
		}
	}
	for _, want := range v.PyPy {
		c.cases++
		minor := strconv.Itoa(want.minor)
		target, err := Description{Name: "pypy", Implementation: "pp", Python: "3." + minor + ".14", ImplementationVersion: "7.3.17", ABI: "pypy3" + minor + "_pp73", Platform: want.platform}.Target()
		if err != nil {
			t.Fatal(err)
		}
		want.compare(c, "pypy3"+minor+" "+want.platform, texts(target.Tags()))
	}
	c.done(80)
}

func TestVectorsMetadata(t *testing.T) {
	c := newTally(t, "metadata")
	for _, m := range loadVectors(t).Metadata {
		c.cases++
		b := make([]byte, 0, len(m.text))
		for _, r := range m.text {
			b = append(b, byte(r)) // the vectors hold bytes as Latin-1
		}
		got, err := ParseMetadata(b)
		switch {
		case m.want == nil && err != nil:
		case m.want == nil:
			c.differ("", "%q accepted: %+v", m.text, got)
		case err != nil:
			c.differ(metadataRule(m.text), "%q refused: %v", m.text, err)
		default:
			requires := make([]string, len(got.Requires))
			for i, r := range got.Requires {
				requires[i] = r.String()
			}
			is := metadataAnswer{m.want.NotUTF8, got.MetadataVersion, got.Name, got.Version.String(), got.RequiresPython, requires, len(got.Malformed), got.Extras, got.Dynamic}
			for _, list := range []*[]string{&is.Extras, &is.Dynamic} {
				if *list == nil {
					*list = []string{}
				}
			}
			if d := cmp.Diff(*m.want, is); d != "" {
				rule := ""
				switch {
				case m.want.NotUTF8 && len(got.Malformed) > 0:
					rule = "a Requires-Dist that is not UTF-8 spoils no other"
				case foldedRE.MatchString(m.text) && len(got.Malformed) < m.want.Malformed:
					rule = "a Requires-Dist of two lines is read"
				}
				c.differ(rule, "%q: %s", m.text, d)
			}
		}
	}
	c.done(100)
}

var foldedRE = regexp.MustCompile(`(?mi)^requires-dist:.*\n[ \t]`)

// metadataRule explains why metadata is refused that the library takes.
func metadataRule(text string) string {
	head, _, _ := strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n")
	for line := range strings.SplitSeq(head, "\n") {
		key, _, ok := strings.Cut(line, ":")
		if line != "" && line[0] != ' ' && line[0] != '\t' && (!ok || strings.ContainsAny(key, blank)) {
			return "a line that is no header is refused; the library ends the headers there"
		}
	}
	return ""
}
