package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"superd/superd/internal/control"
)

// Clients that come through a proxy, and whom superd waits to hear from. What a
// header means is tested where it is parsed.

// counts is how things stand with a service.
func (a asked) counts(service string) control.Service {
	a.t.Helper()
	text, err := (&control.Client{Path: a.socket, Timeout: patience}).Ask("status", nil)
	if err != nil {
		a.t.Fatal(err)
	}
	var s control.Status
	if err := json.Unmarshal(text, &s); err != nil {
		a.t.Fatal(err)
	}
	for _, x := range s.Services {
		if x.Name == service {
			return x
		}
	}
	a.t.Fatalf("superd does not know %s", service)
	return control.Service{}
}

// proxyHeader is a header of version 2 about TCP.
func proxyHeader(from, to string, fields ...string) string {
	source, destination := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	rest := string(source.Addr().AsSlice()) + string(destination.Addr().AsSlice())
	rest += string(binary.BigEndian.AppendUint16(nil, source.Port())) + string(binary.BigEndian.AppendUint16(nil, destination.Port()))
	family := byte(0x11)
	if source.Addr().Is6() {
		family = 0x21
	}
	return rawHeader(0x21, family, rest+strings.Join(fields, ""))
}

func rawHeader(command, family byte, rest string) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{command, family, byte(len(rest) >> 8), byte(len(rest))}) + rest
}

// proxyField is one type-length-value field.
func proxyField(kind byte, value string) string {
	return string([]byte{kind, byte(len(value) >> 8), byte(len(value))}) + value
}

// told4 and told6 are what programs say of the clients of these headers.
const (
	told4 = "192.0.2.1 4711 192.0.2.2 25\n"
	told6 = "2001:db8::1 4711 2001:db8::2 25\n"
)

var proxyHeaders = map[string]struct{ header, told string }{
	"version 1":              {"PROXY TCP4 192.0.2.1 192.0.2.2 4711 25\r\n", told4},
	"version 1, IPv6":        {"PROXY TCP6 2001:db8::1 2001:db8::2 4711 25\r\n", told6},
	"version 1, unknown":     {"PROXY UNKNOWN\r\n", ""},
	"version 2":              {proxyHeader("192.0.2.1:4711", "192.0.2.2:25"), told4},
	"version 2, IPv6":        {proxyHeader("[2001:db8::1]:4711", "[2001:db8::2]:25"), told6},
	"version 2, local":       {rawHeader(0x20, 0, ""), ""},
	"version 2, with more":   {proxyHeader("192.0.2.1:4711", "192.0.2.2:25", proxyField(0x04, strings.Repeat("x", 500))), told4},
	"version 2, the longest": {proxyHeader("192.0.2.1:4711", "192.0.2.2:25", proxyField(0x04, strings.Repeat("x", 4096-16-12-3))), told4},
}

// tellsPeer is a program that tells who its client is, and sends back what
// follows.
var tellsPeer = shell(`echo "$TCPREMOTEIP $TCPREMOTEPORT $TCPLOCALIP $TCPLOCALPORT"; cat`)

// However a header comes, the program has the client's address, and as its
// input what follows, to the byte.
func TestProxyHeaders(t *testing.T) {
	t.Parallel()
	const data = "\r\nwhat follows, \x00 and\r\n all of it"
	d := start(t, fmt.Sprintf(`
services:
  peer:  {listen: "127.0.0.1:0", %s, proxy_protocol: {from: [127.0.0.0/8], timeout: 1h}}
  other: {listen: "127.0.0.1:0", builtin: echo}
`, tellsPeer))
	n := 0
	expect := map[string]int{} // connections, by peer
	for name, x := range proxyHeaders {
		all := x.header + data
		var splits []int
		for i := range all {
			if i <= len(x.header)+1 && (i < 64 || i > len(x.header)-8) {
				splits = append(splits, i) // 0 is everything at once
			}
		}
		list := make([]*net.TCPConn, len(splits))
		for i, split := range splits {
			list[i] = d.dial("peer")
			io.WriteString(list[i], all[:split])
		}
		d.caughtUp("other")
		for i, split := range splits {
			c := list[i]
			io.WriteString(c, all[split:])
			c.CloseWrite()
			want, peer := x.told, "192.0.2.1:4711"
			switch {
			case x.told == "":
				own, local := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
				want, peer = fmt.Sprintln(own.IP, own.Port, local.IP, local.Port), own.String()
			case x.told == told6:
				peer = "[2001:db8::1]:4711"
			}
			got, err := io.ReadAll(c)
			if err != nil || string(got) != want+data {
				t.Errorf("%s, split at %d: the answer is %q, %v", name, split, got, err)
			}
			expect[peer]++
			n++
		}
	}
	// Nor does it matter where each byte ends.
	slow := proxyHeaders["version 2"]
	c := d.dial("peer")
	for _, b := range []byte(slow.header + data) {
		c.Write([]byte{b})
	}
	c.CloseWrite()
	d.hears(c, slow.told+data)
	expect["192.0.2.1:4711"]++
	for _, r := range d.exited("peer", n+1) {
		expect[r.text("peer")]--
		if in := r.number("bytes_in"); in != float64(len(data)) {
			t.Errorf("%v bytes came in, not %d: %v", in, len(data), r)
		}
	}
	for peer, left := range expect {
		if left != 0 {
			t.Errorf("of the connections of %s, %d are missing in the log", peer, left)
		}
	}
}

