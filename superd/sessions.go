package main

import (
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/lobby"
	"superd/superd/internal/spawn"
)

// A session is the datagrams of one peer, and superd's end of the pair by which
// a program has them: the guest's descriptor is the other end. It belongs to the
// hall's thread, from its first datagram until the table has it settled, or the
// guest is turned away.
type session struct {
	guest  *guest
	socket *listen.Socket // that the peer has sent to, and is answered from
	sender listen.Sender
	back   listen.Return
	idle   time.Duration // after which the program's input ends; 0 is never
	end    int           // above the window
	waits  lobby.Guest

	inputEnded  bool // the peer's next datagram is another session's
	outputEnded bool // the program writes no more
	told        bool // the table knows that the program has to end

	in, out atomic.Int64 // bytes that the program was given, and that were sent for it
	moved   atomic.Int64 // on the daemon's clock, when there were any last
	dropped int64        // datagrams, both ways
}

// A relay is what a service has for its sockets of datagrams, where each peer
// has a program of its own: who has sent something that belongs to no session is
// asked for, as a connection would be, and others' datagrams go on to their
// programs.
type relay struct{ *service }

// A ward is all sessions of one socket.
type ward struct {
	peers map[listen.Sender]*session // whose programs take datagrams
	all   int                        // those too that are only answered
}

// How many datagrams of one socket, and of one program, are moved before others
// have their turn.
const (
	lettersAtOnce = 64
	answersAtOnce = 16
)

// Readable implements listen.Porter.
func (r *relay) Readable(k *listen.Socket) {
	for range lettersAtOnce {
		if !r.read(k) {
			return
		}
	}
}

// read passes on the first datagram that waits at k; false where there is none.
func (r *relay) read(k *listen.Socket) bool {
	m := r.hall.mail
	if k.Receive(m) != nil {
		return false
	}
	if s := r.hall.sessionOf(k, m); s == nil || !s.take(m) {
		r.newcomer(k, m)
	}
	return true
}

// longestBacklog is more than a socket can hold of what somebody has sent before
// its end; what comes meanwhile does not make it go on for ever.
const longestBacklog = 1 << 16

// Keeps implements listen.Keeper.
func (r *relay) Keeps(k *listen.Socket) bool {
	h := r.hall
	for n := 0; r.daemon.serving && n < longestBacklog && !h.fading[k] && r.read(k); n++ {
	}
	return r.keeps(k)
}

// keeps has k fade where anybody is still answered from it.
func (s *service) keeps(k *listen.Socket) bool {
	h := s.hall
	if h.wards[k] == nil {
		return false
	}
	if !h.fading[k] {
		h.fading[k] = true
		s.daemon.fade(&site{socket: k, listener: k.Listener(), service: s})
	}
	return true
}

// oneByte stands for an empty datagram where what it says does not matter: the
// reader of an empty record takes it for the end.
var oneByte = []byte{0}

// textOf is what a program of s is given for a datagram; nothing where it cannot
// be given.
func (s *service) textOf(m *listen.Mailbox) []byte {
	switch {
	case m.Cut:
		return nil
	case len(m.Text) == 0 && s.config.Amplify:
		return oneByte
	}
	return m.Text
}

// newcomer is about the first datagram of a session.
func (r *relay) newcomer(k *listen.Socket, m *listen.Mailbox) {
	if len(r.textOf(m)) == 0 {
		r.conn.Events.Undelivered(event.ToProgram)
		return
	}
	g := r.hall.guest(r.service)
	g.fd, g.visitor.Peer = -1, k.Introduce(m)
	g.greet()
	if why := r.daemon.reflection(k, m); why != nil {
		g.refuse(admit.ReasonAddress, why)
		return
	}
	if r.hall.fading[k] {
		g.refuse(admit.ReasonDraining, nil)
		return
	}
	g.client = clientOf(&g.visitor.Peer)
	g.client.Host = g
	g.decision = r.gate.Ask(g.client, r.daemon.now())
	if g.decision.Verdict != admit.Refused {
		if err := g.converse(k, m); err != nil {
			g.speechless(err)
			return
		}
	}
	g.decided()
}

