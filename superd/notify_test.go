package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/spawn"
)

// What the service manager is told.

// A manager is the socket at which systemd would listen.
type manager struct {
	*net.UnixConn
	t *testing.T
}

func newManager(t *testing.T, name string) manager {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return manager{c, t}
}

// next is what is told next.
func (m manager) next() (assignments []string) {
	m.t.Helper()
	b := make([]byte, 4096)
	n, err := m.Read(b)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.Split(string(b[:n]), "\n")
}

// await skips what comes before an assignment.
func (m manager) await(assignment string) (assignments []string) {
	m.t.Helper()
	for {
		if list := m.next(); slices.Contains(list, assignment) {
			return list
		}
	}
}

func TestServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"a path":           filepath.Join(publicDir(t), "notify"),
		"an abstract name": fmt.Sprintf("@superd-test-%d", os.Getpid()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t, path)
			cmd := prepare(t, "drain: 1h\n"+one("env", "run: [/usr/bin/env], env_pass: [NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID]"))
			cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=100000")
			d := startCommand(t, cmd)
			if got := m.next(); !slices.Equal(got, []string{"READY=1", "STATUS=serving: 1 service, 0 live connections"}) {
				t.Errorf("first it is told %q", got)
			}
			for range 3 {
				m.await("WATCHDOG=1")
			}
			for _, word := range []string{"NOTIFY", "WATCHDOG"} {
				if env := d.ask("env", ""); strings.Contains(env, word) {
					t.Errorf("the program's environment is %q", env)
				}
			}
			d.signal(syscall.SIGTERM)
			d.stopped()
		})
	}
}

// TestServiceManagerIsToldOfTheEnd: nothing else is told then, so that its queue
// has room.
func TestServiceManagerIsToldOfTheEnd(t *testing.T) {
	t.Parallel()
	m := newManager(t, filepath.Join(publicDir(t), "notify"))
	cmd := prepare(t, "drain: 1h\n"+one("cat", "run: /bin/cat"))
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.LocalAddr().String())
	d := startCommand(t, cmd)
	d.signal(syscall.SIGTERM)
	got := m.await("STOPPING=1")
	if want := "EXTEND_TIMEOUT_USEC=" + strconv.Itoa(3620e6); !slices.Contains(got, want) {
		t.Errorf("at the end it is told %q, without %s", got, want)
	}
	d.stopped()
}

// TestWatchdogWhileDraining: superd is well also when nobody accepts any more.
func TestWatchdogWhileDraining(t *testing.T) {
	t.Parallel()
	m := newManager(t, filepath.Join(publicDir(t), "notify"))
	cmd := prepare(t, "drain: 1h\n"+one("cat", "run: /bin/cat"))
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.LocalAddr().String(), "WATCHDOG_USEC=50000")
	d := startCommand(t, cmd)
	c := d.held("cat")
	d.signal(syscall.SIGTERM)
	d.await(func(r record) bool { return r.is("draining") })
	for range 5 { // what was told before may stand in the queue
		if list := m.await("STATUS=stopping: 1 service, 1 live connection"); list[0] != "WATCHDOG=1" && list[0] != "STOPPING=1" {
			t.Errorf("meanwhile it is told %q", list)
		}
	}
	c.Close()
	d.stopped()
}

// TestReloadIsTold with its time, and its end.
func TestReloadIsTold(t *testing.T) {
	t.Parallel()
	m := newManager(t, filepath.Join(publicDir(t), "notify"))
	socket := filepath.Join(publicDir(t), "socket")
	cmd := prepare(t, "control: {path: "+socket+"}\n"+one("cat", "run: /bin/cat"))
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.LocalAddr().String())
	a := asked{startCommand(t, cmd), socket}
	a.idle = startAsked(t, one("cat", "run: /bin/cat")).idle // who was just told may still be connected
	m.await("READY=1")
	now := func() int64 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			t.Fatal(err)
		}
		return now.Nano() / int64(time.Microsecond)
	}
	before := now()
	a.tell("reload")
	after := now()
	list := m.await("RELOADING=1")
	text, _ := strings.CutPrefix(list[1], "MONOTONIC_USEC=")
	if us, err := strconv.ParseInt(text, 10, 64); err != nil || us < before || us > after {
		t.Errorf("it is told %q, between %d and %d", list, before, after)
	}
	m.await("READY=1")
}

