//go:build !failpoint

// Package failpoint names the steps at which a process may die. In a normal
// build [Here] is empty and costs nothing; with the build tag "failpoint" it
// kills the process with SIGKILL at the step that the environment names, so
// that a test can stop a run anywhere and compare the end of a rerun with the
// end of an undisturbed run.
package failpoint

// Here marks a step. Names are "package.step", literal strings.
func Here(string) {}
