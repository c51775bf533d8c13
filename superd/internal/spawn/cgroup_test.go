package spawn

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// needCgroups leaves out what needs a version 2 tree that superd may divide.
func needCgroups(t *testing.T) cgroupTree {
	t.Helper()
	needRoot(t)
	tree, err := findCgroups("/proc/self/mountinfo", "/proc/self/cgroup")
	if err == nil {
		err = unix.Access(tree.own, unix.W_OK)
	}
	if err != nil {
		t.Skip("SKIPPED: this needs a cgroup tree of version 2: ", err)
	}
	return tree
}

// cgroupOf is where a process is in the version 2 tree.
func cgroupOf(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	return "none"
}

func TestChildrenAreBornInTheirServicesCgroup(t *testing.T) {
	needCgroups(t)
	s := Spec{Service: "shared", Path: "/bin/cat", Argv: []string{"cat", "/proc/self/cgroup"}, Stderr: StderrClient, Dir: "/",
		Cgroup: config.Cgroup{On: true}}
	e := NewEngine()
	p := compile(t, e, s)
	for range 3 {
		out, _, err := answer(t, e, p)
		if err != nil || !strings.Contains(out, "/service.shared\n") {
			t.Errorf("got %q, %v", out, err)
		}
	}
	dir := p.walls.cgroup.dir
	p.Close()
	p.walls.cgroup = nil
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
}

// TestPlansOfOneServiceShareItsCgroup, as those of two files do while both have
// connections; where the limits differ they have one each.
func TestPlansOfOneServiceShareItsCgroup(t *testing.T) {
	needCgroups(t)
	s := script("true")
	s.Service, s.Cgroup = "generations", config.Cgroup{On: true, PerConnection: true}
	e := NewEngine()
	plan := func() *Plan {
		t.Helper()
		p, err := e.Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	before, after := plan(), plan()
	s.Cgroup.PerConnection = false
	other := plan()
	shared, beside := before.walls.cgroup.dir, other.walls.cgroup.dir
	if after.walls.cgroup.dir != shared || beside != shared+".2" {
		t.Errorf("they have %s, %s and %s", shared, after.walls.cgroup.dir, beside)
	}
	first := startOne(t, e, before)
	before.Close()
	second := startOne(t, e, after)
	for _, c := range []ended{first, second} {
		e.Release(c.Child, false)
	}
	after.Close()
	other.Close()
	for _, dir := range []string{shared, beside} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}

// TestLeafCatchesWhatLeftItsGroup: a process that has made a session of its
// own is beyond its process group, and not beyond its cgroup.
func TestLeafCatchesWhatLeftItsGroup(t *testing.T) {
	needCgroups(t)
	s := script(`setsid sleep 1000 >/dev/null 2>&1 <&- & echo $!`)
	s.Service, s.Cgroup = "leaves", config.Cgroup{On: true, PerConnection: true}
	e := NewEngine()
	p := compile(t, e, s)
	c := startOne(t, e, p)
	escaped, err := strconv.Atoi(strings.TrimSpace(c.out))
	if err != nil {
		t.Fatal(err)
	}
	if got := cgroupOf(t, escaped); !strings.HasSuffix(filepath.Dir(got), "/service.leaves") {
		t.Errorf("it is in %s", got)
	}
	pidfd, err := unix.PidfdOpen(escaped, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	e.Release(c.Child, false)
	awaitEnd(t, pidfd)
	for range 3 { // the next ones are not killed with it
		e.Release(startOne(t, e, p).Child, false)
	}
}

// awaitEnd waits until the process of pidfd has ended.
func awaitEnd(t *testing.T, pidfd int) {
	t.Helper()
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		if n == 1 {
			return
		}
		if err != unix.EINTR {
			t.Fatalf("it lives on: %v", err)
		}
	}
}

// TestKilledLeafIsRemoved, though what was killed in it ends a moment later.
func TestKilledLeafIsRemoved(t *testing.T) {
	needCgroups(t)
	defer func(usual time.Duration) { dying = usual }(dying)
	dying = patience
	s := script(`for i in 1 2 3 4 5; do setsid sleep 1000 >/dev/null 2>&1 <&- & done`)
	s.Service, s.Cgroup = "killed", config.Cgroup{On: true, PerConnection: true}
	for range 10 {
		e := NewEngine()
		p, err := e.Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		e.Release(startOne(t, e, p).Child, false)
		dir := p.walls.cgroup.dir
		p.Close()
		if left, _ := filepath.Glob(dir + "*"); len(left) > 0 {
			t.Fatalf("%v is left", left)
		}
	}
}

func TestLeavesAreUsedAgain(t *testing.T) {
	needCgroups(t)
	s := script("true")
	s.Service, s.Cgroup = "again", config.Cgroup{On: true, PerConnection: true}
	e := NewEngine()
	p := compile(t, e, s)
	for range 50 {
		c := startOne(t, e, p)
		e.Release(c.Child, false)
	}
	if n := p.walls.cgroup.leaves; n > 10 {
		t.Errorf("%d cgroups were made for one program at a time", n)
	}
	before := len(openDescriptors(t))
	p.Close()
	if after := len(openDescriptors(t)); after >= before {
		t.Errorf("%d descriptors before the plan was closed, %d after", before, after)
	}
	p.walls.cgroup = nil
}

// A started child that has been reaped, and what it wrote.
type ended struct {
	Child
	out string
}

// startOne runs p's program to its end.
func startOne(t *testing.T, e *Engine, p *Plan) ended {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	c, err := e.Start(p, Streams{Connection: ends[1], Stderr: -1}, &someFacts)
	if err != nil {
		t.Fatal(err)
	}
	if end, err := Wait(c.PIDFD); err != nil || end.Signaled || end.Status != 0 {
		t.Fatalf("ended with %+v, %v", end, err)
	}
	if err := e.Failure(c); err != nil {
		t.Fatal(err)
	}
	unix.Close(c.PIDFD)
	e.Settle()
	var text [4096]byte
	n, _ := unix.Read(ends[0], text[:])
	unix.Close(ends[0])
	return ended{c, string(text[:max(n, 0)])}
}

func TestCgroupTreeIsFound(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mounts := write("mounts", "22 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n23 22 0:21 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n")
	for self, want := range map[string]cgroupTree{
		"0::/\n":                       {top: "/sys/fs/cgroup/unified", own: "/sys/fs/cgroup/unified", root: true},
		"5:cpu:/x\n0::/system.slice\n": {top: "/sys/fs/cgroup/unified", own: "/sys/fs/cgroup/unified/system.slice"},
	} {
		if got, err := findCgroups(mounts, write("self", self)); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", self, got, err)
		}
	}
	none := write("none", "22 1 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n")
	if _, err := findCgroups(none, write("self", "0::/\n")); err == nil || err.Error() != "this machine has no cgroup tree of version 2" {
		t.Errorf("got %v", err)
	}
}

