package migrate

import (
	"cmp"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"superd/superd/internal/config"
)

// An activation is a socket unit with its service, on their way to be one
// service of superd's.
type activation struct {
	*service
	socket, unit *unit
	accepts      bool // a program for each connection
	environment  config.Draft
}

func (im *importer) activated(socket, service *unit) {
	name := strings.TrimSuffix(socket.name, ".socket")
	a := &activation{service: im.add(name, socket.at), socket: socket, unit: service}
	a.accepts = isYes(socket.last("Socket", "Accept").value)
	a.sockets()
	if len(a.listen) == 0 {
		a.drop(socket.at, "nothing is left to listen on")
		return
	}
	a.environment = a.variables()
	if !a.exec() {
		return
	}
	a.handOver()
	a.each(socket, "Socket", socketSettings)
	a.each(service, "Service", serviceSettings)
	a.walls()
	a.addresses()
	for _, u := range []*unit{service, socket} {
		a.conditions(u)
	}
	if !a.has("user") {
		a.note(service.at, "the unit names no user, and so its program ran as root: here it is nobody's; write user: root where it needs that")
	}
}

// each applies what is known of the settings of a section, in their order, each
// name once. What is not known is told.
func (a *activation) each(u *unit, section string, known map[string]func(*activation, []setting)) {
	done := map[string]bool{}
	for _, s := range u.settings {
		if s.section != section || done[s.name] {
			continue
		}
		done[s.name] = true
		translate, is := known[s.name]
		list := u.each(section, s.name)
		switch {
		case len(list) == 0:
		case !is && strings.HasPrefix(s.name, "X-"):
		case !is:
			a.note(list[0].at, "%s is not carried over: superd has nothing like it", s.name)
		case translate != nil:
			translate(a, list)
		}
	}
}

// conditions are about whether a unit is started at all.
func (a *activation) conditions(u *unit) {
	for _, s := range u.settings {
		switch {
		case s.section != "Unit":
		case strings.HasPrefix(s.name, "Condition") || strings.HasPrefix(s.name, "Assert"):
			a.note(s.at, "%s is not carried over: superd starts the service in any case", s.name)
		case s.name == "Description" && s.value != "" && !a.has("description"):
			if text, ok := a.expand(s.value); ok {
				a.set("description", s.at, text)
			}
		}
	}
}

// expand replaces specifiers, systemd.unit(5). It is not ok where one stands for
// what is known only to systemd.
func (a *activation) expand(text string) (string, bool) {
	full := a.unit.name
	bare := strings.TrimSuffix(full, path.Ext(full))
	prefix, _, _ := strings.Cut(bare, "@")
	known := map[byte]string{
		'%': "%", 'n': full, 'N': bare, 'p': prefix, 'P': prefix, 't': "/run", 'S': "/var/lib", 'C': "/var/cache", 'L': "/var/log", 'E': "/etc", 'T': "/tmp", 'V': "/var/tmp",
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '%' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		meaning, is := known[text[i]]
		if !is {
			return text, false
		}
		b.WriteString(meaning)
	}
	return b.String(), true
}

// file is a path of a setting, without a - in front, or "".
func (a *activation) file(s setting, text string) string {
	name, ok := a.expand(strings.TrimPrefix(text, "-"))
	if !ok || !strings.HasPrefix(name, "/") {
		a.note(s.at, "%s is not carried over: %s is no path that is known here", s.name, quote(text))
		return ""
	}
	return path.Clean(name)
}

// files are the paths of settings that are lists, each once.
func (a *activation) files(list []setting) []string {
	all := []string{}
	for _, s := range list {
		for text := range strings.FieldsSeq(s.value) {
			if name := a.file(s, strings.Trim(text, `"'`)); name != "" {
				all = append(all, name)
			}
		}
	}
	return distinct(all)
}

// listening are the settings that name sockets, and what these carry.
var listening = []struct{ name, kind string }{{"ListenStream", "stream"}, {"ListenDatagram", "datagram"}, {"ListenSequentialPacket", "seqpacket"}}

// sockets reads where the unit listens.
func (a *activation) sockets() {
	for _, l := range listening {
		for _, s := range a.socket.each("Socket", l.name) {
			if wrong := a.listenAt(s, l.kind); wrong != "" {
				a.note(s.at, "%s=%s is not carried over: %s", s.name, s.value, wrong)
			}
		}
	}
}

