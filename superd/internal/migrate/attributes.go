package migrate

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"superd/superd/internal/config"
)

// What xinetd's attributes are in superd's words.

// xinetdService is a service on its way from one to the other.
type xinetdService struct {
	*service
	settings
	datagrams bool
	waits     bool // the program gets the socket, and superd sees no clients
	internal  bool
}

func (x *xinetdFiles) service(b block, defaults settings, chosen func(id string) bool) {
	all := b.over(defaults)
	id := cmp.Or(all.word("id"), b.name)
	if unfit := unfitFor(b.name, all); unfit != "" {
		x.im.note(b.at, "the service %s is left out: %s", quote(id), unfit)
		return
	}
	s := &xinetdService{service: x.im.add(id, b.at), settings: all}
	s.datagrams = s.word("socket_type") == "dgram" || s.word("socket_type") == "" && s.word("protocol") == "udp"
	s.internal = s.holds("type", "INTERNAL")
	s.waits = s.word("wait") == "yes" && !s.internal
	if s.word("disable") == "yes" || s.holds("flags", "DISABLE") || !chosen(id) {
		s.set("enabled", b.at, false)
	}
	if !s.listenFor(b) || !s.program(b) {
		return
	}
	s.handOver(b)
	for _, name := range slices.SortedFunc(maps.Keys(all), all.compare) {
		if translate, known := attributes[name]; !known {
			s.note(all[name].at, "the attribute %s is not known", quote(name))
		} else if translate != nil {
			translate(s, all[name])
		}
	}
	if !s.waits && !s.internal {
		s.set("env_style", b.at, []string{"xinetd"})
	}
	if !s.internal && !s.holds("groups", "yes") {
		s.set("groups", b.at, []string{})
	}
	if !s.holds("flags", "NOLIBWRAP") {
		x.im.noteOnce("hosts.allow", b.at, "hosts.allow and hosts.deny, where xinetd looked at them, are not carried over: write what they say as allow and deny")
	}
}

// compare has attributes stand in the order of their lines.
func (s settings) compare(a, b string) int {
	return cmp.Or(cmp.Compare(s[a].at.File, s[b].at.File), cmp.Compare(s[a].at.Line, s[b].at.Line), cmp.Compare(a, b))
}

// unfitFor says why superd can have nothing like a service; "" where it can.
func unfitFor(name string, all settings) string {
	_, redirects := all["redirect"]
	switch kind := all.word("socket_type"); {
	case redirects:
		return "superd redirects no connections to other hosts (redirect); socat, or the packet filter, does"
	case all.holds("type", "RPC"):
		return "superd does not register RPC services; run it as a daemon"
	case all.holds("flags", "SENSOR"):
		return "a sensor is no service; see ban in superd.yaml(5)"
	case kind != "" && !slices.Contains([]string{"stream", "dgram", "seqpacket"}, kind):
		return "superd has no sockets of the type " + quote(kind)
	case kind == "seqpacket":
		return "superd has such sockets of unix addresses only"
	case all.holds("type", "INTERNAL") && slices.Contains([]string{"servers", "services", "xadmin"}, name):
		return "superd status and superd ps tell as much"
	}
	return ""
}

// listenFor reads where the service listens.
func (s *xinetdService) listenFor(b block) bool {
	if s.holds("type", "TCPMUX") || s.holds("type", "TCPMUXPLUS") {
		s.set("tcpmux", b.at, map[bool]any{true: true, false: "plain"}[s.holds("type", "TCPMUXPLUS")])
		return true
	}
	network := "tcp"
	if s.datagrams {
		network = "udp"
	}
	name, at := b.name, b.at
	if p, is := s.settings["port"]; is {
		name, at = s.word("port"), p.at
	}
	port, known := s.im.port(network, name)
	if !known {
		s.drop(at, "no port is known for %s: write port = NUMBER", quote(name))
		return false
	}
	host := cmp.Or(s.word("bind"), s.word("interface"))
	switch {
	case host != "":
	case s.holds("flags", "IPv4"):
		host = "0.0.0.0"
	case s.holds("flags", "IPv6") && s.word("v6only") == "yes":
		host = "::"
	}
	var more config.Draft
	if s.holds("flags", "KEEPALIVE") && !s.datagrams {
		more = append(more, config.Pair{Key: "keepalive", Value: true})
	}
	if s.word("deferred") == "yes" && !s.datagrams {
		more = append(more, config.Pair{Key: "defer_accept", Value: "5s"})
	}
	s.listenOn(internet(network, host, port), more)
	return true
}

