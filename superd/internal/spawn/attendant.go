package spawn

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An attendant is a thread that starts children with CLONE_VFORK, and waits in
// the kernel for one at a time to leave superd's memory.
//
// A child on its way to execve shares superd's memory, and by that is a part of
// superd to the kernel where memory is scarce: what a child writes to its
// oom_score_adj becomes superd's too, and where the memory of its cgroup runs
// out, to kill the child is to kill superd with it (mm/oom_kill.c). Of a child
// that somebody waits for in vfork both is not true: it has an oom_score_adj of
// its own, and is not killed before it has memory of its own. Superd itself
// cannot wait, since an execve can hang; so these threads do.
//
// They run no Go and are unknown to its runtime. They are made when one is
// needed and none is free, and end with the process: a program that asked for a
// signal at its parent's end (PR_SET_PDEATHSIG) would get it at that of the
// thread.
type attendant struct {
	// What the assembly knows.
	blocked uint64    // every signal
	mask    uint64    // the calling thread's own mask meanwhile
	job     *instance // what to start
	called  uint32    // 1 from the call until the child has gone; a futex
}

// attendants are those of the process: their memory is never freed.
var attendants struct {
	sync.Mutex
	idle, busy []*attendant
}

// hire makes the thread of a and returns its number, or the negated error
// number of clone(2). The thread calls in.start of each job, which is clone3.
//
//go:noescape
func hire(a *attendant) int

// attend has one that is free, or a new one, start the child of in.
func attend(in *instance) (*attendant, unix.Errno) {
	pool := &attendants
	pool.Lock()
	defer pool.Unlock()
	for range min(lookBack, len(pool.busy)) {
		a := pool.busy[0]
		pool.busy = pool.busy[1:]
		if atomic.LoadUint32(&a.called) == 0 {
			pool.idle = append(pool.idle, a)
		} else {
			pool.busy = append(pool.busy, a)
		}
	}
	if len(pool.idle) == 0 {
		a := &attendant{blocked: ^uint64(0)}
		if tid := hire(a); tid < 0 {
			return nil, unix.Errno(-tid)
		}
		pool.idle = append(pool.idle, a)
	}
	last := len(pool.idle) - 1
	a := pool.idle[last]
	pool.idle = pool.idle[:last]
	pool.busy = append(pool.busy, a)
	a.job = in
	atomic.StoreUint32(&a.called, 1)
	return a, 0
}

// launchAttended is launch by an attendant. It returns when the child, which
// says so with a step of its own, has a descriptor table of its own.
func launchAttended(in *instance) int {
	atomic.StoreInt32(&in.born, 0)
	a, errno := attend(in)
	if errno != 0 {
		return -int(errno)
	}
	futex(unsafe.Pointer(&a.called), futexWake, 1)
	for {
		if pid := atomic.LoadInt32(&in.born); pid != 0 {
			return int(pid)
		}
		futex(unsafe.Pointer(&in.born), futexWait, 0)
	}
}

// FUTEX_WAIT and FUTEX_WAKE with FUTEX_PRIVATE_FLAG (futex(2)).
const (
	futexWait = 128
	futexWake = 129
)

// futex waits while the word is value, or wakes that many who wait.
func futex(word unsafe.Pointer, operation, value uintptr) {
	unix.Syscall6(unix.SYS_FUTEX, uintptr(word), operation, value, 0, 0, 0)
}

// isAttended tells whether children of p need an attendant.
func (p *Plan) isAttended() bool {
	return !p.isCopied() && (p.spec.OOMScore != nil || p.spec.Cgroup.On && p.spec.Cgroup.Memory > 0)
}

// addCall tells whoever waits for the number of an attended child that it is
// there. It comes after the descriptor table is the child's own.
func (p *Plan) addCall() {
	if p.isAttended() {
		p.call = p.add("tell superd", unix.SYS_FUTEX, 0, futexWake, 1)
		p.ignore(p.call)
	}
}
