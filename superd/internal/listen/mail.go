package listen

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
)

// A Sender is who has sent a datagram, and to which of superd's addresses: two
// datagrams with the same one belong together. A unix socket's is the name that
// it is bound to and the user who has sent; one that has no name is known by its
// process.
type Sender struct {
	Name     string
	UID, GID uint32
	PID      int32

	Remote, Local [16]byte // IPv4 is mapped into IPv6
	Port          uint16
	Zone, Device  uint32 // of link-local addresses, else 0
}

// A Return is how the sender of a datagram is answered: from the address that
// it has sent to. One without an address cannot be. It is plain data.
type Return struct{ Address, Control []byte }

// LongestDatagram is what is received and sent at most, in bytes: as much as IP
// has room for. More of a unix socket is no datagram for superd.
const LongestDatagram = 1 << 16

// A Mailbox is the datagram that was received last, and the memory for it.
type Mailbox struct {
	Text []byte
	Cut  bool // it was longer than Text
	envelope

	buffer [LongestDatagram]byte
}

// An envelope is what the kernel tells of a datagram beside its text, and the
// memory for it.
type envelope struct {
	Spread bool // it was sent to everybody (broadcast) or to a group (multicast)
	From   Sender

	process int32 // by a unix socket; From has it only where the sender has no name
	control [256]byte
	address unix.RawSockaddrAny
	iov     unix.Iovec
	header  unix.Msghdr
}

// Buffer is memory for whoever has a use for it between two datagrams.
func (m *Mailbox) Buffer() []byte { return m.buffer[:] }

// tellSenders has the kernel tell of each datagram that comes to fd to which
// address it was sent, or by a unix socket, which has no address, by whom. Of
// what has come before the kernel may not know it.
func tellSenders(fd int, addr netip.Addr, dual bool) error {
	if !addr.IsValid() {
		return setOption(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1, "SO_PASSCRED")
	}
	var err error
	if addr.Is6() {
		err = setOption(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
	}
	if addr.Is4() || dual {
		err = errors.Join(err, setOption(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO"))
	}
	return err
}

// Receive takes the first datagram that waits at k, without waiting for one. An
// error says that there is none, or what else is wrong.
func (k *Socket) Receive(m *Mailbox) error {
	m.iov.Base = &m.buffer[0]
	m.iov.SetLen(len(m.buffer))
	n, err := m.receive(k, 0)
	if err != nil {
		return err
	}
	m.Text, m.Cut = m.buffer[:n], m.header.Flags&unix.MSG_TRUNC != 0
	m.identify(k)
	return nil
}

// receive takes or looks at the first datagram that waits at k.
func (m *envelope) receive(k *Socket, flags uintptr) (n uintptr, err error) {
	for {
		m.header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&m.address)), Namelen: uint32(unsafe.Sizeof(m.address)),
			Iov: &m.iov, Control: &m.control[0]}
		m.header.SetIovlen(1)
		m.header.SetControllen(k.controlRoom())
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(k.fd), uintptr(unsafe.Pointer(&m.header)),
			flags|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch errno {
		case 0:
			return n, nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

// controlRoom is how much the kernel may tell beside a datagram. By a unix
// socket it is who has sent, and no more: descriptors that somebody has sent
// along find no room and are closed by the kernel (unix(7)), else they would be
// superd's.
func (k *Socket) controlRoom() int {
	if k.self.Kind == peer.Unix {
		return unix.CmsgSpace(unix.SizeofUcred)
	}
	return len(Mailbox{}.control)
}

// unknownUser is whom the kernel names for one that it cannot name (user_namespaces(7)).
const unknownUser = 65534

// identify finds out whose the datagram is.
func (m *envelope) identify(k *Socket) {
	m.From, m.process, m.Spread = Sender{}, 0, false
	if k.self.Kind == peer.Unix {
		m.From.UID, m.From.GID = unknownUser, unknownUser
		if name := m.name(); len(name) > 0 {
			m.From.Name = unsafe.String(&name[0], len(name)) // until it is kept, see Own
		}
	} else {
		m.readAddress()
	}
	m.readControl()
	if m.From.Name == "" {
		m.From.PID = m.process
	}
}

// name is the address of a unix socket, whose first byte is zero where it is
// abstract; nothing for none.
func (m *envelope) name() []byte {
	const begin = unsafe.Offsetof(unix.RawSockaddrUnix{}.Path)
	if uintptr(m.header.Namelen) <= begin {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&m.address)), m.header.Namelen)[begin:]
}

func (m *envelope) readAddress() {
	f := &m.From
	switch m.address.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(&m.address))
		f.Remote, f.Port = mapped(in.Addr), networkOrder(in.Port)
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(&m.address))
		f.Remote, f.Port, f.Zone = in.Addr, networkOrder(in.Port), in.Scope_id
	}
}

// mapped is an IPv4 address as IPv6 has it.
func mapped(a [4]byte) [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: a[0], 13: a[1], 14: a[2], 15: a[3]}
}

