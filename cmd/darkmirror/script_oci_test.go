package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/darkmirror/darkmirror/oci/harbortest"
	"github.com/darkmirror/darkmirror/oci/ocitest"
	"github.com/darkmirror/darkmirror/oci/spec"
)

// registryUsage is the command registry. VAR is the name that a script gives
// a manifest; see newObject for KIND. REF is a tag or a digest.
//
//	registry up NAME [FAULT]...            start a registry; later: give it these
//	                                       faults and no others; see faults. It is
//	                                       an upstream: outside, inside, close,
//	                                       answer, hold and requests know it. Its
//	                                       token server is at $NAME_TOKENS, what
//	                                       blobs are redirected to at $NAME_STORAGE
//	registry put NAME REPO[:TAG] VAR KIND ARG...
//	                                       make a manifest with all below it, and
//	                                       push it. $VAR is its digest then, $VAR_0,
//	                                       $VAR_1 those of its blobs
//	registry save layout|tar|docker WHERE REF=VAR...
//	                                       write manifests to this host; see
//	                                       registrySave
//	registry lose NAME REPO DIGEST         a blob or a manifest is gone
//	registry lost NAME REPO TAG            a tag is gone
//	registry has NAME REPO[:TAG] VAR       [!] everything of it is there, byte for
//	                                       byte, and the tag points at it
//	registry tags NAME REPO                print the tags and what they point at
//	registry referrers NAME REPO VAR       print what the fallback tag of it lists
//	registry fallback NAME REPO VAR REFERRER...
//	                                       list these under the fallback tag of VAR
//	registry received NAME LEAST MOST      so many bytes were sent to it, or by it,
//	registry sent NAME LEAST MOST          since it was last asked
//	registry pull URL REPO[:TAG] VAR       everything of it is served there, byte
//	                                       for byte
//	registry push STATUS URL REPO[:TAG] VAR [TOKEN]
//	                                       push it there; STATUS is that of the first
//	                                       refusal, which is printed, or 201
const registryUsage = "registry up|put|save|lose|lost|has|tags|referrers|fallback|received|sent|pull|push ARG..."

func registryCommand(ts *testscript.TestScript, neg bool, args []string) {
	commands := map[string]struct {
		least, most int
		run         func(*testscript.TestScript, []string)
	}{
		"up":        {1, -1, registryUp},
		"put":       {4, -1, registryPut},
		"save":      {3, -1, registrySave},
		"lose":      {3, 3, registryLose},
		"lost":      {3, 3, func(ts *testscript.TestScript, a []string) { registryNamed(ts, a[0]).Untag(a[1], a[2]) }},
		"has":       {3, 3, func(ts *testscript.TestScript, a []string) { registryHas(ts, neg, a) }},
		"tags":      {2, 2, registryTags},
		"referrers": {3, 3, registryReferrers},
		"fallback":  {4, -1, registryFallback},
		"received":  {3, 3, func(ts *testscript.TestScript, a []string) { registryBytes(ts, a, (*ocitest.Registry).Received) }},
		"sent":      {3, 3, func(ts *testscript.TestScript, a []string) { registryBytes(ts, a, (*ocitest.Registry).Sent) }},
		"pull":      {3, 3, registryPull},
		"push":      {4, 5, registryPush},
	}
	if len(args) == 0 {
		ts.Fatalf("usage: %s", registryUsage)
	}
	c, ok := commands[args[0]]
	args, name := args[1:], args[0]
	if !ok || neg && name != "has" || len(args) < c.least || c.most >= 0 && len(args) > c.most {
		ts.Fatalf("usage: %s", registryUsage)
	}
	c.run(ts, args)
}

// registryNamed is the content of an upstream that is a registry or a Harbor.
func registryNamed(ts *testscript.TestScript, name string) *ocitest.Registry {
	switch c := the(ts, name).content.(type) {
	case *ocitest.Registry:
		return c
	case *harbortest.Harbor:
		return c.Registry
	}
	ts.Fatalf("%s is no registry", name)
	return nil
}

