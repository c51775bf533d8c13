package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/spawn"
)

// A daemon is superd at work: the one place where all parts meet.
type daemon struct {
	config   *config.Config
	log      *event.Log
	engine   *spawn.Engine
	table    *conn.Table
	sets     [2]*listen.Set // the second one's thread has entered the common walls
	house    *admit.House
	services []*service
	checking bool           // nothing will be served
	serving  bool           // Watch and Serve have been started
	stops    chan os.Signal // TERM and INT, in order
}

// run is the verb: it returns when superd has stopped in order, or the reason
// why it could not start.
func run(path string) error {
	if err := spawn.Supported(); err != nil {
		return err
	}
	c, err := load(path)
	if err != nil {
		return err
	}
	reserveThreads()
	log := event.Open(os.Stderr, event.Options{Level: c.Log.Level, Format: c.Log.Format})
	defer log.Close(time.Second)
	d := newDaemon(c, log)
	defer d.close()
	if err := d.open(); err != nil {
		return err
	}
	d.stops = hearSignals(log) // before anybody is told that superd is ready
	return d.serve()
}

// newDaemon is a superd that has done nothing yet.
func newDaemon(c *config.Config, log *event.Log) *daemon {
	d := &daemon{config: c, log: log, engine: spawn.NewEngine()}
	d.house = admit.NewHouse(admit.Limits{Max: d.room()}, nil)
	return d
}

// open builds everything that the file asks for. All that is wrong with it on
// this machine is returned together.
func (d *daemon) open() (err error) {
	if os.Geteuid() == 0 {
		if err := spawn.Conceal(); err != nil {
			return fmt.Errorf("cannot make superd undumpable: %w", err)
		}
	}
	if d.table, err = conn.New(d.engine); err != nil {
		return fmt.Errorf("cannot watch programs: %w", err)
	}
	for i := range d.sets {
		if d.sets[i], err = listen.NewSet(d.engine.Above, d.outOfResources); err != nil {
			return fmt.Errorf("cannot wait for connections: %w", err)
		}
	}
	problems := append(d.compile(), d.openSockets()...)
	problems.Sort()
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// compile makes the services. Disabled ones are checked all the same.
func (d *daemon) compile() (problems config.Problems) {
	who := newIdentities(d.engine.System())
	for _, c := range d.config.Services {
		s, wrong := d.newService(c, who)
		problems = append(problems, wrong...)
		if s != nil {
			d.services = append(d.services, s)
		}
	}
	return problems
}

// openSockets has the services that are enabled listen.
func (d *daemon) openSockets() (problems config.Problems) {
	for _, s := range d.services {
		if !s.config.Enabled {
			continue
		}
		opened, wrong := d.setOf(s).Open(s.config.Listen, s)
		problems = append(problems, wrong...)
		for _, k := range opened {
			s.local = append(s.local, k.Local())
		}
	}
	return problems
}

// setOf is where the sockets of s belong: with the thread that starts its
// programs.
func (d *daemon) setOf(s *service) *listen.Set {
	if s.inherits {
		return d.sets[confined]
	}
	return d.sets[plain]
}

const plain, confined = 0, 1

// newService compiles one service. Who it runs as is one question and what its
// walls need another, so that both answers are told.
func (d *daemon) newService(c *config.Service, who *identities) (*service, config.Problems) {
	id, user, problems := who.of(c)
	if w, due := who.rootWarning(c, user); due && len(problems) == 0 {
		d.config.Warnings = append(d.config.Warnings, w)
	}
	image, err := newImage(d.engine, c)
	if err != nil {
		return nil, append(problems, c.Problem("builtin", err.Error(), ""))
	}
	spec := specOf(c, image, id, user)
	spec.Inherit, spec.Check = spawn.Inheritable(&spec), d.checking
	plan, err := d.engine.Compile(spec)
	if problems = append(problems, problemsOf(c, err)...); len(problems) > 0 {
		if plan != nil {
			plan.Close()
		}
		if image != nil {
			image.Close()
		}
		return nil, problems
	}
	for _, note := range plan.Notes() {
		d.config.Warnings = append(d.config.Warnings, c.Problem(note.Key, note.What, note.Hint))
	}
	s := &service{config: c, image: image, table: d.table, counts: plan.CountsSource(), inherits: spec.Inherit}
	s.gate = d.house.Gate(c.Name, admit.NewPolicy(admit.Rules{Max: c.Max}), func() { d.setOf(s).Resume(s) })
	s.conn = conn.Service{
		Events:    d.log.Service(c.Name),
		Plan:      plan,
		Keep:      c.Keep,
		Linger:    c.Linger,
		Session:   c.Timeout.Session,
		Idle:      c.Timeout.Idle,
		Stop:      c.Timeout.Stop,
		LogStderr: c.Stderr == spawn.StderrLog,
		Leave:     c.Leftover == "leave",
		Release:   s.release,
	}
	return s, nil
}

// problemsOf puts what a service's plan cannot have at the keys that ask for it.
func problemsOf(c *config.Service, err error) (list config.Problems) {
	var faults spawn.Faults
	if err != nil && !errors.As(err, &faults) {
		return config.Problems{c.Problem("", err.Error(), "")}
	}
	for _, f := range faults {
		list = append(list, c.Problem(f.Key, f.What, f.Hint))
	}
	return list
}

// perConnection is how many descriptors superd holds for one connection: the
// kept duplicate, the pidfd and the pipe of descriptor 2.
const perConnection = 3

// room is how many connections may live at once: what the file says, or less
// where the limit of open files is too small for them.
func (d *daemon) room() int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return d.config.Limits.Max
	}
	own := uint64(d.engine.Window() + conn.MostLingering() + 16)
	for _, c := range d.config.Services {
		own += uint64(len(c.Listen) + 1)
	}
	fits := 1
	if limit.Cur > own+perConnection {
		fits = int(min((limit.Cur-own)/perConnection, math.MaxInt32))
	}
	wanted := d.config.Limits.Max
	if wanted > 0 && wanted <= fits {
		return wanted
	}
	if wanted == 0 {
		return fits // nothing was promised
	}
	d.log.Warn("the limit of open files leaves less room than limits.max",
		event.F("open_files", limit.Cur), event.F("connections", fits))
	return fits
}

