package walk

// Limits of one walk. A limit that is reached is a problem, not an error, and
// the rest of what it stopped is not scanned.
type Limits struct {
	// Depth is how many containers may lie in each other.
	Depth int
	// Entries is how many entries all containers of a blob may have together.
	Entries int
	// Unpacked is how many bytes may be decompressed in all.
	Unpacked int64
	// Ratio is how many times its packed size a stream, or all that is
	// decompressed of a blob, may have. It is not asked below 64 MiB.
	Ratio int64
}

// DefaultLimits are those of a walk whose options name none.
var DefaultLimits = Limits{
	// A layer with a .deb of a tar.xz with a wheel with an .npz is at 7.
	Depth: 8,
	// The largest wheels have 20,000 files, a full system image's largest
	// layer 150,000.
	Entries: 200_000,
	// The largest wheels and layers unpack to 10 GiB or so.
	Unpacked: 20 << 30,
	// Text compresses 5 to 20 times, the emptiest of real files 100 times;
	// DEFLATE ends at 1,032.
	Ratio: 200,
}

const (
	// ratioFloor is what any stream may unpack to: small files of zeros are
	// common, and 64 MiB harm nobody.
	ratioFloor = 64 << 20
	// defaultMemory is the size up to which an entry is held in memory: eight
	// inspectors at once then hold 8 MiB.
	defaultMemory = 1 << 20
)

// Options of a walk. The zero value walks an archive that is no file system,
// with [DefaultLimits].
type Options struct {
	// Limits that are zero are those of [DefaultLimits].
	Limits Limits
	// Scratch is the folder for entries that do not fit in memory, "" the
	// system's. The files have no names there, so that a killed run leaves
	// nothing behind.
	Scratch string
	// FileSystem says that the blob is a layer of a file system: absolute
	// links, devices, set-user-id programs, hard links, names that differ in
	// case and folders named twice are what it is for.
	FileSystem bool
	// Memory is the size up to which an entry is held in memory; 0 is 1 MiB.
	Memory int64
}

func (o Options) filled() Options {
	d := DefaultLimits
	if o.Limits.Depth == 0 {
		o.Limits.Depth = d.Depth
	}
	if o.Limits.Entries == 0 {
		o.Limits.Entries = d.Entries
	}
	if o.Limits.Unpacked == 0 {
		o.Limits.Unpacked = d.Unpacked
	}
	if o.Limits.Ratio == 0 {
		o.Limits.Ratio = d.Ratio
	}
	if o.Memory == 0 {
		o.Memory = defaultMemory
	}
	return o
}

// A Result is what a walk found out beside the files.
type Result struct {
	Problems []Problem
	// Files counts what was visited, folders and links too.
	Files int
	// Bytes is the size of all files that were visited, an archive's and
	// those of its entries.
	Bytes int64
}

// A Problem is something that is wrong with an archive, or a reason why a part
// of it was not looked at.
type Problem struct {
	Code string   `json:"code"`
	Path []string `json:"path"`
	Text string   `json:"text"`
	// NotScanned says that something was not looked at; otherwise the archive
	// is malformed, or can be read in more than one way.
	NotScanned bool `json:"not_scanned,omitempty"`
	// Severity is "high", or "low" below a file system, where archives that
	// are odd on purpose are common.
	Severity string `json:"severity"`
}
