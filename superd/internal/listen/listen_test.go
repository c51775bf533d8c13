package listen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// patience bounds every wait; it decides nothing about speed.
const patience = time.Minute

// A room is a door with so many places. It notes who came, and leaves the
// connections to the test.
type room struct {
	places chan struct{} // one for each place that is free
	came   chan visitor
	full   chan struct{} // one for each time that somebody was turned away
	tries  atomic.Int32  // how often a place was asked for

	impatient bool
	away      chan visitor // who was turned away
}

type visitor struct {
	fd            int
	remote, local netip.AddrPort
	peer          peer.Peer
}

func newRoom(places int) *room {
	r := &room{places: make(chan struct{}, 1000), came: make(chan visitor, 1000), full: make(chan struct{}, 1000), away: make(chan visitor, 1000)}
	for range places {
		r.places <- struct{}{}
	}
	return r
}

func (r *room) Enter() bool {
	r.tries.Add(1)
	select {
	case <-r.places:
		return true
	default:
		r.full <- struct{}{}
		return false
	}
}

func (r *room) Impatient() bool { return r.impatient }

func (r *room) TurnAway(fd int, p *peer.Peer) {
	unix.Close(fd)
	r.away <- visitor{-1, p.Remote, p.Local, *p}
}

func (r *room) Porter(*Socket) Porter { return nil }

func (r *room) Leave() { r.places <- struct{}{} }

func (r *room) Connection(fd int, p *peer.Peer) {
	r.came <- visitor{fd, p.Remote, p.Local, *p}
}

// next is the visitor who comes next.
func (r *room) next(t *testing.T) visitor {
	t.Helper()
	v := receive(t, r.came)
	t.Cleanup(func() { unix.Close(v.fd) })
	return v
}

func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing comes")
	}
	return v
}

// newSet is a set whose descriptors are not moved.
func newSet(t *testing.T) *Set {
	t.Helper()
	s, err := NewSet(func(fd int) (int, error) { return fd, nil }, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func serve(t *testing.T, s *Set) {
	t.Helper()
	go s.Serve(func() int { return -1 }) // ends with Close
	t.Cleanup(s.Close)
}

func at(addresses ...string) (list []config.Listener) {
	for _, a := range addresses {
		addr := netip.MustParseAddrPort(a)
		list = append(list, config.Listener{Addr: addr, NoDelay: true, Optional: addr.Addr() == netip.IPv6Unspecified()})
	}
	return list
}

func open(t *testing.T, s *Set, list []config.Listener, door Door) []*Socket {
	t.Helper()
	opened, problems := s.Open(list, Owners{}, door)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return opened
}

func dial(t *testing.T, address netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", address.String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		if os.Getenv("SUPERD_TEST_STRICT") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: this machine has no IPv6")
	}
	l.Close()
}

func TestAddressOf(t *testing.T) {
	six := func(addr string, port uint16, scope uint32) *unix.RawSockaddrAny {
		a := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(port), Addr: netip.MustParseAddr(addr).As16(), Scope_id: scope}
		var all unix.RawSockaddrAny
		*(*unix.RawSockaddrInet6)(unsafe.Pointer(&all)) = a
		return &all
	}
	four := func(addr string, port uint16) *unix.RawSockaddrAny {
		a := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(port), Addr: netip.MustParseAddr(addr).As4()}
		var all unix.RawSockaddrAny
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&all)) = a
		return &all
	}
	for want, a := range map[string]*unix.RawSockaddrAny{
		"192.0.2.7:4711":        four("192.0.2.7", 4711),
		"0.0.0.0:0":             four("0.0.0.0", 0),
		"255.255.255.255:65535": four("255.255.255.255", 65535),
		"[2001:db8::1]:25":      six("2001:db8::1", 25, 0),
		"[::1]:256":             six("::1", 256, 0),
		"[fe80::1%3]:1":         six("fe80::1", 1, 3),
		"198.51.100.1:80":       six("::ffff:198.51.100.1", 80, 0),
		"198.51.100.2:80":       six("::ffff:198.51.100.2", 80, 5),
		"invalid AddrPort":      {Addr: unix.RawSockaddr{Family: unix.AF_UNIX}},
	} {
		if got := addressOf(a); got.String() != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// What is written of an address to the kernel is what is read of it.
func TestAddressThereAndBack(t *testing.T) {
	for _, text := range []string{"127.0.0.1:0", "127.1.2.3:0", "[::1]:0"} {
		if strings.HasPrefix(text, "[") {
			needIPv6(t)
		}
		s := newSet(t)
		want := netip.MustParseAddrPort(text)
		got := open(t, s, at(text), newRoom(0))[0].Local()
		if got.Addr() != want.Addr() || got.Port() == 0 {
			t.Errorf("%s is bound to %s", want, got)
		}
		s.Abandon()
	}
}

func TestZones(t *testing.T) {
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if got := zoneNumber(i.Name); got != uint32(i.Index) {
			t.Errorf("%s is number %d, not %d", i.Name, got, i.Index)
		}
	}
	if got := zoneNumber(zoneName(17)); got != 17 {
		t.Errorf("number 17 is %d", got)
	}
	if got := zoneNumber("no-such-interface"); got != 0 {
		t.Errorf("what there is not is number %d", got)
	}
}

