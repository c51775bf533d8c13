package conn

import (
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readStderr logs a part of what r's program wrote to descriptor 2; the set
// reports what is left, after everybody else has had a turn.
func (t *Table) readStderr(r *record) bool {
	if r.stderr < 0 {
		return false
	}
	n, err := unix.Read(r.stderr, t.buffer)
	switch {
	case n > 0:
		r.text.write(t.buffer[:n], r.logLine)
		return true
	case err == unix.EAGAIN || err == unix.EINTR:
		return false
	}
	t.closeStderr(r) // every writer has closed it; the program may live on
	return false
}

// closeStderr forgets the number with the descriptor: an event of it that is
// under way already must not find another's.
func (t *Table) closeStderr(r *record) {
	if r.stderr >= 0 {
		t.poll.closeFD(r.stderr)
		r.stderr = -1
	}
}

func (r *record) logLine(line []byte, cut bool) { r.service.Events.Stderr(&r.who, line, cut) }

// pipeSize bounds what a pipe can hold when its program has ended: its
// capacity, as pipe(7) allows it to be set.
const pipeSize = 1 << 20

// drainStderr logs what r's program, and the processes that outlived it, had
// written before their end.
func (t *Table) drainStderr(r *record) {
	for read := 0; read < pipeSize && t.readStderr(r); read += len(t.buffer) {
	}
	r.text.flush(r.logLine)
}

// lookAtTCP fills t.info from r's kept duplicate; false where there is none.
func (t *Table) lookAtTCP(r *record) bool {
	if r.kept < 0 {
		return false
	}
	size := uint32(unsafe.Sizeof(t.info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(r.kept), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&t.info)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0
}

// idleness is how long no byte has moved on r's connection, in either
// direction; 0 where that cannot be known.
func (t *Table) idleness(r *record) time.Duration {
	if r.heeded {
		return r.stillness()
	}
	if known := t.lookAtMPTCP(r); known > 0 {
		return t.idlenessOfPaths(r, known)
	}
	if !t.lookAtTCP(r) {
		return 0
	}
	return idleTime(&t.info)
}

// linger lets r's connection go. Closing a TCP connection on input that is
// unread, or still to come, resets it, and the reset destroys the end of the
// answer on its way; of a unix socket the client reads ECONNRESET for the end.
// So our side is shut down first, and what comes is drained until the client
// closes or the service's linger time is over (RFC 1122, 4.2.2.13).
func (t *Table) linger(r *record) {
	t.unheed(r)
	if r.kept < 0 || r.alone || r.service.Linger == 0 {
		t.finish(r)
		return
	}
	unix.Shutdown(r.kept, unix.SHUT_WR)
	if t.drained(r) || t.poll.add(r.kept, key{r.slot, r.use, connectionMoved}) != nil {
		t.finish(r)
		return
	}
	r.state = draining
	t.arm(r, min(later(t.now, r.service.Linger), t.latest))
	t.crowd(key{slot: r.slot, use: r.use})
}

// drain goes on reading what nobody wants.
func (t *Table) drain(r *record) {
	if t.drained(r) {
		t.finish(r)
	}
}

// gulp is how much input one look at a draining connection throws away: a
// client that never stops must not keep Watch.
const gulp = 1 << 20

// drained throws input away, without copying it (MSG_TRUNC, tcp(7)), and tells
// whether the client has closed or is gone.
func (t *Table) drained(r *record) bool {
	for range gulp / len(t.buffer) {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(r.kept), uintptr(unsafe.Pointer(&t.buffer[0])),
			uintptr(len(t.buffer)), unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
			return false
		case errno != 0 || n == 0:
			return true
		}
	}
	return false
}

// mostLingering bounds the connections that wait for their clients to close:
// beyond it, the oldest have waited long enough.
const mostLingering = 1024

// MostLingering is how many descriptors connections can have that have given
// their place back: fewer where the limit of open files is low.
func MostLingering() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return mostLingering
	}
	return int(min(limit.Cur/8, mostLingering))
}

// crowd adds a draining connection to the queue. Those that have gone stay in
// it until they are as many as may wait.
func (t *Table) crowd(k key) {
	t.drains++
	t.lingering = append(t.lingering, k)
	if len(t.lingering) > 2*t.mostDrains {
		t.lingering = slices.DeleteFunc(t.lingering, func(k key) bool { return t.findDraining(k) == nil })
	}
	for t.drains > t.mostDrains {
		if r := t.findDraining(t.lingering[0]); r != nil {
			t.finish(r)
		}
		t.lingering = t.lingering[1:]
	}
}

// findDraining returns the record of k where its connection is still drained.
func (t *Table) findDraining(k key) *record {
	if r := t.find(k); r != nil && r.state == draining {
		return r
	}
	return nil
}

// finish closes the last descriptor of r's connection.
func (t *Table) finish(r *record) {
	switch {
	case r.state == draining:
		t.drains--
		t.poll.closeFD(r.kept)
	case r.kept >= 0:
		unix.Close(r.kept)
	}
	t.give(r)
}