// outOfResources says that accepting has to wait; the set says it once for
// each such time.
func (d *daemon) outOfResources(err error) {
	d.log.Warn("cannot accept connections now, they wait", event.F("error", err.Error()))
}

// announce logs what the administrator has to know about this start.
func (d *daemon) announce() {
	for _, w := range d.config.Warnings {
		d.log.Warn(w.Error())
	}
	for _, s := range d.services {
		for _, local := range s.local {
			s.conn.Events.Listening(local.String())
		}
	}
	d.log.Info("ready", event.F("file", d.config.Path), event.F("services", len(d.services)), event.F("pid", os.Getpid()))
}

// serve accepts connections until a signal stops superd.
func (d *daemon) serve() error {
	begin, err := d.confine()
	if err != nil {
		return err
	}
	d.announce()
	d.serving = true
	go d.table.Watch()                      // ends with close
	go d.sets[plain].Serve(d.engine.Settle) // ends with stopAccepting
	close(begin)
	defer d.keepRulesFresh()()
	switch <-d.stops {
	case unix.SIGTERM:
		d.drain()
	default:
		d.stopAccepting()
		d.stopNow()
	}
	d.log.Info("stopped")
	return nil
}

// confine starts the thread that accepts for the services whose programs
// inherit their walls. It has entered them when confine returns, and accepts
// once begin is closed; it ends with stopAccepting.
func (d *daemon) confine() (begin chan struct{}, err error) {
	begin = make(chan struct{})
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its goroutine
		var err error
		if slices.ContainsFunc(d.services, func(s *service) bool { return s.inherits }) {
			err = d.engine.Confine()
		}
		entered <- err
		if err == nil {
			<-begin
			d.sets[confined].Serve(d.engine.Settle)
		}
	}()
	return begin, <-entered
}

// betweenRefreshes is how long a file that was replaced, by a package upgrade,
// say, can be refused to confined programs.
const betweenRefreshes = 5 * time.Second

// keepRulesFresh starts to look, from time to time, whether the paths that
// programs are confined to lead to other files. The result ends that.
func (d *daemon) keepRulesFresh() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(betweenRefreshes)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				d.refreshRules()
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// refreshRules says once what keeps the rules of a service from being made
// anew; the old ones stay.
func (d *daemon) refreshRules() {
	for _, s := range d.services {
		err := s.conn.Plan.Refresh()
		if err != nil && !s.stale {
			d.log.Warn("cannot renew the Landlock rules, the old ones stay", event.F("service", s.config.Name), event.F("error", err.Error()))
		}
		s.stale = err != nil
	}
}

// stopAccepting takes what the kernel has queued and closes all sockets.
func (d *daemon) stopAccepting() {
	for _, set := range d.sets {
		set.Close()
	}
}

// hearSignals returns the signals that stop superd, and answers the others.
func hearSignals(log *event.Log) (stops chan os.Signal) {
	stops = make(chan os.Signal, 8)
	signal.Notify(stops, unix.SIGTERM, unix.SIGINT)
	// A reader of our output that goes away is no reason to die (SIGPIPE).
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	others := make(chan os.Signal, 8)
	signal.Notify(others, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	go func() { // ends with superd
		for s := range others {
			log.Warn(unix.SignalName(s.(unix.Signal)) + " is not supported yet; nothing was changed")
		}
	}()
	return stops
}

// drain accepts no more, lets live connections finish for as long as the file
// allows, and ends the rest. Another TERM shortens the wait, and INT ends it.
func (d *daemon) drain() {
	d.stopAccepting()
	d.log.Info("draining", event.F("live", d.house.Live()), event.F("seconds", d.config.Drain.Seconds()))
	empty := d.table.Empty()
	timer := time.NewTimer(d.config.Drain)
	defer timer.Stop()
	var again os.Signal
	select {
	case <-empty:
		return
	case <-timer.C:
	case again = <-d.stops:
	}
	if again != unix.SIGINT {
		d.table.Stop(reasonDrain, conn.NoLimit)
		select {
		case <-empty:
			return
		case <-d.stops:
		}
	}
	d.stopNow()
}

// The reasons that a record can carry for a program that was ended with superd.
const (
	reasonDrain = "drain"
	reasonStop  = "stop"
)

// stopTime is how long programs have from TERM to KILL when superd is to stop
// at once.
const stopTime = time.Second

// stopNow ends every program.
func (d *daemon) stopNow() {
	d.table.Stop(reasonStop, stopTime)
	<-d.table.Empty()
}

// close frees what is left once no connection is.
func (d *daemon) close() {
	for _, set := range d.sets {
		if set != nil && !d.serving {
			set.Abandon()
		}
	}
	if d.table != nil && d.serving {
		d.table.Close()
	}
	d.closeServices()
}

// closeServices frees what the services were built of.
func (d *daemon) closeServices() {
	for _, s := range d.services {
		s.conn.Plan.Close()
		if s.image != nil {
			s.image.Close()
		}
	}
}
