// Package trivy finds packages, known vulnerabilities and secrets with
// Trivy's own parsers, detectors and rules, writes SBOMs, and reads and
// writes OpenVEX documents. It is the only package that imports Trivy.
//
// It follows Trivy 0.74.0 with vulnerability database schema 2, CycloneDX
// 1.7, SPDX 2.3, OpenVEX 0.2.0, Python's core metadata and the recording of
// installed projects, and deb-control(5), dpkg's status file and Debian's
// machine-readable copyright file 1.0.
//
// Invariants:
//   - It fails closed, which Trivy does not. The database is a private copy
//     that is digested, dated, opened read-only and looked into before it
//     judges anything; a panic within Trivy is an error; what a detector
//     would skip over (a version or a range that it cannot read, a
//     distribution that is unknown or no longer supported) is a finding.
//   - A wheel or a .deb must be what its index says: see [Scanner.Judge].
//   - A secret that was found is in no text of ours.
//   - Nothing here opens a connection. The packages of Trivy that do are not
//     linked, which a test holds.
//   - The same inputs, database and time give the same bytes.
//
// Trivy keeps one database a process. The [Scanner] that was started last has
// it; any other one's Judge answers [scan.ErrEngine].
//
// Limits: a file of package metadata is at most [maxMetadata], a lock file
// or a list of installed packages at most [maxList]. Lock files are judged
// only where somebody will install by them: in a repository of models or
// files, not within a wheel, a .deb or an image, where Trivy's own engine
// does not look at them either. RPM databases are not read: an image that
// has one gets a finding that says so.
package trivy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan"
)

const (
	name = "trivy"
	// version of the Trivy module; a test compares it with go.mod.
	version = "0.74.0"
	// settings says what of this package changes its findings: raise the
	// number with every change of a parser or of what is judged.
	settings = "packages/1"
)

// Config is what a Scanner needs to know.
type Config struct {
	// Database is the folder that holds trivy.db and metadata.json. Without
	// it there is no Judge.
	Database string
	// Digest is the SHA-256 that trivy.db must have; zero if none is pinned.
	Digest artifact.Digest
	// MaxAge bounds the age of the database, by its own date; zero for no
	// bound.
	MaxAge time.Duration
	// Scratch is the folder in which the private copy of the database is
	// made. The copy has no name once it is open, so a killed process leaves
	// nothing but, at worst, a folder "trivy-db-*" here.
	Scratch string
	// Distro tells the distribution of a source of packages, "debian" and
	// "12", because a .deb does not. Nil or empty answers mean that it is not
	// known.
	Distro func(source string) (family, version string)
	// VEX lists OpenVEX documents whose statements answer findings.
	VEX []string
	// Logger gets what Trivy logs; nil discards it.
	Logger *slog.Logger
}

// A Scanner gathers packages and judges them. Its methods may be called from
// several goroutines at once.
type Scanner struct {
	config Config
	log    *slog.Logger
	vex    *answers

	mu     sync.Mutex // of what follows
	opened bool
	now    time.Time
	digest artifact.Digest
	dated  time.Time
}

// New makes a Scanner of a configuration and reads its VEX documents. It
// takes slog's default logger back from Trivy, if that still has it.
func New(c Config) (*Scanner, error) {
	if c.Database != "" {
		if !filepath.IsAbs(c.Database) || !filepath.IsAbs(c.Scratch) {
			return nil, fmt.Errorf("trivy: folders %q and %q: want absolute paths", c.Database, c.Scratch)
		}
	} else if !c.Digest.IsZero() {
		return nil, errors.New("trivy: a digest is pinned, but no database is set")
	}
	if c.MaxAge < 0 {
		return nil, fmt.Errorf("trivy: maximum age %s is negative", c.MaxAge)
	}
	restoreDefault(c.Logger)
	log := c.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	vex, err := loadVEX(c.VEX)
	if err != nil {
		return nil, fmt.Errorf("trivy: %w", err)
	}
	return &Scanner{config: c, log: log, vex: vex}, nil
}

// Engine names Trivy and, once it was started, its database. The VEX
// documents are no part of it: they change no finding, and what is gathered
// does not depend on them.
func (s *Scanner) Engine() scan.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return scan.Engine{Name: name, Version: version, Database: s.digest, Dated: s.dated, Settings: settings}
}

// Close gives the database up. It may be started again.
func (s *Scanner) Close() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.by != s {
		return nil
	}
	return s.drop()
}

var (
	_ scan.Gatherer = (*Scanner)(nil)
	_ scan.Judge    = (*Scanner)(nil)
	_ scan.Starter  = (*Scanner)(nil)
)

// today is the time that Start was given.
func (s *Scanner) today() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
