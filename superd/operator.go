package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/control"
	"superd/superd/internal/event"
)

// rootSocket is where superd is asked that runs as root and whose file names
// no other place; the Makefile sets it.
var rootSocket = "/run/superd/control.sock"

// An operator answers for superd at the administrative socket, and does what
// it is told there.
type operator struct {
	daemon   *daemon
	server   *control.Server // nil where there is no socket; of the serving goroutine, as the next
	web      []*control.Web
	settings *settings // in force
	phase    atomic.Int32
	notify   notifier
	mute     atomic.Bool    // that the service manager cannot be told was said
	quit     chan struct{}  // closed by close
	feeder   sync.WaitGroup // feed, until close

	mu   sync.Mutex
	ends map[string]ending // by service: when its drain has taken long enough; guarded by mu
}

// An ending is a drain that has taken long enough at a time.
type ending struct {
	*time.Timer
	at time.Time
}

// The phases of superd's life, in their order.
const (
	phaseServing int32 = iota
	phaseDraining
	phaseLeaving
)

var phaseWords = [...]string{phaseServing: "serving", phaseDraining: "draining", phaseLeaving: "stopping"}

func newOperator(d *daemon) *operator {
	return &operator{daemon: d, notify: newNotifier(), quit: make(chan struct{}), ends: map[string]ending{}}
}

// enter goes on to a phase; there is no way back.
func (o *operator) enter(phase int32) {
	for now := o.phase.Load(); now < phase && !o.phase.CompareAndSwap(now, phase); {
		now = o.phase.Load()
	}
	if phase == phaseLeaving {
		o.announceEnd()
	}
}

// socketOf is where the superd of c is asked; "" where an ordinary user has no
// directory for such things.
func socketOf(c *config.Control) string {
	switch dir := os.Getenv("XDG_RUNTIME_DIR"); {
	case c.PathSet:
		return c.Path
	case os.Geteuid() == 0:
		return rootSocket
	case filepath.IsAbs(dir):
		return filepath.Join(dir, "superd/control.sock")
	}
	return ""
}

// complain hears of mistakes in superd itself.
func (o *operator) complain(what string, err error) {
	o.daemon.log.Error(what, event.F("error", err.Error()))
}

// serve answers until close, and tells those who wait for it that superd is
// ready.
func (o *operator) serve() {
	if o.server != nil {
		o.server.Serve(o)
	}
	for _, w := range o.web {
		w.Serve(o)
	}
	ours := o.daemon.table.Has
	adopted.ours.Store(&ours)
	o.tell("READY=1", o.summary())
	o.feeder.Go(o.feed)
}

// close ends what the operator has begun.
func (o *operator) close() {
	if o.server != nil {
		o.server.Close()
	}
	for _, w := range o.web {
		w.Close()
	}
	close(o.quit)
	o.feeder.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.ends {
		t.Stop()
	}
}

// Status implements control.Daemon.
func (o *operator) Status() control.Status {
	d := o.daemon
	p := d.present()
	s := control.Status{
		Version:    version,
		PID:        os.Getpid(),
		State:      phaseWords[o.phase.Load()],
		Started:    d.began,
		UptimeMS:   time.Since(d.begin).Milliseconds(),
		File:       absolute(p.config.Path),
		Generation: p.generation,
		Loaded:     p.loaded,
		Live:       d.house.Live(),
		Max:        p.room,
		LogDropped: d.log.Dropped(),
		Orphans:    adopted.reaped.Load(),
		Services:   []control.Service{},
		Blocks:     o.Blocks(),
	}
	for _, service := range p.services {
		s.Services = append(s.Services, o.statusOf(service, p.local[service]))
	}
	return s
}

func (o *operator) statusOf(s *service, local []string) control.Service {
	counts, gate := s.conn.Events.Counts(), s.gate.Status(o.daemon.now())
	answer := control.Service{
		Name:        s.config.Name,
		State:       gate.State,
		Live:        counts.Live,
		Total:       counts.Accepted,
		Refused:     counts.RefusedTotal(),
		RefusedBy:   map[string]uint64{},
		Exited:      counts.Exited,
		Failed:      counts.Failed,
		Max:         gate.Max,
		Waiting:     gate.Waiting,
		Bans:        gate.Bans,
		PausedMS:    gate.Left.Milliseconds(),
		FailingFor:  gate.Culprit,
		Listen:      []string{},
		Generation:  s.generation,
		Since:       s.since,
		Description: s.config.Description,
	}
	if !s.config.Enabled {
		answer.State = "disabled"
	}
	answer.Listen = append(answer.Listen, local...)
	for reason, n := range counts.Refused {
		if n > 0 {
			answer.RefusedBy[event.Reason(reason).String()] = n
		}
	}
	return answer
}

