package spawn

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// TestCarriedLeafIsKilled: a superd that takes another's place kills what is
// left in a connection's cgroup, and uses that again.
func TestCarriedLeafIsKilled(t *testing.T) {
	needCgroups(t)
	s := script(`setsid sleep 1000 >/dev/null 2>&1 <&- & echo $!`)
	s.Service, s.Cgroup = "carried", config.Cgroup{On: true, PerConnection: true}
	e := NewEngine()
	before := startOne(t, e, compile(t, e, s))
	escaped, err := strconv.Atoi(strings.TrimSpace(before.out))
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(escaped, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	heir := NewEngine()
	p := compile(t, heir, s)
	had := len(p.walls.cgroup.idle) // the plan was tried
	carried := e.Carry(&before.Child)
	c := heir.Resume(&carried, p)
	heir.Release(c, false)
	awaitEnd(t, pidfd)
	if len(p.walls.cgroup.idle) != had+1 {
		t.Error("the leaf was not given to the new plan")
	}
	// Without a plan that has the directory, it is taken away.
	again := startOne(t, e, before.Child.in.plan)
	carried = e.Carry(&again.Child)
	open := len(openDescriptors(t))
	c = heir.Resume(&carried, nil)
	heir.Release(c, true)
	if now := len(openDescriptors(t)); now != open {
		t.Errorf("%d descriptors were open, and %d are", open, now)
	}
}

// TestCarriedFailure: why a child has not become its program is known to the
// superd that reaps it.
func TestCarriedFailure(t *testing.T) {
	s := script("")
	s.Path, s.Argv = "/nowhere/none", []string{"none"}
	e := NewEngine()
	p := compile(t, e, s)
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	c, err := e.Start(p, Streams{Connection: ends[1], Stderr: -1}, &someFacts)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.PIDFD)
	awaitEnd(t, c.PIDFD)
	if c.Aboard() {
		t.Error("it is said to be on its way")
	}
	carried := e.Carry(&c)
	heir := NewEngine()
	resumed := heir.Resume(&carried, nil)
	if _, err := Wait(resumed.PIDFD); err != nil {
		t.Fatal(err)
	}
	want := "cannot execute /nowhere/none: ENOENT"
	if err := heir.Failure(resumed); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the heir says %v", err)
	}
	if err := e.Failure(c); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("to carry it has changed what is said: %v", err)
	}
}

// TestRehearsal: what a program said and how it ended, or that nobody waited for
// its end.
func TestRehearsal(t *testing.T) {
	e := NewEngine()
	input, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	before := len(openDescriptors(t))
	limit := time.Minute
	rehearse := func(text string, quit <-chan struct{}) (string, End, error) {
		said, end, err := e.Rehearse(&Rehearsal{Path: "/bin/sh", Argv: []string{"sh", "-c", text}, Dir: "/usr",
			Env: []string{"WORD=said"}, Input: int(input.Fd()), Limit: limit, Quit: quit})
		return string(said), end, err
	}
	if said, end, err := rehearse(`pwd >&2; echo $WORD >&2; cat; exit 3`, nil); err != nil || end.Status != 3 || said != "/usr\nsaid\n" {
		t.Errorf("it says %q and ends with %+v, %v", said, end, err)
	}
	for limit = 200 * time.Millisecond; ; limit *= 2 { // of which it may need some to begin
		said, end, err := rehearse(`echo begin >&2; sleep 1000; echo end`, nil)
		if err != unix.ETIMEDOUT || end.Signal != unix.SIGKILL || said != "begin\n" && (said != "" || limit > 20*time.Second) {
			t.Errorf("it says %q and ends with %+v, %v", said, end, err)
		}
		if said != "" || limit > 20*time.Second {
			break
		}
	}
	limit = time.Minute
	quit := make(chan struct{})
	close(quit)
	if _, end, err := rehearse(`sleep 1000`, quit); err != unix.ECANCELED || end.Signal != unix.SIGKILL {
		t.Errorf("it ends with %+v, %v", end, err)
	}
	if said, _, err := rehearse(`yes | head -c 300000 >&2`, nil); err != nil || len(said) != mostSaid {
		t.Errorf("%d bytes are kept, %v", len(said), err)
	}
	if now := len(openDescriptors(t)); now != before {
		t.Errorf("%d descriptors were open, and %d are", before, now)
	}
}
