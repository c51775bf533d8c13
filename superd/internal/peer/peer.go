// Package peer says who is at the two ends of a connection, in one form for
// all kinds of sockets: what accept(2) told, or a trusted proxy. It decides
// nothing.
package peer

import (
	"net/netip"
	"strconv"
)

// Kind is the sort of socket that a connection came by.
type Kind uint8

// The kinds of sockets.
const (
	Internet Kind = iota // TCP, by IPv4 or IPv6
	Unix                 // of this machine: AF_UNIX
	UDP                  // datagrams, by IPv4 or IPv6
	VSock                // between virtual machines and their host: AF_VSOCK
	Kinds                // how many there are
)

// A Peer is the two ends of an accepted connection. Kind tells which of the
// groups of fields is filled in.
type Peer struct {
	Kind Kind

	// Of Internet and UDP.
	Remote, Local netip.AddrPort // IPv4 mapped into IPv6 is plain IPv4 here
	MPTCP         bool           // the listening socket speaks it (RFC 8684); the client may speak plain TCP

	// Of Unix. An abstract name begins with @ here, and not with a zero byte.
	Path     string // of the listening socket
	Bound    string // what the client has bound its own socket to, which it chose itself; "" for nothing, as usual
	PID      int32  // the process that connected; 0 where superd's process namespace does not have it
	UID, GID uint32 // the effective user and group that it had then

	// Listening says that there is no client yet: the program gets the socket
	// that superd's end is the address of, and accepts or receives itself. With
	// Datagrams as well, somebody has sent the one that it is started for.
	Listening bool

	// Of VSock.
	RemoteVM, LocalVM VM

	// Datagrams says that the client has sent a datagram, and has no connection.
	Datagrams bool

	// Via is the proxy that spoke for the client; the zero AddrPort where the
	// client came itself.
	Via netip.AddrPort
	// Extra are further variables of the program's environment that a trusted
	// proxy told, each with a zero byte behind it. Most connections have none.
	Extra []byte
}

// A VM is an address of vsock(7).
type VM struct{ CID, Port uint32 }

// AnyCID is that of a socket that listens on all addresses of its machine
// (VMADDR_CID_ANY).
const AnyCID = 1<<32 - 1

// appendTo writes a as the file has it.
func (a VM) appendTo(b []byte) []byte {
	b = append(b, "vsock:"...)
	if a.CID != AnyCID {
		b = append(strconv.AppendUint(b, uint64(a.CID), 10), ':')
	}
	return strconv.AppendUint(b, uint64(a.Port), 10)
}

// Unseen tells that nobody knows who the client is.
func (p *Peer) Unseen() bool { return p.Listening && !p.Datagrams }

// AppendRemote writes the client's end as the log has it.
func (p *Peer) AppendRemote(b []byte) []byte {
	switch {
	case p.Kind == Unix && !p.Unseen():
		return p.appendCredentials(append(b, "unix:"...))
	case p.Kind == VSock && !p.Listening:
		return p.RemoteVM.appendTo(b)
	case p.Remote.IsValid():
		return p.Remote.AppendTo(b)
	}
	return b
}

func (p *Peer) appendCredentials(b []byte) []byte {
	if p.PID != 0 {
		b = append(b, "pid="...)
		b = append(strconv.AppendInt(b, int64(p.PID), 10), ',')
	}
	b = append(b, "uid="...)
	b = strconv.AppendUint(b, uint64(p.UID), 10)
	b = append(b, ",gid="...)
	return strconv.AppendUint(b, uint64(p.GID), 10)
}

// AppendLocal writes superd's end as the log has it.
func (p *Peer) AppendLocal(b []byte) []byte {
	switch p.Kind {
	case Unix:
		return append(append(b, "unix:"...), p.Path...)
	case UDP:
		b = append(b, "udp:"...)
	case VSock:
		return p.LocalVM.appendTo(b)
	}
	return p.Local.AppendTo(b)
}
