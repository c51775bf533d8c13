package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Superd as process 1.

// startAsInit is startAsked where superd is process 1 of a namespace of its
// own, which its /proc shows. The process is that of unshare(1).
func startAsInit(t *testing.T, yaml string) asked {
	t.Helper()
	needRoot(t)
	unshare := program(t, "unshare")
	socket := filepath.Join(publicDir(t), "socket")
	cmd := prepare(t, "control: {path: "+socket+"}\n"+yaml)
	cmd.Args = append([]string{unshare, "--pid", "--fork", "--mount-proc", "--kill-child=KILL", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = unshare
	return asked{startCommand(t, cmd), socket}
}

// inside is superd's number outside of its namespace.
func (a asked) inside() int {
	a.t.Helper()
	return a.child()
}

// zombies is a program that counts those of its namespace.
const zombies = `grep -l "^State:.Z" /proc/[0-9]*/status | wc -l`

// leavesOrphans is a program that ends before its grandchildren do.
const leavesOrphans = `for i in 1 2 3; do (setsid sh -c 'read x < "$0"; exit 3' "$1" </dev/null >/dev/null 2>&1 &); done; exit 7`

// TestOrphansAreReaped: process 1 reaps what others leave behind, and each
// program's end is nevertheless told right.
func TestOrphansAreReaped(t *testing.T) {
	t.Parallel()
	dir := publicDir(t)
	wait := newFifo(t, dir)
	a := startAsInit(t, `
services:
  parent:  {listen: "127.0.0.1:0", `+shell(leavesOrphans, string(wait))+`, leftovers: leave}
  plain:   {listen: "127.0.0.1:0", `+shell("exit 7")+`, sandbox: none}
  confined: {listen: "127.0.0.1:0", `+shell("exit 7")+`, sandbox: strict}
  zombies: {listen: "127.0.0.1:0", `+shell(zombies)+`}
`)
	if pid := a.status().PID; pid != 1 {
		t.Fatalf("superd is process %d", pid)
	}
	const families, orphans = 20, 60
	for range families {
		a.ask("parent", "")
	}
	var others sync.WaitGroup
	n := fewer(200, 60)
	for _, service := range []string{"plain", "confined"} {
		others.Go(func() {
			for range n {
				if c, err := dialAddress(a.address(service)); err == nil {
					readAll(c)
					c.Close()
				}
			}
		})
	}
	release, err := os.OpenFile(string(wait), os.O_RDWR, 0) // who reads goes on once it is closed
	if err != nil {
		t.Fatal(err)
	}
	if _, err := release.WriteString(strings.Repeat("\n", orphans)); err != nil {
		t.Fatal(err)
	}
	others.Wait()
	eventually(t, func() error {
		if got := a.status().Orphans; got != orphans {
			return fmt.Errorf("%d orphans were reaped, not %d", got, orphans)
		}
		return nil
	})
	release.Close()
	for service, n := range map[string]int{"parent": families, "plain": n, "confined": n} {
		for _, r := range a.exited(service, n) {
			checkEnd(t, r, "7", "")
		}
	}
	if got := strings.TrimSpace(a.ask("zombies", "")); got != "0" {
		t.Errorf("%s zombies are left", got)
	}
	a.told("stop")
	a.stopped()
}

// TestProcessOneStops: a signal without a handler would not reach process 1.
func TestProcessOneStops(t *testing.T) {
	t.Parallel()
	a := startAsInit(t, one("cat", "run: /bin/cat"))
	c := a.held("cat")
	if err := syscall.Kill(a.inside(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	a.await(func(r record) bool { return r.is("draining") })
	a.talk(c, "still here")
	c.Close()
	a.stopped()
	checkEnd(t, a.exited("cat", 1)[0], "0", "")
}

// TestOtherProcessesAdoptNobody: where superd is not process 1, what is not its
// own child is none of its business.
func TestOtherProcessesAdoptNobody(t *testing.T) {
	t.Parallel()
	a := startAsked(t, one("parent", shell(`setsid sh -c 'exit 3' & echo $!`)+", leftovers: leave"))
	pid, err := strconv.Atoi(strings.TrimSpace(a.ask("parent", "")))
	if err != nil {
		t.Fatal(err)
	}
	waitForEnd(t, pid)
	a.exited("parent", 1)
	if n := a.status().Orphans; n != 0 {
		t.Errorf("%d orphans were reaped", n)
	}
}