// readControl reads what the kernel tells beside a datagram.
func (m *envelope) readControl() {
	rest := m.control[:m.header.Controllen]
	for len(rest) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&rest[0]))
		if h.Len < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(rest)) {
			return
		}
		m.readMessage(h, rest[unix.CmsgLen(0):h.Len])
		rest = rest[min(unix.CmsgSpace(int(h.Len)-unix.CmsgLen(0)), len(rest)):]
	}
}

func (m *envelope) readMessage(h *unix.Cmsghdr, data []byte) {
	f := &m.From
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		in := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
		f.Local = mapped(in.Addr)
		// The address that an answer would come from is another then, ip(7).
		m.Spread = m.Spread || in.Addr != in.Spec_dst && in.Spec_dst != [4]byte{}
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		in := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
		if f.Local = in.Addr; isLinkLocal(in.Addr) {
			f.Device = in.Ifindex
		}
		m.Spread = m.Spread || in.Addr[0] == 0xff
	case h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_CREDENTIALS && len(data) >= unix.SizeofUcred:
		who := (*unix.Ucred)(unsafe.Pointer(&data[0]))
		m.process, f.UID, f.GID = who.Pid, who.Uid, who.Gid
	case h.Level == unix.SOL_SOCKET && (h.Type == unix.SCM_RIGHTS || h.Type == scmPIDFD):
		// A program that had the socket has switched SO_PASSCRED off, and there was room.
		for ; len(data) >= 4; data = data[4:] {
			unix.Close(int(int32(binary.NativeEndian.Uint32(data))))
		}
	}
}

const scmPIDFD = 4 // SCM_PIDFD, Linux 6.5

func isLinkLocal(a [16]byte) bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }

// Own is From in memory of its own.
func (m *Mailbox) Own() Sender {
	s := m.From
	s.Name = string(append([]byte(nil), s.Name...))
	return s
}

// Introduce says who has sent the datagram, which came to k.
func (k *Socket) Introduce(m *Mailbox) peer.Peer {
	p := k.self
	p.Datagrams = true
	if p.Kind == peer.Unix {
		m.introduce(&p)
		return p
	}
	p.Remote = addressOf(&m.address)
	if k.any && m.From.Local != [16]byte{} {
		local := netip.AddrFrom16(m.From.Local).Unmap()
		if m.From.Device != 0 {
			local = local.WithZone(zoneName(m.From.Device))
		}
		p.Local = netip.AddrPortFrom(local, p.Local.Port())
	}
	return p
}

// introduce says in p who has sent a datagram by a unix socket.
func (m *envelope) introduce(p *peer.Peer) {
	p.Bound = boundName(&m.address, m.header.Namelen)
	p.PID, p.UID, p.GID = m.process, m.From.UID, m.From.GID
}

// WayBack is how the sender of the datagram, which came to k, is answered.
func (k *Socket) WayBack(m *Mailbox) (r Return) {
	if k.self.Kind == peer.Unix && m.From.Name == "" {
		return r
	}
	r.Address = append(r.Address, unsafe.Slice((*byte)(unsafe.Pointer(&m.address)), m.header.Namelen)...)
	if k.any && k.self.Kind == peer.UDP {
		r.Control = sourceOf(&m.From, m.address.Addr.Family)
	}
	return r
}

// sourceOf has an answer come from the address that was sent to.
func sourceOf(f *Sender, family uint16) []byte {
	if family == unix.AF_INET {
		b := message(unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		copy(b[unix.CmsgLen(0)+4:], f.Local[12:]) // Spec_dst
		return b
	}
	b := message(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	copy(b[unix.CmsgLen(0):], f.Local[:])
	binary.NativeEndian.PutUint32(b[unix.CmsgLen(16):], f.Device)
	return b
}

// message is a control message with zeros for data.
func message(level, kind int32, size int) []byte {
	b := make([]byte, unix.CmsgSpace(size))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return b
}

// Answer sends a datagram to who can be reached by r, without waiting for room.
func (k *Socket) Answer(r *Return, text []byte) error {
	if len(r.Address) == 0 {
		return unix.EDESTADDRREQ
	}
	iov := unix.Iovec{}
	if len(text) > 0 {
		iov.Base = &text[0]
		iov.SetLen(len(text))
	}
	h := unix.Msghdr{Name: &r.Address[0], Namelen: uint32(len(r.Address)), Iov: &iov}
	h.SetIovlen(1)
	if len(r.Control) > 0 {
		h.Control = &r.Control[0]
		h.SetControllen(len(r.Control))
	}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(k.fd), uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

// Remote is the sender's address, without a zone; the zero Addr for a unix
// socket's.
func (s *Sender) RemoteAddr() netip.Addr {
	if s.Remote == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(s.Remote).Unmap()
}

// LocalAddr is the address that was sent to, as RemoteAddr.
func (s *Sender) LocalAddr() netip.Addr {
	if s.Local == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(s.Local).Unmap()
}
