package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Clients that say the name of a service: the built-in tcpmux (RFC 1078). What a
// line means is tested where it is parsed.

const (
	goAhead = "+Go\r\n"
	notHere = "-Service not available\r\n"
)

// muxed is a file with a service mux, which waits for names as long as it takes,
// and others.
func muxed(keys string, list ...string) string {
	return "log: {level: debug}\n" + several(append([]string{"mux", `listen: "127.0.0.1:0", builtin: tcpmux, timeout: {first_byte: 1h}` + keys}, list...)...)
}

// Two kinds of programs: of those that the thread of the built-in starts, and of
// those that the other one does.
var ways = map[string]string{"plain": "run: /bin/cat, sandbox: none", "confined": "run: /bin/cat"}

// However a line comes, the program has as its input what follows, to the byte.
func TestTCPMux(t *testing.T) {
	t.Parallel()
	const data = "\r\nwhat follows, \x00 and\r\n all of it\n"
	d := start(t, muxed("", "plain", "tcpmux: true, "+ways["plain"], "confined", "tcpmux: true, "+ways["confined"],
		"other", `listen: "127.0.0.1:0", builtin: echo`, "beside", `listen: "127.0.0.1:0", builtin: echo, sandbox: none`))
	n := map[string]int{}
	for service := range ways {
		for _, text := range []string{service + "\r\n", service + "\n", strings.ToUpper(service) + "\r\n"} {
			all := text + data
			var list []*net.TCPConn
			for i := range len(text) + 3 { // 0 is everything at once
				c := d.dial("mux")
				c.SetNoDelay(true)
				io.WriteString(c, all[:i])
				list = append(list, c)
			}
			d.caughtUp("beside")
			for i, c := range list {
				io.WriteString(c, all[i:])
				c.CloseWrite()
				d.hears(c, goAhead+data)
				n[service]++
			}
		}
		// Nor does it matter where each byte ends.
		c := d.dial("mux")
		c.SetNoDelay(true)
		for _, b := range []byte(service + "\r\n" + data) {
			c.Write([]byte{b})
			d.caughtUp("beside")
		}
		c.CloseWrite()
		d.hears(c, goAhead+data)
		// The end of what a client says ends its line, too.
		d.is("mux", service, goAhead)
		n[service] += 2
	}
	for service, n := range n {
		short := 0
		for _, r := range d.exited(service, n) {
			switch in := r.number("bytes_in"); {
			case in == 0:
				short++
			case in != float64(len(data)):
				t.Errorf("%v bytes came in, not %d: %v", in, len(data), r)
			}
			if r.text("local") != d.address("mux") || r.text("conn") == "" || r.text("peer") == "" {
				t.Errorf("the record is %v", r)
			}
		}
		if short != 1 {
			t.Errorf("%d clients sent nothing, not 1", short)
		}
		d.addsUp(service)
	}
	if list := d.recordsOf("mux"); len(list) != 1 || !list[0].is("listening") {
		t.Errorf("there are records of the service that leads: %v", list)
	}
}

// is wants an answer to what a client says.
func (d *process) is(service, says, want string) {
	d.t.Helper()
	if got := d.ask(service, says); got != want {
		d.t.Errorf("%q is answered with %q, not %q", says, got, want)
	}
}

// Programs of others say a name as well.
func TestTCPMuxClients(t *testing.T) {
	t.Parallel()
	d := start(t, muxed("", "upper", "tcpmux: true, "+shell("tr a-z A-Z")))
	host, port, _ := net.SplitHostPort(d.address("mux"))
	busybox := client(t, program(t, "busybox"), "nc", host, port)
	busybox.Stdin = strings.NewReader("upper\r\nhello\n")
	perl := client(t, installed(t, "perl"), "-MIO::Socket::INET", "-e",
		`$c = IO::Socket::INET->new($ARGV[0]); syswrite $c, "$_\n" for "UPPER", "hello"; shutdown $c, 1; print <$c>`, d.address("mux"))
	own := superd("connect", d.address("mux"))
	own.Stdin = strings.NewReader("upper\r\nhello\n")
	for _, cmd := range []*exec.Cmd{busybox, perl, own} {
		if got := output(t, cmd); got != goAhead+"HELLO\n" {
			t.Errorf("%s gets %q", cmd.Path, got)
		}
	}
	d.exited("upper", 3)
}

