package listen

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
)

// Datagrams tells whether what comes to k is datagrams.
func (k *Socket) Datagrams() bool {
	return k.listener.Datagrams() || k.heirloom != nil && k.heirloom.datagrams()
}

// Sender says in p who has sent the first datagram that waits at k, and leaves
// it there. It returns false where there is none after all.
func (k *Socket) Sender(p *peer.Peer) bool {
	var from unix.RawSockaddrAny
	size, err := k.receive(&from, unix.MSG_PEEK)
	if err != nil {
		return false
	}
	*p = k.Self()
	if p.Kind == peer.Unix {
		p.Bound = boundName(&from, size)
	} else {
		p.Remote = addressOf(&from)
	}
	return true
}

// Drop throws the first datagram that waits at k away.
func (k *Socket) Drop() {
	var from unix.RawSockaddrAny
	k.receive(&from, 0)
}

// receive takes or looks at a datagram, of which no byte is wanted, without
// waiting for it. It returns how many bytes of the sender's address there are.
func (k *Socket) receive(from *unix.RawSockaddrAny, flags uintptr) (size uint32, err error) {
	for {
		size = uint32(unsafe.Sizeof(*from))
		_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(k.fd), 0, 0, flags|unix.MSG_DONTWAIT,
			uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)))
		switch errno {
		case 0:
			return size, nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

// mostErrors is how many errors of a socket are looked at before others have
// their turn.
const mostErrors = 64

// dropErrors throws away what the kernel tells beside the datagrams of k: a
// program that had the socket may have asked for it (IP_RECVERR, ip(7)), and
// until it is read the socket looks as if something had come.
func (k *Socket) dropErrors() {
	if k.paused || k.porter == nil {
		return
	}
	for range mostErrors {
		_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(k.fd), 0, 0, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return
		}
	}
}
