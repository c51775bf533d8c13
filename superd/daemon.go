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
	halls    [2]*hall       // of the sets
	house    *admit.House
	called   chan struct{} // the house has something to tell
	begin    time.Time
	services []*service
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
	d := &daemon{config: c, log: log, engine: spawn.NewEngine(), called: make(chan struct{}, 1), begin: time.Now()}
	d.house = admit.NewHouse(admit.Limits{Max: d.room(), MaxLoad: c.Limits.MaxLoad}, d.call)
	return d
}

// now is the present as admission has it.
func (d *daemon) now() admit.Moment {
	t := time.Now()
	return admit.Moment{Since: t.Sub(d.begin), Wall: t}
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
		if d.halls[i], err = newHall(d, d.sets[i]); err != nil {
			return fmt.Errorf("cannot wait for connections: %w", err)
		}
	}
	problems := append(d.compile(), d.openSockets()...)
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
		opened, wrong := s.hall.set.Open(s.config.Listen, s)
		problems = append(problems, wrong...)
		for _, k := range opened {
			s.local = append(s.local, k.Local())
		}
	}
	return problems
}

// hallOf is where the sockets and guests of s belong: with the thread that
// starts its programs. A check has no halls.
func (d *daemon) hallOf(s *service) *hall {
	if s.inherits {
		return d.halls[confined]
	}
	return d.halls[plain]
}

const plain, confined = 0, 1

// newService compiles one service.
func (d *daemon) newService(c *config.Service, who *identities) (*service, config.Problems) {
	id, user, problems := who.of(c)
	if len(problems) > 0 {
		return nil, problems
	}
	if w, due := who.rootWarning(c, user); due {
		d.config.Warnings = append(d.config.Warnings, w)
	}
	admission, problems := admissionOf(c, who)
	if len(problems) > 0 {
		return nil, problems
	}
	d.config.Warnings = append(d.config.Warnings, admission.warnings()...)
	image, err := newImage(d.engine, c)
	if err != nil {
		return nil, config.Problems{c.Problem("builtin", err.Error(), "")}
	}
	s := &service{daemon: d, config: c, image: image, table: d.table, admission: admission}
	if problems := d.compilePlans(s, id, user); len(problems) > 0 {
		s.close()
		return nil, problems
	}
	s.counts = s.conn.Plan.CountsSource()
	s.hall = d.hallOf(s)
	s.gate = d.house.Gate(c.Name, admission.policy, func() { s.hall.set.Resume(s) })
	return s, nil
}

// compilePlans makes the plan of a service, and those of the clients for whom
// something else is run. All of them are started by one thread.
func (d *daemon) compilePlans(s *service, id, user *spawn.Identity) (problems config.Problems) {
	configs := []*config.Service{s.config}
	conns := []*conn.Service{&s.conn}
	for _, o := range s.admission.overrides {
		configs, conns = append(configs, o.service), append(conns, &o.conn)
	}
	specs := make([]spawn.Spec, len(configs))
	s.inherits = true
	for i, c := range configs {
		specs[i] = specOf(c, s.image, id, user)
		s.inherits = s.inherits && spawn.Inheritable(&specs[i])
	}
	for i, c := range configs {
		specs[i].Inherit = s.inherits
		plan, wrong := d.compilePlan(c, specs[i])
		if problems = append(problems, wrong...); plan != nil {
			*conns[i] = d.connService(s, c, plan)
			s.plans = append(s.plans, plan)
		}
	}
	return problems
}

func (d *daemon) compilePlan(c *config.Service, spec spawn.Spec) (*spawn.Plan, config.Problems) {
	plan, err := d.engine.Compile(spec)
	if err != nil {
		return nil, config.Problems{c.Problem("sandbox", err.Error(), "")}
	}
	for _, note := range plan.Notes() {
		d.config.Warnings = append(d.config.Warnings, c.Problem("sandbox", note, ""))
	}
	return plan, nil
}

