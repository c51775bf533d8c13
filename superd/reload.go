package main

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/control"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
)

// A site is a socket that superd listens on, and what the file says of it.
type site struct {
	socket   *listen.Socket
	listener *config.Listener
	service  *service
	before   *service // that has the socket until this generation is adopted; nil for a new one
}

// key is what a socket is known by across a reload: its address, or where the
// kernel chose the port, the place in the file.
func keyOf(l *config.Listener) string {
	if l.KernelsChoice() {
		return l.Place() + " " + l.Path
	}
	return l.Place()
}

func (s *site) announce() { s.service.conn.Events.Listening(s.socket.String()) }

// A generation is a file made ready to take the place of the one before it.
// Until adopt, nothing of it has an effect on anybody.
type generation struct {
	config   *config.Config
	services []*service
	sites    []*site // that it will have, those of before among them
	left     []*site // of before, that it has no use for
	faded    []*site // sockets that fade, all of them
	fading   []*site // those of them that it has no use for
	nursery  *listen.Set
	settings *settings
}

// prepare makes a file ready: its plans are compiled and its sockets open.
// Where anything is wrong, all of that is told and nothing is left of the
// attempt.
func (d *daemon) prepare(c *config.Config) (*generation, config.Problems) {
	g := &generation{config: c}
	var problems config.Problems
	g.services, problems = d.compile(c)
	nursery, err := listen.NewSet(d.engine.Above, d.outOfResources)
	if err != nil {
		problems = append(problems, config.Problem{What: "cannot open sockets: " + err.Error()})
	} else {
		g.nursery = nursery
		nursery.InheritFrom(d.inheritance)
		if d.serving { // else nobody answers for the table
			nursery.KnowPrograms(d.whoseProgram)
		}
		problems = append(problems, d.findSites(g)...)
	}
	var wrong config.Problems
	g.settings, wrong = d.operator.prepare(c, problems)
	problems = append(problems, wrong...)
	if err := d.prepareWalls(g); err != nil {
		problems = append(problems, config.Problem{What: err.Error()})
	}
	if len(problems) > 0 {
		d.leaveFading(g.faded)
		g.abandon()
		problems = c.Once(problems)
		c.Sort(problems)
		return nil, problems
	}
	return g, nil
}

// abandon frees what was made for a generation that will not be.
func (g *generation) abandon() {
	if g.nursery != nil {
		g.nursery.Abandon()
	}
	if g.settings != nil {
		g.settings.abandon()
	}
	for _, s := range g.services {
		s.close()
	}
}

// findSites finds each listener's socket: the one that is open already, with
// whoever waits in its queue, or a new one, also where the file of a unix socket
// was removed.
func (d *daemon) findSites(g *generation) (problems config.Problems) {
	open := map[string][]*site{} // several only where one name was handed over for them
	know := func(key string, s *site) {
		if !slices.Contains(open[key], s) {
			open[key] = append(open[key], s)
		}
	}
	present := slices.DeleteFunc(slices.Clone(d.sites), func(s *site) bool { return s.socket.Lost() })
	for _, s := range present {
		know(keyOf(s.listener), s)
	}
	for _, s := range present {
		know(s.socket.Inherited(), s)
		if key := s.socket.String(); len(open[key]) == 0 {
			know(key, s) // a port that the kernel chose may be named now
		}
	}
	g.faded = d.takeFading()
	for _, s := range g.faded {
		if reachable(s.listener) {
			know(keyOf(s.listener), s)
		}
	}
	kept := map[*site]bool{}
	for _, s := range g.services {
		if s.config.Enabled && !d.will.drains(s.config.Name) {
			missing, wrong := g.keep(s, open, kept)
			problems = slices.Concat(problems, wrong, d.openSites(g, s, missing))
		}
	}
	for _, s := range d.sites {
		if !kept[s] {
			g.left = append(g.left, s)
		}
	}
	g.fading = slices.DeleteFunc(slices.Clone(g.faded), func(s *site) bool { return kept[s] })
	return problems
}

// keep takes the sockets of s that are open already, and returns what is
// missing.
func (g *generation) keep(s *service, open map[string][]*site, kept map[*site]bool) (missing []config.Listener, problems config.Problems) {
	for i := range s.config.Listen {
		l := &s.config.Listen[i]
		list := open[keyOf(l)]
		if len(list) == 0 || kept[list[0]] {
			missing = append(missing, *l)
			continue
		}
		var misfits config.Problems
		for _, old := range list {
			kept[old] = true
			misfits = append(misfits, old.socket.Misfit(l, s)...)
			g.sites = append(g.sites, &site{old.socket, l, s, old.service})
		}
		if problems = append(problems, misfits...); len(misfits) > 0 {
			continue
		}
		if key := list[0].listener.Rigid(l); key != "" {
			problems = append(problems, l.Problem(key, key+" of "+l.Spec+" cannot be changed while superd listens there",
				"take the address out, reload, and add it again"))
		}
	}
	return missing, problems
}

