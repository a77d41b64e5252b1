package clamav

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/scan"
)

// maxAhead is how far in the future signatures may be dated: the date in
// clamd's words is of the zone that it runs in, which may not be ours.
const maxAhead = 24 * time.Hour

// A version is what ClamAV says of itself.
type version struct {
	program string
	// number and dated are of the official signatures; zero if there are none.
	number uint64
	dated  time.Time
}

// String is for the record: "1.4.6/27807", or "1.4.6".
func (v version) String() string {
	if v.number == 0 {
		return v.program
	}
	return v.program + "/" + strconv.FormatUint(v.number, 10)
}

// Start asks whether the engine can work. Its errors are [scan.ErrEngine].
func (s *Scanner) Start(ctx context.Context, now time.Time) error {
	d, err := readData(s.config.Database)
	if err != nil {
		return notReady("signatures: %w", err)
	}
	v, err := s.askVersion(ctx)
	if err != nil {
		return asEngine(err)
	}
	if v.number == 0 && s.config.Database == "" {
		// Verdicts would be kept under nothing that changes with them.
		return notReady("which signatures it has is not known, for it has none of the official ones; name the folder of its files (malware.database)")
	}
	dated, warnings := date(v, d)
	if err := s.checkAge(dated, now); err != nil {
		return err
	}
	limit := streamLimit{}
	if s.config.Program == "" {
		if limit, err = s.findLimit(ctx); err != nil {
			return asEngine(err)
		}
	}
	e := scan.Engine{Name: name, Version: v.String(), Database: d.digest, Dated: dated, Settings: settings}
	switch {
	case s.config.Program != "":
		e.Settings += " clamscan"
		warnings = append(warnings, "clamscan loads all its signatures for each file, which takes many seconds with the official ones; run clamd")
	case limit.refused > 0:
		// What was refused under one limit is to be looked at under another.
		e.Settings += fmt.Sprintf(" stream=%d", limit.taken)
		warnings = append(warnings, fmt.Sprintf("clamd takes streams of about %d MiB at most, so larger files are not scanned; set StreamMaxLength 2000M in clamd.conf", limit.taken>>20))
	}
	s.mu.Lock()
	s.engine, s.limit, s.warnings = e, limit, nil
	s.mu.Unlock()
	more, err := s.selfTest(ctx)
	if err != nil {
		return asEngine(err)
	}
	s.mu.Lock()
	s.warnings = append(warnings, more...)
	s.mu.Unlock()
	return nil
}

// date is when the signatures are of. The files tell it to the second; what
// the engine says has no zone, but is of what it has loaded.
func date(v version, d data) (dated time.Time, warnings []string) {
	switch {
	case v.number == 0:
		return d.dated, nil
	case v.number == d.number:
		return d.built, nil
	case d.number != 0:
		warnings = []string{fmt.Sprintf("clamd has loaded the official signatures of number %d, and its folder holds %d; have it reload them", v.number, d.number)}
	}
	return v.dated, warnings
}

func (s *Scanner) checkAge(dated, now time.Time) error {
	age := now.Sub(dated).Round(time.Minute)
	when := dated.UTC().Format(time.RFC3339)
	switch {
	case s.config.MaxAge == 0:
		return nil
	case dated.IsZero():
		return notReady("the age of its signatures is not known")
	case age < -maxAhead:
		return notReady("its signatures are of %s, %s from now; the clock here or the files are wrong", when, -age)
	case age > s.config.MaxAge:
		return notReady("its signatures are of %s, %s old; at most %s are allowed: update them", when, age, s.config.MaxAge)
	}
	return nil
}

