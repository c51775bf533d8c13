package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/conn"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/lobby"
	"superd/superd/internal/peer"
	"superd/superd/internal/spawn"
)

// A guest is an accepted connection: on its way to a program, while the
// program runs, or on its way out. Up to the start of its program the hall's
// thread has it, and its descriptor; then the table of connections, until
// service.release.
type guest struct {
	hall    *hall
	service *service
	visitor conn.Visitor
	stage   progress
	fd      int           // above the window once it waits for something; -1 for none
	since   time.Duration // it has been in this stage
	welcome bool          // it has a name, and is counted
	tries   int           // to start its program
	owed    bool          // it has said whom it wants, and hears whether it can go on (tcpmux)
	program *conn.Service // that is started for it
	session *session      // where it is a peer that has sent a datagram; else nil

	waits    lobby.Guest
	client   admit.Client
	waiter   admit.Waiter
	ticket   admit.Ticket
	decision admit.Decision
	extra    []byte // memory of the visitor's further variables

	party      *party
	prev, next *guest // in its party, or among the spare ones
}

// progress is where a guest is on its way.
type progress uint8

const (
	nobody        progress = iota // spare
	arrived                       // not looked at yet
	awaitsHeader                  // a proxy has to say who its client is
	awaitsByte                    // the client has to say something
	awaitsName                    // the client has to say whom it wants
	awaitsPlace                   // House.Next will tell
	gone                          // it left in the moment in which House.Next told
	awaitsProcess                 // it has its place, and the system had no process to give
	dismissed                     // it was turned away, and may read why
)

// seat begins with a guest for whom a place was taken before it was accepted.
func (g *guest) seat() {
	g.introduce()
	g.greet()
	g.decision = g.service.gate.Seat(g.client, g.service.daemon.now())
	g.decided()
}

// receive begins with a guest who has no place yet.
func (g *guest) receive() {
	if g.service.proxied() {
		g.awaitHeader()
		return
	}
	g.known()
}

// known goes on with a guest of whom it is known who it is.
func (g *guest) known() {
	g.introduce()
	g.client.Host = g
	switch {
	case g.service.leads():
		g.awaitName()
	case g.service.config.Timeout.FirstByte > 0:
		g.awaitByte()
	default:
		g.ask()
	}
}

// clientOf is a connection's far end as admission knows it.
func clientOf(p *peer.Peer) admit.Client {
	return admit.Client{Addr: p.Remote.Addr(), Unix: p.Kind == peer.Unix && !p.Unseen(), UID: p.UID, GID: p.GID, Unseen: p.Unseen()}
}

// introduce is clientOf, with all the groups of a client by a unix socket where
// there are rules about groups.
func (g *guest) introduce() {
	g.client = clientOf(&g.visitor.Peer)
	if g.client.Unix && g.service.admission.groups && !g.visitor.Peer.Datagrams {
		g.client.Groups, _ = listen.Groups(g.fd) // of a connection that is accepted they are known
	}
}

// ask has it decided what becomes of g.
func (g *guest) ask() {
	if !g.service.leads() { // else it is greeted where it goes on to
		g.greet()
	}
	g.decision = g.service.gate.Ask(g.client, g.service.daemon.now())
	g.decided()
}

// decided does what the decision about g says.
func (g *guest) decided() {
	g.tellTurn()
	switch g.decision.Verdict {
	case admit.Entered:
		g.ticket = g.decision.Ticket
		g.start()
	case admit.Waits:
		g.waiter = g.decision.Waiter
		g.queue()
	default:
		g.refuse(g.decision.Reason, why{&g.decision})
	}
}

// tellTurn records what the decision about g made of a service whose program
// kept failing.
func (g *guest) tellTurn() { g.service.tellTurn(g.decision.Change, &g.visitor) }

func (s *service) tellTurn(c admit.Change, v *conn.Visitor) {
	switch c {
	case admit.Trying:
		s.conn.Events.Trying(v.Who())
	case admit.Recovered:
		s.conn.Events.Recovered()
	}
}