func TestMissingControllerHasWords(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte("cpu hugetlb\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &Plan{spec: Spec{Cgroup: config.Cgroup{On: true, Memory: 1 << 20, Tasks: 4, CPU: 50}}}
	needed, err := p.controllers(cgroupTree{own: dir, root: true})
	want := Faults{
		{Key: "cgroup.memory", What: "the cgroup " + dir + " does not offer the controller memory (it offers: cpu hugetlb)", Hint: delegated},
		{Key: "cgroup.tasks", What: "the cgroup " + dir + " does not offer the controller pids (it offers: cpu hugetlb)", Hint: delegated},
	}
	if err != nil || !slices.Equal(needed, []string{"cpu"}) || !slices.Equal(p.faults, want) {
		t.Errorf("got %v, %v, %v", needed, err, p.faults)
	}
}

// TestLimitsHold needs the controllers; where they are missing the words above
// are all that can be had.
func TestLimitsHold(t *testing.T) {
	tree := needCgroups(t)
	offered, _ := os.ReadFile(filepath.Join(tree.own, "cgroup.controllers"))
	for _, name := range []string{"memory", "pids", "cpu"} {
		if !strings.Contains(string(offered), name) {
			t.Skip("SKIPPED: this needs the controllers memory, pids and cpu in the cgroup tree of version 2; make test-vm has them")
		}
	}
	s := script(`d=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup); cat $d/memory.max $d/pids.max $d/cpu.max`)
	s.Service = "limited"
	s.Cgroup = config.Cgroup{On: true, PerConnection: true, Memory: 64 << 20, Tasks: 16, CPU: 50}
	e := NewEngine()
	c := startOne(t, e, compile(t, e, s))
	if want := "67108864\n16\n50000 100000\n"; c.out != want {
		t.Errorf("got %q, want %q", c.out, want)
	}
	e.Release(c.Child, false)
}
