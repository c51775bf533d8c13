package conn

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mptcpInfo is struct mptcp_info (linux/mptcp.h). Kernels tell as much of it as
// they know: what stands above bytesSent since Linux 5.16, what stands above
// lastDataSent since 6.5, all of it since 6.10.
type mptcpInfo struct {
	_                                       [8]byte
	flags, token                            uint32
	writeSeq, sentUnacked, receivedNext     uint64
	_                                       [4]byte
	retransmits                             uint32
	bytesRetrans                            uint64
	bytesSent, bytesReceived, bytesAcked    uint64
	_                                       [4]byte
	lastDataSent, lastDataReceived, lastAck uint32
}

const (
	solMPTCP  = 284
	infoMPTCP = 1 // MPTCP_INFO
)

// lookAtMPTCP fills t.paths from r's kept duplicate, where its connection can
// have several paths, and returns how many bytes of it the kernel knows, at
// least 1; 0 for plain TCP. TCP_INFO tells of one of the paths only, and of none
// at the end.
func (t *Table) lookAtMPTCP(r *record) int {
	if r.kept < 0 || !r.visitor.Peer.MPTCP {
		return 0
	}
	t.paths = mptcpInfo{}
	size := uint32(unsafe.Sizeof(t.paths))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(r.kept), solMPTCP, infoMPTCP,
		uintptr(unsafe.Pointer(&t.paths)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 {
		return int(size)
	}
	if protocol, _ := unix.GetsockoptInt(r.kept, unix.SOL_SOCKET, unix.SO_PROTOCOL); protocol == unix.IPPROTO_MPTCP {
		return 1
	}
	return 0
}

// bytesOfPaths is bytesMoved for a connection of which lookAtMPTCP knows so
// much; negative where that is not enough. What is sent between two questions
// would be in neither answer.
func (t *Table) bytesOfPaths(r *record, known int) (in, out int64) {
	if known < int(unsafe.Offsetof(t.paths.bytesAcked)) {
		return -1, -1
	}
	for look := 1; ; look++ {
		sent := t.paths.bytesSent
		unsent, _ := unix.IoctlGetInt(r.kept, unix.SIOCOUTQNSD)
		if look == mostLooks || t.lookAtMPTCP(r) != known || t.paths.bytesSent == sent {
			return int64(t.paths.bytesReceived), int64(sent) + int64(unsent)
		}
	}
}

// untilLook is when to ask about idleness next, left being the least time that
// it can still take. Whether the counters have moved is seen by looking at them
// several times.
func (r *record) untilLook(left time.Duration) time.Duration {
	if r.visitor.Peer.MPTCP {
		return min(left, r.service.Idle/deafness)
	}
	return left
}

// idlenessOfPaths is how long the counters have been as they are, as far as they
// were looked at; 0 where there are none.
func (t *Table) idlenessOfPaths(r *record, known int) time.Duration {
	if known < int(unsafe.Offsetof(t.paths.bytesSent)) {
		return 0
	}
	if moved := t.paths.writeSeq + t.paths.sentUnacked + t.paths.receivedNext; moved != r.moved {
		r.moved, r.movedAt = moved, t.now
	}
	return time.Duration(t.now - r.movedAt)
}

// idleTimeOfPaths is idleTime; -1 where the kernel does not tell.
func (t *Table) idleTimeOfPaths(known int) time.Duration {
	if known < int(unsafe.Sizeof(t.paths)) {
		return -1
	}
	return time.Duration(min(t.paths.lastDataReceived, t.paths.lastDataSent)) * time.Millisecond
}
