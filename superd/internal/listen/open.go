package listen

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// Open opens the sockets of one service; Serve waits for connections on them.
// Owners has every account that the list names. It goes on after an error, so
// that all that is wrong comes to light at once: the caller frees the whole set
// with Abandon then. Serve must not run yet.
func (s *Set) Open(list []config.Listener, owners Owners, door Door) (opened []*Socket, problems config.Problems) {
	for len(list) > 0 {
		n := 1
		if len(list) > 1 && list[1].Optional {
			n = 2 // a bare port: IPv4 and IPv6
		}
		sockets, bad := s.openTogether(list[:n], owners, door)
		problems = append(problems, bad...)
		for _, k := range sockets {
			if err := s.add(k); err != nil {
				k.close()
				problems = append(problems, s.problem(&list[0], k.self.Local, err))
				continue
			}
			opened = append(opened, k)
		}
		list = list[n:]
	}
	return opened, problems
}

// portTries is how often another free port is looked for when the one that the
// kernel chose for IPv4 is taken for IPv6.
const portTries = 8

// openTogether opens the sockets of one address; a port that the kernel
// chooses is the same for all of them.
func (s *Set) openTogether(list []config.Listener, owners Owners, door Door) (opened []*Socket, problems config.Problems) {
	if list[0].Family == config.Inherited {
		return s.named(&list[0], door)
	}
	for try := 1; ; try++ {
		opened, problems = s.openWithPort(list, owners, door)
		if len(problems) == 0 || len(opened) == 0 || list[0].Addr.Port() != 0 || try == portTries {
			break
		}
		for _, k := range opened {
			k.close()
		}
	}
	return opened, problems
}

func (s *Set) openWithPort(list []config.Listener, owners Owners, door Door) (opened []*Socket, problems config.Problems) {
	for i := range list {
		l := &list[i]
		addr := l.Addr
		if addr.Port() == 0 && len(opened) > 0 {
			addr = netip.AddrPortFrom(addr.Addr(), opened[0].self.Local.Port())
		}
		k, err := s.open(l, addr, owners, door)
		if err != nil && !(l.Optional && noFamily(err)) {
			problems = append(problems, s.problem(l, addr, err))
		}
		if aboutKey(err) {
			break // the other half would say the same
		}
		if err == nil {
			opened = append(opened, k)
		}
	}
	return opened, problems
}

// aboutKey tells that something is wrong with a key of the file, and not with
// the address.
func aboutKey(err error) bool {
	var h *hindrance
	return errors.As(err, &h) && h.key != ""
}

// noFamily says that the machine has no IPv6.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// open makes one listening socket, or takes the one that was inherited.
func (s *Set) open(l *config.Listener, addr netip.AddrPort, owners Owners, door Door) (*Socket, error) {
	if k, err := s.inherited(l, addr, door); k != nil || err != nil {
		return k, err
	}
	switch l.Family {
	case config.Unix:
		return s.openUnix(l, owners, door)
	case config.VSock:
		return s.openVSock(l, door)
	}
	return s.openInternet(l, addr, door)
}

// openInternet makes one socket of TCP or UDP.
func (s *Set) openInternet(l *config.Listener, addr netip.AddrPort, door Door) (*Socket, error) {
	kind, self := unix.SOCK_STREAM, peer.Peer{Kind: peer.Internet, MPTCP: l.MPTCP}
	if l.Datagrams() {
		kind, self = unix.SOCK_DGRAM, peer.Peer{Kind: peer.UDP}
	}
	fd, err := s.newSocket(familyOf(addr), kind, protocolOf(l))
	if err != nil {
		return nil, withoutMPTCP(l, err)
	}
	k := &Socket{fd: fd, door: door, listener: l, self: self, any: addr.Addr().IsUnspecified()}
	if err = prepare(fd, l, addr); err == nil {
		err = configure(fd, l, nil)
	}
	if err == nil && l.Datagrams() {
		err = tellSenders(fd, addr.Addr(), l.Dual)
	}
	if err == nil {
		err = k.listen(l, addr)
	}
	if err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

func familyOf(addr netip.AddrPort) int {
	if addr.Addr().Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func protocolOf(l *config.Listener) int {
	if l.MPTCP {
		return unix.IPPROTO_MPTCP
	}
	return 0 // the family's own
}

// withoutMPTCP explains why there is no socket of that protocol.
func withoutMPTCP(l *config.Listener, err error) error {
	var errno unix.Errno
	switch errors.As(err, &errno); {
	case !l.MPTCP:
		return err
	case errno == unix.ENOPROTOOPT:
		return &hindrance{key: "mptcp", what: "mptcp: " + symbolic(errno), hint: "the sysctl net.mptcp.enabled is 0"}
	case errno == unix.EPROTONOSUPPORT || errno == unix.EINVAL:
		return &hindrance{key: "mptcp", what: "mptcp: " + symbolic(errno), hint: "this kernel was built without it"}
	}
	return err
}

// newSocket makes a socket above the window, and non-blocking.
func (s *Set) newSocket(family, kind, protocol int) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if fd, err = s.above(fd); err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return fd, nil
}

func (k *Socket) listen(l *config.Listener, addr netip.AddrPort) error {
	if err := unix.Bind(k.fd, sockaddr(addr)); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := listenOn(k.fd, l); err != nil {
		return err
	}
	var err error
	k.self.Local, err = boundTo(k.fd)
	return err
}

// listenOn makes fd a listening socket, or changes the length of its queue. One
// for datagrams is ready when it is bound.
func listenOn(fd int, l *config.Listener) error {
	if l.Datagrams() {
		return nil
	}
	return os.NewSyscallError("listen", unix.Listen(fd, backlogOf(l)))
}

// backlogOf is what listen(2) is told; the kernel lowers it to
// net.core.somaxconn.
func backlogOf(l *config.Listener) int {
	if l.Backlog == 0 {
		return math.MaxInt32
	}
	return l.Backlog
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port()), ZoneId: zoneNumber(a.Addr().Zone())}
}

