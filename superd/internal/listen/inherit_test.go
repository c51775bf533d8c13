package listen

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// high is a number from which on this process has no descriptors.
const high = 200

// hand puts descriptors at consecutive numbers, and has them taken over.
func hand(t *testing.T, names string, fds ...int) *Inheritance {
	t.Helper()
	for i, fd := range fds {
		if err := unix.Dup3(fd, high+i, 0); err != nil {
			t.Fatal(err)
		}
	}
	in, err := takeOver(high, strings.Split(names, ":"), func(fd int) (int, error) {
		defer unix.Close(fd)
		return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, high+100)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.CloseRest()
		for i := range fds {
			unix.Close(high + i) // what is no socket is still there
		}
	})
	return in
}

// listening is a blocking socket of somebody else's.
func listening(t *testing.T, network, address string) (fd int, at string) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fd = int(f.Fd())
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	return fd, l.Addr().String()
}

func inheriting(t *testing.T, in *Inheritance) *Set {
	t.Helper()
	s := newSet(t)
	s.InheritFrom(in)
	return s
}

func named(name string) []config.Listener {
	return []config.Listener{{Spec: "fd:" + name, Family: config.Inherited, Name: name, NoDelay: true}}
}

func TestInherited(t *testing.T) {
	dir := shortDir(t)
	tcp, address := listening(t, "tcp4", "127.0.0.1:0")
	other, otherAddress := listening(t, "tcp4", "127.0.0.1:0")
	path, _ := listening(t, "unix", dir+"/socket")
	abstract, _ := listening(t, "unix", "@"+dir)
	records, _ := listening(t, "unixpacket", dir+"/records")
	in := hand(t, "web:web:x:unknown:r", tcp, path, other, abstract, records)
	s := inheriting(t, in)
	r := newRoom(100)
	list := slices.Concat(named("web"), at(otherAddress), local("@"+dir), local(dir+"//records"))
	list[3].Type = "seqpacket"
	var got []string
	for _, k := range open(t, s, list, r) {
		got = append(got, k.String())
	}
	want := []string{address, "unix:" + dir + "/socket", otherAddress, "unix:@" + dir, "unix:" + dir + "/records"}
	if !slices.Equal(got, want) {
		t.Fatalf("it listens on %q, not %q", got, want)
	}
	if rest := in.CloseRest(); len(rest) > 0 {
		t.Errorf("left are %q", rest)
	}
	if flags, err := unix.FcntlInt(uintptr(tcp), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("the socket blocks: %#o, %v", flags, err)
	}
	if got := option(t, tcp, unix.IPPROTO_TCP, unix.TCP_NODELAY); got != 1 {
		t.Errorf("TCP_NODELAY is %d", got)
	}
	go s.Serve(func() int { return -1 }) // ends with Close
	for _, c := range []struct{ network, address string }{{"tcp", address}, {"unix", dir + "/socket"}, {"tcp", otherAddress}, {"unix", "@" + dir}, {"unixpacket", dir + "/records"}} {
		c, err := net.Dial(c.network, c.address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		v := r.next(t)
		if at := string(v.peer.AppendLocal(nil)); strings.TrimPrefix(at, "unix:") != c.RemoteAddr().String() {
			t.Errorf("who came to %s is told to have come to %s", c.RemoteAddr(), at)
		}
	}
	s.Close()
	for _, name := range []string{"/socket", "/records"} {
		if !isSocket(t, dir+name) {
			t.Errorf("%s is gone", name)
		}
	}
	// What is closed can be had again.
	s = inheriting(t, in)
	if got := open(t, s, named("web"), r); len(got) != 2 {
		t.Errorf("the second time it is %v", got)
	}
	s.Abandon()
	if rest := in.CloseRest(); len(rest) != 5 {
		t.Errorf("left are %q", rest)
	}
}

// A bare port finds both of its halves, and one socket that serves both where
// the file says so.
func TestInheritedBarePort(t *testing.T) {
	needIPv6(t)
	six, address := listening(t, "tcp6", "[::]:0")
	_, port, _ := net.SplitHostPort(address)
	four, _ := listening(t, "tcp4", "0.0.0.0:"+port)
	dual, address := listening(t, "tcp", "[::]:0")
	_, dualPort, _ := net.SplitHostPort(address)
	in := hand(t, "a:b:c", six, four, dual)
	s := inheriting(t, in)
	defer s.Abandon()
	if got := open(t, s, at("0.0.0.0:"+port, "[::]:"+port), newRoom(0)); len(got) != 2 {
		t.Errorf("it listens on %v", got)
	}
	if len(in.rest) != 1 {
		t.Errorf("%d sockets are left", len(in.rest))
	}
	const shared = "the inherited descriptor 202 (c) serves IPv4 too" // of the other half nothing more is told
	_, problems := s.Open(at("0.0.0.0:"+dualPort, "[::]:"+dualPort), Owners{}, newRoom(0))
	if len(problems) != 1 || !strings.HasSuffix(problems[0].What, shared) ||
		!strings.Contains(problems[0].Hint, "write {address: "+dualPort+", v6only: false}") {
		t.Errorf("the problems are %v", problems)
	}
	list := at("[::]:" + dualPort)
	list[0].Dual, list[0].Optional = true, false
	if got := open(t, s, list, newRoom(0)); len(got) != 1 || !got[0].any {
		t.Errorf("it listens on %v", got)
	}
}

func TestWhatCannotBeInherited(t *testing.T) {
	dir := shortDir(t)
	pipe, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	packets, err := datagrams.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	silent, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(silent)
	records, _ := listening(t, "unixpacket", dir+"/records")
	stream, _ := listening(t, "unix", dir+"/stream")
	in := hand(t, "null:udp:silent:records:stream", int(pipe.Fd()), int(packets.Fd()), silent, records, stream)
	s := inheriting(t, in)
	defer s.Abandon()
	for _, c := range []struct {
		list       []config.Listener
		what, hint string
	}{
		{named("none"), "cannot listen on fd:none: no socket of that name was handed over to superd", "there are: null, records, silent, stream, udp"},
		{named("null"), "cannot listen on fd:null: the inherited descriptor 200 (null) is no socket", ""},
		{named("udp"), "cannot listen on fd:udp: the inherited descriptor 201 (udp) is a socket for datagrams, at which nobody is accepted",
			"write wait: stdin for a program that receives them itself, or the address instead of the name for a program for each peer"},
		{named("silent"), "cannot listen on fd:silent: the inherited descriptor 202 (silent) is a socket that does not listen", ""},
		{local(dir + "/records"), "cannot listen on unix:" + dir + "/records: the inherited descriptor 203 (records) is not of the type stream", ""},
	} {
		opened, problems := s.Open(c.list, Owners{}, newRoom(0))
		if len(opened) > 0 || len(problems) != 1 || problems[0].What != c.what || problems[0].Hint != c.hint {
			t.Errorf("got %v, want %q (%q)", problems, c.what, c.hint)
		}
	}
	// What is told of the listener's own keys needs a file.
	for text, want := range map[string]string{
		`{address: "unix:` + dir + `/stream", mode: "0600"}`: "listen.mode: cannot listen on unix:" + dir + "/stream: the socket is inherited, and the rights of its file are those that it was made with" +
			" (leave it out: SocketMode=, SocketUser= and SocketGroup= of the socket unit say them)",
		`{address: "fd:stream", keepalive: true}`: "listen.keepalive: cannot listen on fd:stream: the inherited socket is not of TCP, for which alone keepalive has a meaning (leave it out)",
	} {
		yaml := "services: {x: {builtin: echo, listen: " + text + "}}"
		c, err := config.Parse("x", []byte(yaml), nil)
		if err != nil {
			t.Fatal(err)
		}
		want = fmt.Sprintf("x:1:%d: services.x.%s", strings.LastIndex(yaml, ": ")+3, want)
		if _, problems := s.Open(c.Services[0].Listen, Owners{}, newRoom(0)); len(problems) != 1 || problems[0].Error() != want {
			t.Errorf("got\n%v, want\n%s", problems, want)
		}
	}
	if len(in.rest) != 5 {
		t.Errorf("%d of 5 are left", len(in.rest))
	}
	want := []string{"descriptor 200 (null), which is no socket", "descriptor 201 (udp), for udp:" + datagrams.LocalAddr().String(),
		"descriptor 202 (silent), which is a socket that does not listen", "descriptor 203 (records), for unix:" + dir + "/records",
		"descriptor 204 (stream), for unix:" + dir + "/stream"}
	if got := in.CloseRest(); !slices.Equal(got, want) {
		t.Errorf("what is left is called\n%q, want\n%q", got, want)
	}
}

func TestInheritedNames(t *testing.T) {
	for _, c := range []struct{ count, names, want string }{
		{"0", "", "[]"},
		{"2", "", "[unknown unknown]"},
		{"2", "a:b", "[a b]"},
		{"2", "a:", "[a ]"},
		{"", "", `cannot take over descriptors: LISTEN_FDS is ""`},
		{"x", "", `cannot take over descriptors: LISTEN_FDS is "x"`},
		{"-1", "", `cannot take over descriptors: LISTEN_FDS is "-1"`},
		{"99999999", "", `cannot take over descriptors: LISTEN_FDS is "99999999"`},
		{"2", "a", "cannot take over descriptors: LISTEN_FDS is 2, and LISTEN_FDNAMES has 1 names"},
	} {
		list, err := namesOf(c.count, c.names)
		got := fmt.Sprint(list)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q and %q: got %s, want %s", c.count, c.names, got, c.want)
		}
	}
	if in, err := takeOver(high, []string{"none"}, func(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }); err == nil {
		t.Errorf("what is not there is taken over: %v", in.rest)
	}
}

