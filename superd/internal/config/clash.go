package config

import (
	"fmt"
	"net/netip"
	"path"
)

// claims is which sockets are taken. Two sockets of one protocol on one port
// clash when their addresses are the same, or when one of them is every address
// of the other's family, unless each is for another network interface. Sockets
// without a port clash where their names are the same. Each question is one look
// into a map, however many sockets there are.
type claims struct {
	named   map[string]claim
	vsock   map[vsockPort]claim // also of each port's first, with AnyCID
	devices map[string]ports    // "" for the sockets of no interface, and everyDevice for all
}

const everyDevice = "*"

type ports struct {
	exact      map[address]claim
	everywhere map[familyPort]claim // sockets for every address
	anywhere   map[familyPort]claim // the first socket of any kind
}

type address struct {
	protocol Family
	addr     netip.AddrPort
}

type familyPort struct {
	protocol Family
	v6       bool
	port     uint16
}

type claim struct {
	service  *Service // nil for what superd itself listens on
	listener Listener
}

type vsockPort struct{ cid, port uint32 }

func newClaims() claims {
	return claims{map[string]claim{}, map[vsockPort]claim{}, map[string]ports{}}
}

func newPorts() ports {
	return ports{map[address]claim{}, map[familyPort]claim{}, map[familyPort]claim{}}
}

// keep notes what superd itself listens on, at a key of the file.
func (d *decoder) keep(v value, l Listener) {
	l.Spec, l.At = v.path, v.at
	d.own = append(d.own, l)
}

// clashes reports sockets that cannot be open at once. A disabled service
// clashes only with itself.
func (d *decoder) clashes(services []*Service) {
	enabled := newClaims()
	for _, l := range d.own {
		if !l.KernelsChoice() {
			enabled.add(claim{nil, l})
		}
	}
	for _, s := range services {
		if s.Enabled {
			d.clash(enabled, s)
		} else {
			d.clash(newClaims(), s)
		}
	}
}

// clash reports each address of the file once, however many sockets it is.
func (d *decoder) clash(taken claims, s *Service) {
	var reported Position
	for _, l := range s.Listen {
		mine := claim{s, l}
		other, is := taken.holder(l)
		switch {
		case l.KernelsChoice():
		case !is:
			taken.add(mine)
		case l.At != reported:
			reported = l.At
			d.report(l.At, l.Path, mine.clashWith(other), "")
		}
	}
}

func (c claim) clashWith(other claim) string {
	if other.service == nil || c.service == other.service {
		return fmt.Sprintf("%s clashes with %s %s", c.listener.Spec, other.listener.Spec, other.listener.At.from(c.listener.At))
	}
	return fmt.Sprintf("%s clashes with %s of service %s %s",
		c.listener.Spec, other.listener.Spec, other.service.Name, other.listener.At.from(c.listener.At))
}

// holder returns who has what l needs.
func (t claims) holder(l Listener) (claim, bool) {
	if l.Family == VSock {
		return t.vsockHolder(l)
	}
	if !l.Internet() {
		c, is := t.named[l.Place()]
		return c, is
	}
	if l.Device == "" {
		return t.devices[everyDevice].holder(l)
	}
	if c, is := t.devices[l.Device].holder(l); is {
		return c, true
	}
	return t.devices[""].holder(l)
}

// vsockHolder: two sockets of one port clash where their addresses are the same,
// or one of them has all.
func (t claims) vsockHolder(l Listener) (claim, bool) {
	if c, is := t.vsock[vsockPort{l.CID, l.Port}]; is {
		return c, true
	}
	c, is := t.vsock[vsockPort{AnyCID, l.Port}]
	return c, is && (l.CID == AnyCID || c.listener.CID == AnyCID)
}

func (t ports) holder(l Listener) (claim, bool) {
	if c, is := t.exact[address{l.Family, l.Addr}]; is {
		return c, true
	}
	for _, f := range l.families() {
		if c, is := t.everywhere[f]; is {
			return c, true
		}
		if c, is := t.anywhere[f]; is && l.Addr.Addr().IsUnspecified() {
			return c, true
		}
	}
	return claim{}, false
}

func (t claims) add(c claim) {
	if l := c.listener; l.Family == VSock {
		t.vsock[vsockPort{l.CID, l.Port}] = c
		if _, is := t.vsock[vsockPort{AnyCID, l.Port}]; !is {
			t.vsock[vsockPort{AnyCID, l.Port}] = c
		}
		return
	}
	if !c.listener.Internet() {
		t.named[c.listener.Place()] = c
		return
	}
	for _, device := range []string{c.listener.Device, everyDevice} {
		if _, is := t.devices[device]; !is {
			t.devices[device] = newPorts()
		}
		t.devices[device].add(c)
	}
}

func (t ports) add(c claim) {
	t.exact[address{c.listener.Family, c.listener.Addr}] = c
	for _, f := range c.listener.families() {
		if _, is := t.anywhere[f]; !is {
			t.anywhere[f] = c
		}
		if c.listener.Addr.Addr().IsUnspecified() {
			t.everywhere[f] = c
		}
	}
}

// Place is what a socket is known by while it is open; it is the same for two
// ways to write one path.
func (l *Listener) Place() string {
	switch {
	case l.Internet() && l.Device != "":
		return l.protocol() + l.Addr.String() + " on " + l.Device
	case l.Internet():
		return l.protocol() + l.Addr.String()
	case l.Family == Inherited:
		return "fd:" + l.Name
	case l.Family == VSock && l.CID == AnyCID:
		return fmt.Sprintf("vsock:%d", l.Port)
	case l.Family == VSock:
		return fmt.Sprintf("vsock:%d:%d", l.CID, l.Port)
	case l.Name[0] == '@':
		return "unix:" + l.Name
	}
	return "unix:" + path.Clean(l.Name)
}

// KernelsChoice tells that the kernel chooses the port.
func (l *Listener) KernelsChoice() bool {
	return l.Internet() && l.Addr.Port() == 0 || l.Family == VSock && l.Port == 0
}

// Rigid is the key that next differs from l in, of those that are for good once a
// socket is open; "" for none. Both are for the same socket.
func (l *Listener) Rigid(next *Listener) string {
	switch {
	case l.RcvBuf > 0 && next.RcvBuf == 0:
		return "rcvbuf" // the system adapts a buffer only of whom nobody has set one
	case l.SndBuf > 0 && next.SndBuf == 0:
		return "sndbuf"
	case l.Family != next.Family: // an inherited one, that is called by its address
	case l.Dual != next.Dual:
		return "v6only"
	case l.Type != next.Type:
		return "type"
	case l.MPTCP != next.MPTCP:
		return "mptcp"
	case l.Device != next.Device:
		return "device"
	case l.FreeBind != next.FreeBind:
		return "freebind"
	case l.Transparent != next.Transparent:
		return "transparent"
	}
	return ""
}

// families are the address families that a listener takes its port in.
func (l Listener) families() []familyPort {
	own := familyPort{l.Family, l.Addr.Addr().Is6(), l.Addr.Port()}
	if l.Dual {
		return []familyPort{own, {l.Family, false, own.port}}
	}
	return []familyPort{own}
}
