package ollama

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/darkmirror/darkmirror/models/hub"
)

const (
	// noNamespace stands where a repository has no organisation.
	noNamespace = "library"
	// maxPart and maxHost are Ollama's own.
	maxPart = 80
	maxHost = 350
)

// part matches what Ollama takes for a model or a tag, namespacePart and
// hostPart for the parts before.
const (
	part          = `^[a-z0-9_][a-z0-9_.-]*$`
	namespacePart = `^[a-z0-9_][a-z0-9_-]*$`
	hostPart      = `^[a-z0-9_][a-z0-9_.:-]*$`
)

func checkPart(pattern string, most int, s string) error {
	if ok, err := regexp.MatchString(pattern, s); err != nil || !ok || len(s) > most {
		return fmt.Errorf("%q is no part of a name in Ollama (want up to %d characters by %s)", s, most, pattern)
	}
	return nil
}

// modelName is what a repository is called there: "team/model".
func modelName(r hub.Repo) (string, error) {
	namespace, name, ok := strings.Cut(strings.ToLower(r.ID), "/")
	if !ok {
		namespace, name = noNamespace, namespace
	}
	namespace = strings.ReplaceAll(namespace, ".", "-")
	return namespace + "/" + name, cmp.Or(checkPart(namespacePart, maxPart, namespace), checkPart(part, maxPart, name))
}

// refTag is what a branch is called there.
func refTag(ref string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x80 && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("_.-", c)) {
			return c
		}
		return '-'
	}, strings.ToLower(ref))
}

// quantWord matches a quantisation at the end of a name: Q4_K_M, IQ2_XXS,
// UD-Q4_K_XL, i1-Q6_K, BF16, MXFP4_MOE.
const quantWord = `(?:^|[-._])((?:ud-|i1-)?(?:i?q[1-9]_[a-z0-9_]+|tq[1-9]_[0-9]|bf16|fp?16|fp?32|mxfp4(?:_moe)?|nvfp4))$`

// shardNumber ends the name of a file that is one of several.
const shardNumber = `-[0-9]{5}-of-[0-9]{5}$`

// quantTag is the tag that a GGUF file has for its quantisation: what its name
// or its folder's tells, else what its header does, else its name.
func quantTag(file, fileType string) string {
	stem := strings.TrimSuffix(strings.ToLower(path.Base(file)), extension)
	stem = regexp.MustCompile(shardNumber).ReplaceAllString(stem, "")
	word := regexp.MustCompile(quantWord)
	for _, s := range []string{stem, strings.ToLower(path.Base(path.Dir(file)))} {
		if m := word.FindStringSubmatch(s); m != nil {
			return m[1]
		}
	}
	return cmp.Or(strings.ToLower(fileType), refTag(stem))
}
