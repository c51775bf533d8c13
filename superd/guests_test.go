package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/lobby"
	"superd/superd/internal/peer"
	"superd/superd/internal/spawn"
)

// Guests and their hall, with real connections and programs in this process,
// but without the usher: when somebody is told that it is his turn, and what
// has happened to him meanwhile, is the test's to choose.

// An inn is a superd of which the test has the usher's part. All its guests are
// in one hall.
type inn struct {
	*daemon
	t        testing.TB
	orders   []func() // what House.Next has told, for the hall's thread
	visitors []*caller
	door     net.Listener
	retired  []*service // of files before
}

// A caller is a client, and superd's end of its connection.
type caller struct {
	*net.TCPConn
	inode uint64 // of superd's end
	done  bool   // it has closed
}

// innFiles are two files, either of which can follow the other.
var innFiles = [...]string{`
limits: {max: 3}
services:
  direct:  {listen: "127.0.0.1:0", sandbox: none, run: /bin/cat, linger: 0, max: 2}
  parks:   {listen: "127.0.0.1:0", sandbox: none, run: /bin/cat, linger: 0, max: 1, max_per_source: 1, queue: {length: 2, timeout: 1h}}
  absent:  {listen: "127.0.0.1:0", sandbox: none, run: /nowhere/none, linger: 0, max: 1, queue: {length: 3, timeout: 1h}}
  told:    {listen: "127.0.0.1:0", sandbox: none, run: /bin/cat, linger: 0, max: 1, on_limit: refuse, refuse_text: "no"}
  byte:    {listen: "127.0.0.1:0", sandbox: none, run: /bin/cat, linger: 0, max: 1, timeout: {first_byte: 1h}, queue: {length: 2}, refuse_text: "no"}
  proxied: {listen: "127.0.0.1:0", sandbox: none, run: /bin/cat, linger: 0, max: 1, proxy_protocol: {from: [10.0.0.0/30], timeout: 1h}}
`, `
limits: {max: 3}
services:
  direct:  {listen: "127.0.0.1:0", sandbox: none, run: /bin/cat, linger: 0, max: 1, max_per_source: 1}
  parks:   {listen: "127.0.0.1:0", sandbox: none, run: /bin/cat, linger: 0, max: 2, queue: {length: 3, timeout: 1h},
            allow: [{from: 10.0.0.1, run: /bin/cat -u}, 10.0.0.2, 10.0.0.3], refuse_text: "no"}
  absent:  {listen: "127.0.0.1:0", sandbox: none, run: /nowhere/none, linger: 0, max: 1, failures: {after: 2, pause: 1ms}, ban: {after: 9, for: 1ms}}
  told:    {listen: "127.0.0.1:0", sandbox: none, run: /bin/cat, linger: 0, max: 1, timeout: {first_byte: 1h}}
  byte:    {listen: "127.0.0.1:0", sandbox: none, run: /bin/cat, linger: 0, max: 1}
`}

// load takes up one of the files.
func (x *inn) load(file string) *generation {
	x.t.Helper()
	c, err := load(writeFile(x.t, publicDir(x.t), "superd.yaml", file, 0o644))
	if err != nil {
		x.t.Fatal(err)
	}
	g, problems := x.prepare(c)
	if len(problems) > 0 {
		x.t.Fatal(problems)
	}
	return g
}

// reload is a reload by order.
func (x *inn) reload(g *generation) {
	x.retired = append(x.retired, x.services...)
	x.adopt(g)
}

func newInn(t testing.TB) *inn {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	log := event.Open(out, event.Options{Format: "json"})
	x := &inn{daemon: newDaemon(&config.Config{}, log, spawn.NewEngine()), t: t}
	if x.table, err = conn.New(x.engine); err != nil {
		t.Fatal(err)
	}
	for i := range x.sets {
		if x.sets[i], err = listen.NewSet(x.engine.Above, x.outOfResources); err != nil {
			t.Fatal(err)
		}
		if x.halls[i], err = newHall(x.daemon, x.sets[i]); err != nil {
			t.Fatal(err)
		}
	}
	x.adopt(x.load(innFiles[0]))
	x.serving = true
	go x.table.Watch() // these end with close
	for i := range x.sets {
		go x.sets[i].Serve(x.halls[i].turn)
	}
	x.halls[plain].most = 4
	if x.door, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		x.door.Close()
		x.daemon.close()
		log.Close(patience)
		out.Close()
	})
	return x
}

// caughtUp returns when the hall has heard of all that clients have done.
func (x *inn) caughtUp() {
	for range 2 {
		x.on(plain, func() {})
	}
}

// arrives brings a client to a service's door; false if that is closed to all
// for now.
func (x *inn) arrives(service *service, source int) (c *caller, in bool) {
	c = x.dial()
	fd := x.accept(c)
	p := peer.Peer{
		Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(source)}), 4711),
		Local:  netip.MustParseAddrPort("10.0.0.99:7"),
	}
	x.on(plain, func() {
		if in = service.Enter(); in {
			service.Connection(fd, &p)
		}
	})
	if !in {
		unix.Close(fd)
		c.Close()
		return nil, false
	}
	x.visitors = append(x.visitors, c)
	return c, true
}

