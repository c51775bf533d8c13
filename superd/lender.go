package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/lobby"
)

// A lender is what a service has instead of a door whose programs get the
// listening sockets themselves (wait). It accepts nobody: it waits until somebody
// has come to a socket, starts a program, and leaves the socket alone until that
// has ended. It belongs to the accepting thread.
type lender struct {
	*service
	tenants map[*listen.Socket]*tenant // for stdin, one for each socket
	all     *tenant                    // for listen-fds, one for all sockets
}

// lend has s lend its sockets.
func (s *service) lend() {
	s.lender = &lender{service: s, tenants: map[*listen.Socket]*tenant{}}
}

// Porter implements listen.Door.
func (s *service) Porter(k *listen.Socket) listen.Porter {
	switch {
	case s.lender != nil:
		return s.lender
	case k.Datagrams() && s.relays:
		return &relay{s}
	}
	return nil
}

// A tenant is a program that has sockets of a service, or will have them when
// somebody comes.
type tenant struct {
	lender  *lender
	sockets []*listen.Socket // that the next program gets
	visitor conn.Visitor

	// Of the program that runs; release reads them.
	lent    []*listen.Socket
	waiting *listen.Waiting // at its start; nil where that is not known
	ticket  admit.Ticket

	rests lobby.Guest
	next  time.Duration // when the program may be started again
}

// Readable implements listen.Porter.
func (l *lender) Readable(k *listen.Socket) {
	if l.hall.fading[k] {
		(&relay{l.service}).Readable(k)
		return
	}
	t := l.tenantOf(k)
	if t.rests.Waiting() || slices.ContainsFunc(t.sockets, (*listen.Socket).Lent) {
		l.hall.set.Leave(k) // until the rest is over, or the program of an earlier service has ended
		return
	}
	t.call(k)
}

// Keeps implements listen.Keeper: peers of a service that had the socket before
// may still be answered from it.
func (l *lender) Keeps(k *listen.Socket) bool { return l.keeps(k) }

// tenantOf finds who gets k, and what with it, in the order of the file.
func (l *lender) tenantOf(k *listen.Socket) *tenant {
	if l.config.Wait == config.WaitStdin {
		if l.tenants[k] == nil {
			l.tenants[k] = &tenant{lender: l, sockets: []*listen.Socket{k}}
		}
		return l.tenants[k]
	}
	if l.all == nil {
		l.all = &tenant{lender: l}
	}
	l.all.sockets = nil
	for i := range l.config.Listen {
		c := &l.config.Listen[i]
		for _, k := range l.hall.set.Sockets(l.service) {
			if k.Listener().Path == c.Path && k.Listener().Place() == c.Place() {
				l.all.sockets = append(l.all.sockets, k)
			}
		}
	}
	l.all.sockets = l.all.sockets[:min(len(l.all.sockets), mostSockets(l.config))]
	return l.all
}

// ofOneName is how many sockets that superd was started with are handed on under
// one name.
const ofOneName = 16

// mostSockets is how many sockets a program of c can get.
func mostSockets(c *config.Service) (n int) {
	for i := range c.Listen {
		if n++; c.Listen[i].Family == config.Inherited {
			n += ofOneName - 1
		}
	}
	return n
}

// How often a program may be started for one tenant: that many times at once,
// and then with a pause. One that leaves its work undone would be started as
// fast as it ends otherwise.
const (
	startsAtOnce  = 20
	betweenStarts = 100 * time.Millisecond
)

// call starts t's program for whoever has come to k, if that is allowed now.
func (t *tenant) call(k *listen.Socket) {
	now := t.lender.daemon.now()
	if early := t.next - startsAtOnce*betweenStarts; early > now.Since {
		t.rest(early - now.Since)
		return
	}
	t.visitor.Host = t
	entered := false
	if k.Datagrams() {
		entered = t.askForSenders(k, now)
	} else {
		entered = t.ask(k, now)
	}
	if entered {
		t.next = max(t.next, now.Since) + betweenStarts
		t.start(k)
	}
}

// ask has it decided whether the program may be started for a client of whom
// nothing is known. Where it may not, the client stays where it is, in the
// kernel's queue, since nobody but the program can turn it away: it is neither
// accepted nor refused, however often that is tried.
func (t *tenant) ask(k *listen.Socket, now admit.Moment) (entered bool) {
	l := t.lender
	t.visitor.Peer = k.Self()
	d := l.gate.Try(clientOf(&t.visitor.Peer), now)
	if d.Verdict == admit.Entered {
		t.decided(&d)
		return true
	}
	l.tellTurn(d.Change, &t.visitor)
	t.rest(cmp.Or(d.Left, unknown))
	return false
}

