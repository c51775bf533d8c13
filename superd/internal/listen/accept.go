package listen

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
)

// acceptOne takes one connection, and says in p whose: blocking, as programs
// expect their stdin to be, and closed on exec. The flag O_NONBLOCK would be
// the program's as well, since it belongs to the open file.
func (k *Socket) acceptOne(p *peer.Peer) (fd int, err error) {
	var from unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(from))
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(k.fd), uintptr(unsafe.Pointer(&from)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			k.introduce(int(n), &from, size, p)
			return int(n), nil
		case unix.EINTR, unix.ECONNABORTED:
			continue
		}
		return -1, errno
	}
}

// introduce says who is at the two ends of fd: the address of one is from, of
// which accept has told size bytes.
func (k *Socket) introduce(fd int, from *unix.RawSockaddrAny, size uint32, p *peer.Peer) {
	*p = k.self
	switch p.Kind {
	case peer.Unix:
		p.Bound = boundName(from, size)
		identify(fd, p)
	case peer.VSock:
		p.RemoteVM = vmOf(from)
		if local, err := boundVM(fd); err == nil {
			p.LocalVM = local
		}
	default:
		p.Remote = addressOf(from)
		if !k.any {
			return
		}
		if local, err := boundTo(fd); err == nil {
			p.Local = local
		}
	}
}

// boundTo is the local address of a socket.
func boundTo(fd int) (netip.AddrPort, error) {
	var own unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(own))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&own)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	return addressOf(&own), nil
}

// addressOf reads a socket address. IPv4 mapped into IPv6 is plain IPv4.
func addressOf(a *unix.RawSockaddrAny) netip.AddrPort {
	switch a.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), networkOrder(in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(a))
		addr := netip.AddrFrom16(in.Addr).Unmap()
		if in.Scope_id != 0 && addr.Is6() {
			addr = addr.WithZone(zoneName(in.Scope_id))
		}
		return netip.AddrPortFrom(addr, networkOrder(in.Port))
	}
	return netip.AddrPort{}
}

// networkOrder turns a port of a socket address round; superd's architectures
// are little-endian.
func networkOrder(p uint16) uint16 { return p<<8 | p>>8 }
