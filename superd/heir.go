package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/control"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/lobby"
	"superd/superd/internal/spawn"
)

// An inheritance is what a superd goes on with that has taken the place of
// another.
type inheritance struct {
	*estate
	rehearsed bool                // this is a rehearsal: nothing may have an effect
	ago       time.Duration       // how old the estate is
	remnants  map[string]*service // of services that are no more, by name
	signals   []unix.Signal       // that have come meanwhile
	sockets   []*listen.Socket    // of Sites and Fading; nil for one that was lost
	fallen    bool                // the file before goes on
	problems  []string            // why that is so
	revived   map[*carriedSession]*session
}

// inherit takes what another superd has left, nil where there is none. Its
// descriptors are closed on exec again.
func inherit() (*inheritance, error) {
	text := os.Getenv(willVariable)
	if text == "" {
		return nil, nil
	}
	os.Unsetenv(willVariable)
	in := &inheritance{rehearsed: text == rehearsal, remnants: map[string]*service{}}
	if in.rehearsed {
		spawn.ReleaseSignals()
	}
	var w will // of a rehearsal it is the zero value: descriptor 0
	var err error
	if !in.rehearsed {
		w, err = readWill(text)
	}
	if err == nil {
		in.estate, err = withdrawEstate(w.fd)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot understand the state of the superd that runs: %w", err)
	}
	in.ago, in.signals = sinceBoot()-in.At, w.signals
	if !in.rehearsed {
		unix.Close(w.fd)
		keepAcrossExec(in.descriptors(), false)
	}
	return in, nil
}

func (in *inheritance) isRehearsal() bool { return in != nil && in.rehearsed }

// load is what the heir takes up: the file, with what it includes, as it was when
// it was rehearsed, whatever has become of it since; else the one in force.
func (in *inheritance) load(path string) (*config.Config, error) {
	if in == nil {
		return load(path)
	}
	c, err := in.File.Parse(config.Machine)
	if err != nil && !in.rehearsed {
		in.problems = linesOf(err)
		return in.before().Parse(config.Machine)
	}
	return c, err
}

// accept has d go on with what it inherits, nil for nothing.
func (d *daemon) accept(in *inheritance) {
	d.will = in
	if in == nil {
		return
	}
	d.begin, d.began = time.Now().Add(-in.Age-in.ago), in.Begin
	d.generation = in.Generation
	d.hearSignals()
	spawn.ReleaseSignals()
	for _, s := range in.signals {
		unix.Kill(os.Getpid(), s)
	}
	d.log.Resume(&in.Log)
	if len(in.problems) > 0 {
		d.keepBefore()
	}
	adopted.reaped.Add(in.Orphans)
}

// fallBack is for a file that cannot be taken up after all, though it could be
// when it was rehearsed: the one in force goes on then.
func (d *daemon) fallBack(why config.Problems) (*generation, config.Problems) {
	d.will.problems = append(d.will.problems, linesOf(why)...)
	c, err := d.will.before().Parse(config.Machine)
	if err != nil {
		return nil, why
	}
	d.config = c
	d.keepBefore()
	return d.prepare(c)
}

// keepBefore says why the file before goes on.
func (d *daemon) keepBefore() {
	d.mu.Lock()
	d.stale = true
	d.mu.Unlock()
	for _, line := range d.will.problems {
		d.log.Error(line)
	}
	d.log.Error("cannot take the file up, "+staysInForce, event.F("file", d.config.Path))
	d.will.fallen = true
}

const staysInForce = "the one before stays in force"

// rehearse checks that this superd could take the place of the one that runs.
// It opens nothing, starts nothing, and says so at its end.
func rehearse(c *config.Config, in *inheritance) error {
	log := event.Open(os.Stderr, event.Options{Level: "error", Format: c.Log.Format})
	defer log.Close(time.Second)
	d := newDaemon(c, log, spawn.NewEngine())
	defer d.close()
	d.will = in
	for _, s := range d.config.Services {
		s.Cgroup = config.Cgroup{} // those that are there are the other one's
	}
	services, problems := d.compile(d.config)
	d.services = services // for close
	problems = append(d.logProblems(c), problems...)
	problems = append(problems, d.checkPlots(services)...)
	if len(problems) > 0 {
		return problems
	}
	fmt.Fprintln(os.Stderr, consent+version)
	return nil
}