// listenAt adds one socket. It returns what is wrong with it.
func (a *activation) listenAt(s setting, kind string) string {
	text, ok := a.expand(s.value)
	if !ok {
		return "it has a specifier that is not known here"
	}
	switch {
	case strings.HasPrefix(text, "/") || strings.HasPrefix(text, "@"):
		return a.listenUnix("unix:"+text, kind)
	case strings.HasPrefix(text, "vsock"):
		return a.listenVSock(text, kind)
	case kind == "seqpacket":
		return "superd has such sockets of unix and vsock addresses only"
	}
	network := map[string]string{"stream": "tcp", "datagram": "udp"}[kind]
	host, port, found := cutLast(text, ":")
	if !found {
		host, port = "", text
	}
	n, known := a.im.port(network, port)
	bare := strings.Trim(host, "[]")
	addr, err := netip.ParseAddr(bare)
	switch {
	case !known:
		return "its port is not known"
	case host != "" && err != nil:
		return "it is no address"
	case host == "" && a.socket.last("Socket", "BindIPv6Only").value == "ipv6-only":
		bare = "::"
	case host != "" && addr.Is4In6():
		bare = addr.Unmap().String()
	}
	a.listenOn(internet(network, bare, n), a.options(network))
	return ""
}

func (a *activation) listenUnix(address, kind string) string {
	more := config.Draft{}
	if kind != "stream" {
		more = append(more, config.Pair{Key: "type", Value: kind})
	}
	if kind != "datagram" {
		more = a.option(more, "Backlog", "backlog", backlog)
	}
	if !strings.HasPrefix(address, "unix:@") {
		mode := cmp.Or(a.socket.last("Socket", "SocketMode").value, "0666")
		more = append(more, config.Pair{Key: "mode", Value: octal(mode)})
		more = a.option(more, "SocketUser", "owner", asText)
		more = a.option(more, "SocketGroup", "group", asText)
	}
	a.listenOn(address, a.option(more, "FileDescriptorName", "name", asText))
	return ""
}

// listenVSock reads vsock:CID:PORT, where the CID may be empty, and the forms
// with a type.
func (a *activation) listenVSock(text, kind string) string {
	scheme, rest, _ := strings.Cut(text, ":")
	if kind == "datagram" || scheme == "vsock-dgram" {
		return "superd has no such sockets for datagrams"
	}
	more := config.Draft{}
	if kind == "seqpacket" || scheme == "vsock-seqpacket" {
		more = append(more, config.Pair{Key: "type", Value: "seqpacket"})
	}
	cid, port, _ := strings.Cut(rest, ":")
	if cid == "" || cid == "4294967295" {
		rest = port
	}
	more = a.option(more, "Backlog", "backlog", backlog)
	a.listenOn("vsock:"+rest, a.option(more, "FileDescriptorName", "name", asText))
	return ""
}

// options are the keys of a socket of the Internet.
func (a *activation) options(network string) config.Draft {
	d := config.Draft{}
	if network == "tcp" {
		d = a.option(d, "Backlog", "backlog", backlog)
		if strings.Contains(a.socket.last("Socket", "SocketProtocol").value, "mptcp") {
			d = append(d, config.Pair{Key: "mptcp", Value: true})
		}
	}
	d = a.option(d, "BindToDevice", "device", asText)
	d = a.option(d, "FreeBind", "freebind", onlyYes)
	d = a.option(d, "Transparent", "transparent", onlyYes)
	d = a.option(d, "ReceiveBuffer", "rcvbuf", asSize)
	d = a.option(d, "SendBuffer", "sndbuf", asSize)
	d = a.option(d, "Mark", "mark", asNumber)
	d = a.option(d, "IPTOS", "tos", typeOfService)
	if network == "tcp" {
		if keepalive := a.keepalive(); keepalive != nil {
			d = append(d, config.Pair{Key: "keepalive", Value: keepalive})
		}
		d = a.option(d, "DeferAcceptSec", "defer_accept", asSeconds)
	}
	return a.option(d, "FileDescriptorName", "name", asText)
}

// option adds a key for a setting of the socket, where it has a value that says
// something.
func (a *activation) option(d config.Draft, name, key string, read func(string) (any, bool)) config.Draft {
	s := a.socket.last("Socket", name)
	if s.value == "" {
		return d
	}
	v, ok := read(s.value)
	if !ok {
		a.note(s.at, "%s=%s is not carried over: superd does not understand the value", name, s.value)
		return d
	}
	if v == nil {
		return d
	}
	return append(d, config.Pair{Key: key, Value: v})
}

func (a *activation) keepalive() any {
	d := a.option(nil, "KeepAliveTimeSec", "idle", asSeconds)
	d = a.option(d, "KeepAliveIntervalSec", "interval", asSeconds)
	d = a.option(d, "KeepAliveProbes", "count", asNumber)
	switch on := isYes(a.socket.last("Socket", "KeepAlive").value); {
	case on && len(d) > 0:
		return d
	case on:
		return true
	}
	return nil
}

// What follows reads values of options; nil is one that superd has by itself.

func asText(text string) (any, bool) { return text, true }

