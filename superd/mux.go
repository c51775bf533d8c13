package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/tcpmux"
)

// A service with the built-in tcpmux starts no program. Its guests say in a
// line whom they want, and go on to that service as if they had come to it
// (RFC 1078).

// A directory is who can be reached by name. It never changes.
type directory struct {
	services map[tcpmux.Name]*service
	names    []string
	list     []byte // the names, as clients are told
}

// newDirectory finds the services of a file that are reached by their names.
func newDirectory(list []*service) *directory {
	d := &directory{services: map[tcpmux.Name]*service{}}
	for _, s := range list {
		if name, ok := tcpmux.Fold([]byte(s.config.Name)); ok && s.config.Enabled && s.config.Mux != "" {
			d.services[name] = s
			d.names = append(d.names, s.config.Name)
			d.list = append(append(d.list, s.config.Name...), "\r\n"...)
		}
	}
	return d
}

// reach is the service of that name, held for the caller, who owes it gone; nil
// if there is none.
func (d *daemon) reach(name []byte) *service {
	folded, ok := tcpmux.Fold(name)
	for ok {
		s := d.directory.Load().services[folded]
		if s == nil || s.hold() {
			return s
		}
		// It was retired meanwhile, which the next directory knows already.
	}
	return nil
}

// leads tells whether guests of s go on to other services.
func (s *service) leads() bool { return s.config.Builtin == config.BuiltinMux }

// describeMux is what there is to say in place of a plan.
func describeMux(list []*service) []string {
	return []string{"no program, clients go on to " + cmp.Or(strings.Join(newDirectory(list).names, ", "), "nobody")}
}

// usualLine is how long a client has for its line where the file does not say
// it.
const usualLine = 10 * time.Second

// Why a guest is turned away that was to say whom it wants.
var (
	errLateName  = errors.New("the line with the name of a service was not complete in timeout.first_byte")
	errCrowdName = errors.New("too many others have not said the name of a service either")
)

// awaitName waits for the line, unless the client would be turned away whatever
// it says.
func (g *guest) awaitName() {
	if g.screened() {
		g.stage = awaitsName
		g.readName(0)
	}
}

// readName looks at what the client has sent. The line is left where it is until
// it is decided whether the client may go on.
func (g *guest) readName(events uint32) {
	buffer := g.hall.buffer[:tcpmux.MostBytes]
	n, err := peek(g.fd, buffer)
	if err != unix.EAGAIN && n <= 0 {
		g.silent()
		return
	}
	_, _, err = tcpmux.Parse(buffer[:max(n, 0)], events&unix.EPOLLRDHUP != 0)
	switch err {
	case nil:
		g.heard()
		g.owed = true
		g.ask()
	case tcpmux.ErrMore:
		g.listen(cmp.Or(g.service.config.Timeout.FirstByte, usualLine))
	default:
		g.refuseName(err)
	}
}

// unnamed lets a client go that has not said whom it wants. One that has not
// said anything is no refusal.
func (g *guest) unnamed(cause error) {
	var one [1]byte
	if n, _ := peek(g.fd, one[:]); n > 0 {
		g.refuseName(cause)
		return
	}
	g.silent()
}

// refuseName turns g away for what it said, or did not.
func (g *guest) refuseName(cause error) {
	g.owed = true
	g.service.gate.Refused(g.client, admit.ReasonAddress, g.service.daemon.now())
	g.refuse(admit.ReasonAddress, cause)
}

// dispatch has g, who may come in, go on to the service that it has named. It
// needs no place here: it needs one there.
func (g *guest) dispatch() {
	g.ticket.Release()
	g.ticket = admit.Ticket{}
	if !g.owed { // it came in by the rules of a file in which the service was another
		g.known()
		return
	}
	buffer := g.hall.buffer[:tcpmux.MostBytes]
	n, _ := peek(g.fd, buffer)
	name, length, _ := tcpmux.Parse(buffer[:max(n, 0)], true)
	if strings.EqualFold(string(name), tcpmux.Help) {
		g.help()
		return
	}
	s := g.service.daemon.reach(name)
	if s == nil {
		g.refuseName(fmt.Errorf(`no service has tcpmux: true and the name "%s"`, tcpmux.Shown(name)))
		return
	}
	if err := g.swallow(length); err != nil {
		s.gone()
		g.refuseName(err)
		return
	}
	g.goOn(s)
}

// help tells a client which services there are.
func (g *guest) help() {
	g.service.conn.Events.Listed(g.visitor.AppendPeer(g.hall.buffer[:0], &g.service.conn))
	unix.SendmsgN(g.fd, g.service.daemon.directory.Load().list, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	g.seeOff()
}

// goOn has g come to s, which it holds. What it said counts as its first byte.
func (g *guest) goOn(s *service) {
	if s.hall != g.hall {
		g.cross(s)
		return
	}
	g.service.gone()
	g.service = s
	g.arriveAgain()
}

func (g *guest) arriveAgain() {
	g.decision = admit.Decision{}
	g.introduce()
	g.client.Host = g
	g.ask()
}

// cross is goOn to a service whose programs another thread starts. Services that
// lead are in the plain hall, which an upgrade and the end of superd have stand
// still before the other one: so nobody is on the way then.
func (g *guest) cross(s *service) {
	if err := g.stepUp(); err != nil {
		s.gone()
		g.refuse(admit.ReasonTotalLimit, err)
		return
	}
	h := s.hall
	other := h.guest(s)
	s.gone()
	other.fd, other.owed, other.visitor.Peer, other.visitor.Taken = g.fd, g.owed, g.visitor.Peer, g.visitor.Taken
	other.extra, g.extra = g.extra, nil
	g.hall.take(g)
	h.set.Order(other.arriveAgain)
}

// answer tells a client who came by a name that it can go on, unless the program
// does. What superd says does not count as the program's.
func (g *guest) answer() {
	if g.owed && g.service.config.Mux != config.MuxPlain {
		unix.SendmsgN(g.fd, []byte(tcpmux.Positive), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	}
	g.owed = false
}

// words are what a client that is turned away is told: by tcpmux's rule a line
// that begins with -, where it waits for one.
func (g *guest) words(r admit.Reason) []byte {
	text := g.service.admission.texts[r]
	switch {
	case len(text) > 0 && (g.owed || g.service.leads()):
		return append(append(g.hall.buffer[:0], tcpmux.Refusal...), text...)
	case g.owed:
		return append(g.hall.buffer[:0], tcpmux.Negative...)
	}
	return text
}
