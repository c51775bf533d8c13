package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"superd/services"
	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/peer"
	"superd/superd/internal/proxy"
	"superd/superd/internal/spawn"
)

// A service is one entry of the file at work: the door that accepted
// connections come in by. It never changes while it listens.
type service struct {
	daemon    *daemon
	config    *config.Service
	owners    listen.Owners // of its unix sockets
	lender    *lender       // where programs get the sockets themselves; else nil
	gate      *admit.Gate
	admission *admission
	conn      conn.Service
	relays    bool          // peers of datagrams have programs
	sessions  conn.Service  // of datagrams, where their peers have programs; else nothing
	plans     []*spawn.Plan // conn's, and then those of the overrides
	table     *conn.Table
	hall      *hall // of the thread that accepts for it
	stale     bool  // its rules could not be renewed; touched by the refreshing goroutine only

	generation int       // of the file, that has brought it
	since      time.Time // when that was

	guests   atomic.Int64 // who came in by it and are not over
	retired  atomic.Bool  // another generation has taken its place
	closed   sync.Once
	inherits bool // programs are started by the thread that has entered their walls
	counts   bool // programs are told how many connections their source has

	image   *spawn.Image // of a built-in; else nil
	letters *spawn.Image // of one that answers datagrams as well, and does that otherwise; else nil

	// What only the accepting thread touches.
	second  int64 // that the image speaks of
	entered bool  // Enter has taken a place
}

// Enter implements listen.Door. Where nobody is looked at, a place is taken
// first: who finds none waits where waiting is cheapest, in the kernel's queue.
func (s *service) Enter() bool {
	s.entered = s.gate.Direct()
	return !s.entered || s.gate.Enter()
}

// proxied tells whether clients come through proxies that name them.
func (s *service) proxied() bool { return len(s.config.Proxy.From) > 0 }

// Leave implements listen.Door.
func (s *service) Leave() {
	if s.entered {
		s.gate.Leave()
	}
}

// Connection implements listen.Door: from here on a guest owns fd.
func (s *service) Connection(fd int, p *peer.Peer) {
	g := s.hall.guest(s)
	g.fd, g.visitor.Peer = fd, *p
	if s.entered {
		g.seat()
	} else {
		g.receive()
	}
}

// Impatient implements listen.Door.
func (s *service) Impatient() bool { return s.admission.rules.Refuse }

// errNoDescriptors is why a client is turned away whom superd cannot let wait.
var errNoDescriptors = errors.New("superd has no descriptors left")

// TurnAway implements listen.Door.
func (s *service) TurnAway(fd int, p *peer.Peer) {
	g := s.hall.guest(s)
	g.fd, g.visitor.Peer = fd, *p
	g.greet()
	s.conn.Events.Refused(g.visitor.Who(), event.ReasonTotalLimit, errNoDescriptors)
	g.say(admit.ReasonTotalLimit)
	g.finish()
}

// An occupant is whom a program in the table belongs to, as the visitor's host.
type occupant interface {
	// over gives back what start took: the program has ended, or could not be
	// started.
	over(x *event.Exit, cause error)
	// place is what a superd that comes after has to know.
	place(d *daemon) place
}

// release is conn.Service's.
func release(v *conn.Visitor, x *event.Exit, cause error) { v.Host.(occupant).over(x, cause) }

// over implements occupant.
func (g *guest) over(x *event.Exit, cause error) {
	s := g.service
	if s.counts {
		s.gate.Forget(g.client)
	}
	if e, telling := endOf(x, cause); telling {
		now := s.daemon.now()
		s.tell(g.ticket.Ended(e, now), &g.visitor, x, cause, now)
	}
	g.ticket.Release()
	for _, h := range s.daemon.halls {
		h.processFree()
	}
	g.hall.take(g)
}

// endOf is the end of a program as admission knows it; false where it tells
// nothing about the service, since superd lacked something.
func endOf(x *event.Exit, cause error) (e admit.End, telling bool) {
	e.Lived = x.Duration
	var f *spawn.Failure
	switch {
	case errors.As(cause, &f) && f.Child:
		e.Kind = admit.ExecError
	case cause != nil:
		return e, false
	case x.Reason == "" && (x.Signaled || x.Status != 0):
		e.Kind = admit.Failed
	}
	return e, true
}

// tell records what the end of v's program made of a service whose program
// keeps failing.
func (s *service) tell(c admit.Change, v *conn.Visitor, x *event.Exit, cause error, now admit.Moment) {
	switch c {
	case admit.Paused, admit.PausedAgain:
		if cause == nil {
			cause = badEnd{x}
		}
		now := s.gate.Status(now)
		s.conn.Events.Paused(v.Who(), &event.Pause{Last: cause, Length: now.Left, Again: c == admit.PausedAgain, Narrow: now.Culprit != ""})
	case admit.Recovered:
		s.conn.Events.Recovered()
	}
}