// checkPlots finds what of the file cannot be changed while superd listens.
func (d *daemon) checkPlots(services []*service) config.Problems {
	for i := range d.will.Sites {
		p := &d.will.Sites[i].Socket
		d.sites = append(d.sites, &site{socket: p.Likeness(), listener: &p.Listener})
	}
	return d.findSites(&generation{config: d.config, services: services})
}

// takeSites takes the sockets over, as if superd had listened on them already.
func (d *daemon) takeSites() {
	if d.will == nil {
		return
	}
	d.operator.take(d.will)
	d.table.Inherit(&d.will.Table, d.will.ago)
	d.inheritance.Resume(d.will.Handed)
	plots := d.will.plots()
	d.will.sockets = make([]*listen.Socket, len(plots))
	for i, p := range plots {
		k, err := listen.Revive(&p.Socket, d.inheritance)
		s := d.will.remnant(d, p.Service)
		if err == nil {
			err = d.sets[plain].Adopt(k, s)
		}
		if err != nil {
			d.log.Error("cannot go on with a socket, it is opened anew", event.F("service", p.Service), event.F("error", err.Error()))
			unix.Close(p.Socket.FD)
			continue
		}
		d.will.sockets[i] = k
		if k.Datagrams() {
			s.hall.readMail()
		}
		known := &site{socket: k, listener: &p.Socket.Listener, service: s}
		if i < len(d.will.Sites) {
			d.sites = append(d.sites, known)
			continue
		}
		s.hall.fading[k] = true
		d.fade(known)
	}
	d.takeSessions()
}

// takeSessions goes on with all sessions, before it turns out which sockets
// would not stay open without them. Their guests come later.
func (d *daemon) takeSessions() {
	d.will.revived = map[*carriedSession]*session{}
	for _, t := range d.will.sessions() {
		if t.Socket < 0 || t.Socket >= len(d.will.sockets) || d.will.sockets[t.Socket] == nil {
			unix.Close(t.End) // the program finds that its peer is gone
			continue
		}
		s := &session{socket: d.will.sockets[t.Socket], sender: t.Sender, back: t.Back, end: t.End, idle: t.Idle, dropped: t.Dropped,
			inputEnded: t.InputEnded, outputEnded: t.OutputEnded, told: t.Told}
		s.in.Store(t.In)
		s.out.Store(t.Out)
		s.moved.Store(int64(t.Moved))
		d.halls[plain].remember(s)
		d.will.revived[t] = s
	}
}

// converseAgain has g go on with its session, nil for none.
func (g *guest) converseAgain(s *session) {
	if s != nil {
		s.guest, g.session, g.visitor.Relay = g, s, s
	}
}

var errNoSocket = errors.New("the socket was lost in an upgrade")

// remnant stands for a service of before that is no more: it has connections
// and sockets, but lets nobody in.
func (in *inheritance) remnant(d *daemon, name string) *service {
	s := in.remnants[name]
	if s != nil {
		return s
	}
	s = &service{daemon: d, config: &config.Service{Name: name}, table: d.table, hall: d.halls[plain], relays: true,
		admission: &admission{policy: admit.NewPolicy(admit.Rules{})}, conn: conn.Service{Events: d.log.Service(name), Release: release}}
	s.gate = d.house.Gate(name, s.admission.policy, func() {})
	s.gate.Close()
	s.retired.Store(true)
	in.remnants[name] = s
	return s
}

// serviceOf is the service of that name, or what is left of it.
func (d *daemon) serviceOf(name string) *service {
	if s := find(d.services, name); s != nil {
		return s
	}
	return d.will.remnant(d, name)
}

