package spawn

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCallTables compares the tables with the constants of golang.org/x/sys,
// which are made from the kernel's headers.
func TestCallTables(t *testing.T) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Skipf("SKIPPED: no sources of golang.org/x/sys to compare with: %v", err)
	}
	constant := regexp.MustCompile(`(?m)^\tSYS_(\w+)\s+= (\d+)$`)
	for name, a := range architectures {
		file := filepath.Join(strings.TrimSpace(string(dir)), "zsysnum_linux_"+name+".go")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := map[int]string{}
		for _, m := range constant.FindAllStringSubmatch(string(text), -1) {
			// A place for an architecture's own calls, where arm64 has none.
			if number, _ := strconv.Atoi(m[2]); m[1] != "ARCH_SPECIFIC_SYSCALL" {
				want[number] = strings.ToLower(m[1])
			}
		}
		if len(want) < 300 {
			t.Fatalf("%s has %d system calls", file, len(want))
		}
		for number := range max(len(a.calls), 1000) {
			got := ""
			if number < len(a.calls) {
				got = a.calls[number]
			}
			if got != want[number] {
				t.Errorf("%s: %d is %q, want %q", name, number, got, want[number])
			}
		}
	}
}

func TestSystemCallName(t *testing.T) {
	for number, want := range map[int]string{
		unix.SYS_MOUNT: "mount", unix.SYS_READ: "read", unix.SYS_CLONE3: "clone3", 999: "number 999", -1: "number -1",
		hole(): "number " + strconv.Itoa(hole()),
	} {
		if got := SystemCallName(number); got != want {
			t.Errorf("%d is %q, want %q", number, got, want)
		}
	}
}

// hole is a number without a call in the midst of the table.
func hole() int {
	if runtime.GOARCH == "arm64" {
		return 300
	}
	return 400
}
