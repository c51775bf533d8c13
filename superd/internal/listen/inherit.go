package listen

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// Inheritance is the sockets that superd was started with, as systemd does it
// for socket activation (sd_listen_fds(3)), but for those that are in use. Who
// handed them over may have them as well, so that they cannot be opened again:
// a Socket that is closed goes back. The zero value has none.
type Inheritance struct {
	mu   sync.Mutex
	rest []*heirloom // guarded by mu

	astray string // why no socket was taken, though some were handed over; "" for no such reason
}

// An heirloom is one inherited descriptor. It belongs to the inheritance, or to
// the Socket that was made of it.
type heirloom struct {
	from    *Inheritance
	fd      int    // above the window, closed on exec; -1 where it is no socket
	number  int    // it was handed over as
	name    string // of LISTEN_FDNAMES
	family  int    // AF_INET
	kind    int    // SOCK_STREAM
	dual    bool   // of AF_INET6: serves IPv4 too
	self    peer.Peer
	trouble string // why nobody can be accepted from it; "" for nothing
}

// firstInherited is where inherited descriptors begin (SD_LISTEN_FDS_START).
const firstInherited = 3

// Inherit takes over the descriptors that superd was started with. Those that
// were meant for another process, which LISTEN_PID names, are not touched. In
// any case the variables are gone afterwards, so that no program gets them.
// Above is that of NewSet.
func Inherit(above func(int) (int, error)) (*Inheritance, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return &Inheritance{astray: strayed(pid, count)}, nil
	}
	list, err := namesOf(count, names)
	if err != nil {
		return nil, err
	}
	return takeOver(firstInherited, list, above)
}

// strayed tells that sockets were meant for another process: who started superd
// may have been that itself.
func strayed(pid, count string) string {
	if n, err := strconv.Atoi(count); err != nil || n <= 0 {
		return ""
	}
	if pid == "" {
		return "LISTEN_PID is not set"
	}
	if _, err := strconv.Atoi(pid); err != nil {
		pid = strconv.Quote(pid)
	}
	return "LISTEN_PID is " + pid + " and not this process"
}

// Astray tells why no socket was taken, though some were handed over; "" for no
// such reason.
func (in *Inheritance) Astray() string { return in.astray }

// mostInherited bounds what a wrong number can cause.
const mostInherited = 1 << 16

// namesOf reads the two variables: a name for each descriptor.
func namesOf(count, names string) ([]string, error) {
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > mostInherited {
		return nil, fmt.Errorf("cannot take over descriptors: LISTEN_FDS is %q", count)
	}
	if names == "" {
		return slices.Repeat([]string{"unknown"}, n), nil // as sd_listen_fds_with_names(3) calls them
	}
	list := strings.Split(names, ":")
	if len(list) != n {
		return nil, fmt.Errorf("cannot take over descriptors: LISTEN_FDS is %d, and LISTEN_FDNAMES has %d names", n, len(list))
	}
	return list, nil
}

// takeOver takes over as many descriptors as there are names, from first on.
func takeOver(first int, names []string, above func(int) (int, error)) (*Inheritance, error) {
	in := &Inheritance{}
	for i, name := range names {
		h := &heirloom{from: in, fd: -1, number: first + i, name: name, trouble: "is no socket"}
		kind, err := unix.GetsockoptInt(h.number, unix.SOL_SOCKET, unix.SO_TYPE)
		if err == nil {
			h.kind = kind
			h.fd, err = above(h.number)
		}
		switch err {
		case nil:
			h.examine()
		case unix.ENOTSOCK: // left alone: where the number is wrong, it may be what this process has opened itself
		default:
			in.CloseRest()
			return nil, fmt.Errorf("cannot take over descriptor %d of LISTEN_FDS: %w", h.number, err)
		}
		in.rest = append(in.rest, h)
	}
	return in, nil
}

// examine finds out what a socket is.
func (h *heirloom) examine() {
	listening, _ := unix.GetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	h.family, _ = unix.GetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	h.trouble = ""
	switch {
	case listening == 0 && !h.datagrams():
		h.trouble = "is a socket that does not listen"
	case !h.readName():
		h.trouble = "is a socket of a kind that superd does not serve"
	}
}