// succeed goes on with everything but the sockets, once the file is taken up.
// Nothing is served yet.
func (d *daemon) succeed() {
	in := d.will
	if in == nil {
		return
	}
	d.keepStandings()
	now := d.now()
	d.takeConnections()
	d.house.Resume(in.House.Blocks, now)
	for i := range in.House.Gates {
		c := &in.House.Gates[i]
		if s := find(d.services, c.Name); s != nil {
			s.gate.Resume(c, now)
		}
	}
	d.operator.resume(in.Phase, in.Drained)
	d.takeGuests()
}

// keepStandings leaves the dates of services that are as they were.
func (d *daemon) keepStandings() {
	before, err := d.will.before().Parse(config.Machine)
	if err != nil {
		return
	}
	for _, c := range before.Services {
		s := find(d.services, c.Name)
		if s == nil || len(s.config.Changes(c)) > 0 {
			continue
		}
		for _, old := range d.will.Services {
			if old.Name == c.Name {
				s.generation, s.since = old.Generation, old.Since
			}
		}
	}
}

// takeConnections goes on with the table, each connection with its place.
func (d *daemon) takeConnections() {
	t := &d.will.Table
	terms := make([]*conn.Service, len(t.Terms))
	for i := range t.Terms {
		s := d.serviceOf(t.Terms[i].Name)
		terms[i] = t.Terms[i].Service(s.conn.Events, s.conn.Plan, release)
	}
	for i := range t.Connections {
		c := &t.Connections[i]
		if c.Over() {
			d.table.Resume(c, terms[c.Terms], nil)
			continue
		}
		d.table.Resume(c, terms[c.Terms], d.readmit(c, &d.will.Places[i]))
	}
}

// readmit is the visitor of a connection that has its program.
func (d *daemon) readmit(c *conn.Connection, p *place) *conn.Visitor {
	if p.Wait {
		return d.readmitTenant(c, p)
	}
	return d.readmitGuest(c, p)
}

// readmitTenant is the visitor of a program that has sockets. Nobody waits for
// them until it has ended, whatever the file has come to say of them.
func (d *daemon) readmitTenant(c *conn.Connection, p *place) *conn.Visitor {
	s := d.serviceOf(p.Service)
	t := &tenant{lender: &lender{service: s}}
	for _, i := range p.Sockets {
		if k := d.will.sockets[i]; k != nil {
			t.lent = append(t.lent, k)
		}
	}
	t.visitor.Host, t.visitor.Peer = t, c.Peer
	t.visitor.Resume(c.ID, &s.conn)
	t.ticket = s.gate.Readmit(clientOf(&c.Peer), p.Trial)
	s.guests.Add(1)
	return &t.visitor
}

func (d *daemon) readmitGuest(c *conn.Connection, p *place) *conn.Visitor {
	s := d.serviceOf(p.Service)
	g := s.hall.guest(s)
	g.welcome, g.fd = true, -1
	g.visitor.Peer, g.visitor.FromSource, g.visitor.Taken = c.Peer, c.FromSource, c.Taken
	g.visitor.Resume(c.ID, &s.conn)
	g.converseAgain(d.will.revived[p.Session])
	if s := g.session; s != nil {
		g.hall.set.Order(s.wait)
	}
	g.client = clientOf(&g.visitor.Peer)
	g.ticket = s.gate.Readmit(g.client, p.Trial)
	if s.counts {
		s.gate.Count(g.client)
	}
	return &g.visitor
}

// takeGuests has those who have no program yet come in again, each by the
// thread that it belongs to, as soon as that serves. Its sockets may be served
// before: sessions have their guests already then.
func (d *daemon) takeGuests() {
	type arrival struct {
		*guest
		*lodger
	}
	byHall := map[*hall][]arrival{}
	for i := range d.will.Guests {
		l := &d.will.Guests[i]
		s := d.serviceOf(l.Service)
		g := s.hall.guest(s)
		g.converseAgain(d.will.revived[l.Session])
		byHall[s.hall] = append(byHall[s.hall], arrival{g, l})
	}
	for h, list := range byHall {
		h.set.Order(func() {
			for _, a := range list {
				a.comeBack(a.lodger)
			}
		})
	}
}