// program reads what is run.
func (s *xinetdService) program(b block) bool {
	if s.internal {
		port, _ := strconv.Atoi(s.word("port"))
		if !s.builtin(b.at, b.name, port) {
			s.drop(b.at, "superd has no built-in service like xinetd's %s", quote(b.name))
			return false
		}
		return true
	}
	server, is := s.settings["server"]
	if !is || len(server.values) == 0 {
		s.drop(b.at, "it names no server")
		return false
	}
	program := server.values[0]
	argv := append([]string{path.Base(program)}, s.settings["server_args"].values...)
	if s.holds("flags", "NAMEINARGS") && len(argv) > 1 {
		argv = argv[1:]
	}
	program, argv = s.unwrap(server.at, program, argv)
	s.run(server.at, program, argv)
	return true
}

// handOver has the program get the socket, where it accepts.
func (s *xinetdService) handOver(b block) {
	if s.datagrams && !s.waits && !s.internal {
		s.note(b.at, "wait = no of datagrams is taken for yes: the program gets the socket, and the next one is started when it has ended")
		s.waits = true
	}
	if s.waits {
		s.set("wait", b.at, "stdin")
	}
}

// attributes are all that xinetd knows, with what becomes of them. Those that
// have no function are read elsewhere, or say what superd does anyway.
var attributes = map[string]func(*xinetdService, attribute){
	"id": nil, "type": nil, "disable": nil, "socket_type": nil, "protocol": nil, "wait": nil, "port": nil, "server": nil, "server_args": nil,
	"bind": nil, "interface": nil, "v6only": nil, "deferred": nil, "groups": nil, "enabled": nil, "disabled": nil, "mdns": nil, "deny_time": nil,
	"log_on_failure": nil, "rpc_version": nil, "rpc_number": nil,

	"flags":    (*xinetdService).flags,
	"user":     func(s *xinetdService, a attribute) { s.account("user", a) },
	"group":    func(s *xinetdService, a attribute) { s.account("group", a) },
	"umask":    func(s *xinetdService, a attribute) { s.set("umask", a.at, octal(a.value())) },
	"nice":     func(s *xinetdService, a attribute) { s.number("nice", a) },
	"env":      (*xinetdService).env,
	"passenv":  func(s *xinetdService, a attribute) { s.set("env_pass", a.at, distinct(a.values)) },
	"libwrap":  nil,
	"max_load": (*xinetdService).load,

	"instances":  func(s *xinetdService, a attribute) { s.limit("max", a) },
	"per_source": func(s *xinetdService, a attribute) { s.limit("max_per_source", a) },
	"cps":        (*xinetdService).cps,

	"only_from":    func(s *xinetdService, a attribute) { s.access("allow", a) },
	"no_access":    func(s *xinetdService, a attribute) { s.access("deny", a) },
	"access_times": (*xinetdService).times,

	"rlimit_as":    func(s *xinetdService, a attribute) { s.rlimit("memory", a) },
	"rlimit_data":  func(s *xinetdService, a attribute) { s.rlimit("data", a) },
	"rlimit_stack": func(s *xinetdService, a attribute) { s.rlimit("stack", a) },
	"rlimit_rss":   func(s *xinetdService, a attribute) { s.rlimit("rss", a) },
	"rlimit_cpu":   (*xinetdService).cpu,
	"rlimit_files": (*xinetdService).files,

	"banner": func(s *xinetdService, a attribute) {
		s.lost(a, "superd says nothing before the program does; the program has to")
	},
	"banner_success": func(s *xinetdService, a attribute) {
		s.lost(a, "superd says nothing before the program does; the program has to")
	},
	"banner_fail":    func(s *xinetdService, a attribute) { s.lost(a, "write the text of the file as refuse_text") },
	"log_type":       func(s *xinetdService, a attribute) { s.lost(a, "superd has one log for all services, see log.output") },
	"log_on_success": (*xinetdService).logged,
}

func (a attribute) value() string {
	if len(a.values) == 0 {
		return ""
	}
	return a.values[0]
}