func onlyYes(text string) (any, bool) {
	if isYes(text) {
		return true, true
	}
	return nil, isNo(text)
}

func asNumber(text string) (any, bool) {
	n, err := strconv.ParseUint(text, 0, 32)
	return int(n), err == nil
}

func asSize(text string) (any, bool) {
	n, err := parseBytes(text)
	return size(n), err == nil
}

// asSeconds is at least one.
func asSeconds(text string) (any, bool) {
	d, ok := parseSpan(text)
	n := int(d.Seconds())
	return strconv.Itoa(max(n, 1)) + "s", ok
}

// backlog leaves out what is more than any system has.
func backlog(text string) (any, bool) {
	n, err := strconv.ParseUint(text, 10, 64)
	if n > 65535 {
		return nil, err == nil
	}
	return int(n), err == nil && n > 0
}

func typeOfService(text string) (any, bool) {
	words := map[string]int{"low-delay": 16, "throughput": 8, "reliability": 4, "low-cost": 0}
	if n, is := words[text]; is {
		return n, true
	}
	return asNumber(text)
}

// handOver says what the program gets.
func (a *activation) handOver() {
	input := a.unit.last("Service", "StandardInput")
	onInput := input.value == "socket"
	switch {
	case a.accepts && !onInput:
		a.off(cmp.Or(input.at, a.unit.at), "without StandardInput=socket the program expects its connection as descriptor 3; superd gives it as 0 and 1")
	case a.accepts:
		a.set("env_style", a.unit.at, []string{"systemd"})
		if !a.socket.has("Socket", "MaxConnections") {
			a.set("max", a.socket.at, mostConnections)
		}
	case onInput:
		a.set("wait", input.at, "stdin")
	default:
		a.set("wait", a.socket.at, "listen-fds")
	}
}

func (u *unit) has(section, name string) bool { return u.last(section, name).name != "" }

// mostConnections is what systemd.socket(5) has where MaxConnections= does not
// say.
const mostConnections = 64

// addresses reads IPAddressAllow= and IPAddressDeny= of both units. There who is
// allowed is, and who is denied else is not; here the most specific rule holds.
func (a *activation) addresses() {
	allow, at := a.networks("IPAddressAllow")
	deny, where := a.networks("IPAddressDeny")
	deny = slices.DeleteFunc(deny, func(d netip.Prefix) bool {
		return slices.ContainsFunc(allow, func(p netip.Prefix) bool { return p.Bits() <= d.Bits() && p.Overlaps(d) })
	})
	if where == (Place{}) || len(deny) == 0 && len(allow) == 0 {
		return
	}
	if a.has("wait") {
		a.off(where, "IPAddressAllow and IPAddressDeny are not carried over: with wait the program accepts its clients itself")
		return
	}
	a.note(where, "IPAddressAllow and IPAddressDeny are about who comes in here, and not about whom the program itself speaks to; see sandbox.network")
	all := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	rest := slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return slices.Contains(deny, p) })
	deny = slices.DeleteFunc(deny, func(p netip.Prefix) bool { return slices.Contains(all, p) })
	if len(rest) < len(all) || len(allow) > 0 {
		a.set("allow", cmp.Or(at, where), rules(append(allow, rest...)))
	}
	if len(deny) > 0 {
		a.set("deny", where, rules(deny))
	}
}

// symbolic are the words for networks, systemd.resource-control(5).
var symbolic = map[string]string{
	"any": "0.0.0.0/0 ::/0", "localhost": "127.0.0.0/8 ::1/128", "link-local": "169.254.0.0/16 fe80::/64", "multicast": "224.0.0.0/4 ff00::/8",
}

// networks are those of a setting, with the last of its places. What is not
// understood of a denial switches the service off.
func (a *activation) networks(name string) (list []netip.Prefix, at Place) {
	for _, s := range append(a.socket.each("Socket", name), a.unit.each("Service", name)...) {
		at = s.at
		for word := range strings.FieldsSeq(s.value) {
			for text := range strings.FieldsSeq(cmp.Or(symbolic[word], word)) {
				p, err := netip.ParsePrefix(text)
				if addr, bad := netip.ParseAddr(text); bad == nil && addr.Zone() == "" {
					p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
				}
				switch {
				case len(list) >= most:
					a.off(s.at, "%s is not carried over as a whole: it has more than %d networks", name, most)
					return list, at
				case err == nil:
					list = append(list, config.Network(p).Network)
				case name == "IPAddressDeny":
					a.off(s.at, "%s of IPAddressDeny is not carried over: it is no address", quote(text))
				default:
					a.note(s.at, "%s of IPAddressAllow is not carried over: it is no address", quote(text))
				}
			}
		}
	}
	return list, at
}