// A service beside one with a proxy counts all of its bytes.
func TestBytesBesideAProxy(t *testing.T) {
	t.Parallel()
	d := start(t, `
services:
  behind: {listen: "127.0.0.1:0", run: /bin/cat, proxy_protocol: {from: [127.0.0.0/8], timeout: 1h}}
  plain:  {listen: "127.0.0.1:0", run: /bin/cat}
`)
	for range 3 { // one after the other in the same memory
		d.ask("behind", "PROXY UNKNOWN\r\nhello")
		d.ask("plain", "hello")
		d.settled()
	}
	for _, service := range []string{"behind", "plain"} {
		for _, r := range d.exited(service, 3) {
			if r.number("bytes_in") != 5 {
				t.Errorf("%s counts %v", service, r)
			}
		}
	}
}

// What a proxy knows of a client reaches the program.
func TestProxyVariables(t *testing.T) {
	t.Parallel()
	d := start(t, fmt.Sprintf(`
services:
  env: {listen: "127.0.0.1:0", %s, proxy_protocol: {from: [127.0.0.1], timeout: 1h}}
`, shell("env | grep ^SUPERD_PROXY | sort")))
	ssl := proxyField(0x20, "\x07\x00\x00\x00\x00"+proxyField(0x21, "TLSv1.3")+proxyField(0x23, "TLS_AES_128_GCM_SHA256")+proxyField(0x22, "client.example"))
	for fields, want := range map[string]string{
		"":                                "",
		proxyField(0x02, "mail.example"):  "SUPERD_PROXY_AUTHORITY=mail.example\n",
		proxyField(0x02, "a b; rm -rf /"): "",
		proxyField(0x05, "\x01\xfe"):      "SUPERD_PROXY_UNIQUE_ID=01fe\n",
		ssl: "SUPERD_PROXY_SSL=on\nSUPERD_PROXY_SSL_CIPHER=TLS_AES_128_GCM_SHA256\nSUPERD_PROXY_SSL_CN=client.example\n" +
			"SUPERD_PROXY_SSL_VERIFIED=yes\nSUPERD_PROXY_SSL_VERSION=TLSv1.3\n",
	} {
		if got := d.ask("env", proxyHeader("192.0.2.1:4711", "192.0.2.2:25", fields)); got != want {
			t.Errorf("of %q the program knows\n%s", fields, got)
		}
	}
}

