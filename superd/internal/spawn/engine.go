package spawn

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// An Engine starts the children of one process: it owns the window at the low
// end of the descriptor table and what children on their way to execve share
// with superd. Its methods may be called from any goroutine.
type Engine struct {
	window window
	keeper keeper

	landlockABI func() (int, error) // the kernel's, or a test's

	mu     sync.Mutex
	joined []*instance // children that still share the descriptor table; guarded by mu
	lows   int         // descriptors held in the window for them; guarded by mu

	cgroups map[string]*cgroup // of services, by directory; guarded by mu
}

// NewEngine makes the engine of this process.
func NewEngine() *Engine {
	return &Engine{window: newWindow(), landlockABI: landlockABI, cgroups: map[string]*cgroup{}}
}

// Window is the number below which descriptors are handed over, and above
// which all that lives longer belongs.
func (e *Engine) Window() int { return int(e.window) }

// Above moves fd, which the caller owns, out of the window and returns its new
// number; the old one is closed in any case.
func (e *Engine) Above(fd int) (int, error) { return e.window.above(fd) }

// Dup duplicates fd to a number above the window, closed on exec.
func (e *Engine) Dup(fd int) (int, error) { return e.window.dupAbove(fd) }

// A Child is a process on its way to, or in, its program.
type Child struct {
	PID   int
	PIDFD int // above the window, closed on exec; the caller's to close
	in    *instance
	use   uint32
	group *cgroup
	leaf  *leaf // of group; nil where the child has no cgroup of its own
	cell  *cell // nil where it was given none

	carried *Failure // of a child with which Resume goes on: why it is not its program
}

// Streams are the descriptors of one spawn. Start takes both over and closes
// them once the child has its own, or when it could not be started; but where
// the system was [Busy], they are the caller's still.
type Streams struct {
	Connection int   // -1 where the plan is for listening sockets, or a terminal
	Stderr     int   // the write end of a pipe; -1 where the plan needs none
	Sockets    []int // listening sockets, at most as many as the plan is for; they stay the caller's
}

// Start starts p's program for the connection that f describes. It returns as
// soon as the child exists; what goes wrong in the child is told by
// [Engine.Failure] after its end. An error is clone3's own or that of running
// out of descriptors.
//
// The lock is not held while the system is waited for: what ends meanwhile
// must be reaped, or a full process table would stay full.
func (e *Engine) Start(p *Plan, s Streams, f *Facts) (Child, error) {
	return e.start(e.acquire(p), s, f)
}

// start is Start with an instance that is the caller's.
func (e *Engine) start(in *instance, s Streams, f *Facts) (Child, error) {
	in.hold(s.Connection)
	in.hold(s.Stderr)
	err := in.prepare(s, f)
	if err == nil {
		err = in.launch()
	}
	if err != nil {
		if Busy(err) {
			in.handBack(s)
		}
		e.abandon(in)
		return Child{PIDFD: -1}, err
	}
	c := Child{PID: in.pid, in: in, use: in.use, group: in.plan.walls.cgroup, leaf: in.leaf, cell: in.cell}
	pidfd := int(in.pidfd)
	e.depart(in)
	e.keeper.replenish(in.plan.walls.stock)
	if c.PIDFD, err = e.window.above(pidfd); err != nil {
		return c, e.lose(c, err)
	}
	return c, nil
}

// acquire takes an instance, once few enough descriptors stand in the window.
// A child takes its own with its first system call, so that the wait is the
// scheduler's delay and never a file system's.
func (e *Engine) acquire(p *Plan) *instance {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.settle(); e.crowded(); e.settle() {
		e.mu.Unlock()
		unix.Nanosleep(&unix.Timespec{Nsec: int64(20 * time.Microsecond)}, nil)
		e.mu.Lock()
	}
	return p.take()
}

// crowded: a third of the window stays free for what accept returns.
func (e *Engine) crowded() bool { return e.lows > int(e.window)*2/3 }