// sendersAtOnce is how many datagrams are looked at before others have their
// turn.
const sendersAtOnce = 16

// askForSenders has it decided whether the program may be started for who has
// sent the first datagram. Where it may not, the datagram is dropped, and the
// next one is looked at.
func (t *tenant) askForSenders(k *listen.Socket, now admit.Moment) (entered bool) {
	for range sendersAtOnce {
		p := &t.visitor.Peer
		if !k.Sender(p) {
			return false
		}
		d := t.lender.gate.Try(clientOf(p), now)
		if t.decided(&d); d.Verdict == admit.Entered {
			return true
		}
		k.Drop()
	}
	return false
}

// decided records what was decided.
func (t *tenant) decided(d *admit.Decision) {
	l := t.lender
	l.table.Welcome(&l.conn, &t.visitor)
	l.tellTurn(d.Change, &t.visitor)
	if t.ticket = d.Ticket; d.Verdict != admit.Entered {
		l.conn.Events.Refused(t.visitor.Who(), event.Reason(d.Reason), why{d})
	}
}

// start has the table start the program.
func (t *tenant) start(k *listen.Socket) {
	l := t.lender
	fd := -1
	if l.config.Wait == config.WaitStdin {
		var err error
		if fd, err = unix.FcntlInt(uintptr(k.FD()), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			t.ticket.Release()
			l.conn.Events.Refused(t.visitor.Who(), event.ReasonTotalLimit, err)
			t.rest(unknown)
			return
		}
	} else {
		t.nameSockets()
	}
	t.lent = t.sockets
	t.waiting = t.whoWaits()
	for _, k := range t.lent {
		l.hall.set.Lend(k)
	}
	l.guests.Add(1)
	l.table.Start(&l.conn, fd, &t.visitor, true)
}

// whoWaits notes who waits at the sockets. A program that leaves processes may
// have left it to them to accept.
func (t *tenant) whoWaits() *listen.Waiting {
	if t.lender.conn.Leave {
		return nil
	}
	return t.lender.hall.set.Waiting(t.lent)
}

// nameSockets says what the program gets from descriptor 3 on.
func (t *tenant) nameSockets() {
	t.visitor.Sockets, t.visitor.Names = t.visitor.Sockets[:0], t.visitor.Names[:0]
	for _, k := range t.sockets {
		t.visitor.Sockets = append(t.visitor.Sockets, k.FD())
		t.visitor.Names = append(t.visitor.Names, cmp.Or(k.Listener().Label, t.lender.config.Name))
	}
}

// unknown is how long a tenant rests when nothing tells how soon its program
// may be started.
const unknown = time.Second

// rest stops waiting for t's sockets for a while.
func (t *tenant) rest(length time.Duration) {
	l := t.lender
	for _, k := range t.sockets {
		l.hall.set.Leave(k)
	}
	l.hall.lobby.Rest(&t.rests, t, l.daemon.now().Since+length)
}

// Ready implements lobby.Host: a tenant waits for its time alone.
func (t *tenant) Ready(uint32) {}

// Late implements lobby.Host.
func (t *tenant) Late() {
	t.lender.hall.lobby.Remove(&t.rests)
	t.lender.hall.set.Resume(t.lender.service)
}

// over implements occupant: the program that had the sockets has ended. The
// accepting thread may start the next one before it returns.
func (t *tenant) over(x *event.Exit, cause error) {
	s, lent, untouched := t.lender.service, t.lent, t.waiting.Untouched()
	t.waiting = nil
	if e, telling := endOf(x, cause); telling {
		if e.Kind == admit.Succeeded && x.Reason == "" && untouched {
			e.Kind, cause = admit.Undone, undoneEnd{x}
		}
		now := s.daemon.now()
		s.tell(t.ticket.Ended(e, now), &t.visitor, x, cause, now)
	}
	t.ticket.Release()
	for _, k := range lent {
		k.Return()
	}
	s.gone()
}

// undoneEnd is how a program ended that has accepted nobody, as the cause in a
// record.
type undoneEnd struct{ *event.Exit }

func (u undoneEnd) Error() string {
	return fmt.Sprintf("the program exited with status 0 after %s and has accepted nobody: who it was started for still waits",
		u.Duration.Round(time.Millisecond))
}

var _ listen.Keeper = (*lender)(nil)
