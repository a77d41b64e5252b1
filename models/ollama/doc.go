// Package ollama publishes models in GGUF as a models folder of Ollama, the
// one that OLLAMA_MODELS names: `ollama run HOST/team/model:q4_k_m` finds them
// there and asks no registry.
//
// Specification: Ollama's own code, release 0.17 (packages manifest, server
// and types/model). docs/models.md says what was tried.
//
//	blobs/sha256-HEX                  hard links of the store's blobs; small documents of ours
//	manifests/HOST/team/model/TAG     which blobs a model consists of
//	.darkmirror/                      our records, and what is not finished
//
// Each GGUF file of main has its quantisation for a tag: q4_k_m. "latest" and
// "main" are Q4_K_M where there is one, else the first. The tags of another
// branch are v1.5 and v1.5-q4_k_m, those of a revision without a branch begin
// with its commit. Names are in lower case, since Ollama compares them so, and
// have "-" where Ollama does not allow a character.
//
// Invariants:
//   - Those of package place: a file gets its name when it is whole, and is
//     right if it is the very one that was put there.
//   - Blobs come before the manifest that names them, and go after it.
//   - What is not in our records is never removed or replaced; a blob stays
//     while any manifest names it, whoever wrote that.
//   - Nothing unfinished lies below blobs or manifests, where Ollama clears up.
//
// Limits: maxRecord bounds our record of one repository, maxManifest a
// manifest that is read, maxDocument a template or its parameters.
package ollama