// dial makes a client, who is not accepted yet.
func (x *inn) dial() *caller {
	c, err := dialAddress(x.door.Addr().String())
	if err != nil {
		x.t.Fatal(err)
	}
	return &caller{TCPConn: c}
}

// accept is superd's end of a connection, blocking as superd accepts it.
func (x *inn) accept(c *caller) (fd int) {
	own, err := x.door.Accept()
	if err != nil {
		x.t.Fatal(err)
	}
	defer own.Close()
	raw, err := own.(*net.TCPConn).SyscallConn()
	if err != nil {
		x.t.Fatal(err)
	}
	raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	var stat unix.Stat_t
	err = errors.Join(err, unix.SetNonblock(fd, false), unix.Fstat(fd, &stat))
	if err != nil {
		x.t.Fatal(err)
	}
	c.inode = stat.Ino
	return fd
}

// next asks the house what there is to tell, and keeps it.
func (x *inn) next() {
	for {
		w, d, some := x.house.Next(x.now())
		if !some {
			return
		}
		g := w.Host.(*guest)
		x.orders = append(x.orders, func() { g.settled(d) })
	}
}

// parked is how many wait for a place.
func (x *inn) parked() (n int) {
	x.on(plain, func() { n = x.halls[plain].waiting })
	return n
}

// deliver tells one of those who wait to be told.
func (x *inn) deliver(i int) {
	order := x.orders[i]
	x.orders = slices.Delete(x.orders, i, i+1)
	x.on(plain, order)
}

// empty wants nothing to be left of anybody, once all clients have gone.
func (x *inn) empty(t interface{ Fatal(...any) }) {
	for _, c := range x.visitors {
		c.Close()
	}
	deadline := time.Now().Add(patience)
	for {
		x.caughtUp()
		for x.next(); len(x.orders) > 0; x.next() {
			x.deliver(0)
		}
		err := x.leftovers()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	x.visitors = nil
}

func (x *inn) leftovers() (err error) {
	h := x.halls[plain]
	x.on(plain, func() {
		if h.waiting != 0 || h.silent.len+h.starting.len+h.leaving.len != 0 || h.lobby.Len() != 0 || len(h.crowd) != 0 {
			err = fmt.Errorf("%d wait, %d are silent, %d start, %d leave, %d are in the lobby, %d in the crowd",
				h.waiting, h.silent.len, h.starting.len, h.leaving.len, h.lobby.Len(), len(h.crowd))
		}
	})
	if n := x.house.Live(); n != 0 {
		err = errors.Join(err, fmt.Errorf("%d places are taken", n))
	}
	for _, s := range x.services {
		n, status := s.conn.Events.Counts(), s.gate.Status(x.now())
		if n.Accepted != n.Exited+n.RefusedTotal() || status.Live != 0 || status.Waiting != 0 || s.guests.Load() != 0 {
			err = errors.Join(err, fmt.Errorf("%s: %+v; %+v; %d guests", s.config.Name, n, status, s.guests.Load()))
		}
	}
	for _, s := range x.retired {
		if n := s.guests.Load(); n != 0 {
			err = errors.Join(err, fmt.Errorf("of a file before, %s has %d guests", s.config.Name, n))
		}
	}
	return errors.Join(err, x.open())
}

// open is an error where a descriptor of a client's connection is open still.
func (x *inn) open() (err error) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	open := map[string]bool{}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			open[target] = true
		}
	}
	for i, c := range x.visitors {
		if open[fmt.Sprintf("socket:[%d]", c.inode)] {
			err = errors.Join(err, fmt.Errorf("the connection of client %d is open", i))
		}
	}
	return err
}

