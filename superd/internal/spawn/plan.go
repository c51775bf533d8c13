// Package spawn starts a program for a connection: the plan that is made once
// at load, the identity, the environment, and the child that walks the plan.
// It decides nothing and watches nothing; once a child is on its way, its
// number and its pidfd belong to the caller.
package spawn

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// Where a program's descriptor 2 leads.
const (
	StderrLog    = "log"    // to a pipe that the caller reads
	StderrClient = "client" // to the connection
	StderrNull   = "null"   // to /dev/null
)

// A Spec is what a plan is made of: one service's program in final types.
type Spec struct {
	Service  string
	Path     string   // the file to execute; ignored where Image is set
	Argv     []string // argv[0] included
	Image    *Image   // a built-in: executed by descriptor
	Env      []string // NAME=value, the same for every connection
	EnvStyle []string // which sets of connection variables are added
	Further  []string // names of the variables that a connection's Peer.Extra may have
	Room     int      // bytes; a Peer.Extra that has more is left out
	Stderr   string
	Sockets  int // how many listening sockets the program can get, from 3 on, and no connection as 0 and 1; 0 for a connection
	Dir      string
	Umask    int
	Nice     int
	Identity *Identity // nil: superd's own

	OOMScore *int // nil: superd's own

	// The walls around the program. The zero values are none.
	Chroot  string
	Rlimits []config.Rlimit
	Sandbox config.Sandbox
	Cgroup  config.Cgroup

	// Check says that nothing is to be served: a superd that serves the same
	// services does not notice.
	Check bool

	// Terminal says that the program is an ordinary child of the calling process:
	// it has that one's descriptors 0, 1 and 2, where no other place is said for 2,
	// and its session, and a cgroup that is its own alone. It gets no connection.
	Terminal bool

	// Inherit says that children are started by a thread that Engine.Confine
	// has prepared; only for what Inheritable allows.
	Inherit bool
}

// A Plan is a Spec compiled to the list of system calls that a child makes.
// It is made at load and never changes; its instances are one child's each.
type Plan struct {
	engine *Engine
	spec   Spec
	steps  []step
	words  []string // words[i] says what steps[i] does: "set the user nobody"
	keys   []string // keys[i] is the key of the file that steps[i] serves; "" for superd's own
	key    string   // that of the steps that are being added

	// Numbers of the steps whose arguments belong to one connection.
	unshare, call, session, stdin, stdout, stderr, exec int
	sockets                                             []int // what makes the listening sockets 3 and so on
	gaps                                                []int // what closes the descriptors between the loans
	loans                                               []*loan
	imageLoan                                           *loan

	argv      []uintptr
	static    []uintptr // the environment that is the same for all
	variables [peer.Kinds][]variable
	walls     walls
	faults    Faults // of Compile

	keep []any // what only the child's pointers refer to

	free []*instance // guarded by engine.mu
	busy []*instance // walking; guarded by engine.mu
}

// Compile makes the plan of s, builds the walls that it asks for, and tries the
// plan on a child that ends before execve. The error is of type [Faults], and is
// everything that cannot be had. The program's own path and working directory are
// not looked at: what is missing when a connection comes is that connection's
// trouble. The caller closes the plan once no connection uses it any more.
func (e *Engine) Compile(s Spec) (*Plan, error) {
	p := &Plan{engine: e, spec: s}
	p.buildWalls()
	p.addSteps()
	p.try()
	if len(p.faults) > 0 {
		p.Close()
		return nil, p.faults
	}
	if len(p.walls.furnishing) > 0 {
		p.walls.stock = e.keeper.open(p) // the trial has made its own
	}
	return p, nil
}

// addSteps lays the plan out.
func (p *Plan) addSteps() {
	s := &p.spec
	p.argv = p.pointers(s.Argv, 0)
	variables, names := variablesOf(s.EnvStyle, s.socketVariables()...)
	p.variables = variables
	p.static = p.pointers(withoutVariables(s.Env, append(names, s.Further...)), p.mostVariables()+len(s.Further))
	p.addDescriptors()
	p.addSignals()
	p.addScheduling()
	p.addNamespaces()
	p.addRoot()
	p.addIdentity()
	p.addConfinement()
	p.addExec()
}

// mostVariables is how many of them a connection can have.
func (p *Plan) mostVariables() (most int) {
	for _, list := range p.variables {
		most = max(most, len(list))
	}
	return most
}

