package spawn

import (
	"errors"
	"io/fs"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// walls is what a plan has prepared at load, so that a child only has to enter
// it. What a service does not ask for is nil, and costs nothing.
type walls struct {
	owned      []int    // descriptors above the window, closed with the plan
	mounts     *loan    // a mount namespace
	template   int      // ... as it is furnished at load
	readOnly   bool     // ... in which only Sandbox.Write is writable
	tmps       []string // ... and where each program gets files of its own
	stock      *stock   // ... in a copy; nil where programs have none of their own
	furnishing []int    // the steps of a child that makes its copy itself
	network    *loan    // an empty network namespace
	landlock   *loan    // a set of Landlock rules
	rules      *rules   // what that set is made of
	filter     []unix.SockFilter
	cgroup     *cgroup
	notes      []Fault  // what is not guarded, where that is no fault
	left       []string // the names of the walls that are not there, as best_effort allows
	unguarded  string   // ... as a newer kernel would, and nobody asked for
}

// What walls are called that may be left out.
const (
	mountNamespace   = "the mount namespace"
	networkNamespace = "the network namespace"
	landlockRules    = "the Landlock rules"
	callFilter       = "the system call filter"
	controlGroup     = "the cgroup"
)

// buildWalls prepares what the service asks for. Whether the kernel can build
// a wall is found here, at load and not at the first connection.
func (p *Plan) buildWalls() {
	if i := p.spec.Image; i != nil {
		p.imageLoan = p.borrow("the built-in "+i.name, func(*instance) int { return int(i.fd.Load()) })
	}
	rooted := p.checkRoot()
	for _, w := range []struct {
		key, name string
		inRoot    bool // it is built of what lies in the program's root directory
		build     func() error
		without   func() string // what is open where it is left out
	}{
		{p.mountsKey(), mountNamespace, true, p.buildMounts, p.withoutMounts},
		{"sandbox.network", networkNamespace, false, p.buildNetwork, p.withoutNetwork},
		{p.landlockKey(), landlockRules, true, p.buildLandlock, p.withoutLandlock},
		{"sandbox.system_calls", callFilter, false, p.buildFilter, p.withoutFilter},
		{"cgroup", controlGroup, false, p.buildCgroup, p.withoutCgroup},
	} {
		if w.inRoot && !rooted {
			continue // it would only be said again
		}
		if err := w.build(); err != nil {
			f := Fault{Key: w.key, What: "cannot build " + w.name + ": " + err.Error()}
			if errors.Is(err, errNeedsRoot) {
				f.Hint = "start superd as root, or do without it by best_effort: true"
			}
			if w.key == "cgroup" && errors.Is(err, fs.ErrPermission) {
				f.Hint = delegated
			}
			p.lack(f, w.without())
			p.walls.left = append(p.walls.left, w.name)
		}
	}
	p.tellHidden()
	p.tellLost()
}

// lack takes note of what cannot be built, and of what is open then: it is a
// fault, or under best_effort left out and a warning.
func (p *Plan) lack(f Fault, open string) {
	if !p.spec.Sandbox.BestEffort {
		p.faults = append(p.faults, f)
		return
	}
	f.Hint = ""
	f.What += "; left out, as best_effort allows"
	if open != "" {
		f.What += ": " + open
	}
	p.walls.notes = append(p.walls.notes, f)
}

// checkRoot tells whether the program's root directory is there. No best effort
// makes up for it.
func (p *Plan) checkRoot() bool {
	t, err := openTree(p.spec.Chroot)
	if err != nil {
		p.faults = append(p.faults, Fault{Key: "chroot", What: err.Error()})
		return false
	}
	t.close()
	return true
}

// own gives fd, which is above the window, to the plan and to its children.
func (p *Plan) own(words string, fd int) *loan {
	p.walls.owned = append(p.walls.owned, fd)
	return p.borrow(words, func(*instance) int { return fd })
}

// Close frees the descriptors of p's walls. Programs that run keep theirs.
func (p *Plan) Close() {
	if p.walls.stock != nil {
		p.engine.keeper.drop(p.walls.stock)
	}
	closeAll(p.walls.owned)
	p.walls.owned = nil
	if p.walls.rules != nil {
		p.walls.rules.close()
	}
	if p.walls.cgroup != nil {
		p.walls.cgroup.close()
		p.walls.cgroup = nil
	}
}

// Notes says, for an administrator, which walls cannot be built here and were
// left out because best_effort allows that, and what else is not guarded.
func (p *Plan) Notes() []Fault { return p.walls.notes }

// Unguarded says in words what Landlock leaves open to a program with a closed
// file system, since the kernel is older than what would guard it; "" for nothing.
func (p *Plan) Unguarded() string { return p.walls.unguarded }

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
		p.serve("rlimits." + l.Name)
		p.add("set the limit "+l.Name, unix.SYS_PRLIMIT64, 0, uintptr(l.Resource), uintptr(unsafe.Pointer(limit)), 0)
	}
	p.serve("")
}

// addNamespaces enters what was prepared. The mount namespace comes first: to
// enter it sets root and working directory anew.
func (p *Plan) addNamespaces() {
	if l := p.walls.mounts; l != nil {
		p.serve(p.mountsKey())
		l.use(p.add("enter the mount namespace", unix.SYS_SETNS, 0, unix.CLONE_NEWNS), 0)
		p.addPrivateTmp()
	}
	if l := p.walls.network; l != nil {
		p.serve("sandbox.network")
		l.use(p.add("enter the network namespace", unix.SYS_SETNS, 0, unix.CLONE_NEWNET), 0)
	}
	p.serve("")
}

// addRoot sets the root directory and then, inside it, the working directory.
func (p *Plan) addRoot() {
	if p.spec.Chroot != "" {
		p.serve("chroot")
		p.add("change the root directory to "+p.spec.Chroot, unix.SYS_CHROOT, p.string(p.spec.Chroot))
	}
	p.serve("dir")
	p.add("change to the directory "+p.spec.Dir, unix.SYS_CHDIR, p.string(p.spec.Dir))
	p.serve("")
}

// addConfinement takes away what a program could use to get out of its
// identity, each step needing what the next takes: capabilities,
// no_new_privs (without which an ordinary user may set up neither of the
// following), Landlock, and last the filter, which the remaining steps pass.
func (p *Plan) addConfinement() {
	p.addCapabilities()
	defer p.serve("")
	if p.spec.Sandbox.NoNewPrivs && !p.spec.Inherit {
		p.serve("sandbox.no_new_privs")
		p.add("set no_new_privs", unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	if l := p.walls.landlock; l != nil {
		p.serve(p.landlockKey())
		l.use(p.add("enforce the Landlock rules", unix.SYS_LANDLOCK_RESTRICT_SELF, 0, 0), 0)
	}
	if len(p.walls.filter) > 0 {
		program := &unix.SockFprog{Len: uint16(len(p.walls.filter)), Filter: &p.walls.filter[0]}
		p.keep = append(p.keep, program)
		p.serve("sandbox.system_calls")
		p.add("install the system call filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(program)))
	}
}

// string keeps s where the child can read it.
func (p *Plan) string(s string) uintptr {
	b := cString(s)
	p.keep = append(p.keep, b)
	return address(b)
}
