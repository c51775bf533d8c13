package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"superd/superd/internal/config"
	"superd/superd/internal/listen"
	"superd/superd/internal/peer"
)

// Two services that answer whatever comes to them would answer one another for
// ever, once a datagram with a false sender has brought them together. So there
// are senders to whom nobody answers.

// loops are what superd must not answer. It never changes.
type loops struct {
	answering map[uint16]bool     // ports at which datagrams are answered by built-ins, here or anywhere
	own       map[uint16]bool     // ports of superd's own sockets
	names     map[string]bool     // of its unix sockets
	addresses map[netip.Addr]bool // of this machine
	everybody map[netip.Addr]bool // in the networks of this machine
}

// smallServices are the ports of services that answer anything (RFC 862 to 868).
var smallServices = []uint16{7, 9, 13, 17, 19, 37}

// findLoops looks at all sockets of datagrams that there will be.
func findLoops(sites []*site) *loops {
	l := &loops{answering: map[uint16]bool{}, own: map[uint16]bool{}, names: map[string]bool{}}
	for _, port := range smallServices {
		l.answering[port] = true
	}
	some := false
	for _, s := range sites {
		if !s.socket.Datagrams() {
			continue
		}
		some = true
		if self := s.socket.Self(); self.Kind == peer.Unix {
			l.names[self.Path] = true
			continue
		}
		port := s.socket.Local().Port()
		l.own[port] = true
		if s.service.config.Builtin != "" && s.service.config.Wait == "" {
			l.answering[port] = true
		}
	}
	if some {
		l.addAddresses()
	}
	return l
}

// imagineLoops is findLoops for a file that nobody has taken up.
func imagineLoops(c *config.Config) *loops {
	l := &loops{answering: map[uint16]bool{}, own: map[uint16]bool{}}
	for _, port := range smallServices {
		l.answering[port] = true
	}
	for _, s := range c.Services {
		for i := range s.Listen {
			if at := &s.Listen[i]; s.Enabled && at.Family == config.UDP {
				l.own[at.Addr.Port()] = true
				l.answering[at.Addr.Port()] = l.answering[at.Addr.Port()] || s.Builtin != "" && s.Wait == ""
			}
		}
	}
	l.addAddresses()
	return l
}

// addAddresses finds out which addresses the machine has, as far as it tells.
func (l *loops) addAddresses() {
	l.addresses, l.everybody = map[netip.Addr]bool{}, map[netip.Addr]bool{broadcast: true}
	list, _ := net.InterfaceAddrs()
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			l.addresses[p.Addr().Unmap().WithZone("")] = true
			if p.Addr().Is4() && p.Bits() < 31 { // RFC 3021: two alone have no such address
				l.everybody[lastOf(p)] = true
			}
		}
	}
}

// lastOf is the address by which all of an IPv4 network are reached (RFC 919).
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])|^uint32(0)>>p.Bits())
	return netip.AddrFrom4(a)
}

// refreshLoops keeps up with the addresses of the machine.
func (d *daemon) refreshLoops() {
	old := d.loops.Load()
	if old == nil || len(old.addresses) == 0 {
		return
	}
	fresh := &loops{answering: old.answering, own: old.own, names: old.names}
	fresh.addAddresses()
	d.loops.CompareAndSwap(old, fresh) // else a reload was faster
}

var (
	errPortless = errors.New("a datagram from port 0 cannot be answered")
	errSpread   = errors.New("a datagram to everybody, or to a group, is not answered")
	errNobody   = errors.New("a datagram that seems to be from everybody, from a group or from nowhere is not answered")
	errOwn      = errors.New("the datagram seems to be from a socket of superd's own: they would answer one another for ever")
)

// reflection is why the sender of a datagram is not answered, nor a program
// started for it; nil for others.
func (d *daemon) reflection(k *listen.Socket, m *listen.Mailbox) error {
	l := d.loops.Load()
	self := k.Self()
	if self.Kind == peer.Unix {
		if name := k.Introduce(m).Bound; name != "" && l.names[name] {
			return errOwn
		}
		return nil
	}
	if m.From.Port != 0 && m.Spread {
		return errSpread
	}
	return l.reflection(m.From.RemoteAddr(), m.From.Port, m.From.LocalAddr())
}

// reflection is that of what comes from an address, for this machine alone.
func (l *loops) reflection(from netip.Addr, port uint16, to netip.Addr) error {
	switch {
	case port == 0:
		return errPortless
	case !from.IsValid() || from.IsUnspecified() || from.IsMulticast() || l.everybody[from]:
		return errNobody
	case l.answering[port]:
		return answeringPort(port)
	case l.own[port] && (from == to || from.IsLoopback() || l.addresses[from]):
		return errOwn
	}
	return nil
}

// An answeringPort is one whose datagrams are answers, or may be.
type answeringPort uint16

func (p answeringPort) Error() string {
	return fmt.Sprintf("a datagram from port %d is not answered: what is there may answer in turn, for ever", uint16(p))
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