// badEnd is how a program ended, as the cause in a record.
type badEnd struct{ *event.Exit }

func (b badEnd) Error() string {
	return fmt.Sprintf("the program %s after %s: see its records stderr and exited", b.short(), b.Duration.Round(time.Millisecond))
}

func (b badEnd) short() string {
	if b.Signaled {
		return "was ended by " + unix.SignalName(b.Signal)
	}
	return fmt.Sprintf("exited with status %d", b.Status)
}

// refreshImage makes the image anew for a built-in that tells the time, once
// in a second at most.
func (s *service) refreshImage() {
	if s.image == nil || !services.Clocked(s.config.Builtin) {
		return
	}
	if now := time.Now().Unix(); now != s.second &&
		s.renew(s.image, s.config.OnlyDatagrams()) && (s.letters == nil || s.renew(s.letters, true)) {
		s.second = now
	}
}

func (s *service) renew(image *spawn.Image, datagrams bool) bool {
	content, err := services.Image(s.config.Builtin, optionsOf(s.config, datagrams))
	return err == nil && image.Replace(content) == nil
}

// overrides are what differs for the clients of some rules.
func (s *service) overrides() []*override {
	if s.admission == nil {
		return nil // it has problems
	}
	return s.admission.overrides
}

// retire has s end with the last of its guests: no further ones come.
func (s *service) retire() {
	s.retired.Store(true)
	if s.guests.Load() == 0 {
		s.close()
	}
}

// hold keeps s from ending until gone, unless that is too late.
func (s *service) hold() bool {
	s.guests.Add(1)
	if s.retired.Load() {
		s.gone()
		return false
	}
	return true
}

// gone notes that a guest of s is over.
func (s *service) gone() {
	if s.guests.Add(-1) == 0 && s.retired.Load() {
		s.close()
	}
}

// close frees what s was built of, once nobody uses it.
func (s *service) close() {
	s.closed.Do(func() {
		for _, p := range s.plans {
			p.Close()
		}
		for _, image := range []*spawn.Image{s.image, s.letters} {
			if image != nil {
				image.Close()
			}
		}
	})
}

// refreshRules renews what s's programs are confined to, where that leads to
// other files than before.
func (s *service) refreshRules() (err error) {
	for _, p := range s.plans {
		err = errors.Join(err, p.Refresh())
	}
	return err
}

// optionsOf is what the image of a built-in is made by.
func optionsOf(c *config.Service, datagrams bool) services.Options {
	o := services.Options{Now: time.Now(), Datagrams: datagrams, Amplify: c.Amplify}
	if c.Text != "" {
		o.Text = &c.Text
	}
	return o
}

// specOf is what a service's plan is made of. Id is nil where the program
// keeps superd's own identity, and who is whom its environment speaks of.
func specOf(c *config.Service, image *spawn.Image, id, who *spawn.Identity) spawn.Spec {
	s := spawn.Spec{
		Service:  c.Name,
		Argv:     []string{c.Builtin},
		Image:    image,
		Env:      spawn.Environment(c.Name, who, passed(c.EnvPass), own(c.Env)),
		EnvStyle: c.EnvStyle,
		Stderr:   c.Stderr,
		Dir:      c.Dir,
		Umask:    c.Umask,
		Nice:     c.Nice,
		OOMScore: c.OOMScore,
		Identity: id,
		Chroot:   c.Chroot,
		Rlimits:  c.Rlimits,
		Sandbox:  c.Sandbox,
		Cgroup:   c.Cgroup,
	}
	if c.Builtin == "" {
		s.Path, s.Argv, s.Image = c.Run[0], append([]string{}, c.Run...), nil
	}
	if c.Wait == config.WaitListenFDs {
		s.Sockets, s.EnvStyle = mostSockets(c), nil // of several sockets none is the one
	}
	if c.Argv0 != "" {
		s.Argv[0] = c.Argv0
	}
	if len(c.Proxy.From) > 0 || c.Mux != "" { // the header may have come before the name
		s.Further, s.Room = proxy.Names(), proxy.MostVariables
	}
	return s
}

// passed is what of superd's own environment a service takes over.
func passed(names []string) (list []string) {
	for _, name := range names {
		if value, set := os.LookupEnv(name); set {
			list = append(list, name+"="+value)
		}
	}
	return list
}

func own(env []config.EnvVar) (list []string) {
	for _, v := range env {
		list = append(list, v.Name+"="+v.Value)
	}
	return list
}

var _ listen.Door = (*service)(nil)
