package files

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const anyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestConfig(t *testing.T) {
	folder := func(change func(*Set)) Config {
		s := Set{Name: "clamav", Folder: "/var/lib/clamav", Match: []string{"*.cvd"}, MaxAge: time.Hour}
		if change != nil {
			change(&s)
		}
		return Config{Name: "db", Sets: []Set{s}}
	}
	pins := func(all ...Pinned) Config { return Config{Name: "db", Sets: []Set{{Name: "tool", URLs: all}}} }
	ok := Pinned{URL: "https://files.example/a.bin", SHA256: anyDigest}
	with := func(p Pinned, change func(*Pinned)) Pinned { change(&p); return p }
	for what, c := range map[string]struct {
		config Config
		want   []string // the beginnings of the problems
	}{
		"a folder":          {folder(nil), nil},
		"addresses":         {pins(ok, with(ok, func(p *Pinned) { p.Path = "other/b.bin"; p.SHA256 = "sha256:" + p.SHA256 })), nil},
		"nothing":           {Config{}, []string{"name: ", "sets: "}},
		"a name":            {Config{Name: "A", Sets: folder(nil).Sets}, []string{"name: "}},
		"no files":          {folder(func(s *Set) { *s = Set{Name: "x"} }), []string{"sets[0].folder: "}},
		"both":              {folder(func(s *Set) { s.URLs = []Pinned{ok} }), []string{"sets[0].urls: "}},
		"a set's name":      {folder(func(s *Set) { s.Name = "a/b" }), []string{"sets[0].name: "}},
		"a listing's name":  {folder(func(s *Set) { s.Name = "index.json" }), []string{"sets[0].name: "}},
		"twice":             {Config{Name: "db", Sets: []Set{folder(nil).Sets[0], folder(nil).Sets[0]}}, []string{"sets[1].name: "}},
		"a relative folder": {folder(func(s *Set) { s.Folder = "x" }), []string{"sets[0].folder: "}},
		"a pattern":         {folder(func(s *Set) { s.Match = []string{"["} }), []string{"sets[0].match: "}},
		"an age":            {folder(func(s *Set) { s.MaxAge = -1 }), []string{"sets[0].max_age: "}},
		"a version":         {folder(func(s *Set) { s.Version = "1/2" }), []string{"sets[0].version: "}},
		"the link":          {folder(func(s *Set) { s.Version = "Current" }), []string{"sets[0].version: "}},
		"like a digest":     {folder(func(s *Set) { s.Version = "0123456789ab" }), []string{"sets[0].version: "}},
		"for folders": {Config{Name: "db", Sets: []Set{{Name: "tool", URLs: []Pinned{ok}, Match: []string{"*"}}}}, []string{
			"sets[0].match: ",
		}},
		"age of pins": {Config{Name: "db", Sets: []Set{{Name: "tool", URLs: []Pinned{ok}, MaxAge: 1}}}, []string{"sets[0].max_age: "}},
		"no address":  {pins(Pinned{SHA256: anyDigest}), []string{"sets[0].urls[0].url: "}},
		"plain http":  {pins(with(ok, func(p *Pinned) { p.URL = "http://files.example/a" })), []string{"sets[0].urls[0].url: "}},
		"a login":     {pins(with(ok, func(p *Pinned) { p.URL = "https://me:secret@files.example/a" })), []string{"sets[0].urls[0].url: "}},
		"a scheme":    {pins(with(ok, func(p *Pinned) { p.URL = "file:///etc/passwd" })), []string{"sets[0].urls[0].url: "}},
		"no file":     {pins(with(ok, func(p *Pinned) { p.URL = "https://files.example/" })), []string{"sets[0].urls[0].path: "}},
		"up":          {pins(with(ok, func(p *Pinned) { p.Path = "../a" })), []string{"sets[0].urls[0].path: "}},
		"escaped up":  {pins(with(ok, func(p *Pinned) { p.URL = "https://files.example/%2e%2e" })), []string{"sets[0].urls[0].path: "}},
		"a digest":    {pins(with(ok, func(p *Pinned) { p.SHA256 = "abc" })), []string{"sets[0].urls[0].sha256: "}},
		"a size":      {pins(with(ok, func(p *Pinned) { p.Size = -1 })), []string{"sets[0].urls[0].size: "}},
		"two sizes": {pins(with(ok, func(p *Pinned) { p.Size = 1 }), with(ok, func(p *Pinned) { p.Size, p.Path = 2, "b" })), []string{
			"sets[0].urls[1].size: ",
		}},
		"one path":     {pins(ok, with(ok, func(p *Pinned) { p.Path = "A.bin" })), []string{"sets[0].urls[1].path: "}},
		"a host":       {Config{Name: "db", Sets: folder(nil).Sets, AllowHosts: []string{"https://x.example"}}, []string{"allow_hosts[0]: "}},
		"half a login": {Config{Name: "db", Sets: folder(nil).Sets, User: "me"}, []string{"password_file: "}},
		"a password for two": {
			Config{Name: "db", User: "me", PasswordFile: "/p", Sets: pins(ok, with(ok, func(p *Pinned) { p.URL = "https://mirror.example/b" })).Sets},
			[]string{"user: "},
		},
	} {
		t.Run(what, func(t *testing.T) { compareProblems(t, c.config.Validate(), c.want) })
	}
}

