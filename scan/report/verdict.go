package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/scan"
)

// Verdict concludes whether a bundle may pass. It fails closed: see the
// package comment.
func Verdict(d *Document) (Conclusion, error) {
	n, err := d.normal()
	if err != nil {
		return Conclusion{}, err
	}
	return n.Verdict, nil
}

// verdict concludes for a document that is in normal form.
func verdict(d *Document) Conclusion {
	t := d.tally()
	lacking := d.notScanned()
	switch {
	case len(d.Engines) == 0:
		return Conclusion{
			NotScanned, "Not scanned",
			sentences("No scanner looked at these artifacts, so this page says nothing about whether they are safe", t.held(), t.missing()),
		}
	case len(lacking) > 0:
		return Conclusion{
			NotScanned, "Not scanned for " + list(lacking),
			sentences(d.outdated(), "Nothing here says whether the artifacts are safe in that respect", t.held(), t.passes(), t.missing()),
		}
	case t.heldBack > 0:
		return Conclusion{
			HeldBack, number(t.heldBack) + " held back",
			sentences(t.stays(), t.rest(), t.missing()),
		}
	}
	return Conclusion{
		MayPass, "May pass",
		sentences("Nothing is held back", fmt.Sprintf("%s looked at for %s", was(t.artifacts, "artifact"), list(d.lookedFor())), t.passes(), t.missing()),
	}
}

// notScanned lists what nothing looked for with data that was young enough.
func (d *Document) notScanned() []string {
	lacking := slices.Clone(d.NotScannedFor)
	for _, e := range d.Engines {
		if e.stale() {
			lacking = append(lacking, e.For)
		}
	}
	slices.Sort(lacking)
	return slices.Compact(lacking)
}

// outdated says for what a database was too old.
func (d *Document) outdated() string {
	var l []string
	for _, e := range d.Engines {
		if e.stale() {
			l = append(l, e.For)
		}
	}
	if len(l) == 0 {
		return ""
	}
	slices.Sort(l)
	return "The data for " + list(slices.Compact(l)) + " was older than allowed"
}

// stale reports whether the database was older than allowed when it was used,
// or has a limit and no date to compare with it.
func (e *Engine) stale() bool {
	return e.MaxAge > 0 && (e.Dated.IsZero() || e.Age > e.MaxAge)
}

// lookedFor lists what the engines look for.
func (d *Document) lookedFor() []string {
	var l []string
	for _, e := range d.Engines {
		l = append(l, e.For)
	}
	slices.Sort(l)
	return slices.Compact(l)
}

// A tally counts what a verdict speaks of.
type tally struct {
	artifacts, heldBack, absent     int
	warned, waived, unscanned       int // artifacts that pass in spite of something
	isNew, changed, gone, withdrawn int
}

func (d *Document) tally() tally {
	t := tally{heldBack: len(d.Held), absent: len(d.Missing), withdrawn: len(d.Withdrawn)}
	for _, s := range d.Sources {
		t.artifacts += s.Artifacts
	}
	held := make(map[artifactID]bool, len(d.Held))
	for i := range d.Held {
		held[d.Held[i].id()] = true
	}
	warned, waived, unscanned := map[artifactID]bool{}, map[artifactID]bool{}, map[artifactID]bool{}
	for i := range d.Findings {
		f := &d.Findings[i]
		switch {
		case held[f.id()]:
		case f.Kind == scan.KindNotScanned:
			unscanned[f.id()] = true
		case f.Action == scan.ActionWarn:
			warned[f.id()] = true
		case f.Action == scan.ActionWaived:
			waived[f.id()] = true
		}
	}
	for _, w := range d.Waived {
		if id := (artifactID{w.Source, w.Name, w.Version}); !w.Unused && w.DaysLeft >= 0 && !held[id] {
			waived[id] = true
		}
	}
	t.warned, t.waived, t.unscanned = len(warned), len(waived), len(unscanned)
	for _, c := range d.Changes {
		switch c.Kind {
		case New:
			t.isNew++
		case Changed:
			t.changed++
		default:
			t.gone++
		}
	}
	return t
}

func (t tally) stays() string {
	if t.heldBack == 1 {
		return "It stays outside and is not in this bundle"
	}
	return "They stay outside and are not in this bundle"
}

// rest says what becomes of the artifacts that are not held back.
func (t tally) rest() string {
	how := t.how(" of them")
	if how != "" {
		how = ", " + how
	}
	switch t.artifacts {
	case 0:
		return ""
	case 1:
		return "The other artifact may pass" + how
	}
	return fmt.Sprintf("The other %s artifacts may pass", number(t.artifacts)) + how
}

func (t tally) held() string {
	switch t.heldBack {
	case 0:
		return ""
	case 1:
		return "1 artifact is held back as well"
	}
	return number(t.heldBack) + " artifacts are held back as well"
}

// passes says what of the bundle is not simply clean.
func (t tally) passes() string {
	if how := t.how(""); how != "" {
		return "Among those in it: " + how
	}
	return ""
}

// how lists in what way artifacts pass that are not simply clean; then stands
// behind the first number.
func (t tally) how(then string) string {
	var parts []string
	add := func(n int, how string) {
		if n == 0 {
			return
		}
		if len(parts) > 0 {
			then = ""
		}
		parts = append(parts, number(n)+then+" "+how)
	}
	add(t.warned, "with a warning")
	add(t.waived, "by a waiver")
	add(t.unscanned, "with a part that no scanner could look at")
	return list(parts)
}

func (t tally) missing() string {
	switch t.absent {
	case 0:
		return ""
	case 1:
		return "1 artifact that was asked for could not be fetched"
	}
	return number(t.absent) + " artifacts that were asked for could not be fetched"
}

// advice is what a person should do about a finding.
func advice(f scan.Finding) string {
	switch f.Kind {
	case scan.KindMalware:
		if strings.HasPrefix(f.ID, "MAL-") {
			return "Take it out of what is asked for and look where it is used already. It is on a list of malicious packages, which no waiver overrides."
		}
		return "Do not open it. Take it out of what is asked for and tell its publisher. If the engine is wrong, a waiver with owner, reason and expiry lets it pass."
	case scan.KindVulnerability:
		if f.Fixed != "" {
			return "Ask for version " + f.Fixed + " or later."
		}
		return "No fixed version is known. Ask for another package, or have the risk accepted for a time by a waiver."
	case scan.KindSecret:
		return "Take the secret for known to others: tell its owner to revoke it, and its publisher to leave it out."
	case scan.KindLicence:
		return "Ask whoever decides on licences, or choose another package."
	case scan.KindModel:
		return "Ask for the same weights as safetensors or GGUF, which cannot run code, or have the file reviewed by a person."
	case scan.KindPackage:
		return "Have a person read what is named here, and compare it with the publisher's own repository."
	case scan.KindArchive:
		return "Two programs may read this file differently. Ask its publisher for a well-formed one."
	case scan.KindType:
		return "Take the file out of what is asked for, or allow its type in the policy."
	case scan.KindNotScanned:
		return "Nothing has looked at this part. Ask for it unpacked and unencrypted, or raise the limit that is named."
	}
	return "Have a person look at it."
}

// limit and age are for people.
func (e *Engine) limit() string { return span(time.Duration(e.MaxAge) * time.Second) }
func (e *Engine) age() string   { return span(time.Duration(e.Age) * time.Second) }