// registryUp starts a registry and two hosts more: what it redirects to, and
// its token server.
func registryUp(ts *testscript.TestScript, args []string) {
	name := args[0]
	w := worldOf(ts)
	if w.upstreams[name] == nil {
		r := ocitest.New()
		addUpstream(ts, "oci", name, r)
		for _, more := range []struct {
			suffix string
			h      http.Handler
		}{{"_STORAGE", r.Storage()}, {"_TOKENS", r.TokenServer()}} {
			srv := httptest.NewServer(more.h)
			w.servers = append(w.servers, srv)
			ts.Setenv(strings.ToUpper(name)+more.suffix, strings.TrimPrefix(srv.URL, "http://"))
		}
	}
	options := []ocitest.Option{ocitest.Healthy()}
	for _, f := range args[1:] {
		options = append(options, fault(ts, name, f))
	}
	registryNamed(ts, name).Set(options...)
}

// addUpstream starts a server under a name.
func addUpstream(ts *testscript.TestScript, kind, name string, content http.Handler) *upstream {
	u := &upstream{kind: kind, name: name, content: content}
	u.srv = httptest.NewServer(u)
	worldOf(ts).upstreams[name] = u
	ts.Setenv(strings.ToUpper(name)+"_URL", u.srv.URL)
	ts.Setenv(strings.ToUpper(name)+"_HOST", strings.TrimPrefix(u.srv.URL, "http://"))
	return u
}

// fault reads a fault of a registry:
//
//	token=USER:PASSWORD     bearer tokens, from the token server
//	anonymous               which gives everybody tokens to pull
//	basic=USER:PASSWORD     basic authentication
//	redirect                blobs come from the storage host
//	uploads=HOST            uploads go there
//	busy=N,STATUS[,AFTER]   the next N requests get STATUS, with Retry-After
//	remaining=N             the rate limit leaves N manifests
//	pages=N                 lists come in pages
//	replace=DIGEST,TEXT     this text is served under the digest
//	flip=DIGEST             the blob is served with one bit changed
//	short=DIGEST            the blob is served a byte shorter
//	cut=DIGEST,N,TIMES      the blob's connection ends after so many bytes
//	cut-upload=N,TIMES      the connection ends when so many bytes were sent
//	no-referrers, no-mount, immutable, lenient, no-digest
//	no-chunks=STATUS
func fault(ts *testscript.TestScript, name, text string) ocitest.Option {
	key, value, _ := strings.Cut(text, "=")
	words := strings.Split(value, ",")
	arg := func(i int) string {
		if i >= len(words) {
			ts.Fatalf("fault %s lacks a value", text)
		}
		return words[i]
	}
	user, password, _ := strings.Cut(value, ":")
	switch key {
	case "token":
		return ocitest.TokenAuth(user, password, "http://"+ts.Getenv(strings.ToUpper(name)+"_TOKENS")+"/token")
	case "anonymous":
		return ocitest.AnonymousPull()
	case "basic":
		return ocitest.BasicAuth(user, password)
	case "redirect":
		return ocitest.Redirect("http://" + ts.Getenv(strings.ToUpper(name)+"_STORAGE"))
	case "uploads":
		return ocitest.UploadsAt("http://" + value)
	case "busy":
		return ocitest.Busy(number(ts, arg(0)), number(ts, arg(1)), strings.Join(words[2:], ","))
	case "remaining":
		return ocitest.RateLimit(number(ts, value))
	case "pages":
		return ocitest.PageSize(number(ts, value))
	case "replace":
		return ocitest.Replace(spec.Digest(arg(0)), []byte(arg(1)))
	case "flip", "short":
		b := bytes.Clone(blobNamed(ts, name, spec.Digest(value)))
		b[len(b)/2] ^= 1
		if key == "short" {
			b = b[:len(b)-1]
		}
		return ocitest.Replace(spec.Digest(value), b)
	case "cut":
		return ocitest.CutDownload(spec.Digest(arg(0)), bytesOf(ts, arg(1)), number(ts, arg(2)))
	case "cut-upload":
		return ocitest.CutUpload(bytesOf(ts, arg(0)), number(ts, arg(1)))
	case "no-referrers":
		return ocitest.NoReferrersAPI()
	case "no-mount":
		return ocitest.NoMount()
	case "immutable":
		return ocitest.ImmutableTags()
	case "lenient":
		return ocitest.Lenient()
	case "no-digest":
		return ocitest.NoDigestHeader()
	case "no-chunks":
		return ocitest.NoChunks(number(ts, value))
	}
	ts.Fatalf("no fault %s", text)
	return nil
}

