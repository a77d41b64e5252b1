// Command bare posts wheels to an index of DevPI as plainly as can be: the
// bodies are made before, then they go over one connection, one after the
// other, each answer read to its end. It looks at nothing else, so its pace is
// the server's own on one connection:
//
//	bare -index http://127.0.0.1:3141/root/x -user root -password_file FILE [-read] FOLDER
//
// It logs in and makes the index. With -read it also asks for each project's
// page behind its last file and throws it away: the pace that the server allows
// whoever wants to know what was stored. It prints the seconds of the loop.
package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/pypi/packaging"
	"github.com/darkmirror/darkmirror/pypi/upload"
)

func main() {
	log.SetFlags(0)
	var o options
	flag.StringVar(&o.index, "index", "", "address of the index")
	flag.StringVar(&o.user, "user", "root", "who uploads")
	flag.StringVar(&o.passwordFile, "password_file", "", "file of the password")
	flag.BoolVar(&o.read, "read", false, "read the page of each project")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, o, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

type options struct {
	index, user, passwordFile string
	read                      bool
}

func run(ctx context.Context, out io.Writer, o options, folder string) error {
	bodies, err := prepare(folder)
	if err != nil {
		return err
	}
	connections := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			connections++
		}
	}})
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	token, err := ready(ctx, client, o)
	if err != nil {
		return err
	}
	began := time.Now()
	for i, b := range bodies {
		if err := do(ctx, client, http.MethodPost, o.index+"/", token, b.contentType, b.bytes); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
		if o.read && (i+1 == len(bodies) || bodies[i+1].project != b.project) {
			if err := do(ctx, client, http.MethodGet, o.index+"/+simple/"+b.project+"/", token, "", nil); err != nil {
				return fmt.Errorf("%s: %w", b.project, err)
			}
		}
	}
	took := time.Since(began)
	_, err = fmt.Fprintf(out, "files %d seconds %.3f connections %d\n", len(bodies), took.Seconds(), connections)
	return err
}

// ready logs in and makes the index. It returns the token.
func ready(ctx context.Context, c *http.Client, o options) (string, error) {
	password, err := os.ReadFile(o.passwordFile)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(o.index)
	if err != nil {
		return "", err
	}
	u.Path = "/+login"
	var login struct{ Result struct{ Password string } }
	if err := call(ctx, c, http.MethodPost, u.String(), "", map[string]string{"user": o.user, "password": string(bytes.TrimSpace(password))}, &login); err != nil {
		return "", err
	}
	token := base64.StdEncoding.EncodeToString([]byte(o.user + ":" + login.Result.Password))
	return token, call(ctx, c, http.MethodPut, o.index, token, map[string]any{"type": "stage", "volatile": false, "bases": []string{}}, nil)
}

// call sends JSON and reads JSON.
func call(ctx context.Context, c *http.Client, method, address, token string, in, out any) (err error) {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("X-Devpi-Auth", token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, address, resp.Status)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

type body struct {
	project, name, contentType string
	bytes                      []byte
}

// do sends a request and reads the answer to its end.
func do(ctx context.Context, c *http.Client, method, address, token, contentType string, b []byte) (err error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(b))
	if err != nil {
		return err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", upload.AcceptPage)
	req.Header.Set("X-Devpi-Auth", token)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// prepare makes the very bodies that darkmirror sends, in its order.
func prepare(folder string) ([]body, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.whl"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("%s: no wheels (%w)", folder, err)
	}
	files := make([]upload.File, 0, len(names))
	for _, n := range names {
		f, err := file(n)
		if err != nil {
			return nil, err
		}
		files = append(files, *f)
	}
	var out []body
	for _, list := range upload.ByProject(files) {
		for _, f := range list {
			form, err := upload.NewForm(f)
			if err != nil {
				return nil, err
			}
			r, err := form.Open()
			if err != nil {
				return nil, err
			}
			b, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				return nil, err
			}
			out = append(out, body{f.Project, f.Filename, form.ContentType, b})
		}
	}
	return out, nil
}

func file(name string) (*upload.File, error) {
	b, err := os.ReadFile(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	base := filepath.Base(name)
	project, version, err := packaging.ParseDistName(base)
	if err != nil {
		return nil, err
	}
	f := &upload.File{
		Project: project, Version: version.Text(), Filename: base, SHA256: artifact.Sum(b), Size: int64(len(b)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
	}
	r, err := zip.NewReader(bytes.NewReader(b), f.Size)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(r.File, func(e *zip.File) bool { return strings.HasSuffix(e.Name, ".dist-info/METADATA") })
	if i < 0 {
		return nil, fmt.Errorf("%s: no METADATA", base)
	}
	m, err := r.File[i].Open()
	if err != nil {
		return nil, err
	}
	metadata, err := io.ReadAll(io.LimitReader(m, packaging.MaxMetadata))
	if err != nil {
		return nil, err
	}
	f.Metadata = func() ([]byte, error) { return metadata, nil }
	err = packaging.EachHeader(metadata, func(key, value string) error {
		if key == "requires-python" {
			f.RequiresPython = value
		}
		return nil
	})
	return f, errors.Join(err, m.Close())
}
