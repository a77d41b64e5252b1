// Package files carries plain files that belong together: signature databases
// of ClamAV, a Trivy database, drivers, installers. A [Source] reads folders
// of this host, or addresses whose digests are pinned; a [Publisher] publishes
// them inside, for a [Handler] that serves them and for folders that programs
// read.
//
// Specification: none but the files. The listing of a set is what sha256sum
// writes and checks; a set without a version of its own is named by the first
// twelve hex digits of its listing's SHA-256.
//
// A set is an artifact of the snapshot; its files have paths SET/PATH. The
// snapshot holds no other document. A folder inside looks like this, plain or
// with versions:
//
//	PATH                    a file of a set
//	VERSION/PATH            the same, in the folder of its version
//	current                 link to the version that programs read
//	.darkmirror-files--*/   what is not finished, during a run
//
// Invariants:
//   - No host is built in. A file is fetched from the address that the
//     configuration names and counts only with the pinned digest.
//   - A folder is read as one state: if anything in it changes while it is
//     read, that is read again, and in the end refused. Nothing outside of the
//     folder is read, whatever its links say.
//   - A set is carried and published whole or not at all.
//   - A version that somebody has named keeps its bytes.
//   - In a folder inside, a file gets its name when it is whole and durable,
//     and a file that names others comes after them. With versions, the link
//     moves when all files are there.
//   - What this source has not put into a folder is never replaced or removed.
//     What it has put there stands in its record before it does. A version's
//     folder is its own: programs may have written to the files in it, and
//     those go with it.
//   - Files in folders are copies, not links of the store: programs write to
//     what they read, as clamd's updater and bbolt do.
//   - Published is what current.json names; it is written whole.
//
// Limits: maxSets, maxSetFiles and maxSetBytes bound what is carried,
// maxEntries what is looked at in a folder, maxRounds how often it is read,
// maxPatterns what chooses from it, maxRecord our record of a folder.
package files
