package config

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestNumbersOfLimits asks the kernel, which lists its limits by number.
func TestNumbersOfLimits(t *testing.T) {
	data, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Skip(err)
	}
	kernel := map[string]string{
		"cpu": "cpu time", "fsize": "file size", "data": "data size", "stack": "stack size", "core": "core file size",
		"rss": "resident set", "nproc": "processes", "nofile": "open files", "memlock": "locked memory",
		"memory": "address space", "locks": "file locks", "sigpending": "pending signals", "msgqueue": "msgqueue size",
		"nice": "nice priority", "rtprio": "realtime priority", "rttime": "realtime timeout",
	}
	lines := regexp.MustCompile(`(?m)^Max ([a-z ]+?)  `).FindAllStringSubmatch(string(data), -1)
	equal(t, len(lines), len(rlimitNames))
	for number, name := range rlimitNames {
		equal(t, name+": "+lines[number][1], name+": "+kernel[name])
	}
}

// TestLimitsAreInTheTable: each number has its key, and each key its number.
func TestLimitsAreInTheTable(t *testing.T) {
	const parent = "services.*.rlimits"
	equal(t, len(index.children[parent]), len(rlimitNames))
	for _, name := range rlimitNames {
		if k := index.byPath[join(parent, name)]; k == nil || k.Kind != Limit || k.Of == "" {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

func TestCapabilityNumbers(t *testing.T) {
	equal(t, len(capabilityNames), 41)
	for number, name := range map[int]string{0: "chown", 7: "setuid", 10: "net_bind_service", 21: "sys_admin", 34: "syslog", 40: "checkpoint_restore"} {
		equal(t, capabilityNames[number], name)
	}
	for _, name := range capabilityNames {
		for _, written := range []string{name, strings.ToUpper(name), "CAP_" + strings.ToUpper(name), "cap_" + name} {
			if got, err := capability(written); got != name || err != nil {
				t.Errorf("%s is %s, %v", written, got, err)
			}
		}
	}
}

func TestPresetsAreInTheTable(t *testing.T) {
	equal(t, len(presets), len(presetNames))
	for _, name := range presetNames {
		equal(t, presets[name].Preset, name)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "0T": 0, "1K": 1 << 10, "010K": 10 << 10, "3M": 3 << 20, "1024M": 1 << 30, "2T": 2 << 40,
		"8388607T": math.MaxInt64 >> 40 << 40,
	} {
		if got, ok := parseSize(text); got != want || !ok {
			t.Errorf("%s is %d, %t", text, got, ok)
		}
	}
	for _, text := range []string{"8388608T", "9007199254740992K", "18446744073709551616K"} {
		if n, ok := parseSize(text); ok {
			t.Errorf("%s is %d", text, n)
		}
	}
	for n, want := range map[uint64]string{0: "0", 1: "1", 1023: "1023", 1024: "1K", 1 << 20: "1M", 3 << 29: "1536M", 1 << 50: "1024T"} {
		equal(t, fmt.Sprint(n, " ", sizeText(n)), fmt.Sprint(n, " ", want))
	}
}