// connService is what the table must know of connections of s, whose programs
// are started by plan.
func (d *daemon) connService(s *service, c *config.Service, plan *spawn.Plan) conn.Service {
	return conn.Service{
		Events:    d.log.Service(c.Name),
		Plan:      plan,
		Keep:      c.Keep,
		Linger:    c.Linger,
		Session:   c.Timeout.Session,
		Idle:      c.Timeout.Idle,
		Stop:      c.Timeout.Stop,
		LogStderr: c.Stderr == spawn.StderrLog,
		Leave:     c.Leftover == "leave",
		Apology:   s.admission.texts[admit.ReasonSpawn],
		Release:   s.release,
	}
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
	own := uint64(d.engine.Window() + conn.MostLingering() + mostGuests() + 16)
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
	go d.table.Watch()                          // ends with close
	go d.sets[plain].Serve(d.halls[plain].turn) // ends with close
	endUsher := inBackground(d.usher)
	close(begin)
	defer inBackground(d.keepRulesFresh)()
	if d.limitsLoad() {
		defer inBackground(d.watchLoad)()
	}
	stop := <-d.stops
	d.stopAccepting(endUsher)
	if stop == unix.SIGTERM {
		d.drain()
	} else {
		d.stopNow()
	}
	d.log.Info("stopped")
	return nil
}

// inBackground runs f until stop, which waits for its end.
func inBackground(f func(quit <-chan struct{})) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		f(quit)
	}()
	return func() { close(quit); <-done }
}

// confine starts the thread that accepts for the services whose programs
// inherit their walls. It has entered them when confine returns, and accepts
// once begin is closed; it ends with close.
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
			d.sets[confined].Serve(d.halls[confined].turn)
		}
	}()
	return begin, <-entered
}

// betweenRefreshes is how long a file that was replaced, by a package upgrade,
// say, can be refused to confined programs.
const betweenRefreshes = 5 * time.Second

// keepRulesFresh looks, from time to time, whether the paths that programs are
// confined to lead to other files, until quit is closed.
func (d *daemon) keepRulesFresh(quit <-chan struct{}) {
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
}

// refreshRules says once what keeps the rules of a service from being made
// anew; the old ones stay.
func (d *daemon) refreshRules() {
	for _, s := range d.services {
		var err error
		for _, p := range s.plans {
			err = errors.Join(err, p.Refresh())
		}
		if err != nil && !s.stale {
			d.log.Warn("cannot renew the Landlock rules, the old ones stay", event.F("service", s.config.Name), event.F("error", err.Error()))
		}
		s.stale = err != nil
	}
}

// stopAccepting takes what the kernel has queued, closes all sockets, and turns
// away who has no program yet.
func (d *daemon) stopAccepting(endUsher func()) {
	for _, set := range d.sets {
		set.Shut()
	}
	d.house.Drain()
	endUsher()
	for _, h := range d.halls {
		h.dismiss()
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

// drain lets live connections finish for as long as the file allows, and ends
// the rest. Another TERM shortens the wait, and INT ends it.
func (d *daemon) drain() {
	d.log.Info("draining", event.F("live", d.house.Live()), event.F("seconds", d.config.Drain.Seconds()))
	empty := d.table.Empty()
	timer := time.NewTimer(d.config.Drain)
	defer timer.Stop()
	var again os.Signal
	select {
	case <-empty:
		d.seeOff()
		return
	case <-timer.C:
	case again = <-d.stops:
	}
	if again != unix.SIGINT {
		d.table.Stop(reasonDrain, conn.NoLimit)
		select {
		case <-empty:
			d.seeOff()
			return
		case <-d.stops:
		}
	}
	d.stopNow()
}

// seeOff gives those who were turned away the time to read why, unless another
// signal comes.
func (d *daemon) seeOff() {
	for _, h := range d.halls {
		select {
		case <-h.empty():
		case <-d.stops:
			return
		}
	}
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
	for i, set := range d.sets {
		switch {
		case set == nil:
			continue
		case d.serving:
			set.Close()
		default:
			set.Abandon()
		}
		if d.halls[i] != nil {
			d.halls[i].close()
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
		s.close()
	}
}
