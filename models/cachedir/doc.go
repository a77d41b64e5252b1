// Package cachedir publishes models and datasets as a cache folder of
// huggingface_hub, the one that HF_HUB_CACHE names, so that its clients load
// them by their names with HF_HUB_OFFLINE=1 and no server at all.
//
// Specification: the layout that huggingface_hub documents and reads; the
// listing trees/COMMIT.json in its format version 1, as releases 1.22 to 2.4
// write it and older ones ignore it. docs/models.md says with which versions
// it was tried.
//
//	CACHEDIR.TAG
//	models--team--model/blobs/ETAG             hard links of the store's blobs
//	                   /snapshots/COMMIT/PATH  relative links to them, or plain files
//	                   /trees/COMMIT.json      exactly what is there of the commit
//	                   /refs/main              a commit, without a newline
//	                   /.no_exist/COMMIT/NAME  optional files that there are not
//	                   /.darkmirror/           our records, and what is not finished
//
// Invariants:
//   - A revision appears whole: its blobs first, then its snapshot by one
//     rename, its tree, and refs last. It goes the other way round.
//   - Those of package place: a file gets its name when it is whole, and is
//     right if it is the very one that was put there.
//   - What is not in our records is never removed; a blob stays while any
//     snapshot of the repository links to it, whoever made that.
//   - Nothing of ours lies where clients count what they find: snapshots and
//     refs hold what the layout says and no temporary names.
//
// Limits: maxRecord bounds our record of one repository.
package cachedir
