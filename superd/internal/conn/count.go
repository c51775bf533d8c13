package conn

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// States of a TCP connection as TCP_INFO tells them (net/tcp_states.h). One in
// TIME_WAIT is closed to those who still hold it.
const (
	tcpFinWait1  = 4
	tcpFinWait2  = 5
	tcpClosed    = 7
	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

// countBytes notes how many bytes came in for the program, whether or not it
// read them, and how many it wrote.
func (t *Table) countBytes(r *record) {
	r.ended.BytesIn, r.ended.BytesOut = -1, -1
	if known := t.lookAtMPTCP(r); known > 0 {
		r.ended.BytesIn, r.ended.BytesOut = t.bytesOfPaths(r, known)
		if r.ended.BytesIn >= 0 {
			r.ended.BytesIn -= int64(r.visitor.Taken)
		}
		return
	}
	if !t.lookAtTCP(r) {
		return
	}
	in, out := t.bytesMoved(r)
	if t.info.State == tcpClosed {
		in -= finReceived(r.kept)
		out -= t.finSent(out)
	}
	r.ended.BytesIn, r.ended.BytesOut = in-int64(r.visitor.Taken), out
}

// bytesMoved is how many bytes of r's connection, at which t.lookAtTCP has
// looked, came in and were written. The kernel counts a FIN as a byte; of a
// connection that is closed on both sides its state does not tell who sent one.
func (t *Table) bytesMoved(r *record) (in, out int64) {
	unacked := t.unacked(r)
	in, out = int64(t.info.Bytes_received), int64(t.info.Bytes_acked)+unacked
	switch t.info.State {
	case tcpCloseWait:
		in--
	case tcpFinWait1, tcpFinWait2:
		out--
	case tcpLastAck, tcpClosing:
		in--
		out--
	}
	return in, out
}

// mostLooks bounds how often a connection is looked at whose bytes never rest.
const mostLooks = 10

// unacked is how many bytes were written that t.info does not count as
// acknowledged. What is acknowledged between two questions would be in neither
// answer: so where anything is on its way, t.info is filled anew until nothing was.
func (t *Table) unacked(r *record) int64 {
	for look := 1; ; look++ {
		before := t.info
		n, err := unix.IoctlGetInt(r.kept, unix.SIOCOUTQ)
		if err != nil {
			return 0
		}
		if before.Unacked == 0 && before.Notsent_bytes == 0 || look == mostLooks || !t.lookAtTCP(r) ||
			t.info.Bytes_acked == before.Bytes_acked && t.info.State == before.State {
			return int64(n)
		}
	}
}

// finSent is 1 where the program's side of a closed connection ended with a
// FIN, out being all that was put on its way: of what the kernel sent, other
// counters are of the data alone.
func (t *Table) finSent(out int64) int64 {
	data := int64(t.info.Bytes_sent) - int64(t.info.Bytes_retrans) + int64(t.info.Notsent_bytes)
	return min(max(out-data, 0), 1)
}

// finReceived is 1 where the client's side of a closed connection ended with a
// FIN, not with a reset. The state does not tell, but of the two ways to ask
// how much can be read, TCP_INQ counts the end as well, and SIOCINQ does not.
func finReceived(fd int) int64 {
	data, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil || unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_INQ, 1) != nil {
		return 0
	}
	var one [1]byte
	var control [64]byte
	_, n, _, _, err := unix.Recvmsg(fd, one[:], control[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil { // the reset, which is told once
		_, n, _, _, err = unix.Recvmsg(fd, one[:], control[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	}
	if err != nil || n < unix.CmsgLen(4) {
		return 0
	}
	all := *(*int32)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
	return min(max(int64(all)-int64(data), 0), 1)
}
