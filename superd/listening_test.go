package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Where superd listens, and what of it a program sees.

// peerSize is a program that tells how long its client's address is: 16 bytes
// of IPv4, or 28 of IPv6 (getpeername(2)).
func peerSize(t *testing.T) string {
	return "run: " + yamlList(installed(t, "perl"), "-e", `print length getpeername(STDIN), " $ENV{TCPREMOTEIP} $ENV{TCPLOCALIP} $ENV{TCPLOCALPORT}"`)
}

func needIPv6(t *testing.T) {
	t.Helper()
	if !haveIPv6() {
		skip(t, "this machine has no IPv6")
	}
}

// reply is the answer of whoever listens on an address.
func reply(t testing.TB, address string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A bare port is two sockets on one port: a client by IPv4 is one to the
// program as well.
func TestBarePort(t *testing.T) {
	needIPv6(t)
	t.Parallel()
	d := start(t, "services: {peer: {listen: 0, "+peerSize(t)+"}}")
	list := d.addresses("peer")
	_, port, _ := net.SplitHostPort(list[0])
	if want := []string{"0.0.0.0:" + port, "[::]:" + port}; strings.Join(list, " ") != strings.Join(want, " ") {
		t.Errorf("it listens on %q, not %q", list, want)
	}
	for address, want := range map[string]string{
		"127.0.0.1": "16 127.0.0.1 127.0.0.1 " + port,
		"127.0.0.2": "16 127.0.0.1 127.0.0.2 " + port,
		"::1":       "28 ::1 ::1 " + port,
	} {
		if got := reply(t, net.JoinHostPort(address, port)); got != want {
			t.Errorf("at %s the program says %q, not %q", address, got, want)
		}
	}
	for _, r := range d.exited("peer", 3) {
		if local, _, _ := net.SplitHostPort(r.text("local")); local != "127.0.0.1" && local != "127.0.0.2" && local != "::1" {
			t.Errorf("the log does not say where the client came in: %v", r)
		}
	}
}

// The one socket that v6only: false asks for shows IPv4 clients as IPv6 to a
// program that asks the system; superd itself never says so.
func TestSharedSocket(t *testing.T) {
	needIPv6(t)
	t.Parallel()
	d := start(t, fmt.Sprintf(`
services:
  bare: {listen: {address: 0, v6only: false}, %[1]s}
  all:  {listen: {address: "[::]:0", v6only: false}, %[1]s}
`, peerSize(t)))
	for _, service := range []string{"bare", "all"} {
		if list := d.addresses(service); len(list) != 1 {
			t.Errorf("%s listens on %q", service, list)
		}
		_, port, _ := net.SplitHostPort(d.address(service))
		if got, want := reply(t, "127.0.0.1:"+port), "28 127.0.0.1 127.0.0.1 "+port; got != want {
			t.Errorf("%s: the program says %q, not %q", service, got, want)
		}
		if got, want := reply(t, "[::1]:"+port), "28 ::1 ::1 "+port; got != want {
			t.Errorf("%s: the program says %q, not %q", service, got, want)
		}
		for _, r := range d.exited(service, 2) {
			if strings.Contains(r.text("peer")+r.text("local"), "ffff") {
				t.Errorf("the log shows IPv4 as IPv6: %v", r)
			}
		}
	}
}

func TestSeveralAddresses(t *testing.T) {
	needIPv6(t)
	t.Parallel()
	d := start(t, `
services:
  many:
    listen: ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0", {address: "127.0.0.1:0", backlog: 3}]
    run: /bin/cat
`)
	list := d.addresses("many")
	if len(list) != 4 {
		t.Fatalf("it listens on %q", list)
	}
	for _, address := range list {
		if err := visitOnce(address, askFor("hello", "hello")); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	var came []string
	for _, r := range d.exited("many", 4) {
		came = append(came, r.text("local"))
	}
	slices.Sort(came)
	slices.Sort(list)
	if !slices.Equal(came, list) {
		t.Errorf("clients of %v came in by %v", list, came)
	}
}

// portWithName finds a port in services(5) that every user may listen on.
func portWithName(t *testing.T) (name, port string) {
	t.Helper()
	f, err := os.Open("/etc/services")
	if err != nil {
		skip(t, err.Error())
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) < 2 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if port, ok := strings.CutSuffix(words[1], "/tcp"); ok && len(port) > 3 && port > "1024" {
			return words[0], port
		}
	}
	skip(t, "no port above 1024 has a name here")
	return "", ""
}

// A port can be called by its name. The address is one that nobody else uses.
func TestPortByName(t *testing.T) {
	t.Parallel()
	name, port := portWithName(t)
	pid := os.Getpid()
	host := fmt.Sprintf("127.%d.%d.%d", 64+pid>>14&63, pid>>7&127+1, pid&127+1)
	d := start(t, fmt.Sprintf("services: {named: {listen: '%s:%s', run: /bin/cat}}", host, name))
	if got := d.address("named"); got != host+":"+port {
		t.Errorf("%s is %s", name, got)
	}
	d.held("named")
}

func TestHostByName(t *testing.T) {
	t.Parallel()
	d := start(t, "services: {named: {listen: 'localhost:0', run: /bin/cat}}")
	for _, address := range d.addresses("named") {
		if host, _, _ := net.SplitHostPort(address); host != "127.0.0.1" && host != "::1" {
			t.Errorf("localhost is %s", address)
		}
		if err := visitOnce(address, askFor("hello", "hello")); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// options is a program that tells the options of its connection.
func options(t *testing.T) string {
	return "run: " + yamlList(installed(t, "perl"), "-e",
		`print join " ", map { unpack "i", getsockopt STDIN, $$_[0], $$_[1] } `+
			fmt.Sprintf("[%d, %d], [%d, %d], [%d, %d], [%d, %d], [%d, %d]",
				unix.IPPROTO_TCP, unix.TCP_NODELAY, unix.SOL_SOCKET, unix.SO_KEEPALIVE,
				unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, unix.IPPROTO_TCP, unix.TCP_KEEPCNT))
}

func TestSocketOptions(t *testing.T) {
	t.Parallel()
	usual := func(name string) string {
		b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_keepalive_" + name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	idle, interval, count := usual("time"), usual("intvl"), usual("probes")
	for keys, want := range map[string]string{
		"":                                 "1 0 " + idle + " " + interval + " " + count,
		"nodelay: false":                   "0 0 " + idle + " " + interval + " " + count,
		"keepalive: true":                  "1 1 " + idle + " " + interval + " " + count,
		"keepalive: {idle: 61s}":           "1 1 61 " + interval + " " + count,
		"keepalive: {interval: 7s}":        "1 1 " + idle + " 7 " + count,
		"nodelay: false, keepalive: false": "0 0 " + idle + " " + interval + " " + count,
		"keepalive: {idle: 1m, interval: 2s, count: 3}": "1 1 60 2 3",
	} {
		t.Run(keys, func(t *testing.T) {
			t.Parallel()
			d := start(t, fmt.Sprintf("services: {options: {listen: {address: '127.0.0.1:0', %s}, %s}}", keys, options(t)))
			if got := d.ask("options", ""); got != want {
				t.Errorf("the program sees %q, not %q", got, want)
			}
		})
	}
}

// needMPTCP leaves out what takes a kernel that has it.
func needMPTCP(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		t.Skip("SKIPPED: this kernel has no MPTCP, or the sysctl net.mptcp.enabled is 0: ", err)
	}
	unix.Close(fd)
}

// kernelCountsMPTCP tells whether the kernel counts the bytes of all paths.
func kernelCountsMPTCP(t *testing.T) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 5
}

// A service of MPTCP serves clients of both kinds, with all options, and counts
// the bytes of both.
func TestMPTCP(t *testing.T) {
	needMPTCP(t)
	t.Parallel()
	protocol := "run: " + yamlList(installed(t, "perl"), "-e", fmt.Sprintf(
		`print unpack("i", getsockopt STDIN, %d, %d), " ", unpack("i", getsockopt STDIN, %d, %d); print while <STDIN>`,
		unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
	const listen = "listen: {address: '127.0.0.1:0', mptcp: true, keepalive: {idle: 61s}, rcvbuf: 64K, tos: 16, defer_accept: 1s}, "
	d := start(t, several("paths", listen+protocol, "plain", "listen: '127.0.0.1:0', "+protocol))
	client := func(d *process, service string, several bool) *net.TCPConn {
		dialer := net.Dialer{Timeout: patience}
		dialer.SetMultipathTCP(several)
		c, err := dialer.Dial("tcp", d.address(service))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { c.Close() })
		return c.(*net.TCPConn)
	}
	input := strings.Repeat("x", 1000) + "\n"
	for i, c := range []struct {
		service string
		several bool
		want    string
	}{
		{"paths", true, "262 61"},
		{"paths", false, "6 61"},
		{"plain", true, "6 7200"},
	} {
		conn := client(d, c.service, c.several)
		if _, err := io.WriteString(conn, input); err != nil {
			t.Fatal(err)
		}
		conn.CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil || c.service == "paths" && string(got) != c.want+input || !strings.HasPrefix(string(got), c.want[:2]) {
			t.Errorf("%+v: the program says %.20q, %v", c, got, err)
		}
		if used, err := conn.MultipathTCP(); err != nil || used != (c.several && c.service == "paths") {
			t.Errorf("%+v: MPTCP is used: %v, %v", c, used, err)
		}
		n := i % 2
		r := d.exited(c.service, n+1)[n]
		if c.want[:3] == "262" && r.number("bytes_in") == -1 && r.number("bytes_out") == -1 && !kernelCountsMPTCP(t) {
			continue
		}
		if r.number("bytes_in") != float64(len(input)) || r.number("bytes_out") != float64(len(got)) {
			t.Errorf("%+v: it is recorded as %v", c, r)
		}
	}
	for _, multipath := range []bool{true, false} {
		longEnough(t, 500*time.Millisecond, func(length time.Duration) error {
			d := start(t, several("idle", listen+fmt.Sprintf("run: /bin/cat, timeout: {idle: %v, stop: 1h}", length)))
			c := client(d, "idle", multipath)
			if err := comesBack(c, "hello\n"); err != nil {
				return err
			}
			d.closed(c)
			checkEnd(t, d.exited("idle", 1)[0], "TERM", "timeout.idle")
			return nil
		})
	}
}

// What a program can ask of its connection, by the options of the kernel.
func TestOptionsThatTakeRights(t *testing.T) {
	t.Parallel()
	ask := "run: " + yamlList(installed(t, "perl"), "-e",
		`print join " ", map { unpack "I", getsockopt STDIN, $$_[0], $$_[1] } `+
			fmt.Sprintf("[%d, %d], [%d, %d], [%d, %d], [%d, %d], [%d, %d], [%d, %d]",
				unix.SOL_SOCKET, unix.SO_RCVBUF, unix.SOL_SOCKET, unix.SO_SNDBUF, unix.SOL_SOCKET, unix.SO_MARK,
				unix.IPPROTO_IP, unix.IP_TOS, unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IPPROTO_IP, unix.IP_TRANSPARENT))
	const open = "services: {options: {listen: {address: '127.0.0.1:0', device: lo, rcvbuf: 64K, sndbuf: 32K, tos: 184, freebind: true, defer_accept: 5s"
	d := start(t, open+"}, "+ask+"}}")
	if got, want := d.ask("options", "x"), "131072 65536 0 184 1 0"; got != want {
		t.Errorf("the program sees %q, not %q", got, want)
	}
	if os.Geteuid() == 0 {
		d := start(t, open+", mark: 4294967295, transparent: true}, "+ask+"}}")
		if got, want := d.ask("options", "x"), "131072 65536 4294967295 184 1 1"; got != want {
			t.Errorf("the program sees %q, not %q", got, want)
		}
	}
	most, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		t.Fatal(err)
	}
	dir := publicDir(t)
	for key, want := range map[string]string{
		"mark: 1":            "mark: operation not permitted (EPERM) (superd lacks CAP_NET_ADMIN)",
		"transparent: true":  "transparent: operation not permitted (EPERM) (superd lacks CAP_NET_ADMIN or CAP_NET_RAW)",
		"rcvbuf: 1023M":      "rcvbuf: the sysctl net.core.rmem_max allows " + strings.TrimSpace(string(most)) + " bytes at most (raise it, or give superd CAP_NET_ADMIN)",
		"device: nope0":      "device: no such device (ENODEV) (this machine has no such interface now)",
		"device: lo, tos: 4": "",
	} {
		file := writeFile(t, dir, "superd.yaml", "services: {x: {builtin: echo, listen: {address: '127.0.0.1:0', "+key+"}}}", 0o644)
		name, _, _ := strings.Cut(key, ":")
		want := fmt.Sprintf("%s:1:%d: services.x.listen.%s: cannot listen on 127.0.0.1:0: %s\n", file, 64+len(name)+2, name, want)
		for _, verb := range []string{"check", "run"} {
			if strings.HasPrefix(key, "device: lo") && verb == "run" {
				continue // it would
			}
			cmd := superd(verb, "-c", file)
			if os.Geteuid() == 0 {
				asUser(t, cmd, someUser)
			}
			code, _, complaints := finished(t, cmd)
			if strings.HasPrefix(key, "device: lo") {
				if code != 0 {
					t.Errorf("%s: check says %d %s", key, code, complaints)
				}
			} else if code != 1 || !strings.HasSuffix(complaints, want) {
				t.Errorf("%s: %s says %d %s, not %s", key, verb, code, complaints, want)
			}
		}
	}
}

// One port of two network interfaces is two sockets.
func TestDevices(t *testing.T) {
	needRoot(t)
	t.Parallel()
	unshare, ip, nsenter := program(t, "unshare"), program(t, "ip"), program(t, "nsenter")
	cmd := prepare(t, several(
		"one", "listen: {address: '0.0.0.0:7007', device: lo}, builtin: greeting, text: one",
		"other", "listen: {address: '0.0.0.0:7007', device: other}, builtin: greeting, text: other"))
	script := `set -e; $0 link set lo up; $0 link add other type veth peer name cable
		$0 addr add 192.0.2.1/24 dev other; $0 link set other up; exec "$@"`
	inside := exec.Command(unshare, append([]string{"--net", "/bin/sh", "-c", script, ip, cmd.Path}, cmd.Args[1:]...)...)
	inside.Env = cmd.Env
	d := startCommand(t, inside)
	elsewhere := exec.Command(unshare, "--net", program(t, "sleep"), "1000") // at the other end of the cable
	if err := elsewhere.Start(); err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Wait()
	defer elsewhere.Process.Kill()
	in := func(pid int, cmd *exec.Cmd) *exec.Cmd {
		there := exec.Command(nsenter, append([]string{"--net=/proc/" + strconv.Itoa(pid) + "/ns/net", cmd.Path}, cmd.Args[1:]...)...)
		there.Env = cmd.Env
		return there
	}
	apart := elsewhere.Process.Pid
	eventually(t, func() error { // it has a network of its own in a moment
		own, _ := os.Readlink("/proc/self/ns/net")
		if its, err := os.Readlink("/proc/" + strconv.Itoa(apart) + "/ns/net"); err != nil || its == own {
			return fmt.Errorf("it is in the network %s, %v", its, err)
		}
		return nil
	})
	output(t, in(d.pid(), exec.Command(ip, "link", "set", "cable", "netns", strconv.Itoa(apart))))
	output(t, in(apart, exec.Command(ip, "addr", "add", "192.0.2.2/24", "dev", "cable")))
	output(t, in(apart, exec.Command(ip, "link", "set", "cable", "up")))
	for want, cmd := range map[string]*exec.Cmd{
		"one":   in(d.pid(), superd("connect", "127.0.0.1:7007")),
		"other": in(apart, superd("connect", "192.0.2.1:7007")),
	} {
		if code, out, complaints := finished(t, cmd); code != 0 || out != want {
			t.Errorf("by the interface of %s it says %d %q %s", want, code, out, complaints)
		}
	}
}

// Superd costs a socket and a program in memory for each service, and no
// thread.
func TestManyServices(t *testing.T) {
	t.Parallel()
	n := fewer(2000, 300)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max < uint64(3*n) {
		skip(t, fmt.Sprintf("the limit of open files is %d, %v", limit.Max, err))
	}
	var yaml strings.Builder
	yaml.WriteString("services:\n")
	for i := range n {
		what := "builtin: echo"
		if i%2 == 0 {
			what = "run: /bin/cat"
		}
		fmt.Fprintf(&yaml, "  s%d: {listen: '127.0.0.1:0', %s}\n", i, what)
	}
	d := start(t, yaml.String())
	seen := map[string]bool{}
	for i := range n {
		seen[d.address("s"+strconv.Itoa(i))] = true
		if i > 100 {
			break // looking for one takes as long as there are services
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d of the first 102 services have addresses of their own", len(seen))
	}
	for _, i := range []int{0, 1, n / 2, n - 2, n - 1} {
		if got := d.ask("s"+strconv.Itoa(i), "hello"); got != "hello" {
			t.Errorf("service %d answers %q", i, got)
		}
	}
	if threads := d.threads(); threads > 20 {
		t.Errorf("superd has %d threads", threads)
	}
}

// One address that cannot be had is enough for superd not to start, and all
// that is wrong is told at once.
func TestAllProblemsAreTold(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cmd := prepare(t, fmt.Sprintf(`
services:
  right:   {listen: "127.0.0.1:0", run: /bin/cat}
  taken:   {listen: %q, run: /bin/cat}
  foreign: {listen: ["203.0.113.201:0", "127.0.0.1:0"], run: /bin/cat}
  again:   {listen: {address: 203.0.113.202:0}, run: /bin/cat}
  nobody:  {listen: "127.0.0.1:0", run: /bin/cat, group: no-such-group-here}
  groups:  {listen: "127.0.0.1:0", run: /bin/cat, groups: ['0', no-such-group-here]}
  udp:     {listen: "udp:203.0.113.201:0", run: /bin/cat}
`, taken.Addr()))
	file := cmd.Args[len(cmd.Args)-1]
	code, out, complaints := finished(t, cmd)
	if code != 1 || out != "" {
		t.Errorf("it ends with %d and %q", code, out)
	}
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	const nowhere = ": cannot assign requested address (EADDRNOTAVAIL) (no interface of this machine has that address now; freebind: true listens all the same)"
	want := []string{
		fmt.Sprintf(":4:21: services.taken.listen: cannot listen on %s: address already in use (EADDRINUSE) (port %s is held by %s, process %d)",
			taken.Addr(), port, comm(t), os.Getpid()),
		":5:22: services.foreign.listen[0]: cannot listen on 203.0.113.201:0" + nowhere,
		":6:31: services.again.listen.address: cannot listen on 203.0.113.202:0" + nowhere,
		":7:58: services.nobody.group: no such group: no-such-group-here (create the group, or name another one)",
		":8:65: services.groups.groups[1]: no such group: no-such-group-here (create the group, or name another one)",
		":9:21: services.udp.listen: cannot listen on udp:203.0.113.201:0" + nowhere,
	}
	for _, line := range want {
		if !strings.Contains(complaints, file+line+"\n") {
			t.Errorf("not told: %s", line)
		}
	}
	if n := strings.Count(complaints, "services."); n != len(want) || t.Failed() {
		t.Errorf("%d problems are told as %d:\n%s", len(want), n, complaints)
	}
}

// comm is the name of this process.
func comm(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// The ports below 1024 are root's, and superd says so.
func TestLowPort(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, "services: {low: {listen: '127.0.0.1:1', run: /bin/cat}}")
	first, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if strings.TrimSpace(string(first)) == "0" {
		skip(t, "every user may listen on every port here")
	}
	if os.Geteuid() == 0 {
		asUser(t, cmd, someUser)
	}
	code, _, complaints := finished(t, cmd)
	if want := "cannot listen on 127.0.0.1:1: permission denied (EACCES) (ports below 1024 need root, or CAP_NET_BIND_SERVICE)\n"; code != 1 || !strings.Contains(complaints, want) {
		t.Errorf("it ends with %d and %s", code, complaints)
	}
}

// Port 0 is another port each time, but one for both families.
func TestPortOfTheSystemsChoice(t *testing.T) {
	needIPv6(t)
	t.Parallel()
	var yaml strings.Builder
	yaml.WriteString("services:\n")
	for i := range 20 {
		fmt.Fprintf(&yaml, "  s%d: {listen: 0, run: /bin/cat}\n", i)
	}
	d := start(t, yaml.String())
	seen := map[string]bool{}
	for i := range 20 {
		list := d.addresses("s" + strconv.Itoa(i))
		if len(list) != 2 {
			t.Fatalf("it listens on %q", list)
		}
		_, four, _ := net.SplitHostPort(list[0])
		_, six, _ := net.SplitHostPort(list[1])
		if four != six || seen[four] {
			t.Errorf("it listens on %q; others on %v", list, seen)
		}
		seen[four] = true
	}
}

// A service that is switched off opens nothing, but is checked.
func TestDisabledService(t *testing.T) {
	t.Parallel()
	d := start(t, `
services:
  on:  {listen: "127.0.0.1:0", run: /bin/cat}
  off: {listen: "203.0.113.201:7", run: /bin/cat, enabled: false}
`)
	if list := d.recordsOf("off"); len(list) > 0 {
		t.Errorf("the log has %v", list)
	}
	code, _, complaints := finished(t, prepare(t, `
services:
  on:  {listen: "127.0.0.1:0", run: /bin/cat}
  off: {listen: "127.0.0.1:0", run: /bin/cat, enabled: false, group: no-such-group-here}
`))
	if code != 1 || !strings.Contains(complaints, "services.off.group: no such group: no-such-group-here") {
		t.Errorf("it ends with %d and %s", code, complaints)
	}
}
