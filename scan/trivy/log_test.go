package trivy

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"

	trivylog "github.com/aquasecurity/trivy/pkg/log"
)

func TestDefaultLoggerOfTheProgramStays(t *testing.T) {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	var out bytes.Buffer
	mine := slog.New(slog.NewTextHandler(&out, nil))
	slog.SetDefault(mine)
	gathering(t)
	if slog.Default() != mine {
		t.Error("New replaced slog's default logger")
	}
	slog.Info("still here")
	if !strings.Contains(out.String(), "still here") {
		t.Errorf("the record is lost: %q", out.String())
	}
}

// inChild says that the test binary runs as a program of its own, in which
// nobody has set slog's default logger yet.
const inChild = "TRIVY_LOG_CHILD"

// TestNoRecordIsLost runs in a fresh process, where Trivy is the default.
func TestNoRecordIsLost(t *testing.T) {
	if os.Getenv(inChild) != "" {
		child(t)
		return
	}
	for name, want := range map[string]string{"none": "", "own": "own="} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoRecordIsLost$")
		cmd.Env = append(os.Environ(), inChild+"="+name)
		var out bytes.Buffer
		cmd.Stderr = &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		for _, line := range []string{"before New", "after New", "of package log"} {
			if !strings.Contains(out.String(), line) {
				t.Errorf("logger %s: %q is lost:\n%s", name, line, out.String())
			}
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("logger %s: not asked:\n%s", name, out.String())
		}
		if strings.Contains(out.String(), "language-specific") {
			t.Errorf("logger %s: Trivy's remarks are shown:\n%s", name, out.String())
		}
	}
}

// child logs before and after New; Trivy's remark must not be seen at the
// level info.
func child(t *testing.T) {
	if _, ok := slog.Default().Handler().(*trivylog.DeferredHandler); !ok {
		t.Fatalf("slog's default is %T at the start, want Trivy's: then all this is not needed", slog.Default().Handler())
	}
	slog.Info("before New")
	var own *slog.Logger
	if os.Getenv(inChild) == "own" {
		own = slog.New(slog.NewTextHandler(os.Stderr, nil)).With(slog.Bool("own", true))
	}
	if _, err := New(Config{Logger: own}); err != nil {
		t.Fatal(err)
	}
	slog.Info("after New")
	slog.Default().WithGroup("g").Info("a group", slog.Int("k", 1))
	log.Print("of package log")
	s := newScanner(t)
	sub, inv := wheel(t, s, "pip", "18.1")
	if got := judge(t, s, sub, inv); len(got) != 1 {
		t.Errorf("findings %v", got)
	}
}

func TestHandlerDividesRecords(t *testing.T) {
	var rest, trivys bytes.Buffer
	h := Handler(slog.NewTextHandler(&rest, nil), slog.NewTextHandler(&trivys, &slog.HandlerOptions{Level: slog.LevelDebug}))
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	slog.SetDefault(slog.New(h))
	slog.Info("mine")
	slog.Debug("mine, not shown")
	trivylog.Warnf("%s", "trivy's")
	trivylog.Errorf("%s", "trivy's error")
	if got := rest.String(); !strings.Contains(got, "msg=mine\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("rest got %q", got)
	}
	if got := trivys.String(); !strings.Contains(got, `level=DEBUG msg=trivy's`) || !strings.Contains(got, "level=ERROR") || strings.Count(got, "\n") != 2 {
		t.Errorf("trivys got %q", got)
	}
	if !h.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("debug is off, but trivys wants it")
	}
}
