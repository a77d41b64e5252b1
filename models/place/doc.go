// Package place writes into a folder that others read and perhaps write too:
// a cache, a folder of models. The targets that publish into such folders
// share it; what lies where is their matter.
//
//	.darkmirror/          the corner: a target's records, and what is not finished
//	.darkmirror/.tmp-...  a file, link or folder that has no name yet
//
// Invariants:
//   - What is made is finished in the corner, fsynced, and gets its name by one
//     rename; the folder is fsynced after it. A reader sees it whole or not at
//     all, and the leftovers of a killed run go with the next [Place.Prepare].
//   - Nothing is reached through a link that leads out of the folder, and
//     nothing is written through any link.
//   - A folder that [Open] gave has one writer of ours, of all processes.
//   - A file is right if it is the very one that was put there, by its
//     [Identity]. A hard link must also be the store's blob still, so that the
//     damage of a blob that was replaced does not stay here. Any other file is
//     compared with the store's bytes, and replaced where they differ.
//   - What the caller does not name is not removed, except empty folders above
//     what it names.
//
// Limits: the caller's, of each file that is read.
package place
