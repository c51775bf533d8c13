package main

import (
	"fmt"
	"math"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/control"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/spawn"
)

// A daemon is superd at work: the one place where all parts meet.
type daemon struct {
	config      *config.Config
	log         *event.Log
	logging     config.Log // that the log is as
	engine      *spawn.Engine
	table       *conn.Table
	path        string         // of the file, as it was named; "" for the system's
	sets        [2]*listen.Set // the second one's thread has entered the common walls
	halls       [2]*hall       // of the sets
	house       *admit.House
	called      chan struct{} // the house has something to tell
	directory   atomic.Pointer[directory]
	operator    *operator
	inheritance *listen.Inheritance // sockets that superd was started with, and does not use now
	begin       time.Time           // of its clock
	began       time.Time           // the same, by the clock of that time; an upgrade keeps it
	self        string              // the path of superd's own program
	will        *inheritance        // from the superd before, until all goes on; nil for none
	checking    bool                // nothing will be served
	trying      bool                // but programs are started on a terminal
	serving     bool                // Watch and Serve have been started
	entered     bool                // the second set's thread has entered the common walls

	mu         sync.Mutex
	services   []*service // of the present generation; guarded by mu
	sites      []*site    // where superd listens; guarded by mu
	fading     []*site    // sockets that are open for those who have a program, and for nobody else; guarded by mu
	generation int        // how many files have been taken up; guarded by mu
	loaded     time.Time  // when the last one was; guarded by mu
	room       int        // connections that may live at a time; guarded by mu
	stale      bool       // the file that was read last is not in force; guarded by mu

	loops atomic.Pointer[loops] // whom nobody answers; of the present generation

	calm      sync.Mutex  // held while nobody may be told that it comes in
	upgrading atomic.Bool // somebody has asked for it

	stops   chan os.Signal // TERM and INT, in order
	hangups chan os.Signal // HUP
	others  chan os.Signal // USR1 and USR2
	tasks   chan func()    // for the serving goroutine
	leaving chan struct{}  // closed when that takes no more tasks
}

// run is the verb: it returns when superd has stopped in order, or the reason
// why it could not start.
func run(path string) error {
	if err := spawn.Supported(); err != nil {
		return err
	}
	will, err := inherit()
	if err != nil {
		return err
	}
	c, err := will.load(path)
	if err != nil {
		return err
	}
	if will.isRehearsal() {
		return rehearse(c, will)
	}
	reserveThreads()
	engine := spawn.NewEngine()
	log, logging := openLog(c, engine)
	defer log.Close(time.Second)
	d := newDaemon(c, log, engine)
	d.path, d.logging = path, logging
	if d.self, err = ownPath(); err != nil {
		return fmt.Errorf("cannot find superd's own program: %w", err)
	}
	d.accept(will)
	defer d.close()
	if err := d.open(); err != nil {
		return err
	}
	if will == nil {
		d.hearSignals() // before anybody is told that superd is ready
	}
	return d.serve()
}

// openLog opens the log where the file wants it, and says how it is. Where that
// cannot be, it is one for what is wrong, to be made what the file wants. The
// caller closes it.
func openLog(c *config.Config, engine *spawn.Engine) (*event.Log, config.Log) {
	log, err := event.OpenOutput(c.Log.Output, os.Stderr, logOptions(c, engine))
	if err != nil {
		return event.Open(os.Stderr, event.Options{Level: "error"}), config.Log{}
	}
	return log, c.Log
}

func logOptions(c *config.Config, engine *spawn.Engine) event.Options {
	return event.Options{
		Level:   c.Log.Level,
		Format:  c.Log.Format,
		Address: c.Log.Address,
		Above:   engine.Above,
		Syslog:  syslogSocket,
		Journal: journalSocket,
	}
}

// Where syslog and journald listen; "" is where a system has them.
var syslogSocket, journalSocket string

