// Package plaindir publishes models and datasets as folders with plain files,
// which any engine takes by its path: FOLDER/team/model.
//
// Specification: none but the files themselves; docs/models.md says how the
// folders are called.
//
//	team/model                      link to the revision that main stands for
//	team/model@v1.5                 another branch or tag; "/" in it becomes "-"
//	team/model@COMMIT               a revision that no branch stands for
//	datasets/team/name              the same of a dataset
//	.revisions/models--team--model/COMMIT-FILES/PATH   hard links of the store's blobs
//	.darkmirror/                    our records, and what is not finished
//
// Invariants:
//   - A revision's folder is made whole, then gets its name by one rename, and
//     then the links move to it, each by one rename. FILES tells one choice of
//     a commit's files from another, so a folder that is named never changes.
//   - A folder that no link names any more is removed last. Who has files of
//     it open keeps them.
//   - Those of package place: a file gets its name when it is whole, and is
//     right if it is the very one that was put there.
//   - What is not in our records is never removed or replaced.
//
// Limits: maxRecord bounds our record of one repository.
package plaindir