func TestVisitor(t *testing.T) {
	needIPv6(t)
	s := newSet(t)
	r := newRoom(100)
	opened := open(t, s, at("127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"), r)
	serve(t, s)
	for _, k := range opened {
		address := k.Local()
		if address.Addr().IsUnspecified() {
			loopback := map[bool]string{true: "127.0.0.9", false: "::1"}[address.Addr().Is4()]
			address = netip.AddrPortFrom(netip.MustParseAddr(loopback), address.Port())
		}
		c := dial(t, address)
		v := r.next(t)
		if v.local != address || v.remote.String() != c.LocalAddr().String() {
			t.Errorf("%s came in at %s, as %s at %s", c.LocalAddr(), address, v.remote, v.local)
		}
		status, err := unix.FcntlInt(uintptr(v.fd), unix.F_GETFL, 0)
		if err != nil || status&unix.O_NONBLOCK != 0 {
			t.Errorf("the connection does not block: %#o, %v", status, err)
		}
		flags, err := unix.FcntlInt(uintptr(v.fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("the connection is not closed on exec: %#o, %v", flags, err)
		}
	}
}

// The halves of a bare port have one port, though the kernel chooses it.
func TestPortIsTheSameForBothHalves(t *testing.T) {
	needIPv6(t)
	s := newSet(t)
	defer s.Abandon()
	opened := open(t, s, at("0.0.0.0:0", "[::]:0", "127.0.0.1:0", "127.0.0.1:0"), newRoom(0))
	var ports []uint16
	for _, k := range opened {
		ports = append(ports, k.Local().Port())
	}
	if ports[0] != ports[1] {
		t.Errorf("the halves have the ports %d and %d", ports[0], ports[1])
	}
	slices.Sort(ports)
	if n := len(slices.Compact(ports)); n != 3 {
		t.Errorf("three addresses have %d ports", n)
	}
}

// Where the port that the kernel chose for IPv4 is taken for IPv6, another one
// is tried, and nothing of the first is left.
func TestAnotherPortIsTried(t *testing.T) {
	needIPv6(t)
	s := newSet(t)
	defer s.Abandon()
	var made []int
	var first netip.AddrPort
	s.above = func(fd int) (int, error) {
		if made = append(made, fd); len(made) == 2 {
			first = squat(t, made[0])
		}
		return fd, nil
	}
	opened := open(t, s, at("0.0.0.0:0", "[::]:0"), newRoom(0))
	if len(made) != 4 || len(opened) != 2 {
		t.Fatalf("of %d sockets %d are used", len(made), len(opened))
	}
	four, six := opened[0].Local(), opened[1].Local()
	if four.Port() != six.Port() || four.Port() == first.Port() {
		t.Errorf("the halves are %s and %s, %s was taken", four, six, first)
	}
	if l, err := net.Listen("tcp4", first.String()); err != nil {
		t.Errorf("the first port is still taken: %v", err)
	} else {
		l.Close()
	}
}

// squat takes for IPv6 the port that a socket has for IPv4.
func squat(t *testing.T, four int) netip.AddrPort {
	t.Helper()
	address, err := boundTo(four)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: int(address.Port())}); err != nil {
		t.Fatal(err)
	}
	return address
}

