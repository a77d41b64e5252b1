package linkend

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/darkmirror/darkmirror/diode"
	"github.com/darkmirror/darkmirror/diode/link"
)

func statusOf(change func(st *status)) *status {
	ahead := 0.2
	st := &status{Status: &diode.Status{
		Schema: "darkdiode.receiver/v1", Time: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC), Link: "up", Heard: time.Date(2027, 3, 1, 11, 59, 59, 0, time.UTC),
		Sender: diode.SenderIdle, Rate: 9e8, Sent: 1_000_000, Arrived: 999_990, Ahead: &ahead,
	}}
	if change != nil {
		change(st)
	}
	return st
}

func TestCheckStatus(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 1, 0, time.UTC)
	for what, tt := range map[string]struct {
		change     func(st *status)
		name, text string
		want       link.FindingState
	}{
		"idle":    {nil, "heard", "the sender is idle; heard 2s ago, 0 heartbeats missed", link.FindingOK},
		"silent":  {func(st *status) { st.Sender = diode.SenderSilent }, "heard", "nothing was heard of the sender for 2s", link.FindingFail},
		"gone":    {func(st *status) { st.Sender = diode.SenderLeft }, "heard", "the sender is gone", link.FindingOK},
		"never":   {func(st *status) { st.Sender = diode.SenderUnknown }, "heard", "idle or dead", link.FindingUnknown},
		"old":     {func(st *status) { st.Time = now.Add(-time.Hour) }, "heard", "is 1h0m0s old", link.FindingWarn},
		"little":  {nil, "loss", "10 of 1000000 packets did not arrive", link.FindingOK},
		"doubled": {func(st *status) { st.Arrived = 2_000_000 }, "loss", "0 of 1000000 packets did not arrive", link.FindingOK},
		"much":    {func(st *status) { st.Arrived = 990_000 }, "loss", "10000 of 1000000 packets did not arrive, and none was dropped by this host's ring", link.FindingWarn},
		"own":     {func(st *status) { st.Arrived = 990_000; st.Socket.KernelDrops = 9000; st.Counts.Stalls = 3 }, "loss", "the ring was full: 9000 packets were dropped, and 3 times", link.FindingWarn},
		"nothing": {func(st *status) { st.Sent, st.Arrived = 0, 0 }, "loss", "no heartbeat", link.FindingUnknown},
		"clock":   {func(st *status) { *st.Ahead = -7200 }, "clock", "2h0m0s behind", link.FindingFail},
		"agree":   {nil, "clock", "agree within 1s", link.FindingOK},
		"no beat": {func(st *status) { st.Ahead = nil }, "clock", "no heartbeat", link.FindingUnknown},
	} {
		all := checkStatus(statusOf(tt.change), now)
		n := 0
		for _, f := range all {
			if f.Name != tt.name {
				continue
			}
			n++
			if f.State != tt.want || !strings.Contains(f.Detail, tt.text) {
				t.Errorf("%s: %+v, want %s and %q", what, f, tt.want, tt.text)
			}
			if bad := f.State == link.FindingWarn || f.State == link.FindingFail; bad && f.Mend == "" {
				t.Errorf("%s: nothing mends %+v", what, f)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d findings are named %s: %+v", what, n, tt.name, all)
		}
	}
	if all := checkStatus(nil, now); len(all) != 2 || all[0].State != link.FindingUnknown || all[1].Name != "clock" {
		t.Errorf("without a status: %+v", all)
	}
}

func TestReadStatus(t *testing.T) {
	dir := t.TempDir()
	write := func(data []byte) string {
		t.Helper()
		name := filepath.Join(dir, "status.json")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	want := statusOf(func(st *status) { st.Socket.KernelDrops = 7 })
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	st, err := readStatus(write(data))
	if err != nil || st.Sender != want.Sender || st.Sent != want.Sent || *st.Ahead != *want.Ahead || st.Socket.KernelDrops != 7 {
		t.Errorf("%+v, %v", st, err)
	}
	for _, name := range []string{"", filepath.Join(dir, "no-such-file")} {
		if st, err := readStatus(name); st != nil || err != nil {
			t.Errorf("%q: %+v, %v", name, st, err)
		}
	}
	for what, data := range map[string][]byte{
		"not json": []byte("x"),
		"schema":   []byte(`{"schema":"something.else/v1"}`),
		"null":     []byte("null"),
		"too long": []byte(strings.Repeat(" ", maxStatus+1)),
	} {
		if st, err := readStatus(write(data)); err == nil || st != nil {
			t.Errorf("%s: %+v, %v", what, st, err)
		}
	}
}

// names counts the findings of each name.
func names(all []Finding) map[string]int {
	m := map[string]int{}
	for _, f := range all {
		m[f.Name]++
	}
	return m
}

func TestDiagnose(t *testing.T) {
	n := names(SendOptions{To: netip.MustParseAddrPort("127.0.0.1:7337"), Rate: 1e9}.Diagnose())
	for _, name := range []string{"card", "speed", "mtu", "offload", "pause", "eee", "clock"} {
		if n[name] != 1 {
			t.Errorf("sender: %d findings are named %s", n[name], name)
		}
	}
	n = names(ReceiveOptions{Interface: "lo"}.Diagnose())
	for _, name := range []string{"card", "mtu", "offload", "rx-ring", "arrivals", "pause", "eee", "ring", "backlog", "rmem-max", "governor", "heard", "clock"} {
		if n[name] != 1 {
			t.Errorf("receiver: %d findings are named %s", n[name], name)
		}
	}
	for what, all := range map[string][]Finding{
		"no interface":   ReceiveOptions{}.Diagnose(),
		"wrong one":      ReceiveOptions{Interface: "no-such-link"}.Diagnose(),
		"wrong, to send": SendOptions{To: netip.MustParseAddrPort("127.0.0.1:7337"), Interface: "no-such-link"}.Diagnose(),
	} {
		if !all[0].Failed() || all[0].Mend == "" {
			t.Errorf("%s: %+v", what, all[0])
		}
	}
}

func TestLineFile(t *testing.T) {
	dir := t.TempDir()
	o := SendOptions{To: netip.MustParseAddrPort("[fe80::1%eth1]:7337"), Spool: dir, Priority: "urgent"}
	for _, file := range []string{"", filepath.Join(dir, "line")} {
		o.Line = file
		l, err := o.line()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != 2 || !strings.HasSuffix(all[0].Name(), "-[fe80__1_eth1]_7337") || all[1].Name() != "line" {
		t.Errorf("files %v, %v", all, err)
	}
	o.Line = filepath.Join(dir, "no", "line")
	if _, err := o.line(); !errors.Is(err, diode.ErrConfig) {
		t.Errorf("a folder that is not there: %v", err)
	}
	o.Priority = "asap"
	if _, err := o.Plan(); !errors.Is(err, diode.ErrConfig) {
		t.Errorf("a priority that is none: %v", err)
	}
}
