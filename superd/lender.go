package main

import (
	"cmp"
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
	s.conn.Release = takeBack
}

// Porter implements listen.Door.
func (s *service) Porter() listen.Porter {
	if s.lender == nil {
		return nil
	}
	return s.lender
}

// A tenant is a program that has sockets of a service, or will have them when
// somebody comes.
type tenant struct {
	lender  *lender
	sockets []*listen.Socket // that the next program gets
	visitor conn.Visitor

	// Of the program that runs; release reads them.
	lent   []*listen.Socket
	ticket admit.Ticket

	rests   lobby.Guest
	next    time.Duration // when the program may be started again
	refused bool          // that it may not be started has been recorded
}

// Readable implements listen.Porter.
func (l *lender) Readable(k *listen.Socket) {
	t := l.tenantOf(k)
	if t.rests.Waiting() || slices.ContainsFunc(t.sockets, (*listen.Socket).Lent) {
		l.hall.set.Leave(k) // until the rest is over, or the program of an earlier service has ended
		return
	}
	t.call(k)
}

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
	return l.all
}

// How often a program may be started for one tenant: that many times at once,
// and then with a pause. One that leaves its work undone would be started as
// fast as it ends otherwise.
const (
	startsAtOnce  = 20
	betweenStarts = 100 * time.Millisecond
)

// call starts t's program for whoever has come to k.
func (t *tenant) call(k *listen.Socket) {
	l := t.lender
	now := l.daemon.now()
	if early := t.next - startsAtOnce*betweenStarts; early > now.Since {
		t.rest(early - now.Since)
		return
	}
	d := l.gate.Try(admit.Client{Unseen: true}, now)
	entered := d.Verdict == admit.Entered
	if entered || !t.refused {
		t.visitor.Peer, t.visitor.Host = k.Self(), t
		l.table.Welcome(&l.conn, &t.visitor)
	}
	l.tellTurn(d.Change, &t.visitor)
	if !entered {
		t.refuse(&d)
		return
	}
	t.refused, t.ticket = false, d.Ticket
	t.next = max(t.next, now.Since) + betweenStarts
	t.start(k)
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
	for _, k := range t.lent {
		l.hall.set.Lend(k)
	}
	l.guests.Add(1)
	l.table.Start(&l.conn, fd, &t.visitor, true)
}

// nameSockets says what the program gets from descriptor 3 on.
func (t *tenant) nameSockets() {
	t.visitor.Sockets, t.visitor.Names = t.visitor.Sockets[:0], t.visitor.Names[:0]
	for _, k := range t.sockets {
		t.visitor.Sockets = append(t.visitor.Sockets, k.FD())
		t.visitor.Names = append(t.visitor.Names, cmp.Or(k.Listener().Label, t.lender.config.Name))
	}
}

// refuse leaves whoever has come where they are, in the kernel's queue,
// since nobody but the program can turn them away. It is recorded once, however
// often it is tried.
func (t *tenant) refuse(d *admit.Decision) {
	l := t.lender
	if !t.refused {
		t.refused = true
		l.conn.Events.Refused(t.visitor.Who(), event.Reason(d.Reason), why{d})
	}
	t.rest(cmp.Or(d.Left, unknown))
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

// takeBack implements conn.Service's Release: the program that had the sockets
// has ended. The accepting thread may start the next one before it returns.
func takeBack(v *conn.Visitor, x *event.Exit, cause error) {
	t := v.Host.(*tenant)
	s, lent := t.lender.service, t.lent
	if e, telling := endOf(x, cause); telling {
		now := s.daemon.now()
		s.tell(t.ticket.Ended(e, now), v, x, cause, now)
	}
	t.ticket.Release()
	for _, k := range lent {
		k.Return()
	}
	s.gone()
}
