package spawn

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// walls is what a plan has prepared at load, so that a child only has to enter
// it. What a service does not ask for is nil, and costs nothing.
type walls struct {
	owned    []int    // descriptors above the window, closed with the plan
	mounts   *loan    // a mount namespace
	readOnly bool     // ... in which only Sandbox.Write is writable
	tmps     []string // ... and where each program gets files of its own
	network  *loan    // an empty network namespace
	landlock *loan    // a set of Landlock rules
	rules    *rules   // what that set is made of
	filter   []unix.SockFilter
	cgroup   *cgroup
	notes    []string // what was left out because best_effort allows it
}

// buildWalls prepares what the service asks for. Whether the kernel can build
// a wall is found here, at load and not at the first connection.
func (p *Plan) buildWalls() error {
	if i := p.spec.Image; i != nil {
		p.imageLoan = p.borrow("the built-in "+i.name, func() int { return int(i.fd.Load()) })
	}
	for _, wall := range []struct {
		name  string
		build func() error
	}{
		{"the mount namespace", p.buildMounts},
		{"the network namespace", p.buildNetwork},
		{"the Landlock rules", p.buildLandlock},
		{"the system call filter", p.buildFilter},
		{"the cgroup", p.buildCgroup},
	} {
		err := wall.build()
		if err != nil && p.spec.Sandbox.BestEffort {
			p.walls.notes = append(p.walls.notes, fmt.Sprintf("cannot build %s: %v; left out, as best_effort allows", wall.name, err))
			err = nil
		}
		if err != nil {
			return fmt.Errorf("cannot build %s: %w", wall.name, err)
		}
	}
	return nil
}

// own gives fd, which is above the window, to the plan and to its children.
func (p *Plan) own(words string, fd int) *loan {
	p.walls.owned = append(p.walls.owned, fd)
	return p.borrow(words, func() int { return fd })
}

// Close frees the descriptors of p's walls. Programs that run keep theirs.
func (p *Plan) Close() {
	closeAll(p.walls.owned)
	p.walls.owned = nil
	if p.walls.rules != nil {
		p.walls.rules.close()
	}
	if p.walls.cgroup != nil {
		p.walls.cgroup.close()
	}
}

// Notes says, for an administrator, which walls the kernel cannot build here
// and were left out because best_effort allows that.
func (p *Plan) Notes() []string { return p.walls.notes }

// addRlimits sets the limits that the service names, and takes back the change
// that Go's start made to superd's own.
func (p *Plan) addRlimits() {
	named := slices.ContainsFunc(p.spec.Rlimits, func(l config.Rlimit) bool { return l.Resource == unix.RLIMIT_NOFILE })
	if limit := changedOpenFileLimit(); limit != nil && !named {
		p.keep = append(p.keep, limit)
		p.add("set the limit of open files", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(limit)), 0)
	}
	for _, l := range p.spec.Rlimits {
		limit := &unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		p.keep = append(p.keep, limit)
		p.add("set the limit "+l.Name, unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), uintptr(unsafe.Pointer(limit)), 0)
	}
}

// addNamespaces enters what was prepared. The mount namespace comes first: to
// enter it sets root and working directory anew.
func (p *Plan) addNamespaces() {
	if l := p.walls.mounts; l != nil {
		l.use(p.add("enter the mount namespace", unix.SYS_SETNS, 0, unix.CLONE_NEWNS), 0)
		p.addPrivateTmp()
	}
	if l := p.walls.network; l != nil {
		l.use(p.add("enter the network namespace", unix.SYS_SETNS, 0, unix.CLONE_NEWNET), 0)
	}
}

// addRoot sets the root directory and then, inside it, the working directory.
func (p *Plan) addRoot() {
	if p.spec.Chroot != "" {
		root := p.string(p.spec.Chroot)
		p.add("change the root directory to "+p.spec.Chroot, unix.SYS_CHROOT, root)
	}
	p.add("change to the directory "+p.spec.Dir, unix.SYS_CHDIR, p.string(p.spec.Dir))
}

// addConfinement takes away what a program could use to get out of its
// identity, each step needing what the next takes: capabilities,
// no_new_privs (without which an ordinary user may set up neither of the
// following), Landlock, and last the filter, which the remaining steps pass.
func (p *Plan) addConfinement() {
	p.addCapabilities()
	if p.spec.Sandbox.NoNewPrivs && !p.spec.Inherit {
		p.add("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if l := p.walls.landlock; l != nil {
		l.use(p.add("enforce the Landlock rules", unix.SYS_LANDLOCK_RESTRICT_SELF, 0, 0), 0)
	}
	if len(p.walls.filter) > 0 {
		program := &unix.SockFprog{Len: uint16(len(p.walls.filter)), Filter: &p.walls.filter[0]}
		p.keep = append(p.keep, program)
		p.add("install the system call filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(program)))
	}
}

// string keeps s where the child can read it.
func (p *Plan) string(s string) uintptr {
	b := cString(s)
	p.keep = append(p.keep, b)
	return address(b)
}