// greet names g and counts it, once.
func (g *guest) greet() {
	if !g.welcome {
		g.welcome = true
		g.service.table.Welcome(&g.service.conn, &g.visitor)
	}
}

// start begins with the program of g, who has a place.
func (g *guest) start() {
	if g.service.leads() {
		g.dispatch()
		return
	}
	g.answer()
	g.program = g.service.programFor(g)
	if o := g.override(); o != nil {
		g.program = o.programFor(g)
	}
	if s := g.service; s.counts {
		g.visitor.FromSource = s.gate.Count(g.client)
	}
	g.tries = 0
	g.launch()
}

// startDelays is how the start of a program is tried again while the system has
// no process to give (clone(2), EAGAIN): what ends meanwhile makes room. They
// add up to a quarter of a second, in which nobody else is held up.
var startDelays = [...]time.Duration{
	1 * time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 8 * time.Millisecond,
	16 * time.Millisecond, 32 * time.Millisecond, 64 * time.Millisecond, 128 * time.Millisecond,
}

// launch has the table start g's program, and leaves g to it.
func (g *guest) launch() {
	s := g.service
	s.refreshImage()
	g.stepDown()
	last, session := g.tries == len(startDelays), g.session
	if s.table.Start(g.program, g.fd, &g.visitor, last) { // g may be over, and somebody else's, from here on
		if session != nil {
			session.begin()
		}
		return
	}
	g.tries++
	if err := g.await(awaitsProcess, unix.EPOLLET, startDelays[g.tries-1]); err != nil {
		g.launchNow()
		return
	}
	g.hall.starting.add(g)
	g.hall.short.Store(true)
}

// launchAgain is for one who waits for a process.
func (g *guest) launchAgain() {
	g.hall.lobby.Remove(&g.waits)
	g.leave()
	g.launch()
}

// launchNow tries to start the program for the last time.
func (g *guest) launchNow() {
	g.tries = len(startDelays)
	g.launchAgain()
}

