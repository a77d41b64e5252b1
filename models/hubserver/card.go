package hubserver

import (
	"maps"
	"strings"

	"github.com/darkmirror/darkmirror/mirror/store"
)

const (
	cardName = "README.md"
	// maxCard bounds a card that is looked into.
	maxCard = 1 << 20
)

// card is what clients want of a card. It is read once, when somebody asks; one
// that cannot be read says nothing.
func (r *revision) card(st *store.Store) map[string]string {
	r.cardOnce.Do(func() {
		r.cardData = make(map[string]string)
		if f, ok := r.File(cardName); ok && f.Size <= maxCard {
			if b, err := st.ReadAll(f.Blob, maxCard); err == nil {
				maps.Copy(r.cardData, frontMatter(string(b)))
			}
		}
		if id := r.Licence.ID; id != "" {
			r.cardData["license"] = id
		}
	})
	return r.cardData
}

// library is what loads a model: what its card says, or what the hub would
// conclude. Pipelines refuse a model of which they do not know it.
func (r *revision) library(card map[string]string) string {
	if said := card["library_name"]; said != "" {
		return said
	}
	for _, sign := range []struct{ file, library string }{{"modules.json", "sentence-transformers"}, {"config.json", "transformers"}} {
		if _, ok := r.File(sign.file); ok {
			return sign.library
		}
	}
	return ""
}

// frontMatter reads two settings at the beginning of a card, where they are
// plain words.
func frontMatter(text string) map[string]string {
	out := make(map[string]string)
	open := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \t\r\n")
		if line == "---" {
			if open {
				return out
			}
			open = true
			continue
		}
		if !open {
			return nil
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.Trim(strings.TrimSpace(value), `"'`)
		if (field == "pipeline_tag" || field == "library_name") && value != "" && strings.Trim(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == "" {
			out[field] = value
		}
	}
	return nil // it has no end
}
