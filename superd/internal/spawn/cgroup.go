package spawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// A cgroup is where the programs of one service are counted together
// (cgroups(7), version 2). With per_connection each program has a leaf below
// it, which is used again once everything in it has ended: to make one anew
// for each connection would cost more than the program.
type cgroup struct {
	engine *Engine
	dir    string
	limits config.Cgroup
	fd     int // of dir, above the window
	plans  int // that have it; guarded by engine.mu

	mu     sync.Mutex
	leaves int     // made so far; guarded by mu
	idle   []*leaf // whose program has ended, the longest ago first; guarded by mu
}

// A leaf is the cgroup of one program. Its descriptors are above the window.
type leaf struct {
	dir             string
	fd              int // for clone3
	kill, populated int // cgroup.kill, and cgroup.events
	killed          bool
}

// buildCgroup makes the cgroup that p's children are born in. Where that fails,
// p has no limits either.
func (p *Plan) buildCgroup() (err error) {
	if !p.spec.Cgroup.On {
		return nil
	}
	defer func() {
		if err != nil {
			p.spec.Cgroup = config.Cgroup{}
		}
	}()
	tree, err := findCgroups("/proc/self/mountinfo", "/proc/self/cgroup")
	if err != nil {
		return err
	}
	name := "service." + p.spec.Service
	switch {
	case p.spec.Check:
		name = fmt.Sprintf("check.%d.%s", os.Getpid(), p.spec.Service)
	case p.spec.Terminal:
		name = fmt.Sprintf("try.%d.%s", os.Getpid(), p.spec.Service)
		tree, p.spec.Cgroup.PerConnection = tree.ofTerminal(), true // so that it is empty, and goes, at the end
	}
	needed, err := p.controllers(tree)
	if err != nil || p.spec.Check && !tree.root {
		return err
	}
	if err := tree.delegate(needed); err != nil {
		return err
	}
	c, fresh := p.engine.cgroup(filepath.Join(tree.own, name), p.spec.Cgroup)
	if fresh {
		err = c.build(needed)
	}
	if err != nil {
		c.close()
		return err
	}
	p.walls.cgroup = c
	return nil
}

// cgroup finds the cgroup at dir that other plans of the service have already,
// as those for some of its clients, or of the file before a reload. Where that
// one has other limits, the new one is beside it: who is in the old one stays.
// A fresh one is the caller's to build.
func (e *Engine) cgroup(dir string, limits config.Cgroup) (c *cgroup, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	beside := dir
	for n := 2; e.cgroups[beside] != nil; n++ {
		if c := e.cgroups[beside]; c.limits == limits {
			c.plans++
			return c, false
		}
		beside = fmt.Sprint(dir, ".", n)
	}
	c = &cgroup{engine: e, dir: beside, limits: limits, fd: -1, plans: 1}
	e.cgroups[beside] = c
	return c, true
}

// withoutCgroup says what is open where there is no cgroup.
func (p *Plan) withoutCgroup() string {
	return "nothing limits memory, tasks and processor time, and what leaves its process group goes on"
}

// delegated is how superd comes to a part of the tree of its own.
const delegated = "systemd gives superd a part of the tree by Delegate=yes in its unit"

// controllers lists what the limits need. A limit whose controller the tree
// does not offer is taken from p. Whoever only checks is elsewhere in the tree
// than the superd that will serve, and knows no more than what all of it offers.
func (p *Plan) controllers(tree cgroupTree) (needed []string, err error) {
	dir := tree.own
	if p.spec.Check {
		dir = tree.top
	}
	offered, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	limits := &p.spec.Cgroup
	for _, l := range []struct {
		key, controller string
		on              bool
		leaveOut        func()
	}{
		{"cgroup.memory", "memory", limits.Memory > 0, func() { limits.Memory = 0 }},
		{"cgroup.tasks", "pids", limits.Tasks > 0, func() { limits.Tasks = 0 }},
		{"cgroup.cpu", "cpu", limits.CPU > 0, func() { limits.CPU = 0 }},
	} {
		switch {
		case !l.on:
		case slices.Contains(strings.Fields(string(offered)), l.controller):
			needed = append(needed, l.controller)
		default:
			p.lack(Fault{Key: l.key, What: fmt.Sprintf("the cgroup %s does not offer the controller %s (it offers: %s)",
				dir, l.controller, strings.TrimSpace(string(offered))), Hint: delegated}, "")
			l.leaveOut()
		}
	}
	return needed, nil
}

