package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// listen reads the sockets of a service: one address or mapping, or a list.
func (s section) listen() []Listener {
	if !s.written("listen") {
		return nil
	}
	v := s.get("listen")
	if v.node.Kind != yaml.SequenceNode {
		return s.d.listeners(v)
	}
	items := s.d.list(v)
	if len(v.node.Content) == 0 {
		s.d.bad(v, "listens on nothing", "name at least one address")
	}
	var all []Listener
	for _, item := range items {
		all = append(all, s.d.listeners(item)...)
	}
	return all
}

const listenPattern = "services.*.listen"

// listeners reads one item. An address alone is a mapping with that address.
func (d *decoder) listeners(v value) []Listener {
	switch {
	case v.node.Kind == yaml.MappingNode:
		s := d.section(v, listenPattern)
		if !s.written("address") {
			d.bad(v, "has no address", "add address: PORT")
			return nil
		}
		return s.listeners()
	case hasText(v.node):
		return section{d, listenPattern, v, map[string]value{"address": v}}.listeners()
	}
	d.wrong(v, "")
	return nil
}

// listeners makes one Listener for each socket that the address stands for.
func (s section) listeners() []Listener {
	v := s.get("address")
	common := Listener{
		Spec:        v.node.Value,
		Type:        s.word("type"),
		Label:       s.label(),
		Backlog:     s.integer("backlog"),
		MPTCP:       s.boolean("mptcp"),
		Device:      s.device(),
		FreeBind:    s.boolean("freebind"),
		Transparent: s.boolean("transparent"),
		NoDelay:     s.boolean("nodelay"),
		KeepAlive:   s.keepAlive(),
		RcvBuf:      s.buffer("rcvbuf"),
		SndBuf:      s.buffer("sndbuf"),
		Mark:        uint32(s.integer("mark")),
		TOS:         s.tos(),
		DeferAccept: s.duration("defer_accept"),
		Mode:        s.mode("mode"),
		Owner:       s.account("owner"),
		Group:       s.account("group"),
		At:          v.at,
		Path:        v.path,
		keys:        places{s.self.path, s.d.where},
	}
	shared := !s.boolean("v6only")
	if !hasText(v.node) {
		s.d.wrong(v, "")
		return nil
	}
	found, err := s.d.resolve(s.d.text(v))
	if err != nil {
		s.d.fault(v, err)
		return nil
	}
	if found.family == VSock && common.Type == Datagram {
		s.d.bad(s.get("type"), "a vsock socket is stream or seqpacket here", "leave it out")
	}
	found.datagrams = found.datagrams || found.family == Unix && common.Type == Datagram
	s.checkKeys(found)
	if s.written("v6only") && len(found.addrs) > 0 {
		s.d.fault(s.get("v6only"), checkFamily(found, shared))
	}
	return common.each(found, shared)
}

// goesWith are the keys that not every address has a use for.
var goesWith = map[string]func(endpoints) error{
	"type":         notOnlyStreams,
	"backlog":      noDatagrams,
	"v6only":       onlyInternet,
	"mptcp":        onlyTCP,
	"device":       onlyInternet,
	"freebind":     onlyInternet,
	"transparent":  onlyInternet,
	"nodelay":      onlyTCPOrInherited,
	"keepalive":    onlyTCPOrInherited,
	"rcvbuf":       onlyInternetOrInherited,
	"sndbuf":       onlyInternetOrInherited,
	"mark":         onlyInternetOrInherited,
	"tos":          onlyInternetOrInherited,
	"defer_accept": onlyTCPOrInherited,
	"mode":         onlyPath,
	"owner":        onlyPath,
	"group":        onlyPath,
}

func onlyTCP(e endpoints) error {
	if e.family == TCP {
		return nil
	}
	return mistakef("leave it out", "has a meaning only for TCP")
}

func onlyTCPOrInherited(e endpoints) error {
	if e.family == Inherited {
		return nil // it may be one
	}
	return onlyTCP(e)
}

func onlyInternet(e endpoints) error {
	if e.family == TCP || e.family == UDP {
		return nil
	}
	return mistakef("leave it out", "has a meaning only for TCP and UDP")
}