// A bare port of a machine without IPv6 is its IPv4 half; whatever else is
// wrong with the other half is told.
func TestOptionalHalf(t *testing.T) {
	for err, optional := range map[error]bool{
		unix.EAFNOSUPPORT:  true,
		unix.EADDRNOTAVAIL: true,
		unix.EADDRINUSE:    false,
		unix.EACCES:        false,
	} {
		if got := noFamily(os.NewSyscallError("bind", err)); got != optional {
			t.Errorf("%v: left out: %v", err, got)
		}
	}
}

// One problem of a list does not hide another, and what was opened is closed.
func TestOpenTellsAllProblems(t *testing.T) {
	s := newSet(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	list := at("127.0.0.1:0", l.Addr().String(), "203.0.113.201:0", "127.0.0.1:0")
	opened, problems := s.Open(list, Owners{}, newRoom(0))
	if len(opened) != 2 || len(problems) != 2 {
		t.Fatalf("opened are %v, problems are %v", opened, problems)
	}
	for i, want := range []string{
		fmt.Sprintf("cannot listen on %s: address already in use (EADDRINUSE)", l.Addr()),
		"cannot listen on 203.0.113.201:0: cannot assign requested address (EADDRNOTAVAIL)",
	} {
		if problems[i].What != want || problems[i].Hint == "" {
			t.Errorf("got %q (%q), want %q", problems[i].What, problems[i].Hint, want)
		}
	}
	looked := s.holders
	if s.Open(list[1:2], Owners{}, newRoom(0)); looked == nil || s.holders != looked {
		t.Error("the machine is looked at for each port that is taken")
	}
	local := opened[0].Local()
	s.Abandon()
	if again, err := net.Listen("tcp", local.String()); err != nil {
		t.Errorf("the port is still taken: %v", err)
	} else {
		again.Close()
	}
}

func TestHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if got := findHolders().of(strconv.Itoa(int(port))); got != itself {
		t.Errorf("port %d is held by %q, not %q", port, got, itself)
	}
	l.Close()
	s := newSet(t)
	defer s.Abandon()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	own, err := boundTo(fd)
	if err != nil {
		t.Fatal(err)
	}
	_, problems := s.Open(at(own.String()), Owners{}, newRoom(0))
	if len(problems) != 1 || !strings.HasSuffix(problems[0].Hint, "is held by a socket that is bound but does not listen") {
		t.Errorf("got %v", problems)
	}
}

// Of several who have a port, another process is named before this one, and
// one that can be seen before one that cannot.
func TestHolderAmongSeveral(t *testing.T) {
	self, other := strconv.Itoa(os.Getpid()), strconv.Itoa(os.Getppid())
	for _, c := range []struct{ processes, want string }{
		{self, self},
		{self + " " + other, other},
		{other + " " + self, other},
		{"- " + self, self},
		{"- " + other + " -", other},
		{"-", ""},
	} {
		h := &holders{sockets: map[string][]string{}, processes: map[string][]string{}}
		for i, pid := range strings.Fields(c.processes) {
			socket := fmt.Sprintf("socket:[%d]", i)
			h.sockets["7"] = append(h.sockets["7"], socket)
			if pid != "-" {
				h.processes[socket] = []string{pid}
			}
		}
		want := ", process " + c.want
		switch c.want {
		case self:
			want = itself
		case "":
			want = "a process of another user"
		}
		if got := h.of("7"); !strings.HasSuffix(got, want) {
			t.Errorf("of %s it is %q, not %q", c.processes, got, want)
		}
	}
}

