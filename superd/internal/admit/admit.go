// Package admit decides whether a connection may come in: now, later, or not
// at all. It touches no descriptor, starts nothing and reads no clock: it is
// asked and told, always with the time, and answers in data.
//
// A House is the room that all services share, a Gate is one service's way in,
// a Policy is what the file says about it. Each connection that came in holds
// one place, which its Ticket gives back; each that has to wait for one is a
// Waiter until House.Next tells what became of it.
package admit

import (
	"net/netip"
	"time"
)

// A Moment is one instant on two clocks. Everything but opening hours goes by
// Since, so that a clock that is set changes nothing else.
type Moment struct {
	Since time.Duration // since superd's start, by a clock that never goes back
	Wall  time.Time     // what clocks on walls show; only hours look at it
}

// never is a time that does not come.
const never = time.Duration(1<<63 - 1)

// A Client is who asks to come in: an address, or the credentials of the
// process at the other end of a unix socket. One that is neither belongs to no
// rule, and all such are one source.
type Client struct {
	Addr     netip.Addr // of an internet client, v4-mapped or not; else the zero Addr
	Unix     bool       // UID, GID and Groups say who it is
	UID, GID uint32
	Groups   []uint32 // beside GID; must not change while the client waits
	Unseen   bool     // nobody knows who it is: access rules do not keep it out
	Host     any      // the Waiter's, if the client has to wait; not looked at
}

// plain is the client as rules see it: a v4-mapped address is IPv4, and a zone
// says nothing about who somebody is.
func (c *Client) plain() Client {
	p := *c
	p.Addr = c.Addr.Unmap().WithZone("")
	return p
}