// atRest looks again what is open when nothing goes on: what has just been told
// of, or by, may have been open still.
func (d *process) atRest() {
	looks := 0
	eventually(d.t, func() error {
		d.idle = min(d.idle, d.descriptors())
		if looks++; looks < 5 {
			return fmt.Errorf("looked %d times", looks)
		}
		return nil
	})
}

// TestServiceManagerIsGone: superd serves all the same, says so once, and ends.
func TestServiceManagerIsGone(t *testing.T) {
	t.Parallel()
	cmd := prepare(t, one("cat", "run: /bin/cat"))
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+publicDir(t)+"/none", "WATCHDOG_USEC=20000")
	d := startCommand(t, cmd)
	if got := d.ask("cat", "hello"); got != "hello" {
		t.Errorf("the answer is %q", got)
	}
	d.await(func(r record) bool { return r.is("cannot tell the service manager how superd is") })
	d.signal(syscall.SIGTERM)
	d.stopped()
	said := 0
	d.await(func(r record) bool {
		if strings.HasPrefix(r.text("message"), "cannot tell") {
			said++
		}
		return r.is("stopped")
	})
	if said != 1 {
		t.Errorf("it was said %d times", said)
	}
}

// TestServiceManagerIsDeaf: whoever does not read is not waited for.
func TestServiceManagerIsDeaf(t *testing.T) {
	t.Parallel()
	m := newManager(t, filepath.Join(publicDir(t), "notify"))
	n := notifier{socket: m.LocalAddr().String()}
	var err error
	for i := 0; i < 10_000 && err == nil; i++ {
		err = n.tell(strings.Repeat("x", 1000))
	}
	if err != syscall.EAGAIN {
		t.Errorf("a queue that is full is answered with %v", err)
	}
}

func TestWatchdogVariables(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"3000000", "", 3 * time.Second},
		{"3000000", own, 3 * time.Second},
		{"3000000", "1", 0},
		{"3000000", "x", 0},
		{"0", own, 0},
		{"-5", own, 0},
		{"soon", own, 0},
	} {
		t.Setenv("NOTIFY_SOCKET", "@x")
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := newNotifier(); got != (notifier{"@x", c.want}) {
			t.Errorf("%+v is read as %+v", c, got)
		}
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			if _, set := os.LookupEnv(name); set {
				t.Errorf("%s is left in the environment", name)
			}
		}
	}
	if err := (notifier{}).tell("READY=1"); err != nil {
		t.Error(err)
	}
}

// TestHealth: any of the threads that superd needs can be the one that hangs.
func TestHealth(t *testing.T) {
	log := event.Open(os.Stderr, event.Options{Level: "error"})
	defer log.Close(0)
	d := newDaemon(&config.Config{}, log, spawn.NewEngine())
	defer d.operator.close()
	var err error
	if d.table, err = conn.New(d.engine); err != nil {
		t.Fatal(err)
	}
	for i := range d.sets {
		if d.sets[i], err = listen.NewSet(d.engine.Above, func(error) {}); err != nil {
			t.Fatal(err)
		}
	}
	soon := 20 * time.Millisecond
	expect := func(within time.Duration, want string) {
		t.Helper()
		eventually(t, func() error { // a thread that has just begun may not answer so soon
			if err := d.operator.health(within); fmt.Sprint(err) != want {
				return fmt.Errorf("got %v, want %s", err, want)
			}
			return nil
		})
	}
	go d.sets[plain].Serve(d.engine.Settle) // ends with Close
	expect(soon, "connections are not accepted")
	go d.sets[confined].Serve(d.engine.Settle)
	expect(soon, "programs are not watched")
	go d.table.Watch()
	expect(patience, "<nil>")
	d.sets[plain].Close()
	expect(soon, "connections are not accepted")
	d.operator.enter(phaseLeaving)
	expect(patience, "<nil>")
	d.sets[confined].Close()
	d.table.Close()
	expect(soon, "programs are not watched")
}