// openSites opens sockets in the nursery.
func (d *daemon) openSites(g *generation, s *service, missing []config.Listener) config.Problems {
	if g.nursery == nil {
		return nil // it is a rehearsal
	}
	opened, problems := g.nursery.Open(missing, s.owners, s)
	for _, k := range opened {
		g.sites = append(g.sites, &site{k, k.Listener(), s, nil})
	}
	for i := range problems {
		if own := d.holds(problems[i], missing); own != nil {
			problems[i].Hint = fmt.Sprintf("superd itself listens on %s until the reload is done: take that out first, reload, and then add this", own.listener.Spec)
		}
	}
	return problems
}

// holds finds the socket of superd's own that has the port that a problem is
// about.
func (d *daemon) holds(p config.Problem, list []config.Listener) *site {
	for _, l := range list {
		for _, s := range d.sites {
			if l.Path == p.Path && l.Addr.Port() != 0 && l.Family == s.listener.Family && s.socket.Local().Port() == l.Addr.Port() {
				return s
			}
		}
	}
	return nil
}

// whoseProgram says whose program a process is, or has been started by, and how
// to end it; "" where it is none of superd's. A program leads its session.
func (d *daemon) whoseProgram(pid int) string {
	session, _ := unix.Getsid(pid)
	for _, l := range d.table.List(conn.Selection{}) {
		if l.PID == pid || l.PID == session {
			return fmt.Sprintf(", a program of %s: to end it, say superd kill %s", l.Service, l.ID)
		}
	}
	return ""
}

// prepareWalls has the second thread enter the common walls before the first
// program needs them.
func (d *daemon) prepareWalls(g *generation) (err error) {
	if d.entered || !d.serving || !slices.ContainsFunc(g.services, func(s *service) bool { return s.inherits }) {
		return nil
	}
	d.on(confined, func() { err = d.engine.Confine() })
	d.entered = err == nil
	return err
}

// on has the thread of a set do something, and waits for it.
func (d *daemon) on(set int, do func()) {
	if !d.serving {
		do()
		return
	}
	done := make(chan struct{})
	d.sets[set].Order(func() {
		do()
		close(done)
	})
	<-done
}

// adopt makes a generation the present one. From here on nothing can fail that
// would keep it from being complete. Live connections stay with the services
// that they came in by.
func (d *daemon) adopt(g *generation) {
	before := d.services
	g.settings.applyLog()
	d.openGates(g, before)
	d.operator.beginAnew()
	d.loops.Store(findLoops(g.sites))
	d.move(g)
	g.settings.apply()
	room := d.roomFor(g.config)
	d.house.SetLimits(admit.Limits{Max: room, MaxLoad: g.config.Limits.MaxLoad}, d.now())
	d.mu.Lock()
	d.config, d.services, d.sites = g.config, g.services, g.sites
	d.loaded, d.room = time.Now(), room
	d.generation++
	d.date(before)
	d.mu.Unlock()
	d.directory.Store(newDirectory(g.services))
	for _, s := range before {
		if find(g.services, s.config.Name) == nil {
			s.gate.Close()
		}
		s.retire()
	}
}

// date notes since when the services are as they are.
func (d *daemon) date(before []*service) {
	for _, s := range d.services {
		s.generation, s.since = d.generation, d.loaded
		if old := find(before, s.config.Name); old != nil && len(s.config.Changes(old.config)) == 0 {
			s.generation, s.since = old.generation, old.since
		}
	}
}

// A present is what superd serves by now.
type present struct {
	config     *config.Config
	services   []*service
	local      map[*service][]string // where they listen
	generation int
	loaded     time.Time
	room       int  // connections that may live at a time
	stale      bool // the file that was read last is not in force
}

// present is what superd serves by now. Any goroutine may ask.
func (d *daemon) present() present {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := present{d.config, d.services, map[*service][]string{}, d.generation, d.loaded, d.room, d.stale}
	for _, s := range d.sites {
		p.local[s.service] = append(p.local[s.service], s.socket.String())
	}
	return p
}

// shut closes the sockets of a service after it has taken who stands in their
// queues, and turns away who has no program yet. A reload opens them again. The
// serving goroutine calls it.
func (d *daemon) shut(s *service) {
	s.hall.set.Shut(s)
	s.gate.Drain(true)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sites = slices.DeleteFunc(slices.Clone(d.sites), func(x *site) bool { return x.service == s })
}

// openGates gives each service the way in that it had before, under the new
// rules, or one of its own.
func (d *daemon) openGates(g *generation, before []*service) {
	for _, s := range g.services {
		s.conn.Events.SetLevel(s.config.LogLevel)
		if old := find(before, s.config.Name); old != nil {
			s.gate = old.gate
			s.gate.Drain(false) // what drained by order is wanted again
			s.gate.SetPolicy(s.admission.policy, d.now())
			continue
		}
		name := s.config.Name
		s.gate = d.house.Gate(name, s.admission.policy, func() { d.resume(name) })
	}
}

// resume has the present service of that name look for connections again.
func (d *daemon) resume(name string) {
	d.mu.Lock()
	s := find(d.services, name)
	d.mu.Unlock()
	if s != nil {
		s.hall.set.Resume(s)
	}
}

