package config

import (
	"net/netip"
	"strings"

	"gopkg.in/yaml.v3"
)

// HTTP says where metrics and health can be asked for; nowhere where Listen is
// empty.
type HTTP struct {
	Listen []netip.AddrPort // a name can have several addresses
	At     Position
}

const fullAddress = "write 127.0.0.1:PORT, or 0.0.0.0:PORT for every address"

// http reads the address of the HTTP listener.
func (s section) http() HTTP {
	v := s.get("http.listen")
	if !s.written("http.listen") {
		if whole := s.get("http").node; whole != nil && whole.Kind == yaml.MappingNode && len(whole.Content) == 0 {
			s.d.bad(s.get("http"), "listens on nothing", "add listen: 127.0.0.1:9116")
		}
		return HTTP{}
	}
	if !hasText(v.node) {
		s.d.wrong(v, "")
		return HTTP{}
	}
	text := s.d.text(v)
	if text != "" && strings.Contains(":/@", text[:1]) { // what would be right elsewhere is not here
		s.d.wrong(v, fullAddress)
		return HTTP{}
	}
	found, err := s.d.resolve(text)
	s.d.fault(v, err)
	if found.everywhere || found.family != TCP { // as elsewhere; here it should be said in full
		s.d.wrong(v, fullAddress)
		return HTTP{}
	}
	h := HTTP{At: v.at}
	for _, addr := range found.addrs {
		s.d.lookAtWebAddress(v, addr)
		at := netip.AddrPortFrom(addr, found.port)
		h.Listen = append(h.Listen, at)
		s.d.keep(v, Listener{Family: TCP, Addr: at})
	}
	return h
}

func (d *decoder) lookAtWebAddress(v value, addr netip.Addr) {
	switch {
	case addr.Zone() != "":
		d.bad(v, "has a zone, which is not supported here", "")
	case !addr.IsLoopback():
		d.warnings = append(d.warnings, Problem{v.at, v.path, addr.String() + " is not a loopback address: whoever reaches it sees how superd is used", ""})
	}
}
