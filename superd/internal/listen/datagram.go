package listen

import (
	"net/netip"

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
	if k.self.Kind == peer.Unix {
		tellSenders(k.fd, netip.Addr{}, false) // the program that had it may have switched it off
	}
	var m envelope
	if _, err := m.receive(k, unix.MSG_PEEK); err != nil {
		return false
	}
	m.identify(k)
	*p = k.Self()
	p.Datagrams = true
	if p.Kind == peer.Unix {
		m.introduce(p)
	} else {
		p.Remote = addressOf(&m.address)
	}
	return true
}

// Drop throws the first datagram that waits at k away.
func (k *Socket) Drop() {
	for unix.EINTR == k.drop() {
	}
}

func (k *Socket) drop() error {
	_, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(k.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
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