func onlyInternetOrInherited(e endpoints) error {
	if e.family == Inherited {
		return nil
	}
	return onlyInternet(e)
}

func noDatagrams(e endpoints) error {
	if !e.datagrams {
		return nil
	}
	return mistakef("leave it out", "has no meaning for datagrams: nobody connects")
}

func notOnlyStreams(e endpoints) error {
	if e.family == Unix || e.family == VSock {
		return nil
	}
	return mistakef("leave it out", "has a meaning only for unix: and vsock: addresses")
}

func onlyPath(e endpoints) error {
	switch {
	case e.family != Unix:
		return mistakef("leave it out", "has a meaning only for a unix socket with a path")
	case e.name[0] == '@':
		return mistakef("leave it out", "has no meaning for an abstract name: every process of its network namespace can connect")
	}
	return nil
}

// checkKeys reports the keys that were written and mean nothing here.
func (s section) checkKeys(found endpoints) {
	for _, name := range slices.Sorted(maps.Keys(goesWith)) {
		if s.written(name) {
			s.d.fault(s.get(name), goesWith[name](found))
		}
	}
}

// each copies the listener to all its addresses.
func (l Listener) each(found endpoints, shared bool) []Listener {
	l.Family, l.Name, l.CID, l.Port = found.family, found.name, found.cid, found.vport
	if l.Family != Unix {
		l.Mode = 0
	}
	if l.Internet() || l.Family == Inherited {
		l.Type = ""
	}
	if l.Family == Inherited && l.Label == "" {
		l.Label = l.Name
	}
	if !l.Internet() {
		return []Listener{l}
	}
	if found.everywhere && shared {
		l.Addr, l.Dual = netip.AddrPortFrom(netip.IPv6Unspecified(), found.port), true
		return []Listener{l}
	}
	var all []Listener
	for _, addr := range found.addrs {
		l.Addr = netip.AddrPortFrom(addr, found.port)
		l.Dual = shared
		l.Optional = found.everywhere && addr.Is6()
		all = append(all, l)
	}
	return all
}

// checkFamily refuses a v6only that cannot mean anything for the address.
func checkFamily(found endpoints, shared bool) error {
	for _, addr := range found.addrs {
		switch {
		case found.everywhere:
		case addr.Is4():
			return mistakef("leave it out", "has no meaning for the IPv4 address %s", addr)
		case shared && addr != netip.IPv6Unspecified():
			return mistakef(`it goes with a bare port or "[::]:PORT"`, "false has no meaning for the one address %s", addr)
		}
	}
	return nil
}

// longestDevice is how long the name of an interface can be (IFNAMSIZ less the
// terminator).
const longestDevice = 15

func (s section) device() string {
	name := s.nonEmpty("device")
	if len(name) > longestDevice || strings.ContainsAny(name, "/ \t\n") {
		s.d.bad(s.get("device"), quote(name)+" cannot name a network interface", "ip link lists them")
	}
	return name
}

// largestBuffer is what fits into the int that the kernel makes twice the number
// of.
const largestBuffer = 1<<30 - 1

func (s section) buffer(name string) int {
	size := s.size(name)
	if size > largestBuffer {
		s.d.bad(s.get(name), "is too large, must be less than 1G", "")
		return 0
	}
	return int(size)
}

// tos keeps off the two bits that are TCP's own (RFC 3168, 5).
func (s section) tos() int {
	n := s.integer("tos")
	if n&3 != 0 {
		s.d.bad(s.get("tos"), fmt.Sprintf("%d has one of the two lowest bits, which are TCP's own", n), fmt.Sprintf("write %d", n&^3))
	}
	return n
}

// keepAlive reads true, false or a mapping, which says true as well.
func (s section) keepAlive() KeepAlive {
	v := s.get("keepalive")
	if v.node.Kind == yaml.MappingNode {
		in := s.d.section(v, listenPattern+".keepalive")
		return KeepAlive{true, in.duration("idle"), in.duration("interval"), in.integer("count")}
	}
	if !hasText(v.node) {
		s.d.wrong(v, "")
		return KeepAlive{}
	}
	return KeepAlive{On: s.d.boolean(v)}
}