// Whoever does not say whose connection it is, or is not to be believed, is
// refused.
func TestProxyRefusals(t *testing.T) {
	t.Parallel()
	const late = "the PROXY header was not complete in proxy_protocol.timeout"
	list := []struct {
		name, from, sends string
		half, reset       bool // then the client closes its side, or resets the connection
		why               string
	}{
		{"stranger", there, "PROXY TCP4 192.0.2.1 192.0.2.2 4711 25\r\nhello", false, false, "it comes from no address of proxy_protocol.from"},
		{"silent stranger", there, "", false, false, "it comes from no address of proxy_protocol.from"},
		{"no header", here, "GET / HTTP/1.0\r\n\r\n", false, false, "the PROXY header is wrong: byte 1: this is not the beginning of a PROXY header"},
		{"another protocol", here, "PROXY UDP4 ", false, false, "the PROXY header is wrong: byte 8: the protocol is none of TCP4, TCP6 and UNKNOWN"},
		{"too large", here, rawHeader(0x21, 0x11, strings.Repeat("x", 5000)), false, false, "the PROXY header is wrong: byte 15: "},
		{"closed at once", here, "", true, false, "it closed before the PROXY header was complete"},
		{"closed within", here, "PROXY TCP4 192.", true, false, "it closed before the PROXY header was complete"},
		{"closed within version 2", here, rawHeader(0x21, 0x11, "12345678901\xff")[:20], true, false, "it closed before the PROXY header was complete"},
		{"reset within", here, "PROXY TCP4 192.", false, true, "it closed before the PROXY header was complete"},
		{"silent", here, "", false, false, late},
		{"slow", here, "PROXY TCP4 192.", false, false, late},
	}
	yaml := "log: {level: debug}\nservices:\n"
	for i, x := range list {
		yaml += fmt.Sprintf("  s%d: {listen: '127.0.0.1:0', run: /bin/cat, proxy_protocol: {from: [127.0.0.1], timeout: %s}, refuse_text: {proxy: 'no'}}\n",
			i, ifElse(x.why == late, "700ms", "1h"))
	}
	d := start(t, yaml)
	clients := make([]*net.TCPConn, len(list))
	d.halt()
	for i, x := range list {
		clients[i] = d.from(x.from, fmt.Sprint("s", i))
		io.WriteString(clients[i], x.sends)
		if x.half {
			clients[i].CloseWrite()
		}
	}
	d.signal(syscall.SIGCONT)
	for i, x := range list {
		if x.reset { // once it is accepted: else nobody has come
			eventually(t, func() error {
				if n := len(connectedTo(t, d, fmt.Sprint("s", i))); n != 1 {
					return fmt.Errorf("%d are accepted", n)
				}
				return nil
			})
			reset(clients[i])
		}
	}
	for i, x := range list {
		if !x.reset {
			d.hears(clients[i], "no")
		}
		r := d.refusedFor(fmt.Sprint("s", i), "proxy", 1)
		if why := r.text("error"); !strings.HasPrefix(why, x.why) {
			t.Errorf("%s: the record says %q, not %q", x.name, why, x.why)
		}
		if !strings.HasPrefix(r.text("peer"), x.from+":") {
			t.Errorf("%s: the record does not say who it was: %v", x.name, r)
		}
	}
	d.settled()
	for i := range list {
		d.addsUp(fmt.Sprint("s", i))
		d.runsNothing(fmt.Sprint("s", i))
	}
}

// through connects to a service behind a proxy, for a client from an address.
func (d *process) through(from, service string) *net.TCPConn {
	d.t.Helper()
	c := d.dial(service)
	io.WriteString(c, "PROXY TCP4 "+from+" 192.0.2.99 4711 25\r\n")
	return c
}

// Rules, limits and bans are about the clients, and never about the proxy.
func TestProxiedClientsAreTold(t *testing.T) {
	t.Parallel()
	d := startAsked(t, `
services:
  rules: {listen: "127.0.0.1:0", run: /bin/cat, proxy_protocol: {from: [127.0.0.1], timeout: 1h}, deny: [192.0.2.66, 127.0.0.1], refuse_text: "no"}
  few:   {listen: "127.0.0.1:0", run: /bin/cat, proxy_protocol: {from: [127.0.0.1], timeout: 1h}, max_per_source: 1, on_limit: refuse,
          ban: {after: 2, within: 1h, for: 1h}, refuse_text: {source-limit: "one", banned: "banned", proxy: "bad"}}
`)
	d.hears(d.through("192.0.2.66", "rules"), "no")
	if r := d.refusedFor("rules", "address", 1); r.text("peer") != "192.0.2.66:4711" || r.text("local") != "192.0.2.99:25" {
		t.Errorf("the record is %v", r)
	}
	d.talk(d.through("192.0.2.67", "rules"), "in")
	first := d.through("192.0.2.1", "few")
	d.talk(first, "in")
	for _, want := range []string{"one", "one", "banned"} {
		d.hears(d.through("192.0.2.1", "few"), want)
	}
	d.talk(d.through("192.0.2.2", "few"), "in")
	for range 3 {
		c := d.dial("few")
		io.WriteString(c, "nonsense")
		d.hears(c, "bad")
	}
	d.talk(d.through("192.0.2.3", "few"), "in")
	// But who pretends to be one of its proxies is.
	if n := d.counts("few").Bans; n != 1 {
		t.Errorf("%d are banned", n)
	}
	for range 2 {
		d.hears(d.from(there, "few"), "bad")
	}
	if n := d.counts("few").Bans; n != 2 {
		t.Errorf("then %d are banned", n)
	}
}

