package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Limits of what programs use together. They take controllers that a machine's
// tree of version 2 may not have; in the machine of make test-vm it has all.

// cgroupRoot is the root of the version 2 tree, where superd is itself.
func cgroupRoot(t *testing.T) string {
	t.Helper()
	needRoot(t)
	const root = "/sys/fs/cgroup"
	own, _ := os.ReadFile("/proc/self/cgroup")
	offered, _ := os.ReadFile(root + "/cgroup.controllers")
	for _, name := range []string{"memory", "pids", "cpu"} {
		if !slices.Contains(strings.Fields(string(offered)), name) || string(own) != "0::/\n" {
			t.Skip("SKIPPED: this needs to be in the root of a cgroup tree of version 2 with the controllers memory, pids and cpu; make test-vm is")
		}
	}
	return root
}

// startInCgroups is start, and in the end no cgroup may be left.
func startInCgroups(t *testing.T, root, yaml string) *process {
	t.Helper()
	before, _ := filepath.Glob(root + "/service.*")
	t.Cleanup(func() { // after superd's end
		if after, _ := filepath.Glob(root + "/service.*"); !slices.Equal(before, after) {
			t.Errorf("%v is there, before it was %v", after, before)
		}
	})
	return start(t, yaml)
}

// hog is a program that says so and then uses more memory than it may.
const hog = "echo begun; dd if=/dev/zero of=/dev/null bs=100M count=1; echo survived"

// endedBy wants the latest record of a service to be of a program that a signal
// of the kernel's ended.
func (d *process) endedBy(service, signal string, n int) {
	d.t.Helper()
	if r := d.exited(service, n)[n-1]; r.text("signal") != signal || r.text("reason") != "" {
		d.t.Errorf("%s ends as %v", service, r)
	}
}

func TestCgroupMemory(t *testing.T) {
	root := cgroupRoot(t)
	d := startInCgroups(t, root, fmt.Sprintf(`
services:
  echo: {listen: "127.0.0.1:0", builtin: echo}
  together: {listen: "127.0.0.1:0", %s, stderr: "null", cgroup: {memory: 32M}}
  each: {listen: "127.0.0.1:0", %s, stderr: "null", cgroup: {memory: 32M, per_connection: true}}
  modest: {listen: "127.0.0.1:0", run: /bin/cat, cgroup: {memory: 32M, per_connection: true}}
`, shell("exec >&0; "+strings.Replace(hog, "dd", "exec dd", 1)), shell("sleep 1000 & "+hog)))
	modest := d.held("modest")
	for n := range 3 {
		for _, service := range []string{"together", "each"} {
			if got := d.ask(service, ""); got != "begun\n" {
				t.Errorf("%s says %q", service, got)
			}
			d.endedBy(service, "SIGKILL", n+1)
		}
	}
	d.talk(modest, "unharmed")
	if got := d.ask("echo", "hello"); got != "hello" {
		t.Errorf("afterwards the echo is %q", got)
	}
}

// TestCgroupMemoryIsNotSuperds: a child that has not been executed yet is a part
// of superd to the kernel, and is spared where the cgroup has no more memory.
func TestCgroupMemoryIsNotSuperds(t *testing.T) {
	root := cgroupRoot(t)
	large := make([]string, 15)
	for i := range large {
		large[i] = strings.Repeat("x", 100_000)
	}
	d := startInCgroups(t, root, fmt.Sprintf(`
services:
  echo: {listen: "127.0.0.1:0", builtin: echo}
  crowd: {listen: "127.0.0.1:0", run: /bin/cat, stderr: "null", cgroup: {memory: 4M}}
  large: {listen: "127.0.0.1:0", run: %s, cgroup: {memory: 1M, per_connection: true}}
`, yamlList(append([]string{"/bin/true"}, large...)...)))
	var crowd []net.Conn
	for range fewer(400, 80) {
		c := d.dial("crowd")
		io.WriteString(c, "hello")
		crowd = append(crowd, c)
	}
	for range 10 {
		c := d.dial("large")
		io.ReadAll(c) // a reset or an end: it depends on where it fails
	}
	if got := d.ask("echo", "hello"); got != "hello" {
		t.Errorf("afterwards the echo is %q", got)
	}
	events, err := os.ReadFile(root + "/service.crowd/memory.events")
	if err != nil || strings.Contains(string(events), "oom 0\n") {
		t.Errorf("there was memory enough: %q, %v", events, err)
	}
	for _, c := range crowd {
		c.Close()
	}
}