// Whatever order things come in: who arrives, speaks, closes his side or goes,
// which program ends or cannot be started, when somebody is told that it is his
// turn; no place is lost or given twice, no connection stays open, and each is
// counted once.
func TestGuestsInAnyOrder(t *testing.T) {
	t.Parallel()
	x := newInn(t)
	says := []string{"", "x", "PROXY ", "PROXY UNKNOWN\r\n", "PROXY TCP4 10.0.0.5 10.0.0.9 1 2\r\nx", "\r\n"}
	rapid.Check(t, func(r *rapid.T) {
		visitor := func(r *rapid.T) *caller {
			if len(x.visitors) == 0 {
				return nil
			}
			if c := rapid.SampledFrom(x.visitors).Draw(r, "client"); !c.done {
				return c
			}
			return nil
		}
		arrives := func(r *rapid.T) {
			s := rapid.SampledFrom(x.services).Draw(r, "service")
			if c, in := x.arrives(s, rapid.IntRange(1, 4).Draw(r, "source")); in {
				io.WriteString(c, rapid.SampledFrom(says).Draw(r, "says"))
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			"arrive": arrives, "another": arrives, "one more": arrives,
			"say": func(r *rapid.T) {
				if c := visitor(r); c != nil {
					io.WriteString(c, rapid.SampledFrom(says).Draw(r, "says"))
				}
			},
			"half": func(r *rapid.T) {
				if c := visitor(r); c != nil {
					c.CloseWrite()
				}
			},
			"close": func(r *rapid.T) {
				if c := visitor(r); c != nil {
					c.Close()
					c.done = true
				}
			},
			"reset": func(r *rapid.T) {
				if c := visitor(r); c != nil {
					reset(c.TCPConn)
					c.done = true
				}
			},
			"next": func(*rapid.T) {
				for range 100 { // programs of those who have gone end in the meantime
					if x.next(); len(x.orders) > 0 || x.parked() == 0 {
						break
					}
					x.caughtUp()
				}
			},
			"tell": func(r *rapid.T) {
				if len(x.orders) > 0 {
					x.deliver(rapid.IntRange(0, len(x.orders)-1).Draw(r, "whom"))
				}
			},
			"late": func(*rapid.T) {
				x.on(plain, func() { x.halls[plain].lobby.Dismiss(lobby.Forever - 1) })
			},
			"drain": func(r *rapid.T) {
				s := rapid.SampledFrom(x.services).Draw(r, "service")
				s.gate.Drain(true)
				x.halls[plain].dismiss()
				s.gate.Drain(false)
			},
			"reload": func(r *rapid.T) {
				x.reload(x.load(rapid.SampledFrom(innFiles[:]).Draw(r, "file")))
			},
			"turn away": func(r *rapid.T) {
				c := x.dial()
				fd := x.accept(c)
				p := peer.Peer{Remote: netip.MustParseAddrPort("10.0.0.7:1")}
				x.on(plain, func() { x.services[0].TurnAway(fd, &p) })
				x.visitors = append(x.visitors, c)
			},
			"": func(r *rapid.T) {
				x.caughtUp()
				if n := x.house.Live(); n < 0 || n > 3 {
					r.Fatalf("%d places are taken", n)
				}
			},
		})
		x.empty(r)
	})
}

// Who is told what became of him before he could begin to wait, for want of
// room to wait in, has got what he was told.
func TestToldBeforeItWaits(t *testing.T) {
	t.Parallel()
	x := newInn(t)
	h, s := x.halls[plain], x.service("parks")
	first, _ := x.arrives(s, 1)
	h.most = 0 // nobody's descriptor can wait
	for _, leaves := range []bool{false, true} {
		var g *guest
		second := x.dial()
		fd := x.accept(second)
		x.visitors = append(x.visitors, second)
		x.on(plain, func() { // what ask does, with a pause
			g = h.guest(s)
			g.fd, g.visitor.Peer.Remote = fd, netip.MustParseAddrPort("10.0.0.2:1")
			g.client = clientOf(&g.visitor.Peer)
			g.client.Host = g
			g.greet()
			g.decision = s.gate.Ask(g.client, x.now())
			g.waiter = g.decision.Waiter
		})
		if g.decision.Verdict != admit.Waits {
			t.Fatalf("the second one %s", g.decision.Verdict)
		}
		if leaves {
			reset(second.TCPConn)
		}
		first.Close()
		eventually(t, func() error {
			if x.next(); len(x.orders) == 0 {
				return errors.New("nobody is told")
			}
			return nil
		})
		x.on(plain, g.queue)
		x.deliver(0)
		if !leaves {
			io.WriteString(second, "hello")
			if _, err := io.ReadFull(second, make([]byte, 5)); err != nil {
				t.Errorf("who was let in is served: %v", err)
			}
		}
		first = second
	}
	x.empty(t)
}

// Who leaves in the moment in which House.Next tells that it is his turn gives
// the place back.
func TestGoneWhenTold(t *testing.T) {
	t.Parallel()
	x := newInn(t)
	s := x.service("parks")
	for _, leaves := range []func(*net.TCPConn) error{reset, (*net.TCPConn).CloseWrite, nil} {
		first, _ := x.arrives(s, 1)
		second, _ := x.arrives(s, 2)
		first.Close()
		eventually(t, func() error {
			if x.next(); len(x.orders) == 0 {
				return errors.New("nobody is told")
			}
			return nil
		})
		if leaves != nil {
			leaves(second.TCPConn)
		}
		x.caughtUp()
		x.deliver(0)
		if leaves == nil {
			io.WriteString(second, "hello")
			if _, err := io.ReadFull(second, make([]byte, 5)); err != nil {
				t.Errorf("who was let in is served: %v", err)
			}
		}
		x.empty(t)
	}
}

// service finds one by its name.
func (x *inn) service(name string) *service {
	return find(x.services, name)
}
