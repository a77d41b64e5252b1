package packaging

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A description with the pieces of a preset is that preset.
func TestDescriptionIsPreset(t *testing.T) {
	want := mustTarget(t, "cp313t-manylinux_2_28_x86_64@3.13.2")
	got, err := Description{Name: "mine", Python: "3.13.2", FreeThreaded: true, Platform: "manylinux_2_28_x86_64"}.Target()
	if err != nil {
		t.Fatal(err)
	}
	if cmp.Diff(want.Env, got.Env) != "" || !slices.Equal(want.Tags(), got.Tags()) || got.Text != "mine" || got.Python.String() != "3.13.2" {
		t.Errorf("got %+v", got)
	}
}

func TestDescription(t *testing.T) {
	target, err := Description{
		Name: "appliance", Python: "3.11.9", Platform: "manylinux_2_31_x86_64", Platforms: []string{"vendor_x86_64", "linux_x86_64"}, ABI: "cp311",
		Markers: map[string]string{"platform_release": "5.10.0-28-amd64", "platform_version": "#1 SMP", "platform_machine": "x86_64h"},
	}.Target()
	if err != nil {
		t.Fatal(err)
	}
	if target.Env.PlatformRelease != "5.10.0-28-amd64" || target.Env.PlatformMachine != "x86_64h" || target.Env.SysPlatform != "linux" {
		t.Errorf("got %+v", target.Env)
	}
	if first := target.Tags()[0].String(); first != "cp311-cp311-vendor_x86_64" {
		t.Errorf("best tag %s", first)
	}
	m, err := ParseMarker(`platform_release >= "5.10" or platform_version == "#1 SMP"`)
	if err != nil || m.Eval(&target.Env) != True {
		t.Errorf("a known platform_version is %v, %v", m.Eval(&target.Env), err)
	}
}

func TestDescriptionRefused(t *testing.T) {
	const linux = "manylinux_2_28_x86_64"
	for what, d := range map[string]Description{
		"no python":            {Platform: linux},
		"python 3.7":           {Python: "3.7.1", Platform: linux},
		"python 2":             {Python: "2.7.18", Platform: linux},
		"short python":         {Python: "3.12", Platform: linux},
		"python 3.08":          {Python: "3.08.1", Platform: linux},
		"python 3.100":         {Python: "3.100.0", Platform: linux},
		"no platform":          {Python: "3.12.0"},
		"unknown platform":     {Python: "3.12.0", Platform: "linux"},
		"malformed platforms":  {Python: "3.12.0", Platform: linux, Platforms: []string{"linux-x86_64"}},
		"too many platforms":   {Python: "3.12.0", Platform: linux, Platforms: make([]string, maxPlatforms+1)},
		"unknown interpreter":  {Python: "3.12.0", Platform: linux, Implementation: "jy"},
		"pypy without an ABI":  {Python: "3.10.14", Platform: linux, Implementation: "pp", ImplementationVersion: "7.3.17"},
		"pypy without version": {Python: "3.10.14", Platform: linux, Implementation: "pp", ABI: "pypy310_pp73"},
		"old free-threaded":    {Python: "3.12.0", Platform: linux, FreeThreaded: true},
		"malformed ABI":        {Python: "3.12.0", Platform: linux, ABI: "cp312-x"},
		"unknown marker":       {Python: "3.12.0", Platform: linux, Markers: map[string]string{"extra": "x"}},
		"marker with an end":   {Python: "3.12.0", Platform: linux, Markers: map[string]string{"platform_version": "a\nb"}},
		"long marker":          {Python: "3.12.0", Platform: linux, Markers: map[string]string{"platform_version": strings.Repeat("x", maxMarkerValue+1)}},
		"two versions":         {Python: "3.12.0", Platform: linux, Markers: map[string]string{"python_full_version": "3.12.1"}},
		"another short one":    {Python: "3.12.0", Platform: linux, Markers: map[string]string{"python_version": "3.1"}},
		"tags without markers": {Python: "3.12.0", Tags: []string{"py3-none-any"}},
		"malformed tag":        {Python: "3.12.0", Platform: linux, Tags: []string{"py3-none"}},
		"compressed tag":       {Python: "3.12.0", Platform: linux, Tags: []string{"py2.py3-none-any"}},
	} {
		if _, err := d.Target(); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}
