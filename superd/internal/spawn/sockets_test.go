package spawn

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// listeners are n sockets that can be told apart: each is bound to a name of
// its own.
func listeners(t testing.TB, n int) (fds []int, names []string) {
	t.Helper()
	for i := range n {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		name := fmt.Sprintf("@superd-test-%d-%d", os.Getpid(), fd)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
		fds, names = append(fds, fd), append(names, "s"+strconv.Itoa(i))
	}
	return fds, names
}

// inode is which file a descriptor of this process is.
func inode(t testing.TB, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// handed runs s, which gets fds, and returns what it wrote.
func handed(t testing.TB, e *Engine, p *Plan, fds []int, names []string) string {
	t.Helper()
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	c, err := e.Start(p, Streams{Connection: -1, Stderr: ends[1], Sockets: fds},
		&Facts{ID: []byte("abc-1"), Peer: someFacts.Peer, Names: names})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c.PIDFD)
	for e.Settle() > 0 {
		unix.Nanosleep(&unix.Timespec{Nsec: 1e5}, nil)
	}
	r := os.NewFile(uintptr(ends[0]), "output")
	defer r.Close()
	out := make([]byte, 1<<16)
	n := 0
	for {
		m, err := r.Read(out[n:])
		if n += m; err != nil {
			break
		}
	}
	if end, err := Wait(c.PIDFD); err != nil || end.Status != 0 || end.Signaled {
		t.Fatalf("ended with %+v, %v, %v; wrote %q", end, err, e.Failure(c), out[:n])
	}
	return string(out[:n])
}

// forSockets is script for a program that gets sockets.
func forSockets(text string, most int) Spec {
	s := script(text)
	s.Stderr, s.Sockets = StderrLog, most
	s.Env = append(s.Env, "LISTEN_PID=1", "LISTEN_FDS=7", "LISTEN_FDNAMES=mine")
	return s
}

const tellSockets = `echo $LISTEN_FDS $LISTEN_FDNAMES; [ "$LISTEN_PID" = $$ ] && echo mine
n=0; while [ $n -lt 50 ]; do [ ! -e /proc/$$/fd/$n ] || { echo -n "$n "; readlink /proc/$$/fd/$n; }; n=$((n+1)); done`

// TestSocketsAreHandedOver, all of them or fewer than the plan is for, in their
// order and with nothing else, whatever numbers they have in superd.
func TestSocketsAreHandedOver(t *testing.T) {
	for _, n := range []int{1, 3, 40} {
		for _, most := range []int{n, n + 3} {
			e := NewEngine()
			fds, names := listeners(t, n)
			slices.Reverse(fds)
			p := compile(t, e, forSockets(tellSockets, most))
			for range 2 { // the second time with an instance that has been used
				got := strings.Split(handed(t, e, p, fds, names), "\n")
				pipe := strings.TrimPrefix(got[3], "1 ")
				want := []string{fmt.Sprint(n, " ", strings.Join(names, ":")), "mine", "0 /dev/null", "1 " + pipe, "2 " + pipe}
				for i, fd := range fds {
					want = append(want, fmt.Sprintf("%d socket:[%d]", firstSocket+i, inode(t, fd)))
				}
				if want = append(want, ""); !slices.Equal(got, want) || !strings.HasPrefix(pipe, "pipe:") {
					t.Errorf("%d of %d: got %q, want %q", n, most, got, want)
				}
			}
		}
	}
}

// TestListenPIDHasAsManyDigitsAsTheProcess: an instance that has told a long
// number tells a short one later, whose digits stand in the same place.
func TestListenPIDHasAsManyDigitsAsTheProcess(t *testing.T) {
	needRoot(t)
	const last = "/proc/sys/kernel/ns_last_pid"
	set := func(pid int) {
		t.Helper()
		if err := os.WriteFile(last, []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Skip("SKIPPED: numbers of processes cannot be chosen: " + err.Error())
		}
	}
	e := NewEngine()
	p := compile(t, e, forSockets(`echo $$ $LISTEN_PID`, 1))
	fds, names := listeners(t, 1)
	lengths := map[int]bool{}
	await(t, func() bool { // others may take the numbers meanwhile
		for _, pid := range []int{20000, 700, 30000, 4000, 1000, 999, 10, 500} {
			set(pid)
			own, told, _ := strings.Cut(strings.TrimSpace(handed(t, e, p, fds, names)), " ")
			lengths[len(own)] = true
			if told != own {
				t.Errorf("process %s is told that it is %q", own, told)
			}
		}
		return len(lengths) >= 3 || t.Failed()
	})
}

// TestSocketsComeThroughWalls: what the walls need has no number of theirs.
func TestSocketsComeThroughWalls(t *testing.T) {
	needRoot(t)
	needLandlock(t, 1)
	e := NewEngine()
	fds, names := listeners(t, 6)
	s := forSockets(`[ $LISTEN_FDS = 6 ]; for n in 0 1 2 3 4 5 6 7 8 9 10 11; do (: <&$n) 2>/dev/null && echo -n "$n "; done; echo nothing >&0`, 8)
	s.Sandbox = confined()
	s.Sandbox.PrivateTmp, s.Sandbox.Network = true, false
	s.Identity = &Identity{UID: 4001, GID: 4002, Groups: []uint32{}}
	if got := handed(t, e, compile(t, e, s), fds, names); got != "0 1 2 3 4 5 6 7 8 " {
		t.Errorf("it has the descriptors %q", got)
	}
}

// TestNoDescriptorForASocketHasWords, and leaves none behind.
func TestNoDescriptorForASocketHasWords(t *testing.T) {
	e := NewEngine()
	p := compile(t, e, forSockets("true", 2))
	fds, names := listeners(t, 1)
	before := openDescriptors(t)
	_, err := e.Start(p, Streams{Connection: -1, Stderr: -1, Sockets: append(fds, -1)}, &Facts{Peer: someFacts.Peer, Names: names})
	if err == nil || !strings.HasPrefix(err.Error(), "cannot hand over a listening socket: EBADF") {
		t.Errorf("got %v", err)
	}
	if after := openDescriptors(t); len(after) != len(before) {
		t.Errorf("descriptors before %v, after %v", before, after)
	}
}
