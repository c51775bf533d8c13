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

// buildCgroup makes the cgroup that p's children are born in.
func (p *Plan) buildCgroup() error {
	limits := p.spec.Cgroup
	if !limits.On {
		return nil
	}
	tree, err := findCgroups("/proc/self/mountinfo", "/proc/self/cgroup")
	if err != nil {
		return err
	}
	needed := controllers(&limits)
	if err := tree.delegate(needed); err != nil {
		return err
	}
	c := &cgroup{engine: p.engine, dir: filepath.Join(tree.own, "service."+p.spec.Service), limits: limits, fd: -1}
	if err := c.build(needed); err != nil {
		return err
	}
	p.walls.cgroup = c
	return nil
}

// controllers lists what the limits need.
func controllers(c *config.Cgroup) (list []string) {
	if c.Memory > 0 {
		list = append(list, "memory")
	}
	if c.Tasks > 0 {
		list = append(list, "pids")
	}
	if c.CPU > 0 {
		list = append(list, "cpu")
	}
	return list
}

// cgroupTree is the part of the machine's tree that is superd's.
type cgroupTree struct {
	own  string // the directory of superd's cgroup
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
			return cgroupTree{own: filepath.Join(top, path), root: path == "/"}, nil
		}
	}
	return cgroupTree{}, errors.New("superd is in no cgroup of version 2")
}

// leafOfSuperd is where superd itself goes: a cgroup that has processes cannot
// give controllers to those below it (cgroups(7), "no internal processes").
const leafOfSuperd = "superd"

// delegate has superd's cgroup give controllers to those below it.
func (t *cgroupTree) delegate(needed []string) error {
	offered, err := os.ReadFile(filepath.Join(t.own, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, name := range needed {
		if !slices.Contains(strings.Fields(string(offered)), name) {
			return fmt.Errorf("the cgroup %s does not offer the controller %s (it offers: %s)", t.own, name, strings.TrimSpace(string(offered)))
		}
	}
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

// close takes the service's cgroup away, as far as nothing runs in it.
func (c *cgroup) close() {
	for _, l := range c.idle {
		l.remove()
	}
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	os.Remove(c.dir)
}