// A service that is reached by its name alone drains as others do, also through
// an upgrade, until the file is taken up anew.
func TestTCPMuxDrain(t *testing.T) {
	t.Parallel()
	a := startAsked(t, muxed("", "named", `tcpmux: true, run: /bin/cat, refuse_text: {draining: "later\r\n"}`, "other", "tcpmux: true, run: /bin/cat"))
	inside := a.dial("mux")
	io.WriteString(inside, "named\r\n")
	if got := line(t, inside) + "\n"; got != goAhead {
		t.Errorf("it says %q", got)
	}
	a.told("drain", "--no-wait", "--limit", "1h", "named")
	for i := range 2 {
		a.is("mux", "named\r\n", "-later\r\n")
		a.is("mux", "other\r\nhello", goAhead+"hello")
		a.talk(inside, "still here\n")
		if i == 0 {
			a.upgradeNow(1)
		}
	}
	inside.Close()
	a.exited("named", 1)
	a.hup(1)
	a.is("mux", "named\r\nhello", goAhead+"hello")
	a.told("drain", "mux")
	if c, err := dialAddress(a.address("mux")); err == nil {
		c.Close()
		t.Error("somebody listens there")
	}
	a.idle--
}

// A program may tell the client itself that it can go on.
func TestTCPMuxPlain(t *testing.T) {
	t.Parallel()
	d := start(t, muxed("", "self", `tcpmux: plain, `+shell(`printf '+mine\r\n'; cat`)))
	d.is("mux", "self\r\nhello", "+mine\r\nhello")
}

// What the client waits for before it sends anything comes at once.
func TestTCPMuxIsAnsweredFirst(t *testing.T) {
	t.Parallel()
	d := start(t, muxed("", "slow", `tcpmux: true, timeout: {first_byte: 1h}, run: /bin/cat`))
	c := d.dial("mux")
	io.WriteString(c, "slow\r\n")
	answer := make([]byte, len(goAhead))
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != goAhead {
		t.Errorf("it says %q, %v", answer, err)
	}
	d.talk(c, "hello\n")
	c.Close()
}

// Nobody is reached who is not to be, and why is told.
func TestTCPMuxRefuses(t *testing.T) {
	t.Parallel()
	const unknown = `no service has tcpmux: true and the name "`
	long := "the line does not end within 256 bytes"
	late := "the line with the name of a service was not complete in timeout.first_byte"
	list := []struct{ says, hears, why string }{
		{"hidden\r\n", notHere, unknown + `hidden"`},
		{"disabled\r\n", notHere, unknown + `disabled"`},
		{"s0\r\n", notHere, unknown + `s0"`},
		{"name\r\n", notHere, unknown + `name"`},
		{"named \r\n", notHere, unknown + `named?"`},
		{"\r\n", notHere, unknown + `"`},
		{"\x1b[2J\x00\"\xff\r\n", notHere, unknown + `??2J???"`},
		{strings.Repeat("x", 200) + "\r\n", notHere, unknown + strings.Repeat("x", 64) + `..."`},
		{strings.Repeat("x", 256), notHere, long},
		{strings.Repeat("x", 256) + "\r\n", notHere, long},
		{strings.Repeat("x", 100_000), notHere, long},
		{"named", notHere, late},
		{"named\r", notHere, late},
		{"", "", ""}, // silence is no refusal
	}
	const (
		patient = `listen: "127.0.0.1:0", builtin: tcpmux, timeout: {first_byte: 1h}`
		hasty   = `listen: "127.0.0.1:0", builtin: tcpmux, timeout: {first_byte: 700ms}`
	)
	var services []string
	for i, x := range list {
		services = append(services, fmt.Sprint("s", i), ifElse(x.why == late || x.why == "", hasty, patient))
	}
	d := start(t, muxed("", append(services,
		"named", "tcpmux: true, builtin: echo",
		"hidden", `listen: "127.0.0.1:0", builtin: echo`,
		"disabled", "tcpmux: true, builtin: echo, enabled: false")...))
	clients := make([]*net.TCPConn, len(list))
	come := func(late bool) {
		for i, x := range list {
			if (services[2*i+1] == hasty) == late {
				clients[i] = d.dial(fmt.Sprint("s", i))
				io.WriteString(clients[i], x.says)
			}
		}
	}
	come(false)
	d.halt() // those who have little time have said all when it begins
	come(true)
	d.signal(syscall.SIGCONT)
	for i, x := range list {
		d.hears(clients[i], x.hears)
		service := fmt.Sprint("s", i)
		if x.why == "" {
			d.await(func(r record) bool { return r.is("silent") && r.text("service") == service })
			continue
		}
		if r := d.refusedFor(service, "address", 1); r.text("error") != x.why || !strings.HasPrefix(r.text("peer"), here) {
			t.Errorf("%q: the record is %v", x.says, r)
		}
		d.addsUp(service)
	}
	for _, service := range []string{"named", "hidden", "disabled"} {
		d.runsNothing(service)
	}
}