// depart puts a started instance among those that are waited for.
func (e *Engine) depart(in *instance) {
	e.mu.Lock()
	defer e.mu.Unlock()
	in.plan.busy = append(in.plan.busy, in)
	e.joined = append(e.joined, in)
	e.lows += in.nlows
}

// hold notes a descriptor that is to be closed with the spawn.
func (in *instance) hold(fd int) {
	if fd >= 0 {
		in.lows[in.nlows] = fd
		in.nlows++
	}
}

// prepare writes this connection's numbers and environment into in.
func (in *instance) prepare(s Streams, f *Facts) error {
	p := in.plan
	if in.told == nil {
		in.listen()
	}
	if in.told == nil {
		return &Failure{Words: "share memory with a copy of superd", Errno: unix.ENOMEM}
	}
	*in.told, in.reported = told{}, false
	in.useCell()
	highest := max(s.Connection, s.Stderr, p.highestKept())
	last, err := in.lend(p.firstClosed(len(s.Sockets)))
	if err != nil {
		return err
	}
	lastSocket, err := in.lendSockets(s.Sockets)
	if err != nil {
		return err
	}
	highest = max(highest, last, lastSocket)
	in.steps[p.unshare].args[0] = uintptr(highest + 1)
	if !p.spec.Terminal {
		in.connect(s)
	}
	in.describe(f)
	if c := p.walls.cgroup; c != nil {
		return c.enter(in)
	}
	return nil
}

// connect has the child make its descriptors 0, 1 and 2 of s.
func (in *instance) connect(s Streams) {
	p := in.plan
	in.steps[p.stdout].args[0] = uintptr(p.output(s))
	if p.spec.Sockets == 0 {
		in.steps[p.stdin].args[0] = uintptr(s.Connection)
	}
	switch p.spec.Stderr {
	case StderrLog:
		in.steps[p.stderr].args[0] = uintptr(s.Stderr)
	case StderrClient:
		in.steps[p.stderr].args[0] = uintptr(s.Connection)
	}
}

// aboard is what an instance's tid holds while its child is in our memory: the
// kernel zeroes it, and nobody asks for more.
const aboard = 1

// launch starts in's child.
func (in *instance) launch() error {
	atomic.StoreUint32(&in.tid, aboard)
	if in.pid = in.clone3(); in.pid > 0 {
		return nil
	}
	atomic.StoreUint32(&in.tid, 0)
	errno := unix.Errno(-in.pid)
	return &Failure{Words: noProcess, Errno: errno, Hint: startHints[errno]}
}

// clone3 starts in's child, in the way that its plan needs, and returns its
// number, or a negated error number.
func (in *instance) clone3() int {
	if in.plan.isAttended() {
		return launchAttended(in)
	}
	return launch(in)
}

const noProcess = "start a process"

// Busy tells whether a program was not started only because the system had no
// process to give at that moment (clone(2), EAGAIN).
func Busy(err error) bool {
	f, is := err.(*Failure)
	return is && f.Words == noProcess && f.Errno == unix.EAGAIN
}

// handBack takes s from what is closed with the spawn.
func (in *instance) handBack(s Streams) {
	held := in.lows[:in.nlows]
	in.nlows = 0
	for _, fd := range held {
		if fd != s.Connection && fd != s.Stderr {
			in.hold(fd)
		}
	}
}

// abandon takes back an instance whose child was never started.
func (e *Engine) abandon(in *instance) {
	e.mu.Lock()
	defer e.mu.Unlock()
	in.closeLows()
	if in.leaf != nil {
		in.plan.walls.cgroup.giveBack(in.leaf)
	}
	if in.cell != nil {
		e.keeper.giveBack(in.cell)
	}
	in.plan.recycle(in)
}

