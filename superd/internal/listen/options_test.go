package listen

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("SUPERD_TEST_STRICT") != "" {
		t.Fatal("this needs root")
	}
	t.Skip("SKIPPED: this needs root")
}

// kernelOptions are the numbers that the kernel has for a socket of a family.
func kernelOptions(t *testing.T, fd int, six bool) map[string]int {
	t.Helper()
	got := map[string]int{
		"rcvbuf": option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF), "sndbuf": option(t, fd, unix.SOL_SOCKET, unix.SO_SNDBUF),
		"mark":      option(t, fd, unix.SOL_SOCKET, unix.SO_MARK),
		"nodelay":   option(t, fd, unix.IPPROTO_TCP, unix.TCP_NODELAY),
		"keepalive": option(t, fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE), "keepidle": option(t, fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE),
	}
	if six {
		got["tos"] = option(t, fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS)
		got["freebind"] = option(t, fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND)
		got["transparent"] = option(t, fd, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT)
	} else {
		got["tos"] = option(t, fd, unix.IPPROTO_IP, unix.IP_TOS)
		got["freebind"] = option(t, fd, unix.IPPROTO_IP, unix.IP_FREEBIND)
		got["transparent"] = option(t, fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT)
	}
	return got
}

// Every option is the listening socket's and that of the connections that it
// accepts.
func TestOptionsReachConnections(t *testing.T) {
	needRoot(t)
	needIPv6(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		s := newSet(t)
		r := newRoom(10)
		list := at(address)
		l := &list[0]
		l.Device, l.FreeBind, l.Transparent = "lo", true, true
		l.RcvBuf, l.SndBuf, l.Mark, l.TOS = 64<<10, 96<<10, 4711, 184
		l.KeepAlive = config.KeepAlive{On: true, Idle: time.Minute}
		want := map[string]int{"rcvbuf": 128 << 10, "sndbuf": 192 << 10, "mark": 4711, "nodelay": 1, "keepalive": 1, "keepidle": 60,
			"tos": 184, "freebind": 1, "transparent": 1}
		k := open(t, s, list, r)[0]
		serve(t, s)
		dial(t, k.Local())
		for what, fd := range map[string]int{"the socket": k.fd, "a connection": r.next(t).fd} {
			if got := kernelOptions(t, fd, k.Local().Addr().Is6()); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s at %s has\n%v, not\n%v", what, address, got, want)
			}
			if device, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); device != "lo" || err != nil {
				t.Errorf("%s at %s is of %q, %v", what, address, device, err)
			}
		}
	}
}

// Those of datagrams are the socket's, which is the program's.
func TestOptionsOfDatagrams(t *testing.T) {
	needRoot(t)
	needIPv6(t)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		s := newSet(t)
		defer s.Abandon()
		list := at(address)
		l := &list[0]
		l.Family, l.Device, l.FreeBind, l.Transparent = config.UDP, "lo", true, true
		l.RcvBuf, l.SndBuf, l.Mark, l.TOS = 64<<10, 96<<10, 4711, 184
		k := open(t, s, list, newRoom(0))[0]
		if reuse := option(t, k.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); reuse != 0 {
			t.Errorf("others can take the port at %s, and the datagrams with it", address)
		}
		six := k.Local().Addr().Is6()
		level, tos, freebind, transparent := unix.IPPROTO_IP, unix.IP_TOS, unix.IP_FREEBIND, unix.IP_TRANSPARENT
		if six {
			level, tos, freebind, transparent = unix.IPPROTO_IPV6, unix.IPV6_TCLASS, unix.IPV6_FREEBIND, unix.IPV6_TRANSPARENT
		}
		for what, o := range map[string]struct{ level, name, want int }{
			"rcvbuf": {unix.SOL_SOCKET, unix.SO_RCVBUF, 128 << 10}, "sndbuf": {unix.SOL_SOCKET, unix.SO_SNDBUF, 192 << 10}, "mark": {unix.SOL_SOCKET, unix.SO_MARK, 4711},
			"tos": {level, tos, 184}, "freebind": {level, freebind, 1}, "transparent": {level, transparent, 1},
		} {
			if got := option(t, k.fd, o.level, o.name); got != o.want {
				t.Errorf("%s at %s is %d, not %d", what, address, got, o.want)
			}
		}
		if device, err := unix.GetsockoptString(k.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); device != "lo" || err != nil {
			t.Errorf("the socket at %s is of %q, %v", address, device, err)
		}
		next := *l
		next.Mark, next.TOS = 7, 16
		if err := k.Reconfigure(&next, Owners{}); err != nil || option(t, k.fd, unix.SOL_SOCKET, unix.SO_MARK) != 7 || option(t, k.fd, level, tos) != 16 {
			t.Errorf("they cannot be changed: %v", err)
		}
	}
}