// lost notes an attribute that has nothing like it; one of the defaults, once.
func (s *xinetdService) lost(a attribute, instead string) {
	s.im.note(a.at, "%s is not carried over: %s", a.name, instead)
}

func (s *xinetdService) flags(a attribute) {
	for _, flag := range a.values {
		switch strings.ToUpper(flag) {
		case "INTERCEPT":
			s.note(a.at, "the flag INTERCEPT is not carried over: with wait, superd sees only the first sender")
		case "IDONLY":
			s.off(a.at, "the flag IDONLY is not carried over: superd asks no identification server")
		case "LABELED":
			s.off(a.at, "the flag LABELED is not carried over: superd sets no SELinux context")
		case "NORETRY", "NAMEINARGS", "NODELAY", "KEEPALIVE", "NOLIBWRAP", "IPV4", "IPV6", "REUSE", "DISABLE", "SENSOR":
		default:
			s.note(a.at, "the flag %s is not known", quote(flag))
		}
	}
}

func (s *xinetdService) account(key string, a attribute) {
	if s.internal && a.value() == "root" {
		return // a built-in needs nobody's rights
	}
	s.set(key, a.at, a.value())
}

func (s *xinetdService) number(key string, a attribute) {
	n, err := strconv.Atoi(a.value())
	if err != nil {
		s.note(a.at, "%s is not carried over: %s is no number", a.name, quote(a.value()))
		return
	}
	s.set(key, a.at, n)
}

// limit reads a number of servers. Where the program accepts there is one.
func (s *xinetdService) limit(key string, a attribute) {
	if strings.EqualFold(a.value(), "UNLIMITED") || s.waits {
		return
	}
	s.number(key, a)
}

func (s *xinetdService) load(a attribute) {
	n, err := strconv.ParseFloat(a.value(), 64)
	if err != nil || n < 0 || n > 100_000 {
		s.note(a.at, "max_load is not carried over: %s is no load", quote(a.value()))
		return
	}
	s.set("max_load", a.at, math.Round(n*100)/100)
}

func (s *xinetdService) cps(a attribute) {
	n, err := strconv.Atoi(a.value())
	if err != nil {
		s.note(a.at, "cps is not carried over: %s is no number", quote(a.value()))
		return
	}
	s.set("rate", a.at, strconv.Itoa(n)+"/s")
	if len(a.values) > 1 {
		s.im.note(a.at, "the pause of cps is not carried over: at more than the rate clients wait, and no socket is closed")
	}
}

func (s *xinetdService) env(a attribute) {
	var vars config.Draft
	for _, text := range a.values {
		name, val, found := strings.Cut(text, "=")
		if !found {
			s.note(a.at, "%s is not carried over: it has no =", quote(text))
			continue
		}
		vars = s.variable(vars, a.at, name, val)
	}
	if len(vars) > 0 {
		s.set("env", a.at, vars)
	}
}

// variable adds one to env, or replaces it.
func (s *service) variable(vars config.Draft, at Place, name, val string) config.Draft {
	if !isVariable(name) || len(vars) == most {
		s.note(at, "the variable %s is not carried over: superd cannot have its name", quote(name))
		return vars
	}
	vars = slices.DeleteFunc(vars, func(p config.Pair) bool { return p.Key == name })
	return append(vars, config.Pair{Key: name, Value: val})
}

