package walk

// Codes of problems. They are stable.
const (
	CodeEntries    = "ARCHIVE-LIMIT-ENTRIES" // more entries than are looked at
	CodeDepth      = "ARCHIVE-LIMIT-DEPTH"   // more containers in each other than are opened
	CodeSize       = "ARCHIVE-LIMIT-SIZE"    // unpacks to more than is allowed, or takes more memory to unpack
	CodeRatio      = "ARCHIVE-LIMIT-RATIO"   // unpacks to too many times its size: a bomb
	CodeDuplicate  = "ARCHIVE-DUPLICATE"     // one name twice, or a file that is a folder too
	CodeCollision  = "ARCHIVE-COLLISION"     // names that only the case of letters tells apart
	CodePath       = "ARCHIVE-PATH"          // a name that leaves the folder, or that systems read differently
	CodeLink       = "ARCHIVE-LINK"          // a link that leads out of the archive, or an entry behind a link
	CodeDevice     = "ARCHIVE-DEVICE"        // a device, socket or pipe in what is no file system
	CodeSparse     = "ARCHIVE-SPARSE"        // a sparse file, which is not expanded
	CodeEncrypted  = "ARCHIVE-ENCRYPTED"     // cannot be read without a password
	CodeMethod     = "ARCHIVE-METHOD"        // packed by a method that is not read
	CodeTrailing   = "ARCHIVE-TRAILING"      // data behind the end
	CodePrefix     = "ARCHIVE-PREFIX"        // data before a zip archive
	CodeCRC        = "ARCHIVE-CRC"           // length or checksum is wrong
	CodeMalformed  = "ARCHIVE-MALFORMED"     // violates its format, or two readers may read it differently
	severityHigh   = "high"
	severityLow    = "low"
	maxPerCode     = 100 // problems of one code, severity and kind that are told one by one
	maxProblemText = 300
)