// converse makes the pair for g's program, and puts the first datagram in.
func (g *guest) converse(k *listen.Socket, m *listen.Mailbox) error {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return &spawn.Failure{Words: "make a pair of sockets", Errno: errnoOf(err)}
	}
	end, err := g.service.daemon.engine.Above(ends[0])
	if err != nil {
		unix.Close(ends[1])
		return &spawn.Failure{Words: "keep a descriptor of the pair", Errno: errnoOf(err)}
	}
	g.fd = ends[1]
	s := &session{guest: g, socket: k, sender: m.Own(), back: k.WayBack(m), end: end, idle: g.service.config.Timeout.Datagrams}
	g.session, g.visitor.Relay = s, s
	g.hall.remember(s)
	s.take(m)
	return nil
}

func errnoOf(err error) unix.Errno {
	errno, _ := err.(unix.Errno)
	return errno
}

// speechless turns away who has a place, or waits for one, and can have no pair.
func (g *guest) speechless(err error) {
	if g.waiter = g.decision.Waiter; g.decision.Verdict == admit.Waits && !g.waiter.Abandon() {
		g.stage = gone // what House.Next told is on its way here
		return
	}
	g.decision.Ticket.Release()
	g.refuse(admit.ReasonTotalLimit, err)
}

// remember has what s's peer sends find it.
func (h *hall) remember(s *session) {
	w := h.wards[s.socket]
	if w == nil {
		w = &ward{peers: map[listen.Sender]*session{}}
		h.wards[s.socket] = w
	}
	if !s.inputEnded {
		w.peers[s.sender] = s
	}
	w.all++
}

// sessionOf finds whose program gets a datagram; nil for nobody's yet.
func (h *hall) sessionOf(k *listen.Socket, m *listen.Mailbox) *session {
	if w := h.wards[k]; w != nil {
		return w.peers[m.From]
	}
	return nil
}

// forget has the peer's next datagram begin a session of its own.
func (s *session) forget() {
	if peers := s.guest.hall.wards[s.socket].peers; peers[s.sender] == s {
		delete(peers, s.sender)
	}
}

// take gives the program a datagram. One that finds no room is dropped, as the
// kernel does at a socket whose program does not read. It returns false where the
// program will read no more, which is found out now.
func (s *session) take(m *listen.Mailbox) bool {
	text := s.guest.service.textOf(m)
	if len(text) == 0 {
		s.drop(event.ToProgram)
		return true
	}
	switch err := put(s.end, text); err {
	case nil:
		s.in.Add(int64(len(text)))
		s.move()
	case unix.EAGAIN, unix.EMSGSIZE, unix.ENOBUFS, unix.ENOMEM:
		s.drop(event.ToProgram)
	default:
		s.endInput()
		return false
	}
	return true
}

// put writes one record, without waiting.
func put(fd int, text []byte) error {
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

// get reads one record, without waiting; n is its length, which can be more than
// there is room for.
func get(fd int, buffer []byte) (n int, err error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)),
			unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR, unix.ECONNRESET: // that the program has left something unread is told once
			continue
		}
		return 0, errno
	}
}

func (s *session) drop(way event.Way) {
	s.dropped++
	s.guest.service.conn.Events.Undelivered(way)
}

// move notes that a datagram goes.
func (s *session) move() { s.moved.Store(int64(s.guest.service.daemon.now().Since)) }

// begin goes on with a session whose program has been started.
func (s *session) begin() {
	s.move()
	s.wait()
}