func option(t *testing.T, fd, level, name int) int {
	t.Helper()
	n, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOptionsOfASocket(t *testing.T) {
	needIPv6(t)
	s := newSet(t)
	defer s.Abandon()
	list := at("127.0.0.1:0", "127.0.0.1:0", "[::1]:0", "[::]:0", "[::]:0")
	list[1].Backlog = 3
	list[1].NoDelay = false
	list[1].KeepAlive = config.KeepAlive{On: true, Idle: time.Minute, Interval: 2 * time.Second, Count: 3}
	list[3].Dual, list[3].Optional, list[4].Optional = true, false, false
	opened := open(t, s, list, newRoom(0))
	somaxconn := 0
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Sscan(string(text), &somaxconn)
	for i, backlog := range []int{somaxconn, 3, somaxconn, somaxconn} {
		info, err := unix.GetsockoptTCPInfo(opened[i].fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || int(info.Sacked) != backlog {
			t.Errorf("socket %d queues %d, not %d: %v", i, info.Sacked, backlog, err)
		}
	}
	for i, want := range []int{1, 0, 1, 1} {
		if got := option(t, opened[i].fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); got != want {
			t.Errorf("socket %d: TCP_NODELAY is %d", i, got)
		}
	}
	for i, want := range []int{0, 1, 0, 0} {
		if got := option(t, opened[i].fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); got != want {
			t.Errorf("socket %d: SO_KEEPALIVE is %d", i, got)
		}
	}
	for name, want := range map[int]int{unix.TCP_KEEPIDLE: 60, unix.TCP_KEEPINTVL: 2, unix.TCP_KEEPCNT: 3} {
		if got := option(t, opened[1].fd, unix.IPPROTO_TCP, name); got != want {
			t.Errorf("keepalive option %d is %d, not %d", name, got, want)
		}
	}
	for i, want := range map[int]int{2: 1, 3: 0, 4: 1} {
		if got := option(t, opened[i].fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); got != want {
			t.Errorf("socket %d: IPV6_V6ONLY is %d", i, got)
		}
	}
}

// nobodyComes wants nobody to be let in through door, although the set had its
// chance: who comes to another door later is let in.
func nobodyComes(t *testing.T, door, other *room, address netip.AddrPort) {
	t.Helper()
	for range 3 {
		dial(t, address)
		other.next(t)
	}
	if n := len(door.came); n > 0 {
		t.Errorf("%d came in", n)
	}
}

// Who finds no room waits, on all sockets of the door, until there is.
func TestPauseAndResume(t *testing.T) {
	s := newSet(t)
	full, other := newRoom(1), newRoom(1000)
	doors := open(t, s, at("127.0.0.1:0", "127.0.0.1:0"), full)
	aside := open(t, s, at("127.0.0.1:0"), other)[0].Local()
	serve(t, s)
	dial(t, doors[0].Local())
	full.next(t)
	receive(t, full.full) // the set looks for more at once
	dial(t, doors[0].Local())
	dial(t, doors[1].Local())
	nobodyComes(t, full, other, aside)
	for range 2 {
		full.Leave()
		s.Resume(full)
		full.next(t)
		nobodyComes(t, full, other, aside)
	}
	// A resume that brings nobody changes nothing.
	for range 3 {
		s.Resume(full)
		s.Resume(other)
	}
	full.Leave()
	s.Resume(full)
	dial(t, doors[1].Local())
	full.next(t)
}

// One door with many at it does not keep others from theirs.
func TestDoorsTakeTurns(t *testing.T) {
	s := newSet(t)
	busy, quiet := newRoom(1000), newRoom(1000)
	first := open(t, s, at("127.0.0.1:0"), busy)[0].Local()
	second := open(t, s, at("127.0.0.1:0"), quiet)[0].Local()
	for range 10 * burstLength {
		dial(t, first)
	}
	dial(t, second)
	order := make(chan string, 1000)
	busyThen := recorder{busy, order, "busy"}
	quietThen := recorder{quiet, order, "quiet"}
	for _, k := range s.sockets {
		if k.door == Door(busy) {
			k.door = busyThen
		} else {
			k.door = quietThen
		}
	}
	serve(t, s)
	before := 0
	for receive(t, order) != "quiet" {
		before++
	}
	if before > 2*burstLength {
		t.Errorf("%d came before one at another door", before)
	}
	for range 10 * burstLength {
		busy.next(t)
	}
	quiet.next(t)
}

// A recorder notes in which order visitors come.
type recorder struct {
	*room
	order chan string
	name  string
}

func (r recorder) Connection(fd int, p *peer.Peer) {
	r.order <- r.name
	r.room.Connection(fd, p)
}

// ShutAll lets those in who stand in the kernel's queue, as far as there is room,
// and nobody after them; Close ends the thread.
func TestShutAllEmptiesTheQueue(t *testing.T) {
	s := newSet(t)
	wide, narrow := newRoom(1000), newRoom(2)
	first := open(t, s, at("127.0.0.1:0"), wide)[0].Local()
	second := open(t, s, at("127.0.0.1:0"), narrow)[0].Local()
	const n = 3*burstLength + 1
	for range n {
		dial(t, first)
	}
	for range 5 {
		dial(t, second)
	}
	closed := make(chan struct{})
	go func() { // ends with Serve
		s.ShutAll()
		s.Close()
		close(closed)
	}()
	for !s.woken.Load() { // the order is given
		time.Sleep(time.Millisecond)
	}
	s.Serve(func() int { return -1 })
	receive(t, closed)
	for range n {
		wide.next(t)
	}
	for range 2 {
		narrow.next(t)
	}
	if len(wide.came)+len(narrow.came) > 0 || len(wide.places) != 1000-n {
		t.Errorf("%d and %d more came in, %d places are left", len(wide.came), len(narrow.came), len(wide.places))
	}
	if c, err := net.Dial("tcp", first.String()); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

// While the system is out of descriptors, clients wait; it is said once; and
// when there are some again, all are let in.
func TestOutOfDescriptors(t *testing.T) {
	complaints := make(chan error, 1000)
	s, err := NewSet(func(fd int) (int, error) { return fd, nil }, func(err error) { complaints <- err })
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(1000)
	k := open(t, s, at("127.0.0.1:0"), r)[0]
	const n = 20
	for range n {
		dial(t, k.Local())
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	serve(t, s)
	if err := receive(t, complaints); err != unix.EMFILE {
		t.Errorf("it complains of %v", err)
	}
	for begin := time.Now(); r.tries.Load() < 4 && time.Since(begin) < patience; {
		time.Sleep(time.Millisecond)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	for range n {
		r.next(t)
	}
	if len(complaints) > 0 {
		t.Errorf("it complained %d times more", len(complaints))
	}
}

// Who would rather be turned away than wait is told even when all descriptors
// are in use, and the reserve for that is there again afterwards.
func TestTurnAwayWithoutDescriptors(t *testing.T) {
	s, err := NewSet(func(fd int) (int, error) { return fd, nil }, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(1000)
	r.impatient = true
	k := open(t, s, at("127.0.0.1:0"), r)[0]
	const n = 20
	for range n {
		dial(t, k.Local())
	}
	release := useUpDescriptors(t)
	serve(t, s)
	for range n {
		select { // the collector may close a forgotten descriptor of an earlier test
		case <-r.away:
		case v := <-r.came:
			defer unix.Close(v.fd)
			if len(r.came) > 5 {
				t.Errorf("%d came in", len(r.came))
			}
		case <-time.After(patience):
			t.Fatal("nobody is turned away")
		}
	}
	release()
	dial(t, k.Local())
	r.next(t)
	if s.reserve < 0 {
		t.Error("there is no reserve")
	}
}

// A shortage stops accepting alone: what is watched for others is heard of, the
// thread has its turns, and an order ends it.
func TestShortageIsForSocketsOnly(t *testing.T) {
	s, err := NewSet(func(fd int) (int, error) { return fd, nil }, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(1000)
	k := open(t, s, at("127.0.0.1:0"), r)[0]
	watched, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watched)
	heard, turns := make(chan bool, 1000), make(chan bool, 1000)
	if err := s.Watch(watched, func() {
		unix.Read(watched, make([]byte, 8))
		heard <- s.resting
	}); err != nil {
		t.Fatal(err)
	}
	s.resting, s.until = true, time.Now().Add(time.Hour)
	go s.Serve(func() int { // ends with Close
		select {
		case turns <- s.resting:
		default:
		}
		return 1
	})
	t.Cleanup(s.Close)
	dial(t, k.Local())
	for range 10 {
		if !receive(t, turns) {
			t.Error("the shortage is over")
		}
	}
	unix.Write(watched, []byte{0: 1, 7: 0})
	if !receive(t, heard) {
		t.Error("it was heard when the shortage was over")
	}
	if len(r.came) > 0 {
		t.Error("somebody came in")
	}
	s.Order(func() {})
	r.next(t)
}

// A reserve whose number somebody else has taken is made anew when there are
// descriptors again.
func TestReserveIsMadeAnew(t *testing.T) {
	s, r := newSet(t), newRoom(1000)
	k := open(t, s, at("127.0.0.1:0"), r)[0]
	unix.Close(s.reserve)
	s.reserve = -1
	serve(t, s)
	dial(t, k.Local())
	r.next(t)
	reserve := make(chan int)
	s.Order(func() { reserve <- s.reserve })
	if fd := receive(t, reserve); fd < 0 {
		t.Error("there is no reserve")
	}
}

// useUpDescriptors leaves none of those that this process may have.
func useUpDescriptors(t *testing.T) (release func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	highest, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 100)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(highest) + 1, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	used := []int{highest}
	for {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			break
		}
		used = append(used, fd)
	}
	return func() {
		for _, fd := range used {
			unix.Close(fd)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	}
}

// An order that comes after a set's end must not be told to whoever has the
// number of its eventfd by then.
func TestLateOrderTouchesNothing(t *testing.T) {
	s, door := newSet(t), newRoom(1)
	open(t, s, at("127.0.0.1:0"), door)
	go s.Serve(func() int { return 0 }) // ends with Close
	s.Close()
	other, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	if other != s.waker {
		if err := unix.Dup3(other, s.waker, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(s.waker)
	}
	s.Resume(door)
	s.Shut(door)
	if s.Answers(time.Millisecond) {
		t.Error("a set that has ended answers")
	}
	if n, err := unix.Read(other, make([]byte, 8)); err != unix.EAGAIN {
		t.Errorf("another's file got %d bytes, %v", n, err)
	}
}

// Shut closes the sockets of one door and no other, after who stood there has
// come in.
func TestShut(t *testing.T) {
	s := newSet(t)
	going, staying := newRoom(3), newRoom(3)
	gone := open(t, s, at("127.0.0.1:0", "127.0.0.1:0"), going)
	stays := open(t, s, at("127.0.0.1:0"), staying)[0]
	for range 2 {
		dial(t, gone[0].Local())
	}
	dial(t, gone[1].Local())
	late := dial(t, gone[1].Local()) // finds no room
	serve(t, s)
	s.Shut(going)
	for range 3 {
		going.next(t)
	}
	late.SetDeadline(time.Now().Add(patience))
	if _, err := late.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("who found no room gets %v, not a reset", err)
	}
	for _, k := range gone {
		if c, err := net.Dial("tcp", k.Local().String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("who comes too late gets %v, %v", c, err)
		}
	}
	s.Shut(going)
	s.Resume(going)
	dial(t, stays.Local())
	staying.next(t)
}

func TestAnswers(t *testing.T) {
	s, door := newSet(t), newRoom(1)
	open(t, s, at("127.0.0.1:0"), door)
	if s.Answers(time.Millisecond) {
		t.Error("a set that nobody serves answers")
	}
	serve(t, s)
	if !s.Answers(patience) {
		t.Error("a set that is served does not answer")
	}
	hold, held := make(chan struct{}), make(chan struct{})
	s.Order(func() { close(held); <-hold })
	<-held
	if s.Answers(10 * time.Millisecond) {
		t.Error("a set that hangs answers")
	}
	close(hold)
}
