// Package pypi carries Python packages: it reads a package index of the
// Simple API outside, and publishes and serves one inside.
//
// Specifications: wheels PEP 427 and 491, source archives PEP 625, hashed
// requirements files as pip reads them, pylock.toml PEP 751, the Simple API
// PEP 503, 592, 629, 658 with 714, 691, 700 and 792. What names, versions,
// markers and tags are stands in package packaging.
//
// A [Source] resolves lock files, each for one or more targets (see
// [packaging.ParseTarget]), into a snapshot. It needs no resolver, because a lock is
// resolved already: a marker decides whether a pin applies to a target, and
// the target's tags decide which file. A [Publisher] checks a snapshot again
// and makes it current; a [Handler] serves what is current.
//
// Invariants:
//   - No host is built in. The index and every host that files may come from
//     stand in the configuration; index options inside lock files are ignored
//     with a note.
//   - A file is carried only if its SHA-256 is named by the lock, and by the
//     index too wherever the index names one.
//   - Nothing of this host enters the result: markers and tags come from the
//     target alone. What a target cannot know (platform_release, the extras
//     somebody will choose) counts as possibly true, so that a mirror never
//     carries too little.
//   - No code of a package is ever run.
//   - Names and filenames are refused, never cleaned up.
//   - An archive counts only after a strict check (see [CheckWheel]): one way
//     to read it, one *.dist-info, METADATA that agrees with the filename.
//   - Published is what current.json names; it is written last, whole.
//
// Limits are named constants beside the code that holds them; the page limit
// can be configured.
package pypi
