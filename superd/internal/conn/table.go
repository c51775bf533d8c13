// Package conn is the table of live connections and of their processes: it
// starts a connection's program, watches over it until its end, and lets the
// connection go in order. One goroutine, [Table.Watch], waits for everything;
// it alone signals and reaps, so that a process number is never used after
// the kernel may have given it away.
package conn

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/event"
	"superd/superd/internal/spawn"
)

// A Service is what the table must know of a connection's service. It never
// changes; connections keep theirs across a reload.
type Service struct {
	Events *event.Service
	Plan   *spawn.Plan

	Keep      bool          // keep a duplicate of the connection
	Linger    time.Duration // how long input is drained after the program's end
	Session   time.Duration // whole life of a program; 0 is off
	Idle      time.Duration // time without a byte in either direction; 0 is off
	Stop      time.Duration // from TERM to KILL
	LogStderr bool          // descriptor 2 leads to the log
	Leave     bool          // processes that outlive their program are left alone
	Apology   []byte        // for a client whose program could not be started

	// Release tells how a connection's program ended, or in cause why it could
	// not be started, and gives the visitor back with its place under the
	// limits. It is called exactly once for each that was started, by Watch,
	// and must not block.
	Release func(v *Visitor, end *event.Exit, cause error)
}

// A Table owns the records of all connections, from accept until their last
// descriptor is closed. Start may be called from one goroutine while Watch
// runs in another.
type Table struct {
	engine  *spawn.Engine
	witness witness
	poll    *poller
	ids     ids

	mostDrains int // how many records may be draining; immutable

	mu     sync.Mutex
	slots  []*record // by the number that epoll reports; guarded by mu
	free   []*record // guarded by mu
	open   int       // records in use; guarded by mu
	due    deadlines // guarded by mu
	orders []func()  // for Watch to run; guarded by mu
	freed  bool      // the descriptors are no longer the table's; guarded by mu

	// What only Watch touches.
	now       int64 // nanoseconds since begin
	latest    int64 // when Stop wants all to be over
	lingering []key // oldest first; entries of records that went on are stale
	drains    int   // records that are draining
	uncounted []*record
	counting  bool
	buffer    []byte
	info      unix.TCPInfo
	paths     mptcpInfo
	emptied   []chan struct{} // closed once no record is in use
	closed    bool
	done      chan struct{} // closed when Watch has returned
	begin     time.Time
}

// A witness knows which system call has killed a program: an engine, or a test's.
type witness interface {
	Violation(pid int) (call string, known bool)
	HearsViolations() bool
}

// New makes an empty table. Its descriptors are freed by Close.
func New(engine *spawn.Engine) (*Table, error) {
	p, err := newPoller(engine)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &Table{
		engine:     engine,
		witness:    engine,
		poll:       p,
		ids:        newIDs(now),
		mostDrains: MostLingering(),
		begin:      now,
		latest:     notDue,
		buffer:     make([]byte, 64<<10),
		done:       make(chan struct{}),
	}, nil
}

// Start starts the program of s for the connection fd, which it takes over, or
// is -1 where the program gets sockets; the visitor, who has a name, is the
// table's until Release. What goes wrong is recorded and ends the connection. It
// waits neither for the program nor for a file system.
//
// It returns false where nothing was done, since the system had no process to
// give just then: whoever can wait a little does not insist.
func (t *Table) Start(s *Service, fd int, v *Visitor, insist bool) bool {
	r := t.take()
	r.begin(s, v)
	v.record = key{slot: r.slot, use: r.use}
	streams, err := t.equip(r, fd)
	if err != nil {
		r.keepAnyway(fd)
		t.order(func() { t.refuse(r, err) })
		return true
	}
	facts := spawn.Facts{ID: r.who.ID, Peer: &v.Peer, FromSource: v.FromSource, Names: v.Names}
	r.child, err = t.engine.Start(s.Plan, streams, &facts)
	switch {
	case err == nil:
		s.Events.Spawned(time.Since(r.started))
		r.who.Pid = r.child.PID
		s.Events.Started(&r.who)
		t.handOver(r)
	case spawn.Busy(err) && !insist:
		t.unequip(r, streams)
		return false
	case spawn.Busy(err):
		closeAll(streams.Stderr)
		r.keepAnyway(fd)
		t.order(func() { t.refuse(r, err) })
	default:
		t.order(func() { t.refuse(r, err) })
	}
	return true
}