// Who may come in is decided twice: by the service that leads, and by the one
// that is named.
func TestTCPMuxAdmission(t *testing.T) {
	t.Parallel()
	d := startAsked(t, muxed(`, deny: [127.0.0.2], refuse_text: "leave\r\n", rate_per_source: 100/h, ban: {after: 3, within: 1h, for: 1h}`,
		"denied", `tcpmux: true, builtin: echo, deny: [127.0.0.1], refuse_text: {address: "not you\r\n"}`,
		"silently", `tcpmux: true, builtin: echo, deny: [127.0.0.1]`,
		"one", `tcpmux: true, listen: "127.0.0.1:0", run: /bin/cat, max: 1, on_limit: refuse, refuse_text: "full"`,
		"queue", `tcpmux: true, run: /bin/cat, max: 1, queue: {timeout: 1h}`,
		"hasty", `tcpmux: true, run: /bin/cat, max: 1, queue: {timeout: 100ms}`))
	d.hears(d.from(there, "mux"), "-leave\r\n")
	d.is("mux", "denied\r\n", "-not you\r\n")
	d.is("mux", "silently\r\n", notHere)
	for _, service := range []string{"denied", "silently"} {
		if r := d.refusedFor(service, "address", 1); r.text("local") != d.address("mux") {
			t.Errorf("the record is %v", r)
		}
		d.runsNothing(service)
	}
	// A client has one place, that of the service which it has named.
	named := func(service string) *net.TCPConn {
		c := d.dial("mux")
		io.WriteString(c, service+"\r\n")
		return c
	}
	goes := func(c *net.TCPConn) {
		if got := line(t, c) + "\n"; got != goAhead {
			t.Errorf("it says %q", got)
		}
		d.talk(c, "hello\n")
	}
	list := map[string]*net.TCPConn{}
	for _, service := range []string{"one", "queue", "hasty"} {
		list[service] = named(service)
		goes(list[service])
	}
	if s := d.status(); s.Live != 3 {
		t.Errorf("%d have a place", s.Live)
	}
	d.is("one", "", "full")
	d.is("mux", "one\r\n", "-full")
	d.hears(named("hasty"), notHere)
	waits := named("queue")
	eventually(t, func() error {
		if s := d.counts("queue"); s.Waiting != 1 {
			return fmt.Errorf("it is %+v", s)
		}
		return nil
	})
	list["queue"].Close()
	goes(waits)
	// Whoever guesses is shut out.
	for range 3 {
		d.is("mux", "guess\r\n", "-leave\r\n")
	}
	d.refusedFor("mux", "address", 1)
	d.hears(d.dial("mux"), "-leave\r\n")
	d.refusedFor("mux", "banned", 1)
	for _, c := range []*net.TCPConn{list["one"], list["hasty"], waits} {
		c.Close()
	}
}

// HELP lists those that can be reached.
func TestTCPMuxHelp(t *testing.T) {
	t.Parallel()
	d := startAsked(t, muxed("", "one", "tcpmux: true, builtin: echo", "hidden", `listen: "127.0.0.1:0", builtin: echo`,
		"Two", `tcpmux: plain, listen: "127.0.0.1:0", builtin: greeting`, "off", "tcpmux: true, builtin: echo, enabled: false"))
	for _, says := range []string{"HELP\r\n", "help\n", "hElP", "HELP\r\nand more"} {
		d.is("mux", says, "one\r\nTwo\r\n")
	}
	if s := d.counts("mux"); s.Total != 0 || s.Refused != 0 {
		t.Errorf("superd counts %+v", s)
	}
	if r := d.awaitMany(4, func(r record) bool { return r.is("listed") })[0]; !strings.HasPrefix(r.text("peer"), here) || r.text("service") != "mux" {
		t.Errorf("the record is %v", r)
	}
	r := d.rewrite(1, muxed("", "one", "builtin: echo, listen: 127.0.0.1:0"))
	if warning := "services.mux.builtin: leads to nothing: no service has tcpmux: true"; !slices.ContainsFunc(d.recordsOf(""), func(r record) bool {
		return strings.HasSuffix(r.text("message"), warning)
	}) {
		t.Errorf("it does not warn of that: %v", r)
	}
	d.is("mux", "HELP\r\n", "")
	d.idle -= 4 // two sockets and three built-ins less, one socket more
}