// blobNamed finds a blob in any repository.
func blobNamed(ts *testscript.TestScript, name string, d spec.Digest) []byte {
	r := registryNamed(ts, name)
	for _, repo := range r.Repositories() {
		if b, ok := r.Blob(repo, d); ok {
			return b
		}
		if raw, _, _, ok := r.Manifest(repo, string(d)); ok {
			return raw
		}
	}
	ts.Fatalf("%s has no %s", name, d)
	return nil
}

// splitRef takes a tag or a digest from a repository's name.
func splitRef(s string) (repo, ref string) {
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		return s[:i], s[i+1:]
	}
	return s, ""
}

func registryPut(ts *testscript.TestScript, args []string) {
	r := registryNamed(ts, args[0])
	repo, tag := splitRef(args[1])
	o := newObject(ts, args[3], args[4:])
	worldOf(ts).objects[args[2]] = o
	if args[3] == "signature" && tag == "" {
		tag = "sha256-" + objectNamed(ts, args[4]).Digest.Hex() + ".sig"
	}
	r.Put(repo, tag, o.Object)
	for d, b := range o.named {
		if b == nil {
			r.RemoveBlob(repo, d)
			continue
		}
		r.AddBlobAs(repo, d, b)
	}
	ts.Setenv(args[2], string(o.Digest))
	ts.Setenv(args[2]+"_SIZE", strconv.FormatInt(o.Size, 10))
	for i, b := range o.Blobs {
		ts.Setenv(fmt.Sprintf("%s_%d", args[2], i), string(spec.Digest("sha256:").Sum(b)))
		ts.Setenv(fmt.Sprintf("%s_%d_SIZE", args[2], i), strconv.Itoa(len(b)))
	}
}

func registryLose(ts *testscript.TestScript, args []string) {
	r, repo, d := registryNamed(ts, args[0]), args[1], spec.Digest(args[2])
	_, blob := r.Blob(repo, d)
	_, _, _, manifest := r.Manifest(repo, args[2])
	if !blob && !manifest {
		ts.Fatalf("%s has no %s", repo, d)
	}
	r.RemoveBlob(repo, d)
	r.RemoveManifest(repo, d)
}

func registryTags(ts *testscript.TestScript, args []string) {
	for tag, d := range registryNamed(ts, args[0]).Tags(args[1]) {
		fmt.Fprintln(ts.Stdout(), tag, d)
	}
}

func registryReferrers(ts *testscript.TestScript, args []string) {
	d := objectNamed(ts, args[2]).Digest
	if raw, _, _, ok := registryNamed(ts, args[0]).Manifest(args[1], "sha256-"+d.Hex()); ok {
		fmt.Fprintf(ts.Stdout(), "%s\n", raw)
	}
}

func registryFallback(ts *testscript.TestScript, args []string) {
	var list []*ocitest.Object
	for _, name := range args[3:] {
		list = append(list, objectNamed(ts, name).Object)
	}
	r, subject := registryNamed(ts, args[0]), objectNamed(ts, args[2])
	r.Put(args[1], "sha256-"+subject.Digest.Hex(), ocitest.Index(list...))
}

func registryBytes(ts *testscript.TestScript, args []string, count func(*ocitest.Registry, string, string) int64) {
	r := registryNamed(ts, args[0])
	n := count(r, "", "/v2/")
	r.ResetLog()
	if n < bytesOf(ts, args[1]) || n > bytesOf(ts, args[2]) {
		ts.Fatalf("%s: %d bytes, want %s to %s", args[0], n, args[1], args[2])
	}
}

