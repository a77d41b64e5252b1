// The command models prints what the rules for model files say of each file
// that it is given: its name, "held" or "passes", and the gravest reason, with
// tabs between. It walks and inspects as a run of darkmirror does, and holds
// what the default policy holds. run.sh runs it beside its peers.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/darkmirror/darkmirror/scan"
	"github.com/darkmirror/darkmirror/scan/walk"
	"github.com/darkmirror/darkmirror/scan/weights"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, names []string, out io.Writer) error {
	if len(names) == 0 {
		return errors.New("no file is named")
	}
	rules, err := weights.New(weights.Config{})
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	for _, name := range names {
		reasons, err := judge(ctx, rules, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		verdict := "passes"
		if len(reasons) > 0 {
			verdict = "held"
		}
		if _, err := fmt.Fprintf(w, "%s\t%s\t%s\n", name, verdict, strings.Join(reasons, "; ")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// judge lists why a file would be held: findings of the gravest severities,
// what was not scanned, and archives that are malformed.
func judge(ctx context.Context, rules *weights.Inspector, name string) (reasons []string, err error) {
	f, err := os.Open(name) // #nosec G703 -- the user names the file
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	res, err := walk.Walk(ctx, filepath.Base(name), f, info.Size(), walk.Options{}, func(file *walk.File) error {
		list, err := rules.Inspect(ctx, file)
		for _, x := range list {
			if x.Kind == scan.KindNotScanned || x.Severity == scan.Critical || x.Severity == scan.High {
				reasons = append(reasons, x.ID+": "+x.Text)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, p := range res.Problems {
		if p.NotScanned || p.Severity != scan.Low {
			reasons = append(reasons, p.Code+": "+p.Text)
		}
	}
	return reasons, nil
}