// newDaemon is a superd that has done nothing yet.
func newDaemon(c *config.Config, log *event.Log, engine *spawn.Engine) *daemon {
	d := &daemon{config: c, log: log, engine: engine, called: make(chan struct{}, 1), begin: time.Now(),
		tasks: make(chan func()), leaving: make(chan struct{})}
	d.began = d.begin
	d.house = admit.NewHouse(admit.Limits{}, d.call)
	d.operator = newOperator(d)
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
	if d.inheritance, err = listen.Inherit(d.engine.Above); err != nil {
		return err
	}
	if why := d.inheritance.Astray(); why != "" {
		d.log.Warn(why + ": the sockets that were handed over are not taken")
	}
	d.takeSites()
	first, wrong := d.prepare(d.config)
	if len(wrong) > 0 && d.will != nil {
		first, wrong = d.fallBack(wrong)
	}
	if len(wrong) > 0 {
		return wrong
	}
	d.adopt(first)
	if d.will == nil {
		d.closeUnused()
	}
	d.succeed()
	return nil
}

// closeUnused closes what superd was started with and no service has asked for.
func (d *daemon) closeUnused() {
	for _, what := range d.inheritance.CloseRest() {
		d.log.Warn("no service listens on a socket that was handed over, it is closed", event.F("socket", what))
	}
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

// perConnection is how many descriptors superd holds for one connection: the
// kept duplicate, the pidfd and the pipe of descriptor 2. A /tmp of its own can
// take one more.
const perConnection = 3

// privateTmps counts the services whose programs have a /tmp of their own.
func privateTmps(c *config.Config) (n int) {
	for _, s := range c.Services {
		if s.Sandbox.PrivateTmp && s.Builtin == "" {
			n++
		}
	}
	return n
}

// keepCells has a /tmp ready for those who will come.
func (d *daemon) keepCells() {
	if err := d.engine.KeepCells(); err != nil {
		d.log.Warn("cannot prepare /tmp ahead of connections, each program does it itself", event.F("error", err.Error()))
	}
}

// roomFor is how many connections may live at once: what the file says, or less
// where the limit of open files is too small for them.
func (d *daemon) roomFor(c *config.Config) int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return c.Limits.Max
	}
	own := uint64(d.engine.Window() + conn.MostLingering() + mostGuests() + control.MostDescriptors() + len(c.HTTP.Listen)*control.MostWebDescriptors() + 16)
	for _, c := range c.Services {
		own += uint64(len(c.Listen) + 1)
	}
	each := uint64(perConnection)
	if n := privateTmps(c); n > 0 && spawn.KeepsCells(limit.Cur) {
		own += uint64(spawn.CellDescriptors(n))
		each++
	}
	fits := 1
	if limit.Cur > own+each {
		fits = int(min((limit.Cur-own)/each, math.MaxInt32))
	}
	wanted := c.Limits.Max
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
	if d.will != nil {
		d.announceSuccession()
		return
	}
	for _, w := range d.config.Warnings {
		d.log.Warn(w.Error())
	}
	if open := unguarded(d.services); open != "" {
		d.log.Info(open)
	}
	for _, s := range d.sites {
		s.announce()
	}
	d.operator.settings.announce()
	d.log.Info("ready", event.F("file", d.config.Path), event.F("services", len(d.services)), event.F("pid", os.Getpid()))
}

// unguarded is what the kernel's Landlock leaves open, the same for all closed
// file systems; "" for nothing, or where no service has one.
func unguarded(list []*service) string {
	for _, s := range list {
		if p := s.conn.Plan; p != nil && p.Unguarded() != "" {
			return p.Unguarded()
		}
	}
	return ""
}