func registryHas(ts *testscript.TestScript, neg bool, args []string) {
	r := registryNamed(ts, args[0])
	repo, ref := splitRef(args[1])
	o := objectNamed(ts, args[2])
	why := o.missing(repo, ref,
		func(ref string) []byte {
			raw, _, _, _ := r.Manifest(repo, ref)
			return raw
		}, func(d spec.Digest) []byte {
			b, _ := r.Blob(repo, d)
			return b
		})
	switch {
	case why != "" && !neg:
		ts.Fatalf("%s: %s", args[0], why)
	case why == "" && neg:
		ts.Fatalf("%s has %s", args[0], args[1])
	}
}

// missing says what of an object is not to be had in a repository under a tag,
// or under its digest where that is empty; empty if all is.
func (o *object) missing(repo, ref string, manifest func(ref string) []byte, blob func(spec.Digest) []byte) string {
	if ref == "" {
		ref = string(o.Digest)
	}
	if raw := manifest(ref); !bytes.Equal(raw, o.Raw) {
		return fmt.Sprintf("%s:%s is %q, want %s", repo, ref, raw, o.Raw)
	}
	for _, m := range o.All() {
		if raw := manifest(string(m.Digest)); !bytes.Equal(raw, m.Raw) {
			return fmt.Sprintf("%s@%s is %q, want %s", repo, m.Digest, raw, m.Raw)
		}
		for _, b := range m.Blobs {
			d := spec.Digest("sha256:").Sum(b)
			if _, elsewhere := o.named[d]; !elsewhere && !bytes.Equal(blob(d), b) {
				return fmt.Sprintf("%s: blob %s is not there", repo, d)
			}
		}
	}
	for d, b := range o.named {
		if b != nil && !bytes.Equal(blob(d), b) {
			return fmt.Sprintf("%s: blob %s is not there", repo, d)
		}
	}
	return ""
}

// ask sends a request and answers with its body.
func ask(ts *testscript.TestScript, method, url, contentType string, body []byte, header ...string) (int, []byte) {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	ts.Check(err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Set(k, v)
	}
	client := &http.Client{Timeout: patience}
	resp, err := client.Do(req)
	ts.Check(err)
	b, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(resp.Body.Close())
	return resp.StatusCode, b
}

func registryPull(ts *testscript.TestScript, args []string) {
	repo, ref := splitRef(args[1])
	base := args[0] + "/v2/" + repo
	get := func(part, accept string) []byte {
		if status, b := ask(ts, http.MethodGet, base+part, "", nil, "Accept: "+accept); status == http.StatusOK {
			return b
		}
		return nil
	}
	if why := objectNamed(ts, args[2]).missing(repo, ref,
		func(ref string) []byte { return get("/manifests/"+ref, spec.Accept) },
		func(d spec.Digest) []byte { return get("/blobs/"+string(d), "*/*") }); why != "" {
		ts.Fatalf("%s: %s", args[0], why)
	}
}

func registryPush(ts *testscript.TestScript, args []string) {
	want := number(ts, args[0])
	repo, ref := splitRef(args[2])
	base := args[1] + "/v2/" + repo
	var header []string
	if len(args) == 5 {
		header = append(header, "Authorization: Bearer "+args[4])
	}
	send := func(method, url, contentType string, body []byte) bool {
		status, b := ask(ts, method, url, contentType, body, header...)
		if status != http.StatusCreated || want == status {
			fmt.Fprintf(ts.Stdout(), "%s", b)
		}
		if status != http.StatusCreated && status != want {
			ts.Fatalf("%s %s: %d, want %d: %s", method, url, status, want, b)
		}
		return status == http.StatusCreated
	}
	o := objectNamed(ts, args[3])
	for _, m := range o.All() {
		for _, b := range m.Blobs {
			if !send(http.MethodPost, base+"/blobs/uploads/?digest="+string(spec.Digest("sha256:").Sum(b)), "application/octet-stream", b) {
				return
			}
		}
	}
	all := o.All()
	for i := len(all) - 1; i >= 0; i-- {
		at := string(all[i].Digest)
		if i == 0 && ref != "" {
			at = ref
		}
		if !send(http.MethodPut, base+"/manifests/"+at, all[i].MediaType, all[i].Raw) {
			return
		}
	}
	if want != http.StatusCreated {
		ts.Fatalf("pushed, want %d", want)
	}
}

