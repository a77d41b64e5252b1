package scan

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/darkmirror/darkmirror/mirror/artifact"
	"github.com/darkmirror/darkmirror/scan/walk"
)

// Kinds of findings. The policy says for each what becomes of the artifact.
const (
	KindMalware       = "malware"       // an antivirus engine's hit, or a package that is known to be malicious
	KindVulnerability = "vulnerability" // a known vulnerability of a package
	KindSecret        = "secret"        // a key, token or password
	KindLicence       = "licence"       // a licence that the site refuses
	KindModel         = "model"         // a model file that can run code, or is malformed
	KindPackage       = "package"       // a package that deserves a look: install-time code, a name like another
	KindArchive       = "archive"       // an archive that two readers may read differently, or that lies
	KindType          = "type"          // a type that the site does not let in
	KindNotScanned    = "not-scanned"   // what a scanner could not or would not look at
)

// Severities, the gravest first. Unknown is what a source of advisories does
// not tell; it is never taken for harmless.
const (
	Critical = "critical"
	High     = "high"
	Medium   = "medium"
	Low      = "low"
	Unknown  = "unknown"
)

// ErrEngine says that an engine as a whole cannot judge: its daemon is gone,
// its database is missing, stale or damaged. It ends the run; an artifact
// that one engine cannot judge is another matter.
var ErrEngine = errors.New("scan engine not ready")

// An EngineError says which engine is not ready. It matches [ErrEngine].
type EngineError struct {
	Engine string
	Err    error
}

func (e *EngineError) Error() string {
	// The text of the class says what the type says already.
	why := strings.TrimPrefix(e.Err.Error(), ErrEngine.Error()+": ")
	return e.Engine + ": " + strings.TrimPrefix(why, e.Engine+": ")
}

// Unwrap gives the cause.
func (e *EngineError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrEngine) match.
func (e *EngineError) Is(target error) bool { return target == ErrEngine }

// An Engine is a scanner with the data that its verdicts depend on.
type Engine struct {
	Name    string // "clamav"
	Version string // of the program, library or rules
	// Database is the digest of what it compares with, zero if it has
	// nothing of the kind, and Dated is when that was made.
	Database artifact.Digest
	Dated    time.Time
	// Settings is whatever else of its configuration changes its findings.
	Settings string
}

// An Inspector looks at files, wherever they lie. Its methods may be called
// from several goroutines at once.
type Inspector interface {
	// Engine does not change during a run.
	Engine() Engine
	// ByContent says that findings depend on a file's bytes alone, so that
	// the same bytes are inspected once a run.
	ByContent() bool
	// Inspect is called for every file and every container of a blob, and for
	// entries that are no regular files. An error that is [ErrEngine] ends
	// the run; any other holds the artifact back. A finding's Path is filled
	// by the caller; Scanner may be left empty.
	Inspect(ctx context.Context, f *walk.File) ([]Finding, error)
}

// A Gatherer finds out which packages a blob holds. What it gathers is kept
// with the blob's verdict and judged again when a database changes, without
// unpacking.
type Gatherer interface {
	Engine() Engine
	// Gather answers nil for a file that tells nothing of packages.
	Gather(ctx context.Context, f *walk.File) (*Evidence, error)
}

// Evidence is what one file tells of packages.
type Evidence struct {
	// Path is the file's path in its blob.
	Path []string `json:"path"`
	// Form is what the file is: "dist-info", "dpkg", "control", "os-release",
	// "requirements.txt", "uv.lock", "licence" and the like.
	Form     string    `json:"form"`
	Packages []Package `json:"packages,omitempty"`
	// OS is the distribution as os-release names it, "debian" and "12".
	OSFamily  string `json:"os_family,omitempty"`
	OSVersion string `json:"os_version,omitempty"`
}

// A Package is one package that a file speaks of.
type Package struct {
	Type     string   `json:"type"` // as in a package URL: "pypi", "deb"
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Arch     string   `json:"arch,omitempty"`
	SrcName  string   `json:"src_name,omitempty"` // of a .deb
	SrcVer   string   `json:"src_version,omitempty"`
	Licences []string `json:"licences,omitempty"`
	// Maintainer and Summary are for the report; they never change a verdict.
	Maintainer string `json:"maintainer,omitempty"`
	Homepage   string `json:"homepage,omitempty"`
}

// An Inventory is all that is known of an artifact's packages: the evidence of
// its blobs, and for an image that of its file system, whiteouts applied.
type Inventory struct {
	// Parts are the platforms of an image, or the files of another artifact.
	Parts []Part `json:"parts"`
}

// A Part is what is judged as one: one platform's root file system, or one
// file. An operating system of one part says nothing of another.
type Part struct {
	Name     string     `json:"name"` // "linux/amd64", or the file's path
	Digest   string     `json:"digest"`
	Root     bool       `json:"root"` // a root file system
	Evidence []Evidence `json:"evidence"`
}

// A Judge judges an artifact as a whole, by the packages that it holds.
type Judge interface {
	Engine() Engine
	Judge(ctx context.Context, s Subject, inv *Inventory) ([]Finding, error)
}

// A Starter is an engine that has to be asked whether it can work, once at
// the start of a run. Its errors are [ErrEngine].
type Starter interface {
	Start(ctx context.Context, now time.Time) error
}
