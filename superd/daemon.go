package main

import (
	"fmt"
	"math"
	"os"
	"os/signal"
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
	set      *listen.Set
	house    *admit.House
	services []*service
	sockets  int
	signals  chan os.Signal
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
	log := event.Open(os.Stderr, event.Options{Level: c.Log.Level, Format: c.Log.Format})
	defer log.Close(time.Second)
	d, err := newDaemon(c, log)
	if err != nil {
		return err
	}
	defer d.close()
	d.announce()
	return d.serve()
}

// newDaemon builds everything that c asks for. All that is wrong with it on
// this machine is returned together, and nothing is left open then.
func newDaemon(c *config.Config, log *event.Log) (*daemon, error) {
	d := &daemon{config: c, log: log, engine: spawn.NewEngine()}
	if os.Geteuid() == 0 {
		if err := spawn.Conceal(); err != nil {
			return nil, fmt.Errorf("cannot make superd undumpable: %w", err)
		}
	}
	var err error
	if d.table, err = conn.New(d.engine); err != nil {
		return nil, fmt.Errorf("cannot watch programs: %w", err)
	}
	if d.set, err = listen.NewSet(d.engine.Above, d.outOfResources); err != nil {
		return nil, fmt.Errorf("cannot wait for connections: %w", err)
	}
	d.house = admit.NewHouse(admit.Limits{Max: d.room()}, nil)
	if problems := d.build(); len(problems) > 0 {
		d.set.Abandon()
		return nil, problems
	}
	return d, nil
}

// build makes the services and opens their sockets.
func (d *daemon) build() (problems config.Problems) {
	who := newIdentities(d.engine.System())
	for _, c := range d.config.Services {
		s, wrong := d.newService(c, who)
		problems = append(problems, wrong...)
		if s == nil || !c.Enabled {
			continue
		}
		opened, wrong := d.set.Open(c.Listen, s)
		problems = append(problems, wrong...)
		d.sockets += len(opened)
		for _, k := range opened {
			s.local = append(s.local, k.Local())
		}
		d.services = append(d.services, s)
	}
	return problems
}

// newService compiles one service. A disabled one is checked all the same.
func (d *daemon) newService(c *config.Service, who *identities) (*service, config.Problems) {
	id, user, problems := who.of(c)
	if len(problems) > 0 {
		return nil, problems
	}
	if w, due := who.rootWarning(c, user); due {
		d.config.Warnings = append(d.config.Warnings, w)
	}
	image, err := newImage(d.engine, c)
	if err != nil {
		return nil, config.Problems{c.Problem("builtin", err.Error(), "")}
	}
	plan := d.engine.Compile(specOf(c, image, id, user))
	s := &service{config: c, image: image, table: d.table, counts: plan.CountsSource()}
	s.gate = d.house.Gate(c.Name, admit.NewPolicy(admit.Rules{Max: c.Max}), func() { d.set.Resume(s) })
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
	own := uint64(d.engine.Window() + 16)
	for _, c := range d.config.Services {
		own += uint64(len(c.Listen) + 1)
	}
	fits := 1
	if limit.Cur > own+perConnection {
		fits = int(min((limit.Cur-own)/perConnection, math.MaxInt32))
	}
	if wanted := d.config.Limits.Max; wanted > 0 && wanted <= fits {
		return wanted
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
	d.signals = make(chan os.Signal, 8)
	signal.Notify(d.signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(d.signals)
	// A reader of our output that goes away is no reason to die (SIGPIPE).
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	go d.table.Watch()              // ends with close
	go d.set.Serve(d.engine.Settle) // ends with set.Close
	switch d.awaitStop() {
	case unix.SIGTERM:
		d.drain()
	default:
		d.set.Close()
		d.stopNow()
	}
	d.log.Info("stopped")
	return nil
}

// awaitStop returns the signal that stops superd.
func (d *daemon) awaitStop() os.Signal {
	for s := range d.signals {
		if s == unix.SIGTERM || s == unix.SIGINT {
			return s
		}
		d.log.Warn(unix.SignalName(s.(unix.Signal)) + " is not supported yet; nothing was changed")
	}
	return unix.SIGTERM
}

// drain accepts no more, lets live connections finish for as long as the file
// allows, and ends the rest. Another signal shortens the wait.
func (d *daemon) drain() {
	d.set.Close()
	d.log.Info("draining", event.F("live", d.house.Live()), event.F("seconds", d.config.Drain.Seconds()))
	empty := d.table.Empty()
	timer := time.NewTimer(d.config.Drain)
	defer timer.Stop()
	select {
	case <-empty:
		return
	case <-timer.C:
	case <-d.signals:
	}
	d.table.Stop(reasonDrain, math.MaxInt64)
	select {
	case <-empty:
	case <-d.signals:
		d.stopNow()
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
	d.table.Close()
	for _, s := range d.services {
		if s.image != nil {
			s.image.Close()
		}
	}
}