// comeBack has g, a guest of another superd, wait for what it waited for.
func (g *guest) comeBack(l *lodger) {
	s, h := g.service, g.hall
	g.fd, g.visitor.Peer, g.visitor.Taken, g.owed = l.FD, l.Peer, l.Taken, l.Owed
	g.extra = l.Peer.Extra
	if l.ID != "" {
		g.welcome = true
		g.visitor.Resume(l.ID, &s.conn)
	}
	g.introduce()
	g.client.Host = g
	switch l.Stage {
	case stageWords[awaitsPlace]:
		if l.Session != nil && g.session == nil {
			g.refuse(admit.ReasonSpawn, errNoSocket)
			return
		}
		g.askAgain(l.Since)
	case stageWords[awaitsHeader]:
		g.silentAgain(awaitsHeader, l.Due)
	case stageWords[awaitsByte]:
		g.silentAgain(awaitsByte, l.Due)
	case stageWords[awaitsName]:
		g.silentAgain(awaitsName, l.Due)
	default:
		h.leaving.add(g)
		g.awaitUntil(dismissed, unix.EPOLLIN|unix.EPOLLRDHUP, l.Due)
	}
}

// silentAgain has a guest go on being silent, for the rest of its time.
func (g *guest) silentAgain(s progress, due time.Duration) {
	if g.service.retired.Load() || s == awaitsName && !g.service.leads() {
		g.refuse(admit.ReasonDraining, errNoService)
		return
	}
	g.stage = s
	g.hall.silent.add(g)
	g.hall.crowd[g.origin()]++
	g.awaitUntil(s, unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLET, due)
}

var errNoService = errors.New("the service is no more since an upgrade")

// awaitUntil is await for a guest that has waited before, and is above the
// window.
func (g *guest) awaitUntil(s progress, events uint32, due time.Duration) {
	g.stage, g.since = s, g.service.daemon.now().Since
	if err := g.hall.lobby.Await(&g.waits, g.fd, g, events, due); err != nil {
		g.heard()
		g.finish()
	}
}

// askAgain has a guest wait for a place that has waited since.
func (g *guest) askAgain(since time.Duration) {
	if !g.service.leads() {
		g.greet()
	}
	g.decision = g.service.gate.Ask(g.client, g.service.daemon.now())
	g.decision.Waiter.Since(since)
	waits := g.decision.Verdict == admit.Waits
	g.decided()
	if waits && g.stage == awaitsPlace {
		g.since = since
	}
}

// announceSuccession logs what an upgrade has brought.
func (d *daemon) announceSuccession() {
	in := d.will
	for _, w := range d.config.Warnings {
		d.log.Warn(w.Error())
	}
	for _, s := range d.sites {
		if s.before == nil {
			s.announce()
		}
	}
	d.operator.settings.announce()
	u := d.succession()
	d.log.Info("upgraded", event.F("version", u.Version), event.F("before", u.Before), event.F("file", d.config.Path),
		event.F("generation", u.Generation), event.F("connections", u.Connections), event.F("guests", len(in.Guests)), event.F("paused_ms", u.PausedMS))
}

func (d *daemon) succession() control.Upgraded {
	return control.Upgraded{Version: version, Before: d.will.Version, Generation: d.generation,
		Connections: len(d.will.Table.Connections), PausedMS: (sinceBoot() - d.will.At).Milliseconds(), Problems: d.will.problems}
}

// settleEstate ends an upgrade: whoever has asked for it is answered, and the
// estate is forgotten.
func (d *daemon) settleEstate() {
	if d.will == nil {
		return
	}
	if d.will.Asker >= 0 {
		control.Reply(d.will.Asker, d.succession())
	}
	d.will = nil
}

// drains tells whether a service has no sockets by an order.
func (in *inheritance) drains(name string) bool {
	if in == nil {
		return false
	}
	for _, d := range in.Drained {
		if d.Name == name {
			return true
		}
	}
	return false
}

var _ lobby.Host = (*guest)(nil)
