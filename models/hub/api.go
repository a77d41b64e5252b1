package hub

// Documents of the API as they stand on the wire. Fields that darkmirror does
// not use are left out; a hub sends more.

// A TreeItem is one element of /api/models/ID/tree/REVISION.
type TreeItem struct {
	Type string   `json:"type"` // "file" or "directory"
	OID  string   `json:"oid"`
	Size int64    `json:"size"`
	Path string   `json:"path"`
	LFS  *TreeLFS `json:"lfs,omitempty"`
}

// TreeLFS is the LFS part of a [TreeItem].
type TreeLFS struct {
	OID         string `json:"oid"` // SHA-256 in hex
	Size        int64  `json:"size"`
	PointerSize int64  `json:"pointerSize"`
}

// Refs is /api/models/ID/refs.
type Refs struct {
	Branches     []Ref `json:"branches"`
	Tags         []Ref `json:"tags"`
	Converts     []Ref `json:"converts"`
	PullRequests []Ref `json:"pullRequests,omitempty"`
}

// A Ref is a branch or tag.
type Ref struct {
	Name         string `json:"name"`
	Ref          string `json:"ref"`
	TargetCommit string `json:"targetCommit"`
}