// However many say nothing, nobody else is held up, and no place is taken.
func TestSilentAtTCPMux(t *testing.T) {
	t.Parallel()
	a := startAsked(t, muxed("", "named", "tcpmux: true, builtin: echo, max: 1", "echo", `listen: "127.0.0.1:0", builtin: echo, max: 1`))
	const n = 100
	for i := range n {
		c := a.dial("mux")
		io.WriteString(c, "named"[:i%6])
	}
	for range 20 {
		a.is("mux", "named\r\nhello", goAhead+"hello")
		a.is("echo", "hello", "hello")
	}
	if s := a.counts("mux"); s.Total != 0 || s.Waiting != 0 {
		t.Errorf("superd counts %+v", s)
	}
}

// Where there is no room for all who have not said a name, those go that most
// others are where they are from.
func TestTCPMuxInACrowd(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, muxed("", "named", "tcpmux: true, builtin: echo"))
	d := startCommand(t, withDescriptors(cmd, 400))
	first := d.from(here, "mux")
	const n = 40 // more than there is room for
	crowd := make([]*net.TCPConn, n)
	for i := range crowd {
		crowd[i] = d.from(there, "mux")
		io.WriteString(crowd[i], "n")
	}
	last := d.from(here, "mux")
	d.hears(crowd[0], notHere)
	if why := d.refusedFor("mux", "address", 1).text("error"); why != "too many others have not said the name of a service either" {
		t.Errorf("the record says %q", why)
	}
	for _, c := range []*net.TCPConn{first, last} {
		io.WriteString(c, "named\r\n")
		if got := line(t, c) + "\n"; got != goAhead {
			t.Errorf("it says %q", got)
		}
		d.talk(c, "in")
	}
	for _, c := range append(crowd, first, last) {
		c.Close()
	}
}

// A program runs as the user, and inside the walls, of the service that has it.
func TestTCPMuxWalls(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := publicDir(t)
	d := start(t, muxed(", user: root, sandbox: none",
		"modest", "tcpmux: true, user: nobody, "+ownStatus,
		"root", "tcpmux: true, user: root, sandbox: none, "+ownStatus,
		"apart", "tcpmux: true, user: nobody, chroot: "+dir+", sandbox: {network: false}, builtin: echo",
		"limited", "tcpmux: true, user: nobody, rlimits: {nofile: 17}, "+shell("ulimit -n; pwd"),
		"told", "tcpmux: true, user: nobody, "+shell(`echo "$SUPERD_SERVICE $TCPREMOTEIP $TCPLOCALPORT"`)))
	for service, uid := range map[string]string{"modest": fmt.Sprint(idOf(t, "-u", "nobody")), "root": "0"} {
		status := strings.TrimPrefix(d.ask("mux", service+"\r\n"), goAhead)
		if got := strings.Fields(field(t, status, "Uid"))[0]; got != uid {
			t.Errorf("%s runs as %s", service, got)
		}
		if walls := field(t, status, "NoNewPrivs") + field(t, status, "Seccomp"); walls != map[string]string{"modest": "12", "root": "00"}[service] {
			t.Errorf("%s has no_new_privs and a filter: %s", service, walls)
		}
	}
	d.is("mux", "apart\r\nhello", goAhead+"hello")
	d.is("mux", "limited\r\n", goAhead+"17\n/\n")
	d.is("mux", "told\r\n", goAhead+"told 127.0.0.1 "+port(d.address("mux"))+"\n")
}