// wait has the lobby tell of what the program writes, and of the end of the idle
// time.
func (s *session) wait() {
	due := lobby.Forever
	if s.idle > 0 && !s.told {
		due = time.Duration(s.moved.Load()) + s.idle
	}
	l := s.guest.hall.lobby
	switch {
	case !s.outputEnded:
		if l.Await(&s.waits, s.end, s, unix.EPOLLIN|unix.EPOLLRDHUP, due) != nil {
			unix.Shutdown(s.end, unix.SHUT_RDWR) // what cannot be heard of goes nowhere
			s.outputEnded = true
			s.endInput()
		}
	case due < lobby.Forever:
		l.Remove(&s.waits)
		l.Rest(&s.waits, s, due)
	default:
		l.Remove(&s.waits)
	}
}

// Ready implements lobby.Host: the program has written something, or has closed
// its end.
func (s *session) Ready(uint32) {
	if !s.answer(answersAtOnce) {
		s.outputEnded = true
		s.wait()
	}
}

// answer sends what the program has written, that many datagrams at most. It
// returns false where the program will write no more.
func (s *session) answer(most int) bool {
	buffer := s.guest.hall.mail.Buffer()
	for range most {
		n, err := get(s.end, buffer)
		switch {
		case err == unix.EAGAIN:
			return true
		case err != nil || n == 0 && closed(s.end):
			return false
		case n > len(buffer):
			s.drop(event.ToPeer)
		default:
			s.send(buffer[:n])
		}
	}
	return true
}

// send answers the peer. What cannot be sent now is dropped: it may be too long,
// or the peer gone.
func (s *session) send(text []byte) {
	if s.socket.Answer(&s.back, text) != nil {
		s.drop(event.ToPeer)
		return
	}
	s.out.Add(int64(len(text)))
	s.move()
}

// closed tells an end from an empty record, which reads alike: nothing comes
// after the end. Empty ones that a program has written last are taken for it.
func closed(fd int) bool {
	if more, err := unix.IoctlGetInt(fd, unix.SIOCINQ); err == nil && more > 0 {
		return false
	}
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, _ := unix.Poll(p, 0)
	return n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

// Late implements lobby.Host: the session may have been idle for too long.
func (s *session) Late() {
	left := time.Duration(s.moved.Load()) + s.idle - s.guest.service.daemon.now().Since
	if left <= 0 {
		unix.Shutdown(s.end, unix.SHUT_WR)
		s.endInput()
		s.told = true
		s.guest.service.table.InputEnded(&s.guest.visitor)
	}
	s.wait()
}

// endInput is for a program that will get no more datagrams, or read none.
func (s *session) endInput() {
	s.forget()
	s.inputEnded = true
}

// Moved implements conn.Relay.
func (s *session) Moved() (in, out int64, still time.Duration) {
	return s.in.Load(), s.out.Load(), s.guest.service.daemon.now().Since - time.Duration(s.moved.Load())
}

// lastAnswers is more than a pair can hold: whoever goes on writing after the
// program's end is none of its answers.
const lastAnswers = 4096

// Settle implements conn.Relay.
func (s *session) Settle(done func(conn.Passed)) {
	s.guest.hall.set.Order(func() {
		s.answer(lastAnswers)
		s.close()
		done(conn.Passed{In: s.in.Load(), Out: s.out.Load(), Dropped: s.dropped, Idle: s.told})
	})
}

// close ends the session.
func (s *session) close() {
	h := s.guest.hall
	s.forget()
	h.lobby.Remove(&s.waits)
	unix.Close(s.end)
	w := h.wards[s.socket]
	if w.all--; w.all == 0 {
		delete(h.wards, s.socket)
		if h.fading[s.socket] {
			h.set.Order(func() { h.gone(s.socket) }) // it may be at work just now
		}
	}
}

// converses tells whether peers of c's datagrams have programs of their own.
func converses(c *config.Service) bool { return c.Wait == "" && c.Datagrams() }

var (
	_ listen.Keeper = (*relay)(nil)
	_ lobby.Host    = (*session)(nil)
)

// programFor is what is started for g.
func (s *service) programFor(g *guest) *conn.Service {
	if g.session != nil {
		return &s.sessions
	}
	return &s.conn
}

func (o *override) programFor(g *guest) *conn.Service {
	if g.session != nil {
		return &o.sessions
	}
	return &o.conn
}
