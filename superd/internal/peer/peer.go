// Package peer says who is at the two ends of a connection, in one form for
// all kinds of sockets: what accept(2) told, or a trusted proxy. It decides
// nothing.
package peer

import "net/netip"

// A Peer is the two ends of an accepted connection.
type Peer struct {
	Remote, Local netip.AddrPort // IPv4 mapped into IPv6 is plain IPv4 here

	// Via is the proxy that spoke for the client; the zero AddrPort where the
	// client came itself.
	Via netip.AddrPort
	// Extra are further variables of the program's environment that a trusted
	// proxy told, each with a zero byte behind it. Most connections have none.
	Extra []byte
}

// AppendRemote writes the client's end as the log has it.
func (p *Peer) AppendRemote(b []byte) []byte { return p.Remote.AppendTo(b) }

// AppendLocal writes superd's end as the log has it.
func (p *Peer) AppendLocal(b []byte) []byte { return p.Local.AppendTo(b) }
