package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/spawn"
)

// What the tests with real programs and many clients have in common.

// fewer is how many times something is done where the test is to be short.
func fewer(many, few int) int {
	if testing.Short() {
		return few
	}
	return many
}

// installed finds a program that services can run as any user: the machine's
// own comes before one that a developer has in PATH.
func installed(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range filepath.SplitList(spawn.DefaultPath) {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && !s.IsDir() && s.Mode()&0o001 != 0 {
			return path
		}
	}
	return program(t, name)
}

// client is a command that may take no longer than patience.
func client(t testing.TB, path string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, path, args...)
}

// output runs a command that must succeed and returns what it wrote.
func output(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, &complaints)
	}
	return string(out)
}

// giveAway makes the user that services run as the owner of everything below
// path: nobody where superd is started by root, else who owns it already.
func giveAway(t testing.TB, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	who, err := user.Lookup(unprivileged)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	err = filepath.WalkDir(path, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, uid, gid))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// yamlList writes words as a YAML list.
func yamlList(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = strconv.Quote(w)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// noise is n bytes that do not compress and are the same in every run.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// checkSame compares long answers.
func checkSame(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	excerpt := got[at:min(len(got), at+16)]
	return fmt.Errorf("%d bytes came, %d were due; they differ from byte %d on: %s", len(got), len(want), at, hex.EncodeToString(excerpt))
}

// dialAddress connects; nothing on the connection lasts longer than patience.
func dialAddress(address string) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn), nil
}

// longEnough tries something that takes lengths of time to wait for, and not to
// miss. Who was too slow for them tries again with twice as much, until that is
// more than a machine can stand still for.
func longEnough(t testing.TB, length time.Duration, try func(length time.Duration) error) {
	t.Helper()
	const longest = 15 * time.Second
	for {
		err := try(length)
		if err == nil {
			return
		}
		if length >= longest {
			t.Fatalf("with %v: %v", length, err)
		}
		t.Logf("with %v: %v", length, err)
		length *= 2
	}
}

// unread is what has come and was not read; it stays. Nothing, not even the
// end, is EAGAIN.
func unread(t testing.TB, c net.Conn) (text []byte, err error) {
	t.Helper()
	raw, failed := c.(syscall.Conn).SyscallConn()
	if failed == nil {
		failed = raw.Control(func(fd uintptr) {
			var n int
			text = make([]byte, 100)
			n, _, err = unix.Recvfrom(int(fd), text, unix.MSG_PEEK|unix.MSG_DONTWAIT)
			text = text[:max(n, 0)]
		})
	}
	if failed != nil {
		t.Fatal(failed)
	}
	return text, err
}

// reset closes a connection in the way that tells the other end with a reset.
func reset(c *net.TCPConn) error {
	return errors.Join(c.SetLinger(0), c.Close())
}

// readAll is the rest of what comes; an answer that breaks off is an error.
func readAll(c net.Conn) ([]byte, error) {
	b, err := io.ReadAll(c)
	if err != nil {
		return b, fmt.Errorf("after %d bytes: %w", len(b), err)
	}
	return b, nil
}

// crowd has do done for 0 to n-1, width of them at a time, and fails the test
// with the first errors.
func crowd(t testing.TB, n, width int, do func(i int) error) {
	t.Helper()
	const shown = 5
	var next, failed atomic.Int64
	var all sync.WaitGroup
	for range min(n, width) {
		all.Go(func() {
			for i := next.Add(1); i <= int64(n) && failed.Load() < shown; i = next.Add(1) {
				if err := do(int(i - 1)); err != nil {
					failed.Add(1)
					t.Errorf("number %d of %d: %v", i-1, n, err)
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// A visit is one of many clients and its connection.
type visit struct {
	*net.TCPConn
	number int
	begun  time.Time // before it connected
}

// crowdOf is crowd where each has a connection of its own to address.
func crowdOf(t testing.TB, n, width int, address string, do func(v visit) error) {
	t.Helper()
	crowd(t, n, width, func(i int) error {
		begun := time.Now()
		c, err := dialAddress(address)
		if err != nil {
			return err
		}
		defer c.Close()
		return do(visit{c, i, begun})
	})
}

// logged waits until the log has n records: a log that its reader does not
// keep up with has gaps.
func (d *process) logged(n int) error {
	deadline := time.After(patience)
	for {
		d.mu.Lock()
		have, grown := len(d.records), d.grown
		d.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-grown:
		case <-deadline:
			return fmt.Errorf("the log has %d records, not %d", have, n)
		}
	}
}

// behind is how many records of a log may be on their way.
const behind = 1000

// allExited waits for the records of n connections of a service, and checks
// that there are no more, each is of its own connection, and none was refused.
func (d *process) allExited(service string, n int) []record {
	d.t.Helper()
	d.exited(service, n)
	d.settled()
	list := d.exited(service, n)
	if len(list) != n {
		d.t.Errorf("%d connections of %s ended, %d were made", len(list), service, n)
	}
	seen := map[string]bool{}
	for _, r := range list {
		if id := r.text("conn"); id == "" || seen[id] {
			d.t.Fatalf("the connection %q is recorded twice, or has no name", id)
		}
		seen[r.text("conn")] = true
	}
	d.noRefusals()
	return list
}

// ends tells superd to stop, and wants it to know of no connection any more.
func (d *process) ends() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	if r := d.await(func(r record) bool { return r.is("draining") }); r.number("live") != 0 {
		d.t.Errorf("superd thinks that connections are left: %v", r)
	}
	if code := d.ended(); code != 0 {
		d.t.Errorf("superd ended with status %d", code)
	}
}

func (d *process) noRefusals() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		if r.is("refused") {
			d.t.Fatalf("a connection was refused: %v", r)
		}
	}
}

// checkStatus wants every program to have ended by itself, with status 0.
func checkStatus(t testing.TB, list []record) {
	t.Helper()
	for _, r := range list {
		if r.number("status") != 0 {
			t.Fatalf("a program did not end well: %v", r)
		}
	}
}

// total adds a field of many records up.
func total(list []record, field string) int {
	sum := 0.0
	for _, r := range list {
		sum += r.number(field)
	}
	return int(sum)
}

// A gate is a fifo at which a program waits until the test opens it.
type fifo string

func newFifo(t testing.TB, dir string) fifo {
	t.Helper()
	path := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	return fifo(path)
}

// open lets one program that reads the fifo go on, once it does.
func (f fifo) open(t testing.TB) {
	t.Helper()
	eventually(t, func() error {
		w, err := os.OpenFile(string(f), os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err // ENXIO: nobody reads it yet
		}
		return w.Close()
	})
}
