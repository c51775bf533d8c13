package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"superd/superd/internal/config"
	"superd/superd/internal/control"
	"superd/superd/internal/peer"
	"superd/superd/internal/spawn"
)

// A stranger is somebody who might come to a service: an administrator has made
// it up.
type stranger struct {
	peer    peer.Peer // its own end; meet fills in the other
	groups  []uint32  // beside the peer's GID
	anyPort bool      // the peer's is as good as any
}

// samplePort is that of a stranger of whom none is said.
const samplePort = 12345

// strangerForms is what a stranger is written like.
const strangerForms = "10.0.0.1, 10.0.0.1:5000, [::1]:5000, udp:10.0.0.1, uid:1000, uid:alice,gid:adm or vsock:3"

// parseStranger reads an address, with a port or without, what is written udp: and
// vsock: before one, or the user of a process and its groups, as rules name them.
func parseStranger(text string, who spawn.Databases) (c stranger, err error) {
	switch kind, rest, _ := strings.Cut(text, ":"); kind {
	case "uid", "gid":
		err = c.process(text, who)
	case "vsock":
		err = c.machine(rest)
	case "udp":
		c.peer.Kind = peer.UDP
		err = c.address(rest)
	default:
		err = c.address(text)
	}
	if err != nil {
		return c, usageError{fmt.Errorf("%q is nobody who could come: %w", text, err)}
	}
	return c, nil
}

// address reads one of the internet. A v4-mapped one is IPv4, as everywhere.
func (c *stranger) address(text string) error {
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		bare := text
		if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
			bare = text[1 : len(text)-1]
		}
		addr, wrong := netip.ParseAddr(bare)
		if wrong != nil {
			return errors.New("write it like " + strangerForms)
		}
		at = netip.AddrPortFrom(addr, samplePort)
		c.anyPort = true
	}
	c.peer.Remote = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	return nil
}

// machine reads CID or CID:PORT.
func (c *stranger) machine(text string) error {
	cid, port, named := strings.Cut(text, ":")
	if !named {
		port = strconv.Itoa(samplePort)
	}
	n, err := strconv.ParseUint(cid, 10, 32)
	p, wrong := strconv.ParseUint(port, 10, 32)
	if err != nil || wrong != nil {
		return errors.New("write vsock:CID, or vsock:CID:PORT")
	}
	c.peer.Kind, c.peer.RemoteVM = peer.VSock, peer.VM{CID: uint32(n), Port: uint32(p)}
	return nil
}

// process reads uid:1000 or uid:alice,gid:adm,gid:4. Without groups it has those
// that the user has at login.
func (c *stranger) process(text string, who spawn.Databases) error {
	var groups []uint32
	for i, word := range strings.Split(text, ",") {
		spec, _, err := config.ParseSpec(word)
		switch {
		case err != nil:
			return err
		case (i == 0) != (spec.Kind == config.UserSpec) || spec.Kind == config.NetworkSpec:
			return errors.New("a process has one user, and then any number of groups: uid:1000,gid:100,gid:4")
		case spec.Kind == config.UserSpec:
			err = c.user(spec, who)
		default:
			gid := spec.ID
			if spec.Name != "" {
				gid, _, err = who.GroupID(spec.Name)
			}
			groups = append(groups, gid)
		}
		if err != nil {
			return err
		}
	}
	if len(groups) > 0 {
		c.peer.GID, c.groups = groups[0], groups[1:]
	}
	return nil
}

func (c *stranger) user(spec config.Spec, who spawn.Databases) error {
	name := spec.Name
	if name == "" {
		name = strconv.FormatUint(uint64(spec.ID), 10)
	}
	id, err := who.User(name)
	if err != nil {
		return err
	}
	c.peer.Kind, c.peer.UID, c.peer.GID = peer.Unix, id.UID, id.GID
	c.groups = slices.DeleteFunc(slices.Clone(id.Groups), func(gid uint32) bool { return gid == id.GID })
	return nil
}

// applicant is what a superd has to know of c.
func (c *stranger) applicant() control.Applicant {
	p := &c.peer
	a := control.Applicant{
		Addr: p.Remote.Addr(), Port: p.Remote.Port(),
		Unix: p.Kind == peer.Unix, UID: p.UID, GID: p.GID, Groups: c.groups,
		Datagrams: p.Kind == peer.UDP,
	}
	if c.anyPort {
		a.Port = 0
	}
	return a
}

// meet has c come to one of the sockets of a service, the first that is for
// such clients.
func (c *stranger) meet(s *config.Service) error {
	if len(s.Proxy.From) > 0 || s.Mux != "" && len(s.Listen) == 0 {
		c.arrive(&config.Listener{Family: config.TCP, Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)})
		return nil // by whatever socket the proxy, or tcpmux, comes
	}
	for _, datagrams := range []bool{false, true} {
		i := slices.IndexFunc(s.Listen, func(l config.Listener) bool { return l.Datagrams() == datagrams && c.fits(&l) })
		if i >= 0 {
			c.arrive(&s.Listen[i])
			return nil
		}
	}
	return fmt.Errorf("%s: no such client can come, it listens on %s", s.Name, joined(s.Listen, func(l config.Listener) string { return l.Spec }, " "))
}

// fits tells whether l is for such as c.
func (c *stranger) fits(l *config.Listener) bool {
	switch p := &c.peer; l.Family {
	case config.TCP:
		return p.Kind == peer.Internet && (l.Dual || l.Addr.Addr().Is4() == p.Remote.Addr().Is4())
	case config.UDP:
		return p.Remote.IsValid() && (l.Dual || l.Addr.Addr().Is4() == p.Remote.Addr().Is4())
	case config.Unix:
		return p.Kind == peer.Unix
	case config.VSock:
		return p.Kind == peer.VSock
	}
	return true // what was handed over can be anything
}

// arrive fills in the other end.
func (c *stranger) arrive(l *config.Listener) {
	p := &c.peer
	switch p.Kind {
	case peer.Unix:
		p.Path, p.Datagrams = l.Name, l.Datagrams()
	case peer.VSock:
		p.LocalVM = peer.VM{CID: l.CID, Port: l.Port}
	default:
		if l.Family == config.UDP {
			p.Kind, p.Datagrams = peer.UDP, true
		}
		p.Local = netip.AddrPortFrom(localFor(p.Remote.Addr(), l.Addr.Addr()), l.Addr.Port())
	}
}

// localFor is the address that a client has come to: where a socket is for all
// of the machine's, the one that the machine has by itself.
func localFor(remote, listening netip.Addr) netip.Addr {
	switch {
	case listening.IsValid() && !listening.IsUnspecified():
		return listening
	case remote.Is4():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}