func (s *Scanner) askVersion(ctx context.Context) (version, error) {
	if s.config.Program != "" {
		text, err := s.programVersion(ctx)
		if err != nil {
			return version{}, err
		}
		return parseVersion(text)
	}
	if err := s.ping(ctx); err != nil {
		return version{}, err
	}
	text, err := s.ask(ctx, "VERSION")
	if err != nil {
		return version{}, err
	}
	v, err := parseVersion(text)
	if err != nil {
		return version{}, err
	}
	if text, err = s.ask(ctx, "VERSIONCOMMANDS"); err != nil {
		return version{}, err
	}
	_, commands, _ := strings.Cut(text, "| COMMANDS:")
	for _, c := range []string{"IDSESSION", "INSTREAM"} {
		if !slices.Contains(strings.Fields(commands), c) {
			return version{}, fmt.Errorf("%s: clamd has no command %s, it says %s", s.config.Socket, c, quote(text))
		}
	}
	return v, nil
}

func (s *Scanner) ping(ctx context.Context) error {
	text, err := s.ask(ctx, "PING")
	if err == nil && text != "PONG" {
		err = fmt.Errorf("%s: answers PING with %s, want PONG", s.config.Socket, quote(text))
	}
	return err
}

// parseVersion reads "ClamAV 1.4.6" or "ClamAV 1.4.6/27807/Mon Jan  2
// 15:04:05 2006", whose last parts are number and date of the official
// signatures, the date in the zone of the one who says it.
func parseVersion(text string) (version, error) {
	rest, ok := strings.CutPrefix(text, "ClamAV ")
	if !ok {
		return version{}, fmt.Errorf("it calls itself %s, want ClamAV", quote(text))
	}
	parts := strings.Split(rest, "/")
	if !isName(parts[0]) || len(parts) != 1 && len(parts) != 3 {
		return version{}, fmt.Errorf("its version is %s, want that of a program, or also number and date of its signatures", quote(text))
	}
	v := version{program: parts[0]}
	if len(parts) == 1 {
		return v, nil
	}
	var err error
	if v.number, err = strconv.ParseUint(parts[1], 10, 32); err != nil || v.number == 0 {
		return version{}, fmt.Errorf("the number of its signatures is %s, want a positive one", quote(parts[1]))
	}
	if v.dated, err = time.ParseInLocation(time.ANSIC, parts[2], time.Local); err != nil {
		return version{}, fmt.Errorf("date of its signatures: %w", err)
	}
	if v.dated.Unix() <= 0 {
		return version{}, fmt.Errorf("date of its signatures: %s, want one since 1970", quote(parts[2]))
	}
	return v, nil
}

// selfTest sends what must be found and what must be reported.
func (s *Scanner) selfTest(ctx context.Context) (warnings []string, err error) {
	found, err := s.probe(ctx, eicar())
	if err != nil {
		return nil, err
	}
	if found == "" || isHeuristic(found) {
		return nil, errors.New("it does not find the EICAR test file: it has no signatures, or not those that it should")
	}
	if found, err = s.probe(ctx, nestedZips(nesting)); err != nil {
		return nil, err
	}
	if found == "" {
		return nil, errors.New("it passes in silence what exceeds its limits; set AlertExceedsMax yes in clamd.conf")
	}
	if found, err = s.probe(ctx, encryptedZip()); err != nil {
		return nil, err
	}
	if found == "" {
		warnings = append(warnings, "clamd passes encrypted files in silence, where they are of kinds that are not unpacked here; set AlertEncrypted yes in clamd.conf")
	}
	return warnings, nil
}

func (s *Scanner) probe(ctx context.Context, body string) (found string, err error) {
	v, sent, err := s.look(ctx, strings.NewReader(body), int64(len(body)))
	switch {
	case err != nil:
		return "", err
	case v.refused:
		return "", fmt.Errorf("it takes no stream of %d bytes; set StreamMaxLength 2000M in clamd.conf", len(body))
	case sent != int64(len(body)):
		return "", fmt.Errorf("it answered after %d of %d bytes of a test file", sent, len(body))
	}
	return v.found, nil
}

func isHeuristic(found string) bool { return strings.HasPrefix(found, "Heuristics.") }

// asEngine makes any error one of the engine.
func asEngine(err error) error {
	if errors.Is(err, scan.ErrEngine) || errors.Is(err, context.Canceled) {
		return err
	}
	return notReady("%w", err)
}