// However many say nothing, nobody else is held up, and no place is taken.
func TestSilentProxies(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
services:
  few:  {listen: "127.0.0.1:0", run: /bin/cat, max: 1, proxy_protocol: {from: [127.0.0.1], timeout: 1h}}
  echo: {listen: "127.0.0.1:0", builtin: echo, max: 1}
`)
	const n = 100
	for i := range n {
		c := a.dial("few")
		io.WriteString(c, "PROXY TCP4 192.0.2.1"[:i%20])
	}
	for range 20 {
		if got := a.ask("few", "PROXY UNKNOWN\r\nhello"); got != "hello" {
			t.Errorf("meanwhile the echo of hello is %q", got)
		}
		if got := a.ask("echo", "hello"); got != "hello" {
			t.Errorf("meanwhile the echo of hello is %q", got)
		}
	}
	if s := a.counts("few"); s.Total != 20 || s.Waiting != 0 {
		t.Errorf("superd counts %+v", s)
	}
}

// A scan of ports costs no program, and no record.
func TestFirstByteOfScanners(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
services:
  waits: {listen: "127.0.0.1:0", run: /bin/cat, max: 1, timeout: {first_byte: 1h}}
`)
	n := fewer(1000, 200)
	for name, leave := range map[string]func(c *net.TCPConn) error{
		"close":            func(c *net.TCPConn) error { return nil },
		"reset":            reset,
		"close their side": func(c *net.TCPConn) error { c.CloseWrite(); return hearNothing(c) },
	} {
		a.many("waits", n/3, 50, leave)
		a.settled()
		if s := a.counts("waits"); s.Total != 0 || s.Exited != 0 || s.Refused != 0 {
			t.Errorf("of clients that %s superd counts %+v", name, s)
		}
	}
	a.held("waits")
}

// hearNothing wants the end and nothing before it.
func hearNothing(c *net.TCPConn) error {
	got, err := io.ReadAll(c)
	if err == nil && len(got) > 0 {
		err = fmt.Errorf("the client is told %q", got)
	}
	return err
}

// Who has connected and says nothing costs no program until it does, and only
// so much time.
func TestFirstByte(t *testing.T) {
	t.Parallel()
	a := startAsked(t, `
services:
  patient: {listen: "127.0.0.1:0", run: /bin/cat, timeout: {first_byte: 1h}, deny: [127.0.0.2], refuse_text: "no"}
  hasty:   {listen: "127.0.0.1:0", run: /bin/cat, timeout: {first_byte: 200ms}, refuse_text: "no"}
  proxied: {listen: "127.0.0.1:0", run: /bin/cat, timeout: {first_byte: 1h}, proxy_protocol: {from: [127.0.0.1], timeout: 1h}}
  echo:    {listen: "127.0.0.1:0", builtin: echo}
`)
	silent, proxied := a.dial("patient"), a.through("192.0.2.1", "proxied")
	a.isWaiting(silent, "echo", 0)
	a.isWaiting(proxied, "echo", 0)
	// Who cannot come in is not waited for.
	a.hears(a.from(there, "patient"), "no")
	// Time alone is no reason to be told anything.
	a.hears(a.dial("hasty"), "")
	for service, want := range map[string]uint64{"patient": 1, "hasty": 0, "proxied": 0} {
		if s := a.counts(service); s.Total != want || s.Refused != want || s.Exited != 0 {
			t.Errorf("superd counts %+v", s)
		}
	}
	for _, c := range []*net.TCPConn{silent, proxied} {
		a.talk(c, "h")
		a.talk(c, "ello\n")
		c.CloseWrite()
		a.hears(c, "")
	}
	for service, in := range map[string]float64{"patient": 6, "proxied": 6} {
		if r := a.exited(service, 1)[0]; r.number("bytes_in") != in {
			t.Errorf("%s: %v", service, r)
		}
	}
	if r := a.exited("proxied", 1)[0]; r.text("peer") != "192.0.2.1:4711" {
		t.Errorf("the record is %v", r)
	}
}

// Where there is no room for all who are silent, those go that most others are
// where they are from.
func TestFirstByteInACrowd(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, `
services:
  waits: {listen: "127.0.0.1:0", run: /bin/cat, timeout: {first_byte: 1h}}
  proxy: {listen: "127.0.0.1:0", run: /bin/cat, proxy_protocol: {from: [127.0.0.0/8], timeout: 1h}}
`)
	d := startCommand(t, withDescriptors(cmd, 400))
	for _, service := range []string{"waits", "proxy"} {
		first := d.from(here, service)
		const n = 40 // more than there is room for
		crowd := make([]*net.TCPConn, n)
		for i := range crowd {
			crowd[i] = d.from(there, service)
		}
		last := d.from(here, service)
		d.hears(crowd[0], "")
		if service == "proxy" {
			for _, c := range []*net.TCPConn{first, last} {
				io.WriteString(c, "PROXY UNKNOWN\r\n")
			}
			if why := d.refusedFor("proxy", "proxy", 1).text("error"); why != "too many others have not sent a PROXY header either" {
				t.Errorf("the record says %q", why)
			}
		}
		d.talk(first, "in")
		d.talk(last, "in")
		for _, c := range append(crowd, first, last) {
			c.Close()
		}
		d.settled()
	}
}
