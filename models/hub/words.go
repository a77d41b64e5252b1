package hub

// Headers of the protocol.
const (
	HeaderCommit     = "X-Repo-Commit"   // the commit that a reply is about
	HeaderLinkedETag = "X-Linked-Etag"   // of a redirect: the identity of the file behind it
	HeaderLinkedSize = "X-Linked-Size"   // of a redirect: its size
	HeaderErrorCode  = "X-Error-Code"    // one of the codes below
	HeaderErrorText  = "X-Error-Message" // for people
	HeaderWarning    = "X-HF-Warning"    // "topic; message", shown once by clients
	HeaderRateLimit  = "RateLimit"       // "api";r=0;t=55
)

// Values of [HeaderErrorCode]. Clients raise a different error for each.
const (
	CodeRepoNotFound     = "RepoNotFound"
	CodeRevisionNotFound = "RevisionNotFound"
	CodeEntryNotFound    = "EntryNotFound"
	CodeGatedRepo        = "GatedRepo"
)

// HTTPLimit is the size above which the hub's own clients refuse to download
// a file over plain HTTP: 50 GB in units of 1000.
const HTTPLimit = 50_000_000_000
