// Command images is the demo's hand on container images: it makes real ones
// out of root file systems, pushes them to a registry, reads a registry back,
// and lists what is in a root. It shares no code with darkmirror, so that the
// two do not agree by mistake.
//
//	images push  REGISTRY OS/ARCH[/VARIANT]=ROOT.tar...
//	images walk  REGISTRY PREFIX
//	images join  DEB-TAR... >ROOT.tar
//	images layers LAYOUT OS/ARCH
//	images list  DIR | TAR...
//
// REGISTRY is an address such as http://127.0.0.1:5000. PREFIX stands before
// the names of the repositories there.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) < 2 {
		return fmt.Errorf("want push, walk, join, layers or list, and what to work on")
	}
	switch command, args := args[0], args[1:]; {
	case command == "push" && len(args) > 1:
		return push(args[0], args[1:], out)
	case command == "walk" && len(args) == 2:
		return walk(args[0], args[1], out)
	case command == "join":
		return join(args, out)
	case command == "layers" && len(args) == 2:
		return layers(args[0], args[1], out)
	case command == "list":
		return list(args, out)
	default:
		return fmt.Errorf("%s with %d arguments is none of push, walk, join, layers and list", command, len(args))
	}
}