// lose ends a child that cannot be watched: its pidfd is lost, so it is killed
// and reaped here, by number, before anyone else hears of it.
func (e *Engine) lose(c Child, cause error) error {
	unix.Kill(c.PID, unix.SIGKILL)
	for {
		if _, err := unix.Wait4(c.PID, nil, 0, nil); err != unix.EINTR {
			break
		}
	}
	e.Failure(c)
	return &Failure{Words: "keep a descriptor of the process", Errno: errnoOf(cause)}
}

// Settle closes the descriptors of spawns whose child has its own by now, and
// returns how many children still share superd's table. Whoever starts
// children calls it again soon while that is not 0: until then, a connection
// that its program has closed stays open here.
func (e *Engine) Settle() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settle()
	return len(e.joined)
}

func (e *Engine) settle() {
	waiting := e.joined[:0]
	for _, in := range e.joined {
		if !in.parted() {
			waiting = append(waiting, in)
			continue
		}
		e.lows -= in.nlows
		in.closeLows()
	}
	clear(e.joined[len(waiting):])
	e.joined = waiting
}

// parted tells whether the child has left the shared descriptor table: by its
// first step, or by its end.
func (in *instance) parted() bool {
	return atomic.LoadUint32(&in.told.done) > 0 || in.gone()
}

// gone tells whether the child has left the shared memory, by execve or exit.
func (in *instance) gone() bool { return atomic.LoadUint32(&in.tid) == 0 }

func (in *instance) closeLows() {
	for _, fd := range in.lows[:in.nlows] {
		unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
	}
	in.nlows = 0
}

// take returns an instance that nobody uses.
func (p *Plan) take() *instance {
	if len(p.free) == 0 {
		p.reclaim()
	}
	if n := len(p.free); n > 0 {
		in := p.free[n-1]
		p.free = p.free[:n-1]
		return in
	}
	return p.newInstance()
}

// lookBack bounds how many busy instances one spawn looks at: a child that
// hangs in execve on a dead file system must not make others pay.
const lookBack = 8

// reclaim takes back instances whose child has gone, looking at the oldest
// and moving those that are not ready to the end.
func (p *Plan) reclaim() {
	for range min(lookBack, len(p.busy)) {
		in := p.busy[0]
		p.busy = p.busy[1:]
		if in.nlows == 0 && in.gone() && (atomic.LoadUint32(&in.told.failed) == 0 || in.reported) {
			p.recycle(in)
		} else {
			p.busy = append(p.busy, in)
		}
	}
}

func (p *Plan) recycle(in *instance) {
	in.leaf, in.cell = nil, nil
	in.use++
	p.free = append(p.free, in)
}

// Release gives back what c, which has been reaped, had of its own beside its
// descriptors: its cell, in which processes that it has left go on, and its
// cgroup, in which they are killed unless the service leaves them alone.
func (e *Engine) Release(c Child, leave bool) {
	if c.cell != nil {
		e.Settle() // or the last descriptor of the cell would be closed by whoever settles next
		e.keeper.giveBack(c.cell)
	}
	if c.leaf == nil {
		return
	}
	if !leave {
		c.leaf.killAll()
	}
	if c.group == nil { // it was carried, and its service has none now
		c.leaf.remove()
		return
	}
	c.group.giveBack(c.leaf)
}

// Failure tells why c, which has ended, never became its program; nil when it
// did. It may be asked once.
func (e *Engine) Failure(c Child) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.carried != nil {
		return c.carried
	}
	if c.in == nil || c.in.use != c.use {
		return nil // the instance went on to another child: this one had left it in order
	}
	atomic.StoreUint32(&c.in.tid, 0) // of a copy the kernel does not say so
	e.settle()
	failed := atomic.LoadUint32(&c.in.told.failed)
	if failed == 0 {
		return nil
	}
	c.in.reported = true // the instance may be used again
	return c.in.plan.failure(int(failed)-1, unix.Errno(c.in.told.errno))
}