// Connections implements control.Daemon.
func (o *operator) Connections(which control.Selection) []control.Connection {
	list := []control.Connection{}
	for _, l := range o.daemon.table.List(selected(which)) {
		list = append(list, control.Connection{
			ID: l.ID, Service: l.Service, Peer: l.Peer, Local: l.Local, PID: l.PID, State: l.State,
			AgeMS:    l.Age.Milliseconds(),
			IdleMS:   known(int64(l.Idle), time.Millisecond),
			BytesIn:  known(l.BytesIn, 1),
			BytesOut: known(l.BytesOut, 1),
			RTTUS:    known(int64(l.RoundTrip), time.Microsecond),
		})
	}
	return list
}

// selected is a selection as the table has it.
func selected(s control.Selection) conn.Selection {
	return conn.Selection{ID: s.ID, Service: s.Service, Source: s.Source.Network, OfUser: s.Source.User, UID: s.Source.UID}
}

// known is a number in a unit, and nothing where it is not known.
func known(n int64, unit time.Duration) *int64 {
	if n < 0 {
		return nil
	}
	n /= int64(unit)
	return &n
}

// Blocks implements control.Daemon.
func (o *operator) Blocks() []control.Block {
	list := []control.Block{}
	for _, b := range o.daemon.house.Bans(o.daemon.now()) {
		list = append(list, control.Block{Service: b.Service, Source: b.Whom.String(), LeftMS: b.Left.Milliseconds()})
	}
	return list
}

// Ordered implements control.Daemon: who has told superd to do what is logged.
func (o *operator) Ordered(order control.Order) {
	fields := []event.Field{event.F("verb", order.Verb), event.F("uid", order.From.UID), event.F("pid", order.From.PID)}
	if order.What != "" {
		fields = append(fields, event.F("what", order.What))
	}
	o.daemon.log.Info("ordered", fields...)
}

// Reload implements control.Daemon.
func (o *operator) Reload() (r control.Report, err error) {
	if !o.daemon.do(func() { r, err = o.daemon.reloadAloud() }) {
		return r, errStopping
	}
	return r, followedBy(err, notReloaded)
}

// Upgrade implements control.Daemon.
func (o *operator) Upgrade(asker *control.Asker) (control.Upgraded, error) {
	err := o.daemon.upgrade(asker)
	if err == errStopping || err == errUpgrading {
		return control.Upgraded{}, err
	}
	return control.Upgraded{}, followedBy(err, notUpgraded)
}

// followedBy adds to a complaint, where there is one, what it means.
func followedBy(err error, meaning string) error {
	if err == nil {
		return nil
	}
	return &control.Faulty{Text: err.Error() + "\n" + meaning, Problems: linesOf(err)}
}

// Drain implements control.Daemon. The services take who stands in the kernel's
// queue and nobody else; what lives after the limit is ended. Superd goes on.
func (o *operator) Drain(name string, limit *time.Duration) (control.Drained, error) {
	answer, err := control.Drained{Services: []string{}}, errStopping
	o.daemon.do(func() { err = o.drain(name, limit, &answer) })
	return answer, err
}

func (o *operator) drain(name string, limit *time.Duration, answer *control.Drained) error {
	list, departed := o.named(name), o.departed(name)
	if name != "" && len(list) == 0 && len(departed) == 0 {
		return o.unknownService(name)
	}
	if name == "" {
		o.enter(phaseDraining) // whoever asks whether superd is ready hears of it first
	}
	if limit == nil {
		limit = &o.daemon.config.Drain
	}
	answer.LimitMS = limit.Milliseconds()
	for _, s := range list {
		o.daemon.shut(s)
		o.drainOne(s.config.Name, s.gate.Live(), *limit, answer)
	}
	for _, name := range slices.Sorted(maps.Keys(departed)) {
		o.drainOne(name, departed[name], *limit, answer)
	}
	return nil
}

// errStopping is the answer to orders that come too late.
var errStopping = errors.New("superd is about to stop")

// beginAnew forgets what was drained by order: a file was taken up.
func (o *operator) beginAnew() {
	o.phase.CompareAndSwap(phaseDraining, phaseServing)
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, t := range o.ends {
		t.Stop()
		delete(o.ends, name)
	}
}

// named are the services of that name, or all, that are switched on.
func (o *operator) named(name string) (list []*service) {
	for _, s := range o.daemon.present().services {
		if s.config.Enabled && (name == "" || s.config.Name == name) {
			list = append(list, s)
		}
	}
	return list
}

