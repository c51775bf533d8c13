package spawn

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// keepCells has e make cells ahead; those of p are there then.
func keepCells(t testing.TB, e *Engine, p *Plan) {
	t.Helper()
	if err := e.KeepCells(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.StopKeeping)
	if n := ready(e, p); n != stockSize {
		t.Fatalf("%d cells are ready", n)
	}
}

// ready is how many cells p has.
func ready(e *Engine, p *Plan) int {
	e.keeper.mu.Lock()
	defer e.keeper.mu.Unlock()
	return len(p.walls.stock.cells)
}

// patience is only how long a test waits before it is called stuck.
const patience = time.Minute

// await polls for what another thread or the kernel does, of which nothing else tells.
func await(t testing.TB, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
		unix.Nanosleep(&unix.Timespec{Nsec: 1e5}, nil)
	}
}

// eachWay runs test with programs that make their /tmp themselves, and with
// such as get it made ahead.
func eachWay(t *testing.T, name string, test func(t *testing.T, prepare func(testing.TB, *Engine, *Plan))) {
	t.Run(name+" made by the child", func(t *testing.T) { test(t, func(testing.TB, *Engine, *Plan) {}) })
	t.Run(name+" made ahead", func(t *testing.T) { test(t, keepCells) })
}

// TestProgramsGetCells, as long as there are some, and each its own.
func TestProgramsGetCells(t *testing.T) {
	needRoot(t)
	e := NewEngine()
	p := compile(t, e, walled("ls -A /tmp; echo x > /tmp/x; readlink /proc/self/ns/mnt; read go", privateTmp()))
	keepCells(t, e, p)
	seen := map[string]bool{}
	const burst = 3 * stockSize
	var children []Child
	var connections []*os.File
	made := 0
	for range burst {
		answers, connection, c := dialogue(t, e, p)
		line, err := answers.ReadString('\n')
		if !strings.HasPrefix(line, "mnt:[") || err != nil || seen[line] {
			t.Fatalf("got %q, %v, after %v", line, err, seen)
		}
		seen[line] = true
		if c.cell != nil {
			made++
		}
		children, connections = append(children, c), append(connections, connection)
	}
	if made == 0 {
		t.Error("no program has got a cell")
	}
	for i, c := range children {
		io.WriteString(connections[i], "go\n")
		if end, err := Wait(c.PIDFD); err != nil || end.Status != 0 {
			t.Errorf("ended with %+v, %v, %v", end, err, e.Failure(c))
		}
		unix.Close(c.PIDFD)
		e.Release(c, false)
	}
	await(t, func() bool { e.keeper.mu.Lock(); defer e.keeper.mu.Unlock(); return len(e.keeper.used) == 0 })
}

// TestEmptiedStockIsFilled again, and no more than that.
func TestEmptiedStockIsFilled(t *testing.T) {
	needRoot(t)
	e := NewEngine()
	p := compile(t, e, walled("true", privateTmp()))
	keepCells(t, e, p)
	for range 3 {
		taken := empty(e, p)
		if len(taken) < stockSize {
			t.Errorf("%d were ready", len(taken))
		}
		await(t, func() bool { return ready(e, p) == stockSize })
		for _, c := range taken {
			e.keeper.giveBack(c)
		}
	}
}

// empty takes p's cells until there is none.
func empty(e *Engine, p *Plan) (taken []*cell) {
	for c := e.keeper.take(p.walls.stock); c != nil; c = e.keeper.take(p.walls.stock) {
		taken = append(taken, c)
	}
	e.keeper.replenish(p.walls.stock)
	return taken
}

// TestCellsAreNotTakenWhileManyAreUsed: they are taken apart slower than they
// are made.
func TestCellsAreNotTakenWhileManyAreUsed(t *testing.T) {
	k := keeper{used: make([]int, mostUsed)}
	s := &stock{plan: &Plan{}, cells: []*cell{{rules: -1}}}
	if k.take(s) != nil {
		t.Error("one was taken")
	}
	k.used = k.used[1:]
	if k.take(s) == nil {
		t.Error("none was taken")
	}
}

// TestCellsFollowReplacedFiles: those that were made before are taken apart.
func TestCellsFollowReplacedFiles(t *testing.T) {
	needRoot(t)
	needLandlock(t, 3)
	dir, err := os.MkdirTemp("/run", "superd-test") // not below /tmp
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	plant(t, dir, map[string]string{"file": "old\n"})
	s := confined()
	s.PrivateTmp, s.Read = true, []string{dir + "/file"}
	e := NewEngine()
	p := compile(t, e, walled("read x < "+dir+"/file && echo $x > /tmp/x && read y < /tmp/x && echo $y", s))
	keepCells(t, e, p)
	plant(t, dir, map[string]string{"new": "new\n"})
	if err := os.Rename(dir+"/new", dir+"/file"); err != nil {
		t.Fatal(err)
	}
	if out, _, err := answer(t, e, p); out == "new\n" || err != nil {
		t.Errorf("before the rules are renewed: %q, %v", out, err)
	}
	if err := p.Refresh(); err != nil {
		t.Error(err)
	}
	for range stockSize + 1 {
		if out, _, err := answer(t, e, p); out != "new\n" || err != nil {
			t.Errorf("got %q, %v", out, err)
		}
	}
}

// TestClosedPlanLeavesNoCell, whatever the keeper is at.
func TestClosedPlanLeavesNoCell(t *testing.T) {
	needRoot(t)
	e := NewEngine()
	before := openDescriptors(t)
	last := compile(t, e, walled("true", privateTmp()))
	keepCells(t, e, last)
	for range 50 {
		compile(t, e, walled("true", privateTmp())).Close()
	}
	taken := empty(e, last)
	last.Close()
	e.keeper.put(last.walls.stock, taken[0], nil) // it was being made meanwhile
	e.StopKeeping()
	e.Release(Child{cell: taken[1]}, false) // of a program that ends later
	for _, c := range taken[2:] {
		e.keeper.giveBack(c)
	}
	if after := openDescriptors(t); len(after) != len(before) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
	if err := e.KeepCells(); err != nil || e.keeper.bell != 0 {
		t.Errorf("without a plan that needs it: %v, bell %d", err, e.keeper.bell)
	}
}

// TestNoCellsWithFewDescriptors: each would be one connection less.
func TestNoCellsWithFewDescriptors(t *testing.T) {
	needRoot(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	few := unix.Rlimit{Cur: 512, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	e := NewEngine()
	compile(t, e, walled("true", privateTmp()))
	if err := e.KeepCells(); err != nil || e.keeper.bell != 0 {
		t.Errorf("%v, bell %d", err, e.keeper.bell)
	}
}

// TestUnmadeCellIsNoFailure: the stock stays empty until the next connection.
func TestUnmadeCellIsNoFailure(t *testing.T) {
	needRoot(t)
	e := NewEngine()
	p := compile(t, e, walled("echo done", privateTmp()))
	tmps := p.walls.tmps
	p.walls.tmps = []string{"/nowhere"}
	if err := e.KeepCells(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.StopKeeping)
	poor := func() bool { e.keeper.mu.Lock(); defer e.keeper.mu.Unlock(); return p.walls.stock.poor }
	await(t, poor)
	if out, _, err := answer(t, e, p); out != "done\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
	await(t, poor)
	p.walls.tmps = tmps
	if out, _, err := answer(t, e, p); out != "done\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
	await(t, func() bool { return ready(e, p) == stockSize })
}
