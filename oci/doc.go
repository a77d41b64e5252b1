// Package oci carries container images, Helm charts and every other artifact
// of OCI registries: a [Source] reads a registry, a Helm repository or a local
// image outside, a [Publisher] publishes inside, for the embedded server and
// into Harbor or any other registry.
//
// Specifications: OCI image-spec and distribution-spec v1.1.1; docs/oci.md
// says what of a registry crosses and how.
//
// Invariants:
//   - Manifests cross as the bytes that the registry sent; darkmirror writes
//     one of its own only where the configuration asks for it (a platform
//     filter, a chart of a classic repository, a docker archive), and records
//     that.
//   - An image crosses with everything below it and everything that refers to
//     it, or not at all.
//   - A tag never points at an image that is not whole.
//
// Limits: those of package spec; [maxDepth], [maxReferrers] and [maxImages]
// bound what one reference may pull in.
package oci