// stepDown takes the descriptor back into the window, which is where a
// program's own have to be.
func (g *guest) stepDown() {
	if g.fd < g.service.daemon.engine.Window() {
		return
	}
	if low, err := unix.FcntlInt(uintptr(g.fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
		unix.Close(g.fd)
		g.fd = low
	}
}

// override is what the rule that holds for g has it run; nil for the service's
// own program. The rule may be of a file that was taken up after g came in: then
// it is run by that file's service, if the thread of g starts its programs.
func (g *guest) override() *override {
	rule := g.decision.Rule
	if rule == nil || rule.Data == nil {
		return nil
	}
	o := rule.Data.(*override)
	if o.owner == g.service || o.owner.hall == g.hall && g.join(o.owner) {
		return o
	}
	return nil
}

// join has g belong to another generation of its service, unless that is over.
func (g *guest) join(s *service) bool {
	if !s.hold() {
		return false
	}
	g.service.gone()
	g.service = s
	return true
}

// queue has g wait for a place. All that can be heard of it until then is that
// it has gone. Where it cannot wait, what became of it may be on its way here
// already: then that holds.
func (g *guest) queue() {
	h := g.hall
	h.waiting++
	g.stage = awaitsPlace
	reason, err := admit.ReasonQueueFull, error(errNoSeats)
	if h.waiting <= h.most {
		reason, err = admit.ReasonTotalLimit, g.await(awaitsPlace, unix.EPOLLRDHUP|unix.EPOLLET, lobby.Forever)
	}
	if err != nil && g.waiter.Abandon() {
		g.stopWaiting()
		g.refuse(reason, err)
	}
}

var errNoSeats = errors.New("as many wait at all services together as there are descriptors for")

// await has g wait for events of its connection, for as long as length. The
// descriptor goes above the window for that, or is where it was after an error.
func (g *guest) await(s progress, events uint32, length time.Duration) error {
	g.stage, g.since = s, g.service.daemon.now().Since
	if err := g.stepUp(); err != nil {
		return err
	}
	due := lobby.Forever
	if length < lobby.Forever-g.since {
		due = g.since + length
	}
	return g.hall.lobby.Await(&g.waits, g.fd, g, events, due)
}

// stepUp takes the descriptor above the window, or leaves it where it is after
// an error.
func (g *guest) stepUp() error {
	engine := g.service.daemon.engine
	if g.fd >= engine.Window() {
		return nil
	}
	high, err := engine.Dup(g.fd)
	if err != nil {
		errno, _ := err.(unix.Errno)
		return &spawn.Failure{Words: "keep a descriptor of the connection", Errno: errno}
	}
	unix.Close(g.fd)
	g.fd = high
	return nil
}

// Ready implements lobby.Host.
func (g *guest) Ready(events uint32) {
	switch g.stage {
	case awaitsHeader:
		g.readHeader(events)
	case awaitsByte:
		g.readByte()
	case awaitsName:
		g.readName(events)
	case awaitsPlace:
		g.hears(events)
	case dismissed:
		g.seeOut()
	}
	// Of who waits for a process nothing matters but that time.
}

// Late implements lobby.Host.
func (g *guest) Late() {
	switch g.stage {
	case awaitsHeader:
		g.refuseHeader(errNoHeader)
	case awaitsByte:
		g.silent()
	case awaitsName:
		g.unnamed(errLateName)
	case awaitsProcess:
		g.launchAgain()
	case dismissed:
		g.finish()
	}
}

// hears deals with what becomes known of a guest who waits for a place. One
// that has shut down its own side may have gone or want its answer still, and
// nothing tells these apart (tcp(7)): it is the first to go when others have no
// room to wait.
func (g *guest) hears(events uint32) {
	switch {
	case events&(unix.EPOLLHUP|unix.EPOLLERR) != 0:
		g.abandon()
	case events&unix.EPOLLRDHUP != 0:
		g.waiter.Yield()
	}
}

var errLeft = errors.New("the client left")

// abandon ends the wait for a place of a guest who has left.
func (g *guest) abandon() {
	g.stopWaiting()
	if g.waiter.Abandon() {
		g.refuse(g.decision.Reason, fmt.Errorf("%w after %s", errLeft, (g.service.daemon.now().Since-g.since).Round(time.Millisecond)))
		return
	}
	g.stage = gone // what House.Next told is on its way here
}

func (g *guest) stopWaiting() {
	g.hall.lobby.Remove(&g.waits)
	g.hall.waiting--
}

// settled hears what became of a guest who waited for a place.
func (g *guest) settled(d admit.Decision) {
	if g.stage == gone {
		d.Ticket.Release()
		g.refuse(g.decision.Reason, errLeft)
		return
	}
	g.stopWaiting()
	g.decision = d
	if d.Verdict == admit.Entered {
		g.service.conn.Events.Queued(g.service.daemon.now().Since - g.since)
	}
	g.decided()
}

// awaitByte waits until the client has sent anything, unless it would be
// turned away whatever that is.
func (g *guest) awaitByte() {
	if g.screened() {
		g.stage = awaitsByte
		g.readByte()
	}
}

// screened tells whether g may come in as far as that is no matter of room, or
// else turns it away.
func (g *guest) screened() bool {
	var refused bool
	if g.decision, refused = g.service.gate.Screen(g.client, g.service.daemon.now()); refused {
		g.decided()
		return false
	}
	g.tellTurn()
	return true
}

func (g *guest) readByte() {
	n, err := peek(g.fd, g.hall.buffer[:1])
	switch {
	case n > 0:
		g.heard()
		g.ask()
	case err == unix.EAGAIN:
		g.listen(g.service.config.Timeout.FirstByte)
	default:
		g.silent()
	}
}

// silent lets a client go that has sent nothing: it cost no program, and is no
// refusal.
func (g *guest) silent() {
	g.heard()
	g.service.conn.Events.Silent(g.visitor.AppendPeer(g.hall.buffer[:0], &g.service.conn))
	g.finish()
}

// listen has a silent guest wait until it has sent more. Each event is told
// once, so that what it has sent can be left where it is.
func (g *guest) listen(length time.Duration) {
	if g.party != nil {
		return // it waits already
	}
	h := g.hall
	h.makeRoom()
	h.silent.add(g)
	h.crowd[g.origin()]++
	if err := g.await(g.stage, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET, length); err != nil {
		g.refuse(admit.ReasonTotalLimit, err)
	}
}

// giveWay ends the wait of a silent guest, since others need the room.
func (g *guest) giveWay() {
	switch g.stage {
	case awaitsHeader:
		g.refuseHeader(errManySilent)
	case awaitsName:
		g.unnamed(errCrowdName)
	default:
		g.silent()
	}
}

// heard takes a guest from among the silent.
func (g *guest) heard() {
	h := g.hall
	if g.party != &h.silent {
		return
	}
	h.lobby.Remove(&g.waits)
	g.leave()
	from := g.origin()
	if h.crowd[from]--; h.crowd[from] == 0 {
		delete(h.crowd, from)
	}
}

// origin is where a guest is from, as far as it is known before any policy: the
// network that one customer has.
func (g *guest) origin() netip.Prefix {
	addr := g.visitor.Peer.Remote.Addr()
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	network, _ := addr.Prefix(bits)
	return network
}

// refuse turns g away, with a text where the service has one.
func (g *guest) refuse(r admit.Reason, cause error) {
	g.heard()
	g.greet()
	g.service.conn.Events.Refused(g.visitor.Who(), event.Reason(r), cause)
	if g.say(r) {
		g.seeOff()
	} else {
		g.finish()
	}
}

// say tells the client why it is turned away, if the service has words for it.
func (g *guest) say(r admit.Reason) bool {
	text := g.words(r)
	if g.visitor.Peer.Datagrams {
		return false // who has sent a datagram may be another
	}
	if len(text) > 0 {
		unix.SendmsgN(g.fd, text, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	return len(text) > 0
}

// farewell is how long a client that was turned away has to read why, and to
// close.
const farewell = 2 * time.Second

// seeOff leaves the connection open until the client has closed it: closing it
// on input that nobody read would reset it, and destroy the text on its way.
func (g *guest) seeOff() {
	h := g.hall
	unix.Shutdown(g.fd, unix.SHUT_WR)
	if drained(g.fd, h.buffer[:]) {
		g.finish()
		return
	}
	if h.leaving.len >= min(h.most, mostLeaving) {
		h.leaving.first.finish()
	}
	h.leaving.add(g)
	if g.await(dismissed, unix.EPOLLIN|unix.EPOLLRDHUP, farewell) != nil {
		g.finish()
	}
}

func (g *guest) seeOut() {
	if drained(g.fd, g.hall.buffer[:]) {
		g.finish()
	}
}

// finish closes the connection of a guest who has no program. What was sent is
// thrown away first, so that the client sees an end and no reset.
func (g *guest) finish() {
	g.hall.lobby.Remove(&g.waits)
	g.leave()
	if g.fd >= 0 {
		drained(g.fd, g.hall.buffer[:])
		unix.Close(g.fd)
	}
	if g.session != nil {
		g.session.close()
	}
	g.hall.take(g)
}

// gulps is how many buffers of input one look throws away at most.
const gulps = 16

// drained throws away what has come, and tells whether the client has closed.
func drained(fd int, buffer []byte) bool {
	for range gulps {
		n, _, err := unix.Recvfrom(fd, buffer, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return false
		case err != nil || n == 0:
			return true
		}
	}
	return false
}

// peek copies what has come and leaves it where it is; 0 and no error is the
// client's end.
func peek(fd int, buffer []byte) (n int, err error) {
	for {
		n, _, err = unix.Recvfrom(fd, buffer, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// swallow takes what has come from the connection, and not a byte more.
func (g *guest) swallow(length int) error {
	for length > 0 {
		n, _, err := unix.Recvfrom(g.fd, g.hall.buffer[:length], unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		g.visitor.Taken += n
		length -= n
	}
	return nil
}

// why is a decision as the cause in a record, put into words only where it is
// written.
type why struct{ *admit.Decision }

func (w why) Error() string { return w.Why() }