// departed are the services of that name, or all, that a reload has removed or
// switched off, with how many programs each has that go on all the same.
func (o *operator) departed(name string) map[string]int {
	live := map[string]int{}
	for _, l := range o.daemon.table.List(conn.Selection{Service: name}) {
		live[l.Service]++
	}
	for _, s := range o.named(name) {
		delete(live, s.config.Name)
	}
	return live
}

func (o *operator) unknownService(name string) error {
	return control.Unknown(noService(name, o.daemon.present().config.Services))
}

func (o *operator) drainOne(name string, live int, limit time.Duration, answer *control.Drained) {
	o.daemon.log.Info("draining", event.F("service", name), event.F("live", live), event.F("seconds", limit.Seconds()))
	o.endAfter(name, limit)
	answer.Live += live
	answer.Services = append(answer.Services, name)
}

// endAfter ends a service's connections after a time.
func (o *operator) endAfter(name string, limit time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if before, is := o.ends[name]; is {
		before.Stop()
	}
	o.ends[name] = ending{time.AfterFunc(limit, func() { // ends with the table
		o.daemon.table.Kill(conn.Selection{Service: name}, reasonDrain)
	}), time.Now().Add(limit)}
}

// drained are the services that have no sockets by an order.
func (o *operator) drained() (list []drainage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, e := range o.ends {
		list = append(list, drainage{name, max(time.Until(e.at), 0)})
	}
	return list
}

// hasDrained tells whether a service has no sockets by an order.
func (o *operator) hasDrained(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, is := o.ends[name]
	return is
}

// resume goes on with what another superd was told.
func (o *operator) resume(phase int32, list []drainage) {
	o.enter(phase)
	for _, one := range list {
		if s := find(o.daemon.services, one.Name); s != nil {
			s.gate.Drain(true)
		}
		o.endAfter(one.Name, one.Left)
	}
}

// Stop implements control.Daemon.
func (o *operator) Stop(now bool) {
	how := unix.SIGTERM
	if now {
		how = unix.SIGINT
	}
	select {
	case o.daemon.stops <- how:
	default: // there are more of them under way than superd looks at
	}
}

// Kill implements control.Daemon.
func (o *operator) Kill(which control.Selection) (control.Killed, error) {
	n := o.daemon.table.Kill(selected(which), reasonKill)
	switch {
	case n == 0 && which.Service != "" && !o.knows(which.Service):
		return control.Killed{}, o.unknownService(which.Service)
	case n == 0 && which.ID != "":
		return control.Killed{}, control.Unknown(fmt.Sprintf("there is no connection %q", which.ID))
	}
	return control.Killed{Killed: n}, nil
}

// knows tells whether the file has a service of that name, or a program of one
// goes on that it had.
func (o *operator) knows(name string) bool {
	return find(o.daemon.present().services, name) != nil || len(o.departed(name)) > 0
}

// Block implements control.Daemon.
func (o *operator) Block(whom control.Source, length time.Duration) error {
	return o.daemon.house.Block(asSpec(whom), length, o.daemon.now())
}

// asSpec is what a rule would be that is about a source.
func asSpec(s control.Source) config.Spec {
	if s.User {
		return config.User(s.UID)
	}
	return config.Network(s.Network)
}

// Unblock implements control.Daemon.
func (o *operator) Unblock(source control.Source) (control.Unblocked, error) {
	whom := asSpec(source)
	if n := o.daemon.house.Unblock(whom); n > 0 {
		return control.Unblocked{Lifted: n}, nil
	}
	if source.User {
		return control.Unblocked{}, control.Unknown(fmt.Sprintf("%s is neither blocked nor banned", whom))
	}
	if around, found := o.daemon.house.Around(whom, o.daemon.now()); found {
		return control.Unblocked{}, control.Unknown(fmt.Sprintf("nobody in %s is blocked or banned by itself, but %s around it is: superd unblock %s lifts that",
			whom, around, around))
	}
	return control.Unblocked{}, control.Unknown(fmt.Sprintf("nobody in %s is blocked or banned", whom))
}

// logStatus writes what Status says to the log.
func (o *operator) logStatus() {
	s := o.Status()
	for _, v := range s.Services {
		o.daemon.log.Info("status", event.F("service", v.Name), event.F("state", v.State), event.F("live", v.Live),
			event.F("total", v.Total), event.F("refused", v.Refused), event.F("failed", v.Failed), event.F("waiting", v.Waiting))
	}
	o.daemon.log.Info("status", event.F("state", s.State), event.F("live", s.Live), event.F("file", s.File),
		event.F("generation", s.Generation), event.F("blocks", len(s.Blocks)), event.F("log_dropped", s.LogDropped))
}

var _ control.Daemon = (*operator)(nil)
