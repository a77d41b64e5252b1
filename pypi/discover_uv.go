package pypi

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// uvSettings is what is read of a uv.toml.
type uvSettings struct {
	Index         []uvIndex `toml:"index"`
	IndexURL      string    `toml:"index-url"`
	ExtraIndexURL []string  `toml:"extra-index-url"`
	Pip           struct {
		IndexURL      string   `toml:"index-url"`
		ExtraIndexURL []string `toml:"extra-index-url"`
	} `toml:"pip"`
}

type uvIndex struct {
	Name    string `toml:"name"`
	URL     string `toml:"url"`
	Default bool   `toml:"default"`
}

// uv reads uv's variables and files. Its built-in default is not asked for:
// it is the same as pip's.
func (d *discovery) uv() error {
	ca := d.lookup("SSL_CERT_FILE")
	const extra = "an extra index: make it a source of its own"
	one := func(origin, note, value string) {
		// UV_INDEX holds name=url; a URL's own "=" comes after a "/".
		if name, rest, ok := strings.Cut(value, "="); ok && !strings.ContainsAny(name, "/:") {
			value = rest
		}
		d.add(Found{Origin: origin, CAFile: ca, Note: note}, value)
	}
	for _, name := range []string{"UV_DEFAULT_INDEX", "UV_INDEX_URL"} {
		if v := d.lookup(name); v != "" {
			one(name, "", v)
		}
	}
	for _, name := range []string{"UV_INDEX", "UV_EXTRA_INDEX_URL"} {
		for v := range strings.FieldsSeq(d.lookup(name)) {
			one(name, extra, v)
		}
	}
	if d.lookup("UV_NO_CONFIG") != "" && d.lookup("UV_NO_CONFIG") != "0" {
		return nil
	}
	var errs []error
	for _, file := range d.uvFiles() {
		s, err := readUV(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		for _, v := range []string{s.IndexURL, s.Pip.IndexURL} {
			if v != "" {
				one(file, "", v)
			}
		}
		for _, v := range append(s.ExtraIndexURL, s.Pip.ExtraIndexURL...) {
			one(file, extra, v)
		}
		for _, i := range s.Index {
			note := extra
			if i.Default {
				note = ""
			}
			d.add(Found{Origin: file, CAFile: ca, Note: note}, i.URL)
		}
	}
	return errors.Join(errs...)
}

// uvFiles lists the user's file and the one system file that counts, or the
// single file that UV_CONFIG_FILE names.
func (d *discovery) uvFiles() []string {
	if file := d.lookup("UV_CONFIG_FILE"); file != "" {
		return []string{file}
	}
	var files []string
	switch home, conf := d.lookup("HOME"), d.lookup("XDG_CONFIG_HOME"); {
	case filepath.IsAbs(conf):
		files = append(files, filepath.Join(conf, "uv", "uv.toml"))
	case filepath.IsAbs(home):
		files = append(files, filepath.Join(home, ".config", "uv", "uv.toml"))
	}
	dirs := d.lookup("XDG_CONFIG_DIRS")
	if dirs == "" {
		dirs = "/etc/xdg"
	}
	for _, dir := range append(filepath.SplitList(dirs), "/etc") {
		file := filepath.Join(dir, "uv", "uv.toml")
		if _, err := os.Stat(file); err == nil && filepath.IsAbs(dir) {
			return append(files, file)
		}
	}
	return files
}

func readUV(file string) (s uvSettings, err error) {
	f, err := os.Open(filepath.Clean(file))
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxOutput+1))
	if err != nil {
		return s, err
	}
	if len(b) > maxOutput {
		return s, fmt.Errorf("over %d bytes", maxOutput)
	}
	return s, toml.Unmarshal(b, &s)
}