// serve accepts connections until a signal stops superd.
func (d *daemon) serve() error {
	begin, err := d.confine()
	if err != nil {
		return err
	}
	d.keepCells()
	defer d.engine.StopKeeping()
	d.announce()
	d.serving = true
	d.operator.serve()
	go d.table.Watch()                          // ends with close
	go d.sets[plain].Serve(d.halls[plain].turn) // ends with close
	endUsher := inBackground(d.usher)
	close(begin)
	d.settleEstate()
	defer inBackground(d.lookAround)()
	stop := d.obey()
	d.operator.enter(phaseLeaving)
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
	go spawn.OnThreadOfItsOwn(func() {
		var err error
		if slices.ContainsFunc(d.services, func(s *service) bool { return s.inherits }) {
			err = d.engine.Confine()
			d.entered = err == nil
		}
		entered <- err
		if err == nil {
			<-begin
			d.sets[confined].Serve(d.halls[confined].turn)
		}
	})
	return begin, <-entered
}

// obey changes superd as it is told, until it is to stop; it returns the signal
// that says how.
func (d *daemon) obey() os.Signal {
	defer close(d.leaving)
	for {
		select {
		case stop := <-d.stops:
			return stop
		case <-d.hangups:
			d.log.Reopen()
			d.reloadAloud()
		case task := <-d.tasks:
			task()
		}
	}
}

// do has the serving goroutine run f, and waits for that; false where superd is
// about to stop.
func (d *daemon) do(f func()) bool {
	done := make(chan struct{})
	select {
	case d.tasks <- func() { f(); close(done) }:
		<-done
		return true
	case <-d.leaving:
		return false
	}
}

// lookEvery is how long a file that was replaced, by a package upgrade, say,
// can be refused to confined programs. The kernel computes the load average as
// often.
const lookEvery = 5 * time.Second

// lookAround keeps up with the machine, from time to time, until quit is
// closed: whether the paths that programs are confined to lead to other files,
// and how high its load is.
func (d *daemon) lookAround(quit <-chan struct{}) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		d.lookAtLoad()
		select {
		case <-ticker.C:
			d.refreshRules()
			d.refreshLoops()
		case <-quit:
			return
		}
	}
}

// refreshRules says once what keeps the rules of a service from being made
// anew; the old ones stay.
func (d *daemon) refreshRules() {
	for _, s := range d.present().services {
		if !s.hold() {
			continue // it has gone meanwhile
		}
		err := s.refreshRules()
		s.gone()
		if err != nil && !s.stale {
			d.log.Warn("cannot renew the Landlock rules, the old ones stay", event.F("service", s.config.Name), event.F("error", err.Error()))
		}
		s.stale = err != nil
	}
}

// stopAccepting takes what the kernel has queued, closes all sockets, and turns
// away who has no program yet.
func (d *daemon) stopAccepting(endUsher func()) {
	go func() { // ends with superd
		for range d.hangups {
			d.log.Reopen()
			d.log.Warn("superd is stopping, nothing is reloaded")
		}
	}()
	for _, set := range d.sets {
		set.ShutAll()
	}
	d.house.Drain()
	endUsher()
	for _, h := range d.halls {
		h.dismiss()
	}
}

// hearSignals has signals come to where they are waited for.
func (d *daemon) hearSignals() {
	d.stops = make(chan os.Signal, 8)
	signal.Notify(d.stops, unix.SIGTERM, unix.SIGINT)
	// A reader of our output that goes away is no reason to die (SIGPIPE).
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	d.hangups = make(chan os.Signal, 1) // several at once are one reload
	signal.Notify(d.hangups, unix.SIGHUP)
	d.others = make(chan os.Signal, 8)
	signal.Notify(d.others, unix.SIGUSR1, unix.SIGUSR2)
	go func() { // ends with superd
		for s := range d.others {
			if s == unix.SIGUSR1 {
				d.operator.logStatus()
				continue
			}
			go d.upgradeForSignal() // ends with the upgrade, or the attempt
		}
	}()
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
	reasonKill  = "kill" // of a connection that superd was told to end
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
	d.operator.close()
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
