// Package s3 publishes a set of models into a bucket of an S3 store, for
// engines that read weights from there: vLLM with the Run:ai streamer, and
// KServe's storage initializer.
//
// Specification: the S3 API as minio-go speaks it, with Signature Version 4;
// docs/models.md has the settings of the readers.
//
//	PREFIX/ORGANISATION/NAME/COMMIT/PATH    every file of a revision
//	PREFIX/ORGANISATION/NAME/refs/REF       40 hex digits of a commit, no newline
//	PREFIX/datasets/...                     the same for datasets
//	PREFIX/.darkmirror/SOURCE.json          what this source has put here
//
// An engine is given s3://BUCKET/PREFIX/ORGANISATION/NAME/COMMIT/, with the
// slash at the end. Names hold the commit because S3 can replace one object,
// and never several at once: under a branch's name an engine that starts while
// we publish would load a mix of two revisions. Under the commit's it loads
// what it asked for. Whoever wants "main" reads the object refs/main first.
//
// Invariants:
//   - A ref is written when every file of its commit is there, and config.json
//     after the weights. What was published before is removed after that, its
//     ref first.
//   - A payload goes up with its SHA-256 in the signature and as a checksum
//     that the store keeps. What the store has put together is compared with
//     the checksum of its parts, or read again where the store has none.
//   - Only what the source's manifest lists is ever deleted, and only if it is
//     still what we put, and no other source lists it. The manifest names an
//     object before the object is there.
//   - A part that has arrived is not sent again, by no later process either.
//     Weights that another revision has already are copied within the store.
//   - Requests go to the endpoint alone. No bucket is ever created.
//
// A key needs, on the bucket, s3:ListBucket and s3:ListBucketMultipartUploads,
// and on PREFIX/* s3:GetObject, s3:PutObject, s3:DeleteObject,
// s3:AbortMultipartUpload and s3:ListMultipartUploadParts; nothing else. With
// object lock or versioning in the bucket, what is deleted stays as a former
// version until the bucket's own rules end it.
//
// Limits: the manifest by maxManifest, replies that are documents by
// maxDocument, lists by maxListed and maxPages, parts by maxParts, tries by
// maxTries and maxRestarts. Memory is flat: parts are sent from the file.
package s3