// zoneNumber is the index of the interface that an IPv6 zone names.
func zoneNumber(zone string) uint32 {
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}

// zoneName is the text of a zone: the number, since a look-up of the
// interface's name would cost system calls for each connection.
func zoneName(index uint32) string { return strconv.FormatUint(uint64(index), 10) }

// add puts a socket under Serve's eyes.
func (s *Set) add(k *Socket) error {
	k.number = s.freeNumber()
	k.porter = k.door.Porter(k)
	if k.paused = k.lease.enter(s); k.porter == nil && !k.paused {
		unix.SetNonblock(k.fd, true) // a program may have had it
	}
	err := unix.EpollCtl(s.set, unix.EPOLL_CTL_ADD, k.fd, &unix.EpollEvent{Events: k.events(), Fd: k.number})
	if err != nil {
		return os.NewSyscallError("epoll_ctl", err)
	}
	s.sockets[k.number] = k
	s.doors[k.door] = append(s.doors[k.door], k)
	return nil
}

// freeNumber is one that no socket of s has.
func (s *Set) freeNumber() int32 {
	free := slices.Index(s.sockets, nil)
	if free < 0 {
		free = len(s.sockets)
		s.sockets = append(s.sockets, nil)
	}
	return int32(free)
}

// Abandon closes all sockets of a set that was never served.
func (s *Set) Abandon() { s.free() }

func (s *Set) whoHas() *holders {
	if s.holders == nil {
		s.holders = findHolders()
		s.holders.whose = s.whose
	}
	return s.holders
}

// KnowPrograms has Open tell more about a process that has what is taken: whose
// adds to its name and number what there is to say, or nothing. It is called
// during Open.
func (s *Set) KnowPrograms(whose func(pid int) string) { s.whose = whose }

// takenBy tells in words who has what another socket than l's has taken.
func (s *Set) takenBy(l *config.Listener, addr netip.AddrPort) string {
	place := placeOf(l, addr)
	holder := s.whoHas().of(place)
	if in := s.inheritance; in != nil && in.astray != "" && s.whoHas().isOf(place, os.Getpid()) {
		holder = itself + ", which has left alone what was handed over: " + in.astray
	}
	if l.Internet() {
		return heldBy(strconv.Itoa(int(addr.Port())), holder)
	}
	return "it is held by " + holder
}

// placeOf is what the holders of l's address are found by.
func placeOf(l *config.Listener, addr netip.AddrPort) string {
	port := strconv.Itoa(int(addr.Port()))
	switch l.Family {
	case config.TCP:
		return port
	case config.UDP:
		return udpPort + port
	}
	return l.Name
}

// problem puts what went wrong with a listener into words, and adds what an
// administrator would look up next.
func (s *Set) problem(l *config.Listener, addr netip.AddrPort, err error) config.Problem {
	place := l.Spec
	if l.Internet() {
		place = addr.String()
	}
	if l.Family == config.UDP {
		place = udpPort + place
	}
	var h *hindrance
	if errors.As(err, &h) {
		return l.Problem(cmp.Or(h.key, "address"), "cannot listen on "+place+": "+h.what, h.hint)
	}
	var errno unix.Errno
	errors.As(err, &errno)
	p := l.Problem("address", fmt.Sprintf("cannot listen on %s: %s (%s)", place, errno.Error(), unix.ErrnoName(errno)), "")
	switch errno {
	case unix.EADDRINUSE:
		p.Hint = s.takenBy(l, addr)
	case unix.EACCES:
		p.Hint = "ports below 1024 need root, or CAP_NET_BIND_SERVICE"
	case unix.EADDRNOTAVAIL:
		p.Hint = "no interface of this machine has that address now; freebind: true listens all the same"
	case unix.EAFNOSUPPORT:
		p.Hint = "this machine has no IPv6"
	case unix.EMFILE:
		p.Hint = "raise the limit of open files: ulimit -n, or LimitNOFILE= of the systemd unit"
	}
	return p
}