func TestCgroupTasks(t *testing.T) {
	root := cgroupRoot(t)
	const bomb = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 >/dev/null <&- & echo $i; done"
	d := startInCgroups(t, root, fmt.Sprintf(`
services:
  each: {listen: "127.0.0.1:0", %s, stderr: "null", cgroup: {tasks: 8, per_connection: true}}
  together: {listen: "127.0.0.1:0", %s, cgroup: {tasks: 4}}
`, shell("read -r x; "+bomb+"; read -r x"), shell("for i in 1 2 3; do sleep 1000 & done; echo up; read -r x; kill $(jobs -p)")))
	d.checkHarmsNothing(root)
	both := []net.Conn{d.dial("each"), d.dial("each")}
	for _, c := range both {
		io.WriteString(c, "go\n")
	}
	for _, c := range both {
		if got, _ := io.ReadAll(c); string(got) != "1\n2\n3\n4\n5\n6\n7\n" { // and the shell itself
			t.Errorf("it has started %q", got)
		}
	}
	d.exited("each", 2)
	d.idle += 3 // of the second one's cgroup, which is kept for the next
	first := d.dial("together")
	if _, err := io.ReadFull(first, make([]byte, len("up\n"))); err != nil {
		t.Fatal(err)
	}
	d.closed(d.dial("together"))
	if r := d.refused("together"); !strings.HasPrefix(r.text("error"), "cannot start a process: EAGAIN") {
		t.Errorf("who finds it full: %v", r)
	}
}

// TestCgroupCPU: what the record says of the processor's time is a part of the
// whole time.
func TestCgroupCPU(t *testing.T) {
	root := cgroupRoot(t)
	d := startInCgroups(t, root, one("busy", shell("while :; do :; done")+", cgroup: {cpu: 10%}, timeout: {session: 2s}"))
	d.closed(d.dial("busy"))
	r := d.exited("busy", 1)[0]
	if used := r.number("user_ms") + r.number("system_ms"); used > r.number("duration_ms")/2 {
		t.Errorf("a tenth of a processor was %v ms of %v", used, r.number("duration_ms"))
	}
}

// checkHarmsNothing has the same file checked while superd serves.
func (d *process) checkHarmsNothing(root string) {
	d.t.Helper()
	file := d.cmd.Args[len(d.cmd.Args)-1]
	code, out, complaints := finished(d.t, superd("check", "-c", file))
	if code != 0 || complaints != "" {
		d.t.Errorf("check says %d, %q, %q", code, out, complaints)
	}
	if left, _ := filepath.Glob(root + "/check.*"); len(left) > 0 {
		d.t.Errorf("check leaves %v", left)
	}
}

// TestCgroupOfAConnection: its end is the end of all that is in it, and what is
// made for connections is used again.
func TestCgroupOfAConnection(t *testing.T) {
	root := cgroupRoot(t)
	const show = `d=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup); cat $d/memory.max $d/pids.max $d/cpu.max`
	d := startInCgroups(t, root, fmt.Sprintf(`
services:
  shows: {listen: "127.0.0.1:0", %s, cgroup: {memory: 16M, tasks: 9, cpu: 150%%, per_connection: true}}
  leaver: {listen: "127.0.0.1:0", %s, cgroup: {tasks: 9, per_connection: true}}
`, shell(show), shell("setsid sleep 1000 >/dev/null 2>&1 <&- & echo $!")))
	for range 20 {
		if got := d.ask("shows", ""); got != "16777216\n9\n150000 100000\n" {
			t.Errorf("the limits are %q", got)
		}
	}
	d.checkHarmsNothing(root)
	if got := d.ask("shows", ""); got != "16777216\n9\n150000 100000\n" {
		t.Errorf("after check the limits are %q", got)
	}
	leaves, _ := filepath.Glob(root + "/service.shows/*/cgroup.procs")
	if len(leaves) > 10 {
		t.Errorf("%d cgroups are there for one program at a time", len(leaves))
	}
	left, err := strconv.Atoi(strings.TrimSpace(d.ask("leaver", "")))
	if err != nil {
		t.Fatal(err)
	}
	d.exited("leaver", 1)
	eventually(t, func() error {
		if unix.Kill(left, 0) == nil {
			return fmt.Errorf("what has left the session goes on")
		}
		return nil
	})
}

// A superd that was killed leaves cgroups, with programs that go on; the next one
// with the same file is not in their way, and takes away what is empty, in the
// end all.
func TestCgroupOfTheKilled(t *testing.T) {
	root := cgroupRoot(t)
	yaml := several(
		"each", `listen: "127.0.0.1:0", run: /bin/cat, cgroup: {tasks: 4, per_connection: true}`,
		"together", `listen: "127.0.0.1:0", run: /bin/cat, cgroup: {tasks: 4}`)
	first := startInCgroups(t, root, yaml)
	var before []net.Conn
	for range 3 {
		before = append(before, first.held("each"))
	}
	before = append(before, first.held("together"))
	first.signal(unix.SIGKILL)
	first.ended()
	before[0].Close() // its cgroup is empty by and by
	second := start(t, yaml)
	own := second.held("each")
	for _, c := range before[1:] {
		second.talk(c, "still here\n")
	}
	second.held("together").Close()
	for _, c := range before[1:] {
		c.Close()
	}
	second.upgradeNow(1)
	second.talk(own, "hello\n")
	own.Close()
	for range 3 {
		second.held("each").Close()
	}
	eventually(t, func() error {
		if text, _ := os.ReadFile(root + "/service.each/cgroup.events"); strings.Contains(string(text), "populated 1") {
			return fmt.Errorf("programs of the first superd still run")
		}
		return nil
	})
	second.exited("each", 4)
	second.exited("together", 1)
	second.idle = second.descriptors() // what is kept for the next connections
}