// keepAnyway makes fd the kept duplicate where there is none, or closes it: a
// client whose program cannot be started is let go in order.
func (r *record) keepAnyway(fd int) {
	if r.kept < 0 {
		r.kept = fd
		return
	}
	unix.Close(fd)
}

// unequip gives back what equip has opened, and the record.
func (t *Table) unequip(r *record, s spawn.Streams) {
	closeAll(r.kept, r.stderr, s.Stderr)
	r.kept, r.stderr = -1, -1
	t.give(r)
}

// closeAll closes those of fds that are descriptors.
func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// equip opens what the connection needs beside its program: the kept
// duplicate, and the pipe for descriptor 2.
func (t *Table) equip(r *record, fd int) (streams spawn.Streams, err error) {
	streams = spawn.Streams{Connection: fd, Stderr: -1, Sockets: r.visitor.Sockets}
	if r.service.Keep {
		if r.kept, err = t.engine.Dup(fd); err != nil {
			return streams, failure("keep a descriptor of the connection", err)
		}
	}
	if r.service.LogStderr {
		if r.stderr, streams.Stderr, err = t.pipe(); err != nil {
			return streams, failure("open a pipe for descriptor 2", err)
		}
		entrust(streams.Stderr, r.service.Plan.Identity())
	}
	return streams, nil
}

// pipe returns a pipe's read end, out of the window and non-blocking, and its
// write end, which the program gets.
func (t *Table) pipe() (read, write int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, err
	}
	if read, err = t.engine.Above(ends[0]); err == nil {
		err = unix.SetNonblock(read, true)
	}
	if err != nil {
		unix.Close(ends[1])
		return read, -1, err
	}
	return read, ends[1], nil
}

// entrust gives the program's user the pipe, since opening /dev/stderr anew
// needs the permission of the pipe's owner (proc(5)). Where superd may not
// give it away, a program can still write to descriptor 2 itself.
func entrust(pipe int, id *spawn.Identity) {
	if id != nil {
		unix.Fchown(pipe, int(id.UID), int(id.GID))
	}
}

// handOver gives r, complete, to Watch, and does not look at it afterwards.
func (t *Table) handOver(r *record) {
	stderr, pidfd, slot, use := r.stderr, r.child.PIDFD, r.slot, r.use
	due, heeded := r.limit(t.sinceBegin()), -1
	if r.mustBeHeeded() {
		heeded = r.kept
		r.heed()
	}
	t.mu.Lock()
	r.watched = true
	t.mu.Unlock()
	t.arm(r, due)
	var err error
	if stderr >= 0 {
		err = t.poll.add(stderr, key{slot, use, stderrReadable})
	}
	if err == nil && heeded >= 0 {
		err = t.poll.addFor(motions, heeded, key{slot, use, connectionMoved})
	}
	if err == nil {
		err = t.poll.add(pidfd, key{slot, use, processEnded})
	}
	if err != nil {
		t.order(func() { t.lose(r) })
	}
}

// take returns a record that nobody uses.
func (t *Table) take() *record {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open++
	if n := len(t.free); n > 0 {
		r := t.free[n-1]
		t.free = t.free[:n-1]
		return r
	}
	r := newRecord(uint32(len(t.slots)))
	t.slots = append(t.slots, r)
	return r
}

// give takes r back once nothing of its connection is left.
func (t *Table) give(r *record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due.remove(r)
	r.use++
	r.watched = false
	t.open--
	t.free = append(t.free, r)
}

// find returns the record that an event speaks of; nil where the event is of
// an earlier connection in the same slot.
func (t *Table) find(k key) *record {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.slots[k.slot]; r.use&useMask == k.use&useMask {
		return r
	}
	return nil
}

// order has Watch run f. After the table's end it does nothing.
func (t *Table) order(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.freed {
		return
	}
	t.orders = append(t.orders, f)
	t.poll.wake()
}

// sinceBegin is the table's clock: monotonic, in nanoseconds.
func (t *Table) sinceBegin() int64 { return int64(time.Since(t.begin)) }