// Behind a proxy, and by a unix socket, a name is said as anywhere.
func TestTCPMuxBehindAProxy(t *testing.T) {
	t.Parallel()
	d := start(t, muxed(`, proxy_protocol: {from: [127.0.0.1], timeout: 1h}`,
		"plain", "tcpmux: true, sandbox: none, "+tellsPeer, "confined", "tcpmux: true, "+tellsPeer,
		"name", "tcpmux: true, "+shell(`echo "$SUPERD_PROXY_AUTHORITY"`),
		"barred", "tcpmux: true, builtin: echo, deny: [192.0.2.1]"))
	for service := range ways {
		header := proxyHeaders["version 2"].header
		d.is("mux", header+service+"\r\nhello", goAhead+told4+"hello")
		if r := d.exited(service, 1)[0]; r.number("bytes_in") != 5 || r.text("peer") != "192.0.2.1:4711" {
			t.Errorf("the record is %v", r)
		}
	}
	d.is("mux", proxyHeader("192.0.2.1:4711", "192.0.2.2:25", proxyField(0x02, "mail.example"))+"name\r\n", goAhead+"mail.example\n")
	d.is("mux", "PROXY TCP4 192.0.2.1 192.0.2.2 4711 25\r\nbarred\r\n", notHere)
}

func TestTCPMuxAtAUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(publicDir(t), "mux")
	d := start(t, several("mux", `listen: "unix:`+path+`", builtin: tcpmux, timeout: {first_byte: 1h}`,
		"plain", "tcpmux: true, sandbox: none, "+shell("echo $IPCREMOTEEUID; cat"), "confined", "tcpmux: true, "+shell("echo $IPCREMOTEEUID; cat"),
		"mine", fmt.Sprintf("tcpmux: true, builtin: echo, allow: [uid:%d]", os.Geteuid()),
		"others", fmt.Sprintf("tcpmux: true, builtin: echo, allow: [uid:%d]", os.Geteuid()+1)))
	who := fmt.Sprintln(os.Geteuid())
	for says, want := range map[string]string{
		"plain\r\nhello": goAhead + who + "hello", "confined\nhello": goAhead + who + "hello", "mine\r\nhello": goAhead + "hello", "others\r\nhello": notHere,
	} {
		if got := d.askUnix("mux", "", says); got != want {
			t.Errorf("%q is answered with %q, not %q", says, got, want)
		}
	}
}

// What the file says when the name is said holds, whatever it said when the
// client came.
func TestReloadOfTCPMux(t *testing.T) {
	t.Parallel()
	d := start(t, muxed("", "stays", "tcpmux: true, builtin: greeting, text: before",
		"goes", "tcpmux: true, run: /bin/cat", "other", `listen: "127.0.0.1:0", builtin: echo, sandbox: none`))
	inside := d.dial("mux")
	io.WriteString(inside, "goes\r\n")
	if got := line(t, inside) + "\n"; got != goAhead {
		t.Errorf("it says %q", got)
	}
	says := map[string]*net.TCPConn{}
	for name, begin := range map[string]string{"stays": "sta", "goes": "goe", "comes": "comes", "becomes": ""} {
		says[name] = d.dial("mux")
		io.WriteString(says[name], begin)
		d.caughtUp("other")
	}
	d.rewrite(1, muxed("", "stays", "tcpmux: true, builtin: greeting, text: after", "comes", "tcpmux: true, builtin: greeting, text: new",
		"becomes", "tcpmux: true, builtin: greeting, text: too", "other", `listen: "127.0.0.1:0", builtin: echo, sandbox: none`))
	for name, rest := range map[string][2]string{"stays": {"ys\r\n", goAhead + "after"}, "goes": {"s\r\n", notHere}, "comes": {"\r\n", goAhead + "new"},
		"becomes": {"becomes\r\n", goAhead + "too"}} {
		io.WriteString(says[name], rest[0])
		says[name].CloseWrite()
		d.hears(says[name], rest[1])
	}
	d.talk(inside, "still here\n")
	inside.Close()
	d.rewrite(2, several("stays", `tcpmux: true, listen: "127.0.0.1:0", builtin: greeting, text: alone`, "other", `listen: "127.0.0.1:0", builtin: echo, sandbox: none`))
	d.is("stays", "", "alone")
}