// Descriptors that were meant for somebody else are left alone, and that is said.
func TestInheritanceOfAnother(t *testing.T) {
	for _, c := range []struct{ pid, count, why string }{
		{"", "", ""},
		{"1", "", ""},
		{"1", "0", ""},
		{"", "1", "LISTEN_PID is not set"},
		{"1", "1", "LISTEN_PID is 1 and not this process"},
		{"x y\n", "1", `LISTEN_PID is "x y\n" and not this process`},
		{strconv.Itoa(os.Getppid()), "2", fmt.Sprintf("LISTEN_PID is %d and not this process", os.Getppid())},
	} {
		t.Setenv("LISTEN_PID", c.pid)
		t.Setenv("LISTEN_FDS", c.count)
		t.Setenv("LISTEN_FDNAMES", "x")
		t.Setenv("LISTEN_PIDFDID", "7")
		in, err := Inherit(func(fd int) (int, error) {
			t.Errorf("descriptor %d is touched", fd)
			return fd, nil
		})
		if err != nil || len(in.rest) > 0 || in.Astray() != c.why {
			t.Errorf("for process %q the inheritance is %v, %v, %q", c.pid, in.rest, err, in.Astray())
		}
		for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
			if value, set := os.LookupEnv(name); set {
				t.Errorf("%s is still %q", name, value)
			}
		}
	}
}