// readName reads the socket's own end; false for a family that superd does not
// know.
func (h *heirloom) readName() bool {
	var own unix.RawSockaddrAny
	size := uint32(unsafe.Sizeof(own))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(h.fd), uintptr(unsafe.Pointer(&own)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return false
	}
	switch h.family {
	case unix.AF_INET, unix.AF_INET6:
		protocol, err := unix.GetsockoptInt(h.fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		kind, served := protocols[protocol]
		if err != nil || !served {
			return false
		}
		h.self = peer.Peer{Kind: kind, Local: addressOf(&own), MPTCP: protocol == unix.IPPROTO_MPTCP}
		if h.family == unix.AF_INET6 {
			only, err := unix.GetsockoptInt(h.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			h.dual = err == nil && only == 0
		}
	case unix.AF_UNIX:
		h.self = peer.Peer{Kind: peer.Unix, Path: boundName(&own, size)}
	case unix.AF_VSOCK:
		h.self = peer.Peer{Kind: peer.VSock, LocalVM: vmOf(&own)}
	default:
		return false
	}
	return true
}

// protocols are those of the internet that superd serves.
var protocols = map[int]peer.Kind{unix.IPPROTO_TCP: peer.Internet, unix.IPPROTO_MPTCP: peer.Internet, unix.IPPROTO_UDP: peer.UDP}

// datagrams tells that nobody connects to h.
func (h *heirloom) datagrams() bool { return h.kind == unix.SOCK_DGRAM }

func (h *heirloom) String() string {
	return fmt.Sprintf("descriptor %d (%s)", h.number, h.name)
}

// CloseRest closes what nobody has used, and says what that was.
func (in *Inheritance) CloseRest() (closed []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, h := range in.rest {
		what := h.self.AppendLocal([]byte("for "))
		if h.trouble != "" {
			what = []byte("which " + h.trouble)
		}
		closed = append(closed, fmt.Sprintf("%s, %s", h, what))
		if h.fd >= 0 {
			unix.Close(h.fd)
		}
	}
	in.rest = nil
	return closed
}

// find lists those that fit.
func (in *Inheritance) find(fits func(*heirloom) bool) (list []*heirloom) {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(in.rest), func(h *heirloom) bool { return !fits(h) })
}

// take takes h from the inheritance.
func (h *heirloom) take() {
	h.from.mu.Lock()
	defer h.from.mu.Unlock()
	h.from.rest = slices.DeleteFunc(h.from.rest, func(other *heirloom) bool { return other == h })
}

// giveBack is what closing a Socket of h is.
func (h *heirloom) giveBack() {
	h.from.mu.Lock()
	defer h.from.mu.Unlock()
	h.from.rest = append(h.from.rest, h)
}

// named takes the sockets of a listener that says fd:NAME: all of that name.
func (s *Set) named(l *config.Listener, door Door) (opened []*Socket, problems config.Problems) {
	fitting := s.inheritance.find(func(h *heirloom) bool { return h.name == l.Name })
	if len(fitting) == 0 {
		return nil, config.Problems{l.Problem("address", "cannot listen on "+l.Spec+": no socket of that name was handed over to superd", s.inheritance.hint(l.Name))}
	}
	for _, h := range fitting {
		k, err := s.takeHeirloom(h, l, door)
		if err != nil {
			problems = append(problems, s.problem(l, l.Addr, err))
			continue
		}
		opened = append(opened, k)
	}
	return opened, problems
}

// hint says what there is instead.
func (in *Inheritance) hint(name string) string {
	var names []string
	for _, h := range in.find(func(*heirloom) bool { return true }) {
		names = append(names, h.name)
	}
	if in != nil && in.astray != "" {
		return in.astray
	}
	if len(names) == 0 {
		return "it is for a socket unit of systemd with FileDescriptorName=" + name
	}
	slices.Sort(names)
	return "there are: " + strings.Join(slices.Compact(names), ", ")
}

// inherited is the socket for an address that superd was started with; nil
// where there is none.
func (s *Set) inherited(l *config.Listener, addr netip.AddrPort, door Door) (*Socket, error) {
	fitting := s.inheritance.find(func(h *heirloom) bool { return h.trouble == "" && h.isFor(l, addr) })
	if len(fitting) == 0 {
		return nil, nil
	}
	return s.takeHeirloom(fitting[0], l, door)
}

func (h *heirloom) isFor(l *config.Listener, addr netip.AddrPort) bool {
	switch l.Family {
	case config.VSock:
		return h.self.Kind == peer.VSock && h.self.LocalVM == peer.VM{CID: l.CID, Port: l.Port}
	case config.Unix:
		return h.self.Kind == peer.Unix && (h.self.Path == l.Name || l.Name[0] == '/' && filepath.Clean(h.self.Path) == filepath.Clean(l.Name))
	}
	kind, own := peer.Internet, h.self.Local
	if l.Family == config.UDP {
		kind = peer.UDP
	}
	return h.self.Kind == kind && own.Port() == addr.Port() && (own.Addr() == numbered(addr.Addr()) || h.covers(addr))
}

// covers tells whether h takes the connections of an IPv4 address as well.
func (h *heirloom) covers(addr netip.AddrPort) bool {
	return h.dual && h.self.Local.Addr() == netip.IPv6Unspecified() && addr.Addr() == netip.IPv4Unspecified()
}

// numbered is an address with the number of its zone, as accept tells it.
func numbered(addr netip.Addr) netip.Addr {
	if addr.Zone() == "" {
		return addr
	}
	return addr.WithZone(zoneName(zoneNumber(addr.Zone())))
}

// takeHeirloom makes a Socket of an inherited one, with the options of the
// file. One that does not fit stays where it is.
func (s *Set) takeHeirloom(h *heirloom, l *config.Listener, door Door) (*Socket, error) {
	k := &Socket{fd: h.fd, door: door, listener: l, self: h.self, any: everywhere(&h.self), heirloom: h}
	if err := k.fits(l, door); err != nil {
		return nil, err
	}
	h.take()
	if err := k.ready(l); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// everywhere tells that a socket has what comes to all addresses of the
// machine, each of which has its own local one.
func everywhere(self *peer.Peer) bool {
	return (self.Kind == peer.Internet || self.Kind == peer.UDP) && self.Local.Addr().IsUnspecified()
}

// ready makes an inherited socket one that can be served. It is non-blocking
// then for whoever else has it too: a client that goes away between epoll and
// accept must not keep the accepting thread.
func (k *Socket) ready(l *config.Listener) error {
	err := os.NewSyscallError("fcntl", unix.SetNonblock(k.fd, true))
	if err == nil && k.configurable(l) {
		err = configure(k.fd, l, nil)
	}
	if err == nil && l.Backlog > 0 {
		err = listenOn(k.fd, l)
	}
	if err == nil && k.Datagrams() {
		err = tellSenders(k.fd, k.self.Local.Addr(), k.heirloom.dual)
	}
	return err
}

// configurable tells that l has options for k: not where it calls a socket of UDP
// by its name alone.
func (k *Socket) configurable(l *config.Listener) bool {
	return k.self.Kind == peer.Internet || k.self.Kind == peer.UDP && l.Family == config.UDP
}

// Misfit tells in what k, where superd was started with it, is other than a
// listener has it that wants it for door.
func (k *Socket) Misfit(l *config.Listener, door Door) (problems config.Problems) {
	if k.heirloom == nil {
		return nil
	}
	if err := k.fits(l, door); err != nil {
		var s *Set
		problems = append(problems, s.problem(l, k.self.Local, err))
	}
	return problems
}

// fits tells what keeps an inherited socket from being served as the file has it.
func (k *Socket) fits(l *config.Listener, door Door) error {
	if err := k.heirloom.check(l); err != nil {
		return err
	}
	if k.Datagrams() && door.Porter(k) == nil {
		return &hindrance{what: "the inherited " + k.heirloom.String() + " is a socket for datagrams, at which nobody is accepted",
			hint: "write wait: stdin for a program that receives them itself, or the address instead of the name for a program for each peer"}
	}
	return nil
}

// check tells in what an inherited socket is other than the file has it.
func (h *heirloom) check(l *config.Listener) error {
	for _, key := range []string{"mode", "owner", "group"} {
		if l.Written(key) {
			return &hindrance{key: key, what: "the socket is inherited, and the rights of its file are those that it was made with",
				hint: "leave it out: SocketMode=, SocketUser= and SocketGroup= of the socket unit say them"}
		}
	}
	switch {
	case h.trouble != "":
		return &hindrance{what: "the inherited " + h.String() + " " + h.trouble}
	case (l.Family == config.Unix || l.Family == config.VSock) && h.kind != socketTypes[l.Type]:
		return &hindrance{key: "type", what: "the inherited " + h.String() + " is not of the type " + l.Type}
	case l.Family == config.TCP && l.MPTCP && !h.self.MPTCP:
		return &hindrance{key: "mptcp", what: "mptcp: the inherited " + h.String() + " does not speak it", hint: "write SocketProtocol=mptcp in the socket unit"}
	case h.datagrams() && l.Written("backlog"):
		return &hindrance{key: "backlog", what: "the inherited " + h.String() + " is a socket for datagrams, which has no queue of connections", hint: "leave it out"}
	case l.Internet() && (l.Device != "" || l.FreeBind || l.Transparent):
		return bornWith(l)
	case l.Internet() && h.dual != l.Dual:
		return h.otherFamilies(l)
	case l.Family == config.Inherited && h.self.Kind != peer.Internet:
		return withoutTCP(l)
	}
	return nil
}

// bornWith refuses the keys of what only whoever makes a socket can say.
func bornWith(l *config.Listener) error {
	key, unit := "device", "BindToDevice="
	switch {
	case l.FreeBind:
		key, unit = "freebind", "FreeBind="
	case l.Transparent:
		key, unit = "transparent", "Transparent="
	}
	return &hindrance{key: key, what: key + ": the socket is inherited, and was made without asking superd", hint: "leave it out: " + unit + " of the socket unit says it"}
}

func (h *heirloom) otherFamilies(l *config.Listener) error {
	if h.dual {
		return &hindrance{key: "v6only", what: "the inherited " + h.String() + " serves IPv4 too",
			hint: "write {address: " + placeOf(l, l.Addr) + ", v6only: false}, or BindIPv6Only=ipv6-only in the socket unit"}
	}
	return &hindrance{key: "v6only", what: "the inherited " + h.String() + " does not serve IPv4"}
}

// withoutTCP refuses the keys of TCP for a socket that is none.
func withoutTCP(l *config.Listener) error {
	for _, key := range []string{"nodelay", "keepalive", "rcvbuf", "sndbuf", "mark", "tos", "defer_accept"} {
		if l.Written(key) {
			return &hindrance{key: key, what: "the inherited socket is not of TCP, for which alone " + key + " has a meaning", hint: "leave it out"}
		}
	}
	return nil
}

// InheritFrom has s look for sockets in an inheritance before it opens its own.
func (s *Set) InheritFrom(in *Inheritance) { s.inheritance = in }
