package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
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
	daemon *daemon
	server *control.Server // nil where there is no socket
	web    []*control.Web
	began  time.Time
	phase  atomic.Int32
	notify notifier
	mute   atomic.Bool    // that the service manager cannot be told was said
	quit   chan struct{}  // closed by close
	feeder sync.WaitGroup // feed, until close

	room       int       // connections that may live at a time
	generation int       // of the file
	loaded     time.Time // when it was
	reloaded   bool      // the file that was read last is the one in force

	mu   sync.Mutex
	ends map[string]*time.Timer // by service: when its drain has taken long enough; guarded by mu
}

// The phases of superd's life, in their order.
const (
	serving int32 = iota
	draining
	leaving
)

var phaseWords = [...]string{serving: "serving", draining: "draining", leaving: "stopping"}

func newOperator(d *daemon, room int) *operator {
	now := time.Now()
	return &operator{
		daemon: d, began: now, notify: newNotifier(), quit: make(chan struct{}),
		room: room, generation: 1, loaded: now, reloaded: true, ends: map[string]*time.Timer{},
	}
}

// enter goes on to a phase; there is no way back.
func (o *operator) enter(phase int32) {
	for now := o.phase.Load(); now < phase && !o.phase.CompareAndSwap(now, phase); {
		now = o.phase.Load()
	}
	if phase == leaving {
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

// open opens the sockets at which superd is asked.
func (o *operator) open() config.Problems {
	return append(o.openControl(), o.openWeb()...)
}

func (o *operator) openWeb() (problems config.Problems) {
	c := &o.daemon.config.HTTP
	for _, at := range c.Listen {
		w, err := control.OpenWeb(at, o.daemon.engine.Above, o.complain)
		if err != nil {
			problems = append(problems, config.Problem{At: c.At, Path: "http.listen", What: err.Error()})
			continue
		}
		o.web = append(o.web, w)
	}
	return problems
}

// complain hears of mistakes in superd itself.
func (o *operator) complain(what string, err error) {
	o.daemon.log.Error(what, event.F("error", err.Error()))
}

// openControl opens the administrative socket. Where the file does not name it,
// superd does without one that cannot be had.
func (o *operator) openControl() config.Problems {
	c := &o.daemon.config.Control
	path := socketOf(c)
	if path == "" {
		o.daemon.log.Warn("XDG_RUNTIME_DIR is not set: superd runs without an administrative socket (name one with control.path)")
		return nil
	}
	server, err := control.Open(control.Options{
		Path:          path,
		Mode:          os.FileMode(c.Mode),
		MakeDirectory: !c.PathSet || strings.HasPrefix(path, "/run/"),
		Above:         o.daemon.engine.Above,
		Complain:      o.complain,
	})
	if err == nil {
		o.server = server
		return nil
	}
	if c.PathSet {
		return config.Problems{{At: c.At, Path: "control.path", What: err.Error()}}
	}
	o.daemon.log.Warn("superd runs without an administrative socket", event.F("error", err.Error()))
	return nil
}

// serve answers until close, and tells those who wait for it that superd is
// ready.
func (o *operator) serve() {
	if o.server != nil {
		o.server.Serve(o)
	}
	for _, w := range o.web {
		o.daemon.log.Info("http", event.F("local", w.Local().String()))
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

// moment is now, as admission counts.
func (o *operator) moment() admit.Moment {
	now := time.Now()
	return admit.Moment{Since: now.Sub(o.began), Wall: now}
}

// Status implements control.Daemon.
func (o *operator) Status() control.Status {
	d := o.daemon
	s := control.Status{
		Version:    version,
		PID:        os.Getpid(),
		State:      phaseWords[o.phase.Load()],
		Started:    o.began,
		UptimeMS:   time.Since(o.began).Milliseconds(),
		File:       d.config.Path,
		Generation: o.generation,
		Loaded:     o.loaded,
		Live:       d.house.Live(),
		Max:        o.room,
		LogDropped: d.log.Dropped(),
		Orphans:    adopted.reaped.Load(),
		Services:   []control.Service{},
		Blocks:     o.Blocks(),
	}
	for _, service := range d.services {
		s.Services = append(s.Services, o.statusOf(service))
	}
	return s
}

func (o *operator) statusOf(s *service) control.Service {
	counts, gate := s.conn.Events.Counts(), s.gate.Status(o.moment())
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
		Generation:  o.generation,
		Since:       o.loaded,
		Description: s.config.Description,
	}
	if !s.config.Enabled {
		answer.State = "disabled"
	}
	for _, local := range s.local {
		answer.Listen = append(answer.Listen, local.String())
	}
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
	for _, l := range o.daemon.table.List(conn.Selection(which)) {
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
	for _, b := range o.daemon.house.Bans(o.moment()) {
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
func (o *operator) Reload() (control.Report, error) {
	o.announceReload()
	defer func() { o.tell("READY=1", o.summary()) }()
	return control.Report{}, control.Unsupported("reload is not supported yet; nothing was changed")
}

// Upgrade implements control.Daemon.
func (o *operator) Upgrade() error {
	return control.Unsupported("upgrade is not supported yet; nothing was changed")
}

// Drain implements control.Daemon. The services take who stands in the kernel's
// queue and nobody else; what lives after the limit is ended. Superd goes on.
func (o *operator) Drain(name string, limit *time.Duration) (control.Drained, error) {
	list, err := o.named(name)
	if err != nil {
		return control.Drained{}, err
	}
	if name == "" {
		o.enter(draining) // whoever asks whether superd is ready hears of it first
	}
	if limit == nil {
		limit = &o.daemon.config.Drain
	}
	answer := control.Drained{Services: []string{}, LimitMS: limit.Milliseconds()}
	for _, s := range list {
		answer.Live += o.drainOne(s, *limit)
		answer.Services = append(answer.Services, s.config.Name)
	}
	return answer, nil
}

// named are the services of that name, or all.
func (o *operator) named(name string) ([]*service, error) {
	var list []*service
	for _, s := range o.daemon.services {
		if s.config.Enabled && (name == "" || s.config.Name == name) {
			list = append(list, s)
		}
	}
	if name != "" && len(list) == 0 {
		return nil, control.Unknown(fmt.Sprintf("there is no service %q", name))
	}
	return list, nil
}

func (o *operator) drainOne(s *service, limit time.Duration) (live int) {
	name := s.config.Name
	o.daemon.setOf(s).Shut(s)
	s.gate.Drain(true)
	live = s.gate.Live()
	o.daemon.log.Info("draining", event.F("service", name), event.F("live", live), event.F("seconds", limit.Seconds()))
	o.mu.Lock()
	defer o.mu.Unlock()
	if before := o.ends[name]; before != nil {
		before.Stop()
	}
	o.ends[name] = time.AfterFunc(limit, func() { // ends with the table
		o.daemon.table.Kill(conn.Selection{Service: name}, reasonDrain)
	})
	return live
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
	if which.Service != "" {
		if _, err := o.named(which.Service); err != nil {
			return control.Killed{}, err
		}
	}
	n := o.daemon.table.Kill(conn.Selection(which), reasonKill)
	if n == 0 && which.ID != "" {
		return control.Killed{}, control.Unknown(fmt.Sprintf("there is no connection %q", which.ID))
	}
	return control.Killed{Killed: n}, nil
}

// Block implements control.Daemon.
func (o *operator) Block(network netip.Prefix, length time.Duration) error {
	return o.daemon.house.Block(network, length, o.moment())
}

// Unblock implements control.Daemon.
func (o *operator) Unblock(network netip.Prefix) (control.Unblocked, error) {
	n := o.daemon.house.Unblock(network)
	if n == 0 {
		return control.Unblocked{}, control.Unknown(fmt.Sprintf("nobody in %s is blocked or banned", admit.Network(network)))
	}
	return control.Unblocked{Lifted: n}, nil
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
