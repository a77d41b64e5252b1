package pypi

import (
	"fmt"

	"github.com/darkmirror/darkmirror/mirror/artifact"
)

// readRequirements reads a requirements file in which every requirement is
// pinned and hashed.
func readRequirements(file string) (*Lock, error) {
	r, err := readReqFile(file)
	if err != nil {
		return nil, err
	}
	return r.lock()
}

// lock makes a lock of requirements, or says which of them is none.
func (r *Requirements) lock() (*Lock, error) {
	l := &Lock{where: r.where, Notes: r.Notes, Pins: make([]Pin, 0, len(r.Wants))}
	for i := range r.Wants {
		w := &r.Wants[i]
		name := w.Requirement.Name
		version, ok := w.Requirement.Specifiers.Exact()
		if !ok {
			return nil, lockRefusal("-UNPINNED", w.Where, name+" is not pinned to one version with ==; compile the file with hashes first", nil)
		}
		if len(w.Hashes) == 0 {
			return nil, lockRefusal("-UNHASHED", w.Where, fmt.Sprintf("%s %s has no --hash=sha256:; compile the file with hashes first", name, version), nil)
		}
		digests := make(map[artifact.Digest]bool, len(w.Hashes))
		for _, d := range w.Hashes {
			digests[d] = true
		}
		l.Pins = append(l.Pins, Pin{Name: name, Version: version, Marker: w.Requirement.Marker, Where: w.Where, Digests: digests})
	}
	for _, c := range r.Constraints {
		l.constraints = append(l.constraints, constraint{c.Requirement, c.Where})
	}
	if len(r.Formats.NoBinary)+len(r.Formats.OnlyBinary) > 0 {
		l.Notes = append(l.Notes, r.where+": --no-binary and --only-binary are ignored: the hashes say which files serve")
	}
	return l, nil
}