func find(list []*service, name string) *service {
	for _, s := range list {
		if s.config.Name == name {
			return s
		}
	}
	return nil
}

// move brings every socket to the thread and the service that it belongs to
// now. What comes meanwhile waits in its queue. Those that are left accept what
// they have queued, for the services that they had.
func (d *daemon) move(g *generation) {
	for _, s := range g.sites {
		if s.before == nil {
			g.nursery.Forsake(s.socket)
		}
	}
	for i, set := range d.sets {
		d.on(i, func() {
			for _, s := range g.left {
				if s.service.hall.set == set {
					set.Finish(s.socket)
				}
			}
			for _, s := range g.sites {
				if s.before != nil && s.before.hall.set == set {
					set.Forsake(s.socket)
					delete(s.before.hall.fading, s.socket)
				}
			}
		})
	}
	for i, set := range d.sets {
		d.on(i, func() {
			for _, s := range g.sites {
				if s.service.hall.set == set {
					d.settle(s, set)
				}
			}
		})
	}
	g.nursery.Abandon()
	d.leaveFading(g.fading)
}

// settle has a set wait for a socket. That the kernel lacks the memory for it is
// all that can go wrong.
func (d *daemon) settle(s *site, set *listen.Set) {
	if err := s.socket.Reconfigure(s.listener, s.service.owners); err != nil {
		d.log.Warn("cannot change the options of a socket, the old ones stay", event.F("local", s.socket.String()), event.F("error", err.Error()))
	}
	if err := set.Adopt(s.socket, s.service); err != nil {
		d.log.Error("cannot wait for connections", event.F("local", s.socket.String()), event.F("error", err.Error()))
	}
}

// reload takes up the file anew, or leaves everything as it is. The serving
// goroutine calls it.
func (d *daemon) reload() (r control.Report, err error) {
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.stale = err != nil
	}()
	d.operator.announceReload()
	defer func() { d.operator.tell("READY=1", d.operator.summary()) }()
	begin := time.Now()
	c, err := load(d.path)
	if err != nil {
		return r, err
	}
	g, problems := d.prepare(c)
	if len(problems) > 0 {
		return r, problems
	}
	r = d.compare(g)
	d.adopt(g)
	d.keepCells() // a first service may need it now
	r.Generation = d.generation
	d.tell(&r, g, time.Since(begin))
	return r, nil
}

// compare says what is different in a generation.
func (d *daemon) compare(g *generation) control.Report {
	r := control.Report{Added: []string{}, Removed: []string{}, Changed: []control.Change{}, Resumed: []string{}, Settings: []string{}, Warnings: []string{}}
	for _, s := range g.services {
		old := find(d.services, s.config.Name)
		if old != nil && old.config.Enabled && s.config.Enabled && d.operator.hasDrained(s.config.Name) {
			r.Resumed = append(r.Resumed, s.config.Name)
		}
		if old == nil {
			r.Added = append(r.Added, s.config.Name)
		} else if keys := s.config.Changes(old.config); len(keys) > 0 {
			r.Changed = append(r.Changed, control.Change{Service: s.config.Name, Keys: keys})
		}
	}
	for _, s := range d.services {
		if find(g.services, s.config.Name) == nil {
			r.Removed = append(r.Removed, s.config.Name)
		}
	}
	r.Settings = append(r.Settings, g.config.Changes(d.config)...)
	for _, w := range g.config.Warnings {
		r.Warnings = append(r.Warnings, w.Error())
	}
	return r
}

// tell logs what a reload has changed.
func (d *daemon) tell(r *control.Report, g *generation, took time.Duration) {
	for _, w := range r.Warnings {
		d.log.Warn(w)
	}
	for _, s := range g.sites {
		if s.before == nil {
			s.announce()
		}
	}
	g.settings.announce()
	if len(r.Settings) > 0 {
		d.log.Info("changed", event.F("keys", r.Settings))
	}
	for _, c := range r.Changed {
		d.log.Info("changed", event.F("service", c.Service), event.F("keys", c.Keys))
	}
	d.log.Info("reloaded", event.F("file", g.config.Path), event.F("generation", r.Generation), event.F("services", len(g.services)),
		event.F("added", r.Added), event.F("removed", r.Removed), event.F("changed", len(r.Changed)),
		event.F("resumed", r.Resumed), event.F("duration_ms", took.Milliseconds()))
}

const notReloaded = "cannot reload, nothing was changed"

// reloadAloud is reload that says in the log what is wrong: not only whoever
// has asked for it will want to know.
func (d *daemon) reloadAloud() (control.Report, error) {
	r, err := d.reload()
	if err == nil {
		return r, nil
	}
	for _, line := range linesOf(err) {
		d.log.Error(line)
	}
	d.log.Error(notReloaded, event.F("file", d.config.Path))
	return r, err
}

// linesOf is an error with one problem to a line.
func linesOf(err error) []string {
	if problems, is := err.(config.Problems); is {
		lines := make([]string, len(problems))
		for i, p := range problems {
			lines[i] = p.Error()
		}
		return lines
	}
	return []string{err.Error()}
}