func TestPublishConfig(t *testing.T) {
	for what, c := range map[string]struct {
		config PublishConfig
		want   []string
	}{
		"served alone": {PublishConfig{Name: "db"}, nil},
		"folders": {PublishConfig{
			Name: "db", Folder: "/srv/a", Versioned: true, Mode: "0640", Last: []string{"*.json"},
			Sets: []PublishSet{{Name: "x", Folder: "/srv/ab"}},
		}, nil},
		"nothing":        {PublishConfig{}, []string{"name: "}},
		"relative":       {PublishConfig{Name: "db", Folder: "a"}, []string{"folder: "}},
		"no folder":      {PublishConfig{Name: "db", Versioned: true}, []string{"versioned: "}},
		"a mode":         {PublishConfig{Name: "db", Mode: "0666"}, []string{"mode: "}},
		"a pattern":      {PublishConfig{Name: "db", Last: []string{"/x"}}, []string{"last: "}},
		"no own folder":  {PublishConfig{Name: "db", Sets: []PublishSet{{Name: "x"}}}, []string{"sets[0].folder: "}},
		"one in another": {PublishConfig{Name: "db", Folder: "/srv/a", Sets: []PublishSet{{Name: "x", Folder: "/srv/a/b"}}}, []string{"sets[0].folder: "}},
		"one around another": {
			PublishConfig{Name: "db", Sets: []PublishSet{{Name: "x", Folder: "/srv/a/b"}, {Name: "x", Folder: "/srv"}}},
			[]string{"sets[1].name: ", "sets[1].folder: "},
		},
	} {
		t.Run(what, func(t *testing.T) { compareProblems(t, c.config.Validate(), c.want) })
	}
}

// compareProblems compares the fields of joined problems.
func compareProblems(t *testing.T, err error, want []string) {
	t.Helper()
	var got []string
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			field, _, _ := strings.Cut(line, ": ")
			got = append(got, field+": ")
			if strings.Contains(line, "secret") {
				t.Errorf("a password is repeated: %s", line)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestAddresses(t *testing.T) {
	c := Config{AllowHosts: []string{"cdn.example"}, AllowHTTP: true, Sets: []Set{
		{URLs: []Pinned{{URL: "https://files.example/a"}, {URL: "https://FILES.example:443/b"}}},
		{URLs: []Pinned{{URL: "http://mirror.example:8080/a"}}},
	}}
	if diff := cmp.Diff([]string{"https://files.example/a", "http://mirror.example:8080/a"}, c.Addresses()); diff != "" {
		t.Error(diff)
	}
	if fc := c.Fetch("files/db"); fc.Name != "files/db" || !fc.AllowHTTP || !cmp.Equal(fc.Hosts, []string{"cdn.example"}) {
		t.Errorf("got %+v", fc)
	}
}