// cgroupTree is the part of the machine's tree that is superd's.
type cgroupTree struct {
	top  string // the directory of the root that superd sees
	own  string // that of superd's cgroup
	root bool   // it is the root of the tree, where processes may stay
}

// findCgroups finds superd's own place in the version 2 tree.
func findCgroups(mountinfo, self string) (cgroupTree, error) {
	mounts, err := os.ReadFile(mountinfo)
	if err != nil {
		return cgroupTree{}, err
	}
	var top string
	for line := range strings.Lines(string(mounts)) {
		// 35 24 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw (proc(5))
		before, after, _ := strings.Cut(line, " - ")
		if f := strings.Fields(before); len(f) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			top = f[4]
		}
	}
	if top == "" {
		return cgroupTree{}, errors.New("this machine has no cgroup tree of version 2")
	}
	own, err := os.ReadFile(self)
	if err != nil {
		return cgroupTree{}, err
	}
	for line := range strings.Lines(string(own)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return cgroupTree{top: top, own: filepath.Join(top, path), root: path == "/" && isRoot(top)}, nil
		}
	}
	return cgroupTree{}, errors.New("superd is in no cgroup of version 2")
}

// isRoot tells the root of the whole tree from that of a container, which
// looks the same from inside but for this file (cgroups(7)).
func isRoot(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.type"))
	return err != nil
}

// leafOfSuperd is where superd itself goes: a cgroup that has processes cannot
// give controllers to those below it (cgroups(7), "no internal processes").
const leafOfSuperd = "superd"

// delegate has superd's cgroup give controllers to those below it.
func (t *cgroupTree) delegate(needed []string) error {
	if len(needed) == 0 {
		return nil
	}
	if !t.root {
		if err := t.moveSelf(); err != nil {
			return fmt.Errorf("cannot leave the cgroup %s, so that it can be divided: %w (a systemd unit needs Delegate=yes)", t.own, err)
		}
	}
	return enable(t.own, needed)
}

func (t *cgroupTree) moveSelf() error {
	if filepath.Base(t.own) == leafOfSuperd {
		t.own = filepath.Dir(t.own) // an earlier service has moved superd there
		return nil
	}
	dir := filepath.Join(t.own, leafOfSuperd)
	if err := makeDir(dir); err != nil {
		return err
	}
	return writeTo(dir, "cgroup.procs", strconv.Itoa(os.Getpid()))
}

// enable gives controllers to the cgroups below dir.
func enable(dir string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	return writeTo(dir, "cgroup.subtree_control", "+"+strings.Join(names, " +"))
}

func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func writeTo(dir, name, text string) error {
	return os.WriteFile(filepath.Join(dir, name), []byte(text), 0)
}

// build makes the service's directory; one that a superd before has left is
// used again.
func (c *cgroup) build(needed []string) (err error) {
	if err := makeDir(c.dir); err != nil {
		return err
	}
	if c.limits.PerConnection {
		c.sweep()
		return enable(c.dir, needed)
	}
	if err := c.limit(c.dir); err != nil {
		return err
	}
	c.fd, err = c.engine.openAbove(c.dir, unix.O_PATH|unix.O_DIRECTORY)
	return err
}

// limit writes the limits; the processor's is microseconds in each tenth of a
// second.
func (c *cgroup) limit(dir string) error {
	const period = 100_000
	for _, l := range []struct {
		file  string
		on    bool
		value string
	}{
		{"memory.max", c.limits.Memory > 0, strconv.FormatUint(c.limits.Memory, 10)},
		{"memory.oom.group", c.limits.Memory > 0 && c.limits.PerConnection, "1"},
		{"pids.max", c.limits.Tasks > 0, strconv.FormatUint(c.limits.Tasks, 10)},
		{"cpu.max", c.limits.CPU > 0, fmt.Sprintf("%d %d", c.limits.CPU*period/100, period)},
	} {
		if !l.on {
			continue
		}
		if err := writeTo(dir, l.file, l.value); err != nil {
			return err
		}
	}
	return nil
}

// openAbove opens a path above the window, closed on exec.
func (e *Engine) openAbove(path string, flags int) (int, error) {
	low, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return e.Above(low)
}