// Identity is the user that programs of p run as; nil for superd's own.
func (p *Plan) Identity() *Identity { return p.spec.Identity }

// addDescriptors gives the child a descriptor table of its own, first, since
// nothing else may be slower for every descriptor that superd has open, and
// leaves in it 0, 1, 2 and what execve still needs.
func (p *Plan) addDescriptors() {
	p.unshare = p.add("unshare the descriptor table", unix.SYS_CLOSE_RANGE, 0, ^uintptr(0)>>32, unix.CLOSE_RANGE_UNSHARE)
	p.addCall()
	if p.spec.Terminal {
		p.addTerminal()
		p.addClosing()
		return
	}
	p.session = p.add("start a session", unix.SYS_SETSID)
	if p.spec.Sockets > 0 {
		p.addSockets()
	} else {
		p.stdin = p.add("make the connection descriptor 0", unix.SYS_DUP3, 0, 0)
		p.stdout = p.add("make the connection descriptor 1", unix.SYS_DUP3, 0, 1)
	}
	if p.spec.Stderr == StderrNull {
		p.addNull()
	} else {
		p.stderr = p.add("make descriptor 2", unix.SYS_DUP3, 0, 2)
	}
	p.addSocketNumbers()
	p.addClosing()
}

// addNull makes /dev/null descriptor 2.
func (p *Plan) addNull() {
	p.ignore(p.add("close descriptor 2", unix.SYS_CLOSE, 2))
	at := unix.AT_FDCWD
	p.serve("stderr")
	p.add("open /dev/null", unix.SYS_OPENAT, uintptr(at), p.string("/dev/null"), unix.O_RDWR)
	p.serve("")
}

// addClosing closes what the child's table still has of other connections, at
// once and not by execve, which can hang on a dead file system with them. What
// later steps need, the loans, stays until execve closes it: one call for each
// gap between them.
func (p *Plan) addClosing() {
	for range len(p.loans) + 1 {
		i := p.add("close other descriptors", unix.SYS_CLOSE_RANGE, 0, 0, 0)
		p.ignore(i) // EINVAL: there is nothing between two neighbours
		p.gaps = append(p.gaps, i)
	}
}

// addSignals sets to their default those signals that clone3's
// CLONE_CLEAR_SIGHAND leaves: the ones that superd was started with ignored
// (nohup). A child of clone needs it for every signal, since handlers of
// superd's must not run in it once the mask is emptied.
func (p *Plan) addSignals() {
	deflt := make([]uint64, 4) // struct sigaction of the kernel, all zero: SIG_DFL
	p.keep = append(p.keep, deflt)
	signals := ignoredSignals()
	if p.spec.Inherit {
		signals = changeableSignals()
	}
	for _, sig := range signals {
		p.add("reset signal "+strconv.Itoa(sig), unix.SYS_RT_SIGACTION, uintptr(sig),
			uintptr(unsafe.Pointer(&deflt[0])), 0, 8)
	}
}

func (p *Plan) addScheduling() {
	p.add("set the umask", unix.SYS_UMASK, uintptr(p.spec.Umask))
	p.addRlimits()
	if p.spec.Nice != 0 {
		p.serve("nice")
		p.add("set the nice value "+strconv.Itoa(p.spec.Nice), unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(p.spec.Nice))
	}
	if p.spec.OOMScore != nil {
		p.serve("oom_score_adj")
		p.addOOMScore(strconv.Itoa(*p.spec.OOMScore))
	}
	p.serve("")
}

// addOOMScore writes to a file of proc(5). Which number openat returns the
// child knows only where it is the lowest, and so 0 is free for that moment.
func (p *Plan) addOOMScore(value string) {
	const file = "/proc/self/oom_score_adj"
	here := unix.AT_FDCWD
	p.add("free descriptor 0", unix.SYS_CLOSE, 0)
	p.add("open "+file, unix.SYS_OPENAT, uintptr(here), p.string(file), unix.O_WRONLY)
	p.add("set oom_score_adj to "+value, unix.SYS_WRITE, 0, p.string(value), uintptr(len(value)))
	p.restoreStdin()
}

