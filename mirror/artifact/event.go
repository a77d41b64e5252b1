package artifact

// An Event is a piece of progress, reported through a func(Event) that may be
// called from several goroutines at once and must return quickly.
type Event struct {
	Stage  string // "resolve", "fetch", "scan", "seal", "verify", "stage", "publish"
	Source string // "pypi/main"; empty where a stage concerns no single source
	Item   string // the artifact or file, for people
	// Bytes and Items advance the stage by so much since the last event.
	Bytes int64
	Items int
	// TotalBytes and TotalItems, where not zero, announce the stage's size.
	TotalBytes int64
	TotalItems int
	// Note is a line worth keeping on a log: "retried after 503".
	Note string
}