// enter has the child of in be born in its cgroup (CLONE_INTO_CGROUP, Linux
// 5.7).
func (c *cgroup) enter(in *instance) error {
	fd := c.fd
	if c.limits.PerConnection {
		l, err := c.lease()
		if err != nil {
			return err
		}
		in.leaf, fd = l, l.fd
	}
	in.clone.flags |= unix.CLONE_INTO_CGROUP
	in.clone.cgroupOfTarget = uint64(fd)
	return nil
}

// lease returns a leaf in which nothing runs.
func (c *cgroup) lease() (*leaf, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range min(len(c.idle), lookBack) {
		l := c.idle[0]
		c.idle = c.idle[1:]
		switch {
		case !l.empty():
			c.idle = append(c.idle, l)
		case l.killed:
			l.remove()
		default:
			return l, nil
		}
	}
	l, err := c.newLeaf()
	if err != nil {
		return nil, &Failure{Words: "make a cgroup in " + c.dir, Errno: errnoOf(err)}
	}
	return l, nil
}

func (c *cgroup) newLeaf() (l *leaf, err error) {
	dir, err := c.freshDir()
	if err == nil {
		err = c.limit(dir)
	}
	if err == nil {
		l, err = c.engine.openLeaf(dir)
	}
	if err != nil {
		os.Remove(dir)
		return nil, err
	}
	return l, nil
}

// freshDir makes a directory that was no cgroup before: one that a superd
// before has left may have been killed in, or have processes.
func (c *cgroup) freshDir() (string, error) {
	for {
		c.leaves++
		dir := filepath.Join(c.dir, strconv.Itoa(c.leaves))
		os.Remove(dir)
		if err := os.Mkdir(dir, 0o755); !errors.Is(err, os.ErrExist) {
			return dir, err
		}
	}
}

// sweep takes away what a superd that was killed has left in c's directory, as
// far as nothing runs there. None of c's own may be there.
func (c *cgroup) sweep() {
	list, _ := filepath.Glob(c.dir + "/[1-9]*")
	for _, dir := range list {
		os.Remove(dir)
	}
}

// know has no other leaf take the place of one that another superd has made.
func (c *cgroup) know(dir string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, err := strconv.Atoi(filepath.Base(dir)); err == nil {
		c.leaves = max(c.leaves, n)
	}
}

// empty tells whether nothing runs in l any more.
func (l *leaf) empty() bool {
	var text [256]byte
	n, err := unix.Pread(l.populated, text[:], 0)
	return err == nil && strings.Contains(string(text[:n]), "populated 0")
}

// killAll kills what is left in l, wherever it has gone in the process tree
// (cgroup.kill, Linux 5.14). A cgroup in which that was done is not used
// again: newer kernels (seen on 6.18) then kill whatever clone3 puts into it
// from another cgroup.
func (l *leaf) killAll() {
	if !l.empty() {
		l.killed = true
		unix.Write(l.kill, []byte{'1'})
	}
}

// awaitEmpty waits until nothing runs in l: its cgroup.events becomes ready when
// that changes (cgroups(7)).
func (l *leaf) awaitEmpty(until time.Time) {
	for !l.empty() && time.Now().Before(until) {
		change := []unix.PollFd{{Fd: int32(l.populated), Events: unix.POLLPRI}}
		unix.Poll(change, int(time.Until(until).Milliseconds())+1)
	}
}

// giveBack lets another program have l, once nothing runs in it.
func (c *cgroup) giveBack(l *leaf) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, l)
}

// remove takes l away, as far as nothing runs in it.
func (l *leaf) remove() {
	l.close()
	os.Remove(l.dir)
}

func (l *leaf) close() {
	for _, fd := range []int{l.fd, l.kill, l.populated} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// dying is how long close waits at most for what was killed. Tests wait longer.
var dying = time.Second

// close takes the service's cgroup away, as far as nothing runs in it, when no
// other plan has it.
func (c *cgroup) close() {
	c.engine.mu.Lock()
	defer c.engine.mu.Unlock()
	if c.plans--; c.plans > 0 {
		return
	}
	delete(c.engine.cgroups, c.dir)
	until := time.Now().Add(dying)
	for _, l := range c.idle {
		if l.killed {
			l.awaitEmpty(until)
		}
		l.remove()
	}
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	if c.limits.PerConnection {
		c.sweep()
	}
	os.Remove(c.dir)
}
