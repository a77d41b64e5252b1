// Package registry is the embedded container registry: an [http.Handler] for
// /v2/, over the store and two layers of names.
//
// Specification: OCI distribution-spec v1.1.1, every category of it (pull,
// push, content discovery, content management), with the referrers API,
// sha512, and the draft's tag parameters of a manifest's PUT. The project's
// conformance program passes without a failure.
//
// Names: "platform/registry.example/library/nginx" is the repository
// registry.example/library/nginx of the source oci/platform. What an import
// published lies over what clients pushed: published names are read-only and
// change all at once, when the import replaces the source's pointer; pushed
// names live in the folder pushed beside it. A request sees one publication.
//
// Invariants:
//   - Nothing is fetched from anywhere: what is not here is not found.
//   - Bytes are served from [store.Store.File] alone, so never unverified. HEAD
//     sends the head of the very answer that GET gives, and reads nothing.
//   - A manifest is stored and served as the very bytes that came, under the
//     media type that it has. It is taken only if everything it names is in
//     its repository, with the sizes it says; foreign layers and the subject
//     are the two exceptions. What it names cannot be deleted before it, and
//     stays when a later import withdraws it.
//   - Pushed names are durable before the answer, and the last to be written,
//     so that a kill anywhere leaves a name whole or not there.
//   - No text of a request becomes a file name before it was checked, and
//     files are reached through an [os.Root].
//
// Limits: [maxPage], [maxReferrersPage], [maxReferrersScan], [maxTagParams],
// [stallTime], [defaultUploads], [defaultExpiry], and those of package spec.
// Memory is flat: a copy buffer a request, whatever a layer's size.
package registry
