// Package resolve chooses one version of each project, so that every
// requirement of a problem holds on one target: the work of pip's and uv's
// resolvers for an interpreter that is not this host's.
//
// Method: version solving by conflict-driven clause learning as PubGrub
// does it (N. Weizenbaum, "PubGrub: Next-Generation Version Solving", 2018;
// Solver of Dart's pub). Ranges are not computed with: an index lists the
// versions of a project, so that a set of versions is a set of places in that
// list, and whether a specifier holds is asked of package packaging, once for
// each version. One place more stands for "not chosen", which makes the
// complement of a set a set.
//
// What the rules are:
//   - Of the versions that fit, the newest is taken, stable ones before
//     pre-releases.
//   - Pre-releases of a project count if a want names one, if the problem
//     allows them, or if nothing else satisfies a requirement.
//   - A yanked version counts only where == or === names it.
//   - An extra is a project of its own, "name[extra]", tied to the version
//     of the project.
//   - A marker that the target cannot decide counts as true.
//   - Equal problems and equal answers of the [Index] give equal solutions.
//
// Invariants: a solution satisfies every want, every requirement of what it
// holds and every constraint; without one the error says who wants what, or
// that the bound on the work was reached. No file is read and nothing is run
// here: what an index knows comes from its [Index].
package resolve
