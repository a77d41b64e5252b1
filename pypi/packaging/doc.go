// Package packaging holds the vocabulary of Python packaging, as the library
// of that name does for Python: versions and specifiers (PEP 440),
// requirements and markers (PEP 508), names (PEP 503), filenames of wheels
// and source archives (PEP 427, 491 and 625), compatibility tags (PEP 425,
// 600 and 656) and the headers of core metadata.
//
// Invariants:
//   - What pypa/packaging accepts is accepted and means the same; what it
//     refuses is refused. The vectors of the tests were made with it, and what
//     is known to differ stands in docs/packaging.md, by rule.
//   - Nothing of this host enters a result: a [Target] follows from its text
//     or its [Description].
//   - What is written (a normal form) is read again as the same.
//   - Names and filenames are refused, never cleaned up.
//
// Limits are named constants beside the code that holds them. The package
// reads text only: no files, no network.
package packaging
