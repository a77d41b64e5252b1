package pypi

import (
	"mime"
	"strconv"
	"strings"
)

// maxAccept bounds an Accept header; pip's has 120 bytes, a browser's 150.
const maxAccept = 4096

// negotiate picks one of the three forms by the client's q-values (PEP 691).
// A form that is named beats one that a wildcard covers; between forms that
// are named alike JSON wins, and a wildcard alone means what browsers show.
func negotiate(accept string) (kind string, ok bool) {
	if strings.TrimSpace(accept) == "" || len(accept) > maxAccept {
		return typePlain, true
	}
	type offer struct {
		kind     string
		q        float64
		specific int
	}
	offers := []offer{{kind: typeJSON, specific: -1}, {kind: typeHTML, specific: -1}, {kind: typePlain, specific: -1}}
	for part := range strings.SplitSeq(accept, ",") {
		media, q, valid := mediaRange(part)
		if !valid {
			continue
		}
		for i := range offers {
			if s := specificity(media, offers[i].kind); s > offers[i].specific {
				offers[i].specific, offers[i].q = s, q
			}
		}
	}
	best := offer{}
	for _, o := range offers {
		better := o.q > best.q || o.q == best.q && o.specific > best.specific
		if o.q == best.q && o.specific == best.specific && o.specific < exact && o.kind == typePlain {
			better = true // by wildcard only
		}
		if o.q > 0 && better {
			best = o
		}
	}
	return best.kind, best.kind != ""
}

// exact is the specificity of a type that is named whole.
const exact = 2

// specificity says how precisely a media range names a form; -1 is not at
// all.
func specificity(media, kind string) int {
	switch {
	case media == kind, media == strings.Replace(kind, ".v1+", ".latest+", 1):
		return exact
	case strings.HasSuffix(media, "/*") && strings.HasPrefix(kind, strings.TrimSuffix(media, "*")):
		return 1
	case media == "*/*":
		return 0
	}
	return -1
}

func mediaRange(s string) (media string, q float64, ok bool) {
	media, params, err := mime.ParseMediaType(s)
	if err != nil {
		return "", 0, false
	}
	q = 1
	if text, has := params["q"]; has {
		if q, err = strconv.ParseFloat(text, 64); err != nil || q < 0 || q > 1 {
			return "", 0, false
		}
	}
	return media, q, true
}

// acceptsGzip reads Accept-Encoding.
func acceptsGzip(values []string) bool {
	star := false
	for part := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, params, _ := strings.Cut(part, ";")
		refused := false
		if v, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q="); ok {
			q, err := strconv.ParseFloat(v, 64)
			refused = err != nil || q <= 0
		}
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "gzip", "x-gzip":
			return !refused
		case "*":
			star = !refused
		}
	}
	return star
}

func contentType(kind string) string {
	if kind == typeJSON {
		return kind
	}
	return kind + "; charset=utf-8"
}
