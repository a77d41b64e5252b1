// Package modelpack publishes models and datasets as OCI artifacts: through an
// [oci.Publisher], for the embedded registry and into whatever registry that
// one is configured for.
//
// Specifications: the CNCF model-spec ("ModelPack", docs/spec.md, config.md and
// annotations.md of July 2026), OCI image-spec v1.1.1, and the layout of
// KServe's modelcars.
//
//   - The repository team/model has a ModelPack artifact: one raw layer a file,
//     whose digest is that of the file, so that the store's one blob serves the
//     hub, every folder and the registry. org.opencontainers.image.title stands
//     beside the specification's own annotations, for oras.
//   - team/model-modelcar has an image for linux/amd64 and linux/arm64, of
//     the same layers, with the files below /models. There is no program in it: it
//     is for oci+native:// (a volume) and oci+fetch://. Its layers are tars, a
//     second copy of the files in the store.
//
// Tags are the commit, and every branch and tag with "-" for "/".
//
// Invariants:
//   - The same revision is the same bytes, wherever and whenever it is made: an
//     image tells its commit, and neither a branch, nor a time, nor a host.
//   - A layer of a modelcar depends on the names and bytes of its files alone, so
//     revisions share the layers of large files that stay.
//   - Two repositories that would have one name are both left out.
//
// Limits: a manifest has no more members than [spec.MaxMembers] and no more
// bytes than [spec.MaxManifest], about 8,000 files; a modelcar has at most
// [maxLayers]. What an earlier set brought is gone from the embedded registry;
// from another registry an [oci.Publisher] takes nothing away.
package modelpack