// isVariable tells names that env can have; longer ones than this are no names.
func isVariable(name string) bool {
	for i, c := range []byte(name) {
		if !(c == '_' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return name != "" && len(name) <= 255 && !strings.HasPrefix(name, "SUPERD_")
}

func (s *xinetdService) rlimit(key string, a attribute) {
	n, err := parseBytes(a.value())
	switch {
	case strings.EqualFold(a.value(), "UNLIMITED"):
		s.set("rlimits."+key, a.at, "unlimited")
	case err != nil:
		s.note(a.at, "%s is not carried over: %s is no size", a.name, quote(a.value()))
	default:
		s.set("rlimits."+key, a.at, size(n))
	}
}

func (s *xinetdService) cpu(a attribute) {
	if strings.EqualFold(a.value(), "UNLIMITED") {
		s.set("rlimits.cpu", a.at, "unlimited")
		return
	}
	s.set("rlimits.cpu", a.at, a.value()+"s")
}

func (s *xinetdService) files(a attribute) { s.number("rlimits.nofile", a) }

// times reads intervals of the day, hour:minute-hour:minute.
func (s *xinetdService) times(a attribute) {
	var hours []string
	for _, text := range a.values {
		from, to, _ := strings.Cut(text, "-")
		first, ok1 := clock(from)
		last, ok2 := clock(to)
		if !ok1 || !ok2 || first == last {
			s.off(a.at, "access_times is not carried over as a whole: %s is no interval", quote(text))
			continue
		}
		hours = append(hours, first+"-"+last)
	}
	if len(hours) > 0 {
		s.set("hours", a.at, hours)
	}
}

// clock reads hour:minute.
func clock(text string) (string, bool) {
	hour, minute, found := strings.Cut(text, ":")
	h, err1 := strconv.ParseUint(hour, 10, 8)
	m, err2 := strconv.ParseUint(minute, 10, 8)
	return fmt.Sprintf("%02d:%02d", h, m), found && err1 == nil && err2 == nil && h < 24 && m < 60
}

// logged notes what superd cannot log; all the rest it does.
func (s *xinetdService) logged(a attribute) {
	if slices.ContainsFunc(a.values, func(v string) bool { return strings.EqualFold(v, "USERID") }) {
		s.im.note(a.at, "USERID is not carried over: superd asks no identification server")
	}
}

// access reads only_from and no_access. As with xinetd, the most specific rule
// holds. A name that cannot be carried over leaves less in allow, which is safe,
// and more open in deny, which is not.
func (s *xinetdService) access(key string, a attribute) {
	var list []netip.Prefix
	for _, text := range a.values {
		found, ok := xinetdAddresses(text)
		list = append(list, found...)
		switch {
		case ok:
		case key == "allow":
			s.note(a.at, "%s of only_from is not carried over: write its addresses in allow", quote(text))
		default:
			s.off(a.at, "%s of no_access is not carried over: write its addresses in deny", quote(text))
		}
	}
	if s.waits && !s.datagrams {
		s.off(a.at, "%s is not carried over: with wait the program accepts its clients itself", a.name)
		return
	}
	if key == "allow" || len(list) > 0 {
		s.set(key, a.at, rules(list))
	}
}

// xinetdAddresses reads one value: a network with its length, an address whose
// last numbers are 0 for all of them, or one that ends in {1,2,3}.
func xinetdAddresses(text string) ([]netip.Prefix, bool) {
	if text == "localhost" {
		return []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}, true
	}
	if before, set, found := strings.Cut(text, "{"); found {
		return factorized(before, strings.TrimSuffix(set, "}"))
	}
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		return []netip.Prefix{p}, err == nil
	}
	if text == "0.0.0.0" {
		return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}, true
	}
	addr, err := netip.ParseAddr(filled(text))
	if err != nil || addr.Zone() != "" {
		return nil, false
	}
	bits := addr.BitLen()
	if addr.Is4() {
		for b := addr.As4(); bits > 0 && b[bits/8-1] == 0; {
			bits -= 8
		}
	}
	return []netip.Prefix{netip.PrefixFrom(addr, bits)}, true
}

// filled writes the four numbers of an address that has two or three: the last
// one keeps its place (inet_aton(3)).
func filled(text string) string {
	numbers := strings.Split(text, ".")
	if last := len(numbers) - 1; last == 1 || last == 2 {
		return strings.Join(numbers[:last], ".") + strings.Repeat(".0", 3-last) + "." + numbers[last]
	}
	return text
}

// mostFactors bounds what one value stands for.
const mostFactors = 256

func factorized(before, set string) (list []netip.Prefix, ok bool) {
	numbers := strings.Split(strings.TrimSuffix(before, "."), ".")
	if len(numbers) > 3 || !strings.HasSuffix(before, ".") {
		return nil, false
	}
	for last := range strings.SplitSeq(set, ",") {
		all := append(slices.Clone(numbers), strings.TrimSpace(last))
		bits := 8 * len(all)
		for len(all) < 4 {
			all = append(all, "0")
		}
		addr, err := netip.ParseAddr(strings.Join(all, "."))
		if err != nil || !addr.Is4() || len(list) >= mostFactors {
			return nil, false
		}
		list = append(list, netip.PrefixFrom(addr, bits))
	}
	return list, true
}
