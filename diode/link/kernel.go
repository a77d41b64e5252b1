package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Kernel is what this host's kernel is set to, and what it has dropped before
// any socket saw it. What cannot be read is 0.
type Kernel struct {
	ReceiveMax int64    // net.core.rmem_max
	Backlog    int64    // net.core.netdev_max_backlog
	Dropped    int64    // packets that did not fit the backlog since the start
	Available  int64    // bytes of memory
	Governors  []string // of the processors' frequency, each once
}

// ReadKernel reads /proc and /sys.
func ReadKernel() (*Kernel, error) {
	k := &Kernel{}
	for name, p := range map[string]*int64{"rmem_max": &k.ReceiveMax, "netdev_max_backlog": &k.Backlog} {
		// Not there in a network namespace that is not the first, for some.
		data, err := os.ReadFile("/proc/sys/net/core/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if *p, err = strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err != nil {
			return nil, fmt.Errorf("net.core.%s: %w", name, err)
		}
	}
	data, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		return nil, err
	}
	if k.Dropped, err = parseSoftnet(string(data)); err != nil {
		return nil, err
	}
	if data, err = os.ReadFile("/proc/meminfo"); err != nil {
		return nil, err
	}
	if k.Available, err = parseAvailable(string(data)); err != nil {
		return nil, err
	}
	files, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if g := strings.TrimSpace(string(data)); err == nil && !slices.Contains(k.Governors, g) {
			k.Governors = append(k.Governors, g)
		}
	}
	return k, nil
}

// parseSoftnet sums the second column, hexadecimal, a line a processor.
func parseSoftnet(text string) (sum int64, err error) {
	for line := range strings.Lines(text) {
		columns := strings.Fields(line)
		if len(columns) < 2 {
			return 0, fmt.Errorf("softnet_stat: %d columns, want 2 or more", len(columns))
		}
		n, err := strconv.ParseUint(columns[1], 16, 32)
		if err != nil {
			return 0, fmt.Errorf("softnet_stat: %w", err)
		}
		sum += int64(n)
	}
	return sum, nil
}

// parseAvailable finds MemAvailable, which is in kB.
func parseAvailable(text string) (int64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "MemAvailable:")
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 40)
		if err != nil {
			return 0, fmt.Errorf("meminfo: %w", err)
		}
		return kb << 10, nil
	}
	return 0, errors.New("meminfo: MemAvailable is not in it")
}