// A socket for both families marks the packets of both.
func TestTypeOfServiceOfBothFamilies(t *testing.T) {
	needIPv6(t)
	s := newSet(t)
	defer s.Abandon()
	list := at("[::]:0")
	list[0].Dual, list[0].Optional, list[0].TOS = true, false, 16
	k := open(t, s, list, newRoom(0))[0]
	if four, six := option(t, k.fd, unix.IPPROTO_IP, unix.IP_TOS), option(t, k.fd, unix.IPPROTO_IPV6, unix.IPV6_TCLASS); four != 16 || six != 16 {
		t.Errorf("of IPv4 it is %d, of IPv6 %d", four, six)
	}
}

// A client that says nothing is not there yet.
func TestDeferAccept(t *testing.T) {
	s := newSet(t)
	silent, other := newRoom(10), newRoom(10)
	list := at("127.0.0.1:0")
	list[0].DeferAccept = 10 * time.Minute // much longer than the test
	k := open(t, s, list, silent)[0]
	if got := option(t, k.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT); got < 600 {
		t.Errorf("TCP_DEFER_ACCEPT is %d", got)
	}
	aside := open(t, s, at("127.0.0.1:0"), other)[0].Local()
	serve(t, s)
	c := dial(t, k.Local())
	nobodyComes(t, silent, other, aside)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	silent.next(t)
}

// A buffer may be larger than ordinary users may have it, where superd may do
// that.
func TestLargeBuffer(t *testing.T) {
	needRoot(t)
	s := newSet(t)
	defer s.Abandon()
	list := at("127.0.0.1:0")
	list[0].RcvBuf, list[0].SndBuf = 100<<20, 100<<20
	k := open(t, s, list, newRoom(0))[0]
	for _, name := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		if got := option(t, k.fd, unix.SOL_SOCKET, name); got != 200<<20 {
			t.Errorf("option %d is %d", name, got)
		}
	}
}

func TestFreeBind(t *testing.T) {
	s := newSet(t)
	defer s.Abandon()
	list := at("203.0.113.201:0")
	list[0].FreeBind = true
	if got := open(t, s, list, newRoom(0))[0].Local().Addr().String(); got != "203.0.113.201" {
		t.Errorf("it is bound to %s", got)
	}
}

// Options change while the socket is open, also back to what the system has.
func TestReconfigureOptions(t *testing.T) {
	needRoot(t)
	s := newSet(t)
	defer s.Abandon()
	list := at("127.0.0.1:0")
	k := open(t, s, list, newRoom(0))[0]
	before := kernelOptions(t, k.fd, false)
	next := list[0]
	next.NoDelay, next.Mark, next.TOS, next.DeferAccept, next.Backlog = false, 7, 16, 5*time.Second, 3
	next.KeepAlive = config.KeepAlive{On: true, Idle: time.Minute, Interval: 2 * time.Second, Count: 3}
	if err := k.Reconfigure(&next, Owners{}); err != nil {
		t.Fatal(err)
	}
	got := kernelOptions(t, k.fd, false)
	if got["nodelay"] != 0 || got["mark"] != 7 || got["tos"] != 16 || got["keepalive"] != 1 || got["keepidle"] != 60 || k.Listener() != &next {
		t.Errorf("it has %v", got)
	}
	if err := k.Reconfigure(&list[0], Owners{}); err != nil {
		t.Fatal(err)
	}
	if got := kernelOptions(t, k.fd, false); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("it has\n%v, and had\n%v", got, before)
	}
	for name, key := range map[string]int{"intvl": unix.TCP_KEEPINTVL, "probes": unix.TCP_KEEPCNT} {
		if got := option(t, k.fd, unix.IPPROTO_TCP, key); got != usualKeepAlive(name) || got == 0 {
			t.Errorf("%s is %d, not %d", name, got, usualKeepAlive(name))
		}
	}
	if got := option(t, k.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT); got != 0 {
		t.Errorf("TCP_DEFER_ACCEPT is %d", got)
	}
	next.RcvBuf = 64 << 10
	if key := list[0].Rigid(&next); key != "" {
		t.Errorf("%s cannot be changed", key)
	}
	if key := next.Rigid(&list[0]); key != "rcvbuf" {
		t.Errorf("%q cannot be changed back", key)
	}
}

