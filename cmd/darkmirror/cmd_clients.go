package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/darkmirror/darkmirror/mirror/config"
)

// clientsOptions are the flags of clients.
type clientsOptions struct {
	target bool
	hosts  []string
	caFile string
	dir    string
}

func (o *clientsOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.target, "target", false, "for the registry or Harbor that images are published into, not for darkmirror serve")
	f.StringArrayVar(&o.hosts, "host", nil, "a `REGISTRY` as image names begin with it, as registry.example:5000; repeatable (default: those of what is published)")
	f.StringVar(&o.caFile, "ca", "", "`FILE` with the CA that clients are to trust, PEM (default: from serve.certificate, or ca_file of the target)")
	f.StringVar(&o.dir, "dir", "", "also write the files below `DIR`, as they would lie on the client")
}

func newClients(a *app) *cobra.Command {
	var o clientsOptions
	cmd := &cobra.Command{
		Use:     "clients [--target] [--host REGISTRY]... [--ca FILE] [--dir DIR] [TOOL]",
		GroupID: groupInside,
		Short:   "Print the settings for pip, apt, containerd, docker, vLLM and more",
		Long: `Print the settings with which clients use this mirror and nothing else.

TOOL is one of
` + strings.Join(wrap(strings.Join(toolNames(), ", "), 77), "\n") + `;
without it all are printed. crio, skopeo and buildah are read as podman, which
has the same files; transformers and sentence-transformers as huggingface.

The addresses come from serve.listen, serve.name and serve.certificate, the
rest from the sources. Images are served as

  NAME:PORT/SOURCE/REGISTRY/REPOSITORY, as in
  mirror.example:8443/platform/registry.example/library/nginx:1.27

containerd and podman go on asking for registry.example/library/nginx:1.27 and
are sent there; docker cannot, and has to be given the longer name. Which
registries there are is read from what is published. There a port is written
with a hyphen, registry.example:5000 as registry.example-5000; if that is read
back wrongly, --host says what is right.

--target is for the harbor or registry of the oci sources in place of the
embedded server. --dir leaves out what is no file: commands to run. Secrets are
never printed: where a token is needed, the text says where it goes.

` + codesLine(exitOK, exitOther, exitUsage, exitIntegrity),
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: toolNames(),
		RunE: func(_ *cobra.Command, args []string) error {
			tool := ""
			if len(args) == 1 {
				tool = args[0]
			}
			return a.clients(tool, o)
		},
	}
	o.addFlags(cmd)
	return cmd
}

// A setting is one file of a client, or commands to run there.
type setting struct {
	Tool string `json:"tool"`
	// File is absolute where it lies on the client, relative where it is
	// handed to a cluster, and empty for commands.
	File    string `json:"file"`
	Content string `json:"content"`
	Note    string `json:"note"`
}

type clientsResult struct {
	Schema string    `json:"schema"`
	Tools  []setting `json:"tools"`
}

// A tool is one kind of client.
type tool struct {
	name    string
	aliases []string
	section string // of the configuration: pypi, apt, oci or models
	build   func(*clientsView) []setting
}

func allTools() []tool {
	return []tool{
		{"pip", nil, "pypi", pipSettings},
		{"uv", nil, "pypi", uvSettings},
		{"apt", nil, "apt", aptSettings},
		{"containerd", nil, "oci", containerdSettings},
		{"podman", []string{"crio", "cri-o", "skopeo", "buildah"}, "oci", podmanSettings},
		{"docker", nil, "oci", dockerSettings},
		{"kubernetes", nil, "oci", kubernetesSettings},
		{"openshift", nil, "oci", openshiftSettings},
		{"helm", nil, "oci", helmSettings},
		{"huggingface", []string{"hf", "transformers", "sentence-transformers"}, "models", hubSettings},
		{"vllm", nil, "models", vllmSettings},
		{"tgi", nil, "models", tgiSettings},
		{"nim", nil, "models", nimSettings},
		{"kserve", nil, "models", kserveSettings},
	}
}

func toolNames() []string {
	var names []string
	for _, t := range allTools() {
		names = append(names, t.name)
	}
	return names
}