// A line may come in two parts, one to each program; so may the answer to who
// waits for a place.
func TestUpgradeKeepsNames(t *testing.T) {
	t.Parallel()
	a := startAsked(t, muxed("", "plain", "tcpmux: true, max: 1, queue: {timeout: 1h}, "+ways["plain"],
		"confined", "tcpmux: true, max: 1, queue: {timeout: 1h}, "+ways["confined"]))
	first, waits := map[string]*net.TCPConn{}, map[string]*net.TCPConn{}
	for service := range ways {
		first[service], waits[service] = a.dial("mux"), a.dial("mux")
		io.WriteString(first[service], service[:3])
	}
	silent := a.dial("mux")
	eventually(t, func() error {
		if n := len(connectedTo(t, a.process, "mux")); n != 5 {
			return fmt.Errorf("%d are accepted", n)
		}
		return nil
	})
	a.upgradeNow(1)
	for service, c := range first {
		io.WriteString(c, service[3:]+"\r\nhello\n")
		for _, want := range []string{"+Go\r", "hello"} {
			if got := line(t, c); got != want {
				t.Errorf("%s says %q, not %q", service, got, want)
			}
		}
		io.WriteString(waits[service], service+"\r\nmine\n")
		eventually(t, func() error {
			if s := a.counts(service); s.Waiting != 1 {
				return fmt.Errorf("%d wait", s.Waiting)
			}
			return nil
		})
	}
	a.upgradeNow(2)
	for service, c := range waits {
		first[service].Close()
		for _, want := range []string{"+Go\r", "mine"} {
			if got := line(t, c); got != want {
				t.Errorf("%s says %q, not %q", service, got, want)
			}
		}
		c.Close()
		for _, r := range a.exited(service, 2) {
			if in := r.number("bytes_in"); in != float64(len("mine\n")) && in != float64(len("hello\n")) {
				t.Errorf("the record is %v", r)
			}
		}
	}
	// Whose service leads no more is let go.
	if err := os.WriteFile(a.config(), []byte("control: {path: "+a.socket+"}\n"+several("mux", `listen: "127.0.0.1:0", builtin: echo`)), 0o644); err != nil {
		t.Fatal(err)
	}
	a.upgradeNow(3)
	a.closed(silent)
	a.is("mux", "plain\r\n", "plain\r\n")
	a.idle++ // a built-in
}

// Who has not said a name when superd stops is let go; who has is served.
func TestTCPMuxWhileStopping(t *testing.T) {
	t.Parallel()
	d := start(t, muxed(", refuse_text: {draining: later}", "named", "tcpmux: true, run: /bin/cat", "other", `listen: "127.0.0.1:0", builtin: echo, sandbox: none`))
	half, inside := d.dial("mux"), d.dial("mux")
	io.WriteString(half, "nam")
	io.WriteString(inside, "named\r\n")
	if got := line(t, inside) + "\n"; got != goAhead {
		t.Errorf("it says %q", got)
	}
	d.caughtUp("other")
	d.signal(os.Interrupt)
	d.hears(half, "-later")
	d.closed(inside)
	d.ended()
}

// What nobody can mean is found by check, and root is no reason to warn where
// nothing is run.
func TestCheckOfTCPMux(t *testing.T) {
	t.Parallel()
	user := ifElse(os.Geteuid() == 0, ", user: nobody", "")
	file := writeFile(t, publicDir(t), "superd.yaml", several("mux", `listen: "127.0.0.1:0", builtin: tcpmux, refuse_text: {spawn: x, address: x}, dir: /`,
		"one", "tcpmux: true, run: /bin/cat, allow: [10.0.0.0/8, uid:0]"+user, "two", "tcpmux: plain, builtin: greeting"+user), 0o644)
	code, out, complaints := finished(t, superd("check", "-v", "-c", file))
	for _, want := range []string{"mux:\n    no program, clients go on to one, two\n", "one:\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	want := "warning: " + file + ":2:91: services.mux.dir: has no effect with builtin: tcpmux, which starts no program (write it at the services that it leads to)\n" +
		"warning: " + file + ":2:70: services.mux.refuse_text.spawn: is never said: no program is started\n"
	if code != 0 || complaints != want {
		t.Errorf("it ends with %d and says\n%s\nnot\n%s", code, complaints, want)
	}
}

// Clients that go on to another thread's service while superd becomes another
// are neither forgotten nor answered twice.
func TestUpgradesWhileNamesAreSaid(t *testing.T) {
	t.Parallel()
	d := start(t, muxed("", "plain", "tcpmux: true, "+ways["plain"], "confined", "tcpmux: true, "+ways["confined"]))
	var stop atomic.Bool
	var clients sync.WaitGroup
	address := d.address("mux")
	for i := range 8 {
		ask := askFor([]string{"plain\r\nx", "confined\r\nx"}[i%2], goAhead+"x")
		clients.Go(func() {
			for !stop.Load() {
				if err := visitOnce(address, ask); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range fewer(20, 5) {
		d.upgradeNow(i + 1)
	}
	stop.Store(true)
	clients.Wait()
	d.settled()
	d.noRefusals()
}