func send(ts *testscript.TestScript, args []string) {
	status, b := ask(ts, args[0], args[2], "", nil, args[3:]...)
	if want := number(ts, args[1]); status != want {
		ts.Fatalf("%s %s: %d, want %d: %s", args[0], args[2], status, want, b)
	}
	fmt.Fprintf(ts.Stdout(), "%s", b)
}

func blobFile(ts *testscript.TestScript, args []string) {
	hex := spec.Digest(args[1]).Hex()
	ts.Setenv("BLOB", filepath.Join(ts.MkAbs(args[0]), "blobs", "sha256", hex[:2], hex))
}

// ---- Harbor

// harborUsage is the command harbor. Whoever logs in is admin; $WORK/NAME.password
// has the password.
//
//	harbor up NAME                         start a Harbor, which registry has too
//	harbor project NAME PROJECT [QUOTA]    make a project
//	harbor read-only NAME on|off
//	harbor freeze NAME PROJECT TAGS        a rule makes these tags immutable
//	harbor prevent NAME PROJECT SEVERITY   vulnerable images cannot be pulled
//	harbor find NAME VAR ID SEVERITY       Harbor's own scanner finds this in it
//	harbor labels NAME REPO VAR            print the labels that it bears
//	harbor allowed NAME PROJECT            print the allowlist
//	harbor rules NAME PROJECT              print the immutability rules
const harborUsage = "harbor up|project|read-only|freeze|prevent|find|labels|allowed|rules NAME ARG..."

const harborPassword = "harbor-secret"

func harborCommand(ts *testscript.TestScript, args []string) {
	verb, name, rest := args[0], args[1], append(args[2:], "", "", "")
	if verb == "up" {
		addUpstream(ts, "oci", name, harbortest.New(harborPassword))
		ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), name+".password"), []byte(harborPassword+"\n"), 0o600))
		return
	}
	h, ok := the(ts, name).content.(*harbortest.Harbor)
	if !ok {
		ts.Fatalf("%s is no Harbor", name)
	}
	switch verb {
	case "project":
		quota := int64(-1)
		if rest[1] != "" {
			quota = bytesOf(ts, rest[1])
		}
		h.AddProject(rest[0], quota)
	case "read-only":
		h.SetReadOnly(rest[0] == "on")
	case "freeze":
		h.Change(rest[0], func(p *harbortest.Project) { p.Rules = append(p.Rules, harbortest.Rule{Tags: rest[1]}) })
	case "prevent":
		h.Scanner()
		h.Change(rest[0], func(p *harbortest.Project) {
			p.Metadata["prevent_vul"], p.Metadata["severity"], p.Metadata["auto_scan"] = "true", rest[1], "true"
		})
	case "find":
		h.Vulnerable(string(objectNamed(ts, rest[0]).Digest), harbortest.Vulnerability{ID: rest[1], Package: "zlib", Version: "1.2", Severity: rest[2]})
	case "labels":
		for _, l := range h.Labels(rest[0], string(objectNamed(ts, rest[1]).Digest)) {
			fmt.Fprintln(ts.Stdout(), l)
		}
	case "allowed":
		l := h.Project(rest[0]).Allowlist
		expires := "never"
		if l.Expires != 0 {
			expires = time.Unix(l.Expires, 0).UTC().Format(time.DateOnly)
		}
		fmt.Fprintln(ts.Stdout(), strings.Join(l.CVEs, " "), "until", expires)
	case "rules":
		for _, r := range h.Project(rest[0]).Rules {
			fmt.Fprintf(ts.Stdout(), "%+v\n", r)
		}
	default:
		ts.Fatalf("usage: %s", harborUsage)
	}
}
