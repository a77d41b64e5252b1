package pypi

import (
	"strconv"
	"strings"
)

const (
	// maxAccept bounds an Accept header; pip's has 120 bytes, a browser's 150.
	// A longer one is treated as none.
	maxAccept = 4096
	// The types of the "latest" version, which is version 1.
	latestJSON = "application/vnd.pypi.simple.latest+json"
	latestHTML = "application/vnd.pypi.simple.latest+html"
)

// An offer is one of the forms, with what the client thinks of it.
type offer struct {
	kind, latest string
	q            float64
	specific     int // of the media range that q comes from; -1: none covers it
}

// negotiate picks one of the three forms by the client's q-values (PEP 691).
// A form that is named beats one that a wildcard covers; between forms that
// are named alike JSON wins, and a wildcard alone means what browsers show.
func negotiate(accept string) (kind string, ok bool) {
	if len(accept) > maxAccept || strings.TrimSpace(accept) == "" {
		return typePlain, true
	}
	offers := [...]offer{{typeJSON, latestJSON, 0, -1}, {typeHTML, latestHTML, 0, -1}, {typePlain, "", 0, -1}}
	for part := range strings.SplitSeq(accept, ",") {
		media, q, valid := weighted(part)
		if !valid {
			continue
		}
		for i := range offers {
			if s := offers[i].specificity(media); s > offers[i].specific {
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

// specificity says how precisely a media range names the form; -1 is not at
// all.
func (o *offer) specificity(media string) int {
	switch {
	case strings.EqualFold(media, o.kind), o.latest != "" && strings.EqualFold(media, o.latest):
		return exact
	case media == "*/*":
		return 0
	}
	main, ok := strings.CutSuffix(media, "/*")
	if kind, _, _ := strings.Cut(o.kind, "/"); ok && strings.EqualFold(main, kind) {
		return 1
	}
	return -1
}

// weighted splits one element of a header with q-values: "gzip;q=0.5" (RFC
// 9110, 12.4.2). Other parameters are passed over, as no form has any.
func weighted(s string) (value string, q float64, ok bool) {
	value, params, _ := strings.Cut(s, ";")
	value = strings.TrimSpace(value)
	q = 1
	for params != "" {
		var p string
		p, params, _ = strings.Cut(params, ";")
		name, weight, _ := strings.Cut(p, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "q") {
			continue
		}
		if q, ok = weightOf(strings.TrimSpace(weight)); !ok {
			return "", 0, false
		}
	}
	return value, q, value != ""
}

// weightOf reads a number from 0 to 1, with three digits at most.
func weightOf(s string) (float64, bool) {
	if len(s) < 1 || len(s) > len("0.000") || len(s) > 1 && s[1] != '.' {
		return 0, false
	}
	for i := range len(s) {
		if i != 1 && (s[i] < '0' || s[i] > '9') {
			return 0, false
		}
	}
	q, err := strconv.ParseFloat(s, 64)
	return q, err == nil && q <= 1
}

// acceptsGzip reads Accept-Encoding.
func acceptsGzip(accept string) bool {
	star := false
	for part := range strings.SplitSeq(accept, ",") {
		coding, q, ok := weighted(part)
		switch {
		case !ok:
		case strings.EqualFold(coding, "gzip"), strings.EqualFold(coding, "x-gzip"):
			return q > 0
		case coding == "*":
			star = q > 0
		}
	}
	return star
}