// What cannot be had is told with the key, and beforehand.
func TestOptionsThatCannotBeHad(t *testing.T) {
	c, err := config.Parse("x", []byte(`services: {x: {builtin: echo, listen: [{address: "127.0.0.1:0", device: nope0}]}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = `x:1:73: services.x.listen[0].device: cannot listen on 127.0.0.1:0: device: no such device (ENODEV) (this machine has no such interface now)`
	s := newSet(t)
	defer s.Abandon()
	opened, problems := s.Open(c.Services[0].Listen, Owners{}, newRoom(0))
	if len(opened) > 0 || len(problems) != 1 || problems[0].Error() != want {
		t.Errorf("got %v, want %s", problems, want)
	}
	if found, _ := new(Checker).Check(c.Services[0].Listen, Owners{}); len(found) != 1 || found[0].Error() != want {
		t.Errorf("beforehand it is %v", found)
	}
	c, err = config.Parse("x", []byte(`services: {x: {builtin: echo, listen: {address: 0, device: nope0}}}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, problems := s.Open(c.Services[0].Listen, Owners{}, newRoom(0)); len(problems) != 1 {
		t.Errorf("of a bare port both halves are told: %v", problems)
	}
	if found, _ := new(Checker).Check(c.Services[0].Listen, Owners{}); len(found) != 1 {
		t.Errorf("beforehand, of a bare port both halves are told: %v", found)
	}
	if found, _ := new(Checker).Check(at("127.0.0.1:0", "203.0.113.201:80"), Owners{}); len(found) != 1 || !strings.Contains(found[0].What, "EADDRNOTAVAIL") {
		t.Errorf("of an address that is none of this machine's, beforehand it is %v", found)
	}
}

// Check keeps nothing, and tells who has an address, unless that is the running
// superd. What the service manager has may be handed over.
func TestCheckOfTakenAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	udp := at(p.LocalAddr().String())
	udp[0].Family = config.UDP
	before, _ := os.ReadDir("/proc/self/fd")
	for _, list := range [][]config.Listener{at(l.Addr().String()), udp} {
		var c Checker
		found, warnings := c.Check(list, Owners{})
		if len(found) != 1 || len(warnings) != 0 || !strings.HasSuffix(found[0].Hint, "is held by "+itself) {
			t.Errorf("of one that is taken, beforehand it is %v, %v", found, warnings)
		}
		c.Running = os.Getpid()
		if found, warnings := c.Check(list, Owners{}); len(found)+len(warnings) > 0 {
			t.Errorf("of what superd has, beforehand it is %v, %v", found, warnings)
		}
		c.Running = 0
		for socket := range c.set.holders.processes {
			c.set.holders.processes[socket] = []string{"1"}
		}
		if found, warnings := c.Check(list, Owners{}); len(found) != 0 || len(warnings) != 1 || !strings.HasSuffix(warnings[0].Hint, ", process 1: superd has it only if that hands it over") {
			t.Errorf("of what process 1 has, beforehand it is %v, %v", found, warnings)
		}
	}
	free := l.Addr().String()
	l.Close()
	if found, _ := new(Checker).Check(at(free), Owners{}); len(found) > 0 {
		t.Errorf("of one that is free, beforehand it is %v", found)
	}
	again, err := net.Listen("tcp", free)
	if err != nil {
		t.Fatalf("it was kept: %v", err)
	}
	defer again.Close()
	if after, _ := os.ReadDir("/proc/self/fd"); len(before) < len(after) { // fewer may be left, of those that earlier tests have forgotten
		t.Errorf("%d descriptors were open and %d are", len(before), len(after))
	}
}
