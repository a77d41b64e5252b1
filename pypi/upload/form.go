package upload

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"strings"

	"github.com/darkmirror/darkmirror/pypi/packaging"
)

// A Form is an upload, as multipart/form-data of a known length.
type Form struct {
	ContentType string
	Length      int64
	Open        func() (io.ReadCloser, error) // may be called again
}

// fields are the headers of core metadata that an upload repeats, and their
// names there.
var fields = map[string]string{
	"metadata-version": "metadata_version", "summary": "summary", "home-page": "home_page", "author": "author", "author-email": "author_email",
	"maintainer": "maintainer", "maintainer-email": "maintainer_email", "license": "license", "license-expression": "license_expression", "keywords": "keywords",
	"classifier": "classifiers", "requires-dist": "requires_dist", "requires-external": "requires_external", "provides-extra": "provides_extra",
	"project-url": "project_urls", "platform": "platform", "dynamic": "dynamic", "description-content-type": "description_content_type",
}

// NewForm makes the form of one file.
func NewForm(f *File) (*Form, error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	// The file's digest makes a boundary that is not in it, and the same each time.
	if err := w.SetBoundary("darkmirror-" + f.SHA256.Hex()[:32]); err != nil {
		return nil, err
	}
	var errs error
	field := func(name, value string) {
		if err := w.WriteField(name, value); err != nil && errs == nil {
			errs = err
		}
	}
	field(":action", "file_upload")
	field("protocol_version", "1")
	field("name", f.Project)
	field("version", f.Version)
	field("sha256_digest", f.SHA256.Hex())
	filetype, python := "sdist", "source"
	if packaging.IsWheel(f.Filename) {
		wheel, err := packaging.ParseWheelName(f.Filename)
		if err != nil {
			return nil, err
		}
		filetype, python = "bdist_wheel", strings.Join(wheel.Pythons, ".")
	}
	field("filetype", filetype)
	field("pyversion", python)
	if f.RequiresPython != "" {
		field("requires_python", f.RequiresPython)
	}
	var metadata []byte
	if f.Metadata != nil {
		var err error
		if metadata, err = f.Metadata(); err != nil {
			return nil, err
		}
	}
	version := false
	err := packaging.EachHeader(metadata, func(key, value string) error {
		if name, ok := fields[key]; ok && value != "" {
			version = version || name == "metadata_version"
			field(name, value)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: its metadata: %w", f.Filename, err)
	}
	if !version {
		field("metadata_version", "2.1")
	}
	if errs != nil {
		return nil, errs
	}
	if _, err := w.CreateFormFile("content", f.Filename); err != nil {
		return nil, err
	}
	head := bytes.Clone(b.Bytes())
	b.Reset()
	if err := w.Close(); err != nil {
		return nil, err
	}
	end := bytes.Clone(b.Bytes())
	return &Form{
		ContentType: w.FormDataContentType(),
		Length:      int64(len(head)) + f.Size + int64(len(end)),
		Open: func() (io.ReadCloser, error) {
			r, err := f.Open()
			if err != nil {
				return nil, err
			}
			return &body{io.MultiReader(bytes.NewReader(head), r, bytes.NewReader(end)), r}, nil
		},
	}, nil
}

// body closes the file behind it.
type body struct {
	io.Reader
	file io.Closer
}

func (b *body) Close() error { return b.file.Close() }