// chooseTools is one tool, or all that the configuration has sources for.
func chooseTools(cfg *config.Config, name string, target bool) ([]tool, error) {
	has := map[string]bool{"pypi": len(cfg.PyPI) > 0 && !target, "apt": len(cfg.Apt) > 0 && !target, "oci": hasImages(cfg), "models": len(cfg.Models) > 0 && !target}
	all := allTools()
	if name == "" {
		all = slices.DeleteFunc(all, func(t tool) bool { return !has[t.section] })
		if len(all) == 0 {
			return nil, usagef("the configuration has no source that clients could use\nadd pypi, apt, oci or models, named as outside")
		}
		return all, nil
	}
	i := slices.IndexFunc(all, func(t tool) bool { return t.name == name || slices.Contains(t.aliases, name) })
	switch {
	case i < 0:
		return nil, usagef("no settings for %q: want %s\ndarkmirror clients prints all", name, strings.Join(toolNames(), ", "))
	case target && all[i].section != "oci":
		return nil, usagef("%s is served by darkmirror serve alone; --target is about images\ndarkmirror clients %s", all[i].name, all[i].name)
	case !has[all[i].section]:
		return nil, usagef("the configuration has no %s source, which %s would use\nadd %s, with the source's name as outside", all[i].section, all[i].name, all[i].section)
	}
	return all[i : i+1], nil
}

func (a *app) clients(name string, o clientsOptions) error {
	cfg, err := a.load(config.Inside)
	if err != nil {
		return err
	}
	chosen, err := chooseTools(cfg, name, o.target)
	if err != nil {
		return err
	}
	v, err := a.newClientsView(cfg, o, chosen)
	if err != nil {
		return err
	}
	res := clientsResult{Schema: "darkmirror.clients/v1", Tools: []setting{}}
	for _, t := range chosen {
		for _, s := range t.build(v) {
			s.Tool = t.name
			res.Tools = append(res.Tools, s)
		}
	}
	for _, w := range v.warnings {
		a.warn("%s", w)
	}
	var written []string
	if o.dir != "" {
		if written, err = writeSettings(o.dir, res.Tools); err != nil {
			return err
		}
	}
	switch {
	case a.output.machine():
		return writeJSON(a.out, a.output, res)
	case o.dir != "":
		for _, name := range written {
			fmt.Fprintf(a.out, "wrote  %s\n", name)
		}
		fmt.Fprintf(a.out, "%s; without --dir the notes are printed too\n", plural(len(written), "file"))
	default:
		printSettings(a.out, res.Tools)
	}
	return nil
}

// printSettings prints each file below a heading that is a comment to most of
// the programs that read it, and a file that several tools have once.
func printSettings(w io.Writer, all []setting) {
	files := make(map[string]bool)
	all = slices.DeleteFunc(slices.Clone(all), func(s setting) bool {
		again := s.File != "" && files[s.File]
		files[s.File] = true
		return again
	})
	for i, s := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		file := s.File
		if file == "" {
			file = "commands"
		}
		fmt.Fprintf(w, "# %s: %s\n", s.Tool, file)
		for line := range strings.SplitSeq(s.Note, "\n") {
			for _, part := range wrap(line, 77) {
				fmt.Fprintf(w, "# %s\n", part)
			}
		}
		if s.Content != "" {
			fmt.Fprintf(w, "\n%s", s.Content)
		}
	}
}

// wrap breaks text at spaces into lines of at most width bytes where it can.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// writeSettings writes the files below dir and gives their names there. Files
// that are there are replaced, so that a second run changes what has changed.
func writeSettings(dir string, all []setting) (written []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- nothing in it is secret
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, s := range all {
		name := strings.TrimPrefix(s.File, "/")
		if name == "" || slices.Contains(written, path.Join(dir, name)) {
			continue // commands, or a certificate that another tool has as well
		}
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return nil, err
		}
		if err := root.WriteFile(name, []byte(s.Content), 0o644); err != nil {
			return nil, err
		}
		written = append(written, path.Join(dir, name))
	}
	return written, nil
}