// addIdentity: groups, then gid, then uid, since each needs the privilege that
// the next one gives away.
func (p *Plan) addIdentity() {
	id := p.spec.Identity
	if id == nil {
		return
	}
	groups := append([]uint32{}, id.Groups...)
	var list uintptr
	if len(groups) > 0 {
		p.keep = append(p.keep, groups)
		list = uintptr(unsafe.Pointer(&groups[0]))
	}
	gid, uid := uintptr(id.GID), uintptr(id.UID)
	p.keepCapabilities()
	p.serve("groups")
	p.add("set the supplementary groups", unix.SYS_SETGROUPS, uintptr(len(groups)), list)
	p.serve("group")
	p.add("set the group "+id.GroupName(), unix.SYS_SETRESGID, gid, gid, gid)
	p.serve("user")
	p.add("set the user "+id.UserName(), unix.SYS_SETRESUID, uid, uid, uid)
	p.serve("")
}

// addExec empties the signal mask last, so that no signal finds a child that
// still shares superd's memory.
func (p *Plan) addExec() {
	mask := make([]uint64, 1)
	p.keep = append(p.keep, mask)
	p.add("empty the signal mask", unix.SYS_RT_SIGPROCMASK, sigSetMask, uintptr(unsafe.Pointer(&mask[0])), 0, 8)
	if p.spec.Image != nil {
		p.exec = p.add("execute the built-in "+p.spec.Image.name, unix.SYS_EXECVEAT,
			0, p.string(""), uintptr(unsafe.Pointer(&p.argv[0])), 0, unix.AT_EMPTY_PATH)
		p.imageLoan.use(p.exec, 0)
		return
	}
	p.exec = p.add("execute "+p.spec.Path, unix.SYS_EXECVE, p.string(p.spec.Path), uintptr(unsafe.Pointer(&p.argv[0])), 0)
}

// add appends a step and returns its number. The words complete "cannot".
func (p *Plan) add(words string, number uintptr, args ...uintptr) int {
	s := step{number: number}
	copy(s.args[:], args)
	p.steps = append(p.steps, s)
	p.words = append(p.words, words)
	p.keys = append(p.keys, p.key)
	return len(p.steps) - 1
}

// serve says for which key of the file the next steps are.
func (p *Plan) serve(key string) { p.key = key }

func (p *Plan) ignore(i int) { p.steps[i].ignored = 1 }

// pointers lays list out as C has it, a terminated array of terminated
// strings, with room for more entries before the terminator.
func (p *Plan) pointers(list []string, room int) []uintptr {
	out := make([]uintptr, 0, len(list)+room+1)
	for _, s := range list {
		out = append(out, p.string(s))
	}
	return append(out, 0)
}

// newInstance copies the plan for one child. Its memory is the heap's, which
// does not move, and p's, which the instance keeps.
func (p *Plan) newInstance() *instance {
	in := &instance{plan: p, blocked: ^uint64(0)}
	in.steps = append([]step{}, p.steps...)
	in.envp = append(make([]uintptr, 0, cap(p.static)), p.static...)
	in.text = make([]byte, 0, p.mostVariables()*longestVariable+p.spec.Room+p.roomForNames())
	in.lows = make([]int, 2+mostLoans+p.spec.Sockets)
	in.first = uintptr(unsafe.Pointer(&in.steps[0]))
	in.setStart()
	if p.isAttended() {
		in.steps[p.call].args[0] = uintptr(unsafe.Pointer(&in.born))
	}
	envp := uintptr(unsafe.Pointer(unsafe.SliceData(in.envp)))
	if p.spec.Image != nil {
		in.steps[p.exec].args[3] = envp
	} else {
		in.steps[p.exec].args[2] = envp
	}
	return in
}

// cString is s with the terminating zero byte.
func cString(s string) []byte { return append([]byte(s), 0) }

// address is where b stands. The caller keeps b alive.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

// sigSetMask is SIG_SETMASK, the same on every architecture that superd runs on.
const sigSetMask = 2

// changeableSignals lists those that have an action to change (signal(7)).
func changeableSignals() (list []int) {
	for sig := 1; sig <= 64; sig++ {
		if s := unix.Signal(sig); s != unix.SIGKILL && s != unix.SIGSTOP {
			list = append(list, sig)
		}
	}
	return list
}

// ignoredSignals lists the signals that superd itself ignores now.
func ignoredSignals() (list []int) {
	for sig := 1; sig <= 64; sig++ {
		var action [4]uint64 // struct sigaction: handler first
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&action[0])), 8, 0, 0)
		if errno == 0 && action[0] == 1 { // SIG_IGN
			list = append(list, sig)
		}
	}
	return list
}
