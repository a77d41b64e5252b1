package repo

// MaxDocument bounds a JSON, YAML or Markdown file that is looked into. The
// largest known weight index has 40 MiB; a tokenizer.json may have 30.
const MaxDocument = 64 << 20

// A File is one file of a repository.
type File struct {
	Path string
	Size int64
	// ID is the same for files of the same content: the ETag.
	ID string
}

// A Reader gives the content of one file; limit bounds it. It is called for
// small documents only.
type Reader func(path string, limit int64) ([]byte, error)

// A Left is a file that a profile leaves out.
type Left struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
	Why  string `json:"why"` // "the same weights as model.safetensors"
}

// A Reference is another repository that a file names.
type Reference struct {
	Repo  string `json:"repo"`  // "team/model", "datasets/team/name"
	Where string `json:"where"` // "config.json: auto_map.AutoModel"
	// Needed reports whether loading the model fetches it; otherwise it is a
	// hint: the base model of a fine-tuned one.
	Needed bool `json:"needed"`
}

// A Licence is the evidence of what may be done with a repository.
type Licence struct {
	ID    string   `json:"id,omitempty"`    // as the card says: "apache-2.0", "other"
	Name  string   `json:"name,omitempty"`  // license_name of the card
	Link  string   `json:"link,omitempty"`  // license_link of the card
	Files []string `json:"files,omitempty"` // paths of licence texts and cards that are carried
}
