package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/control"
	"superd/superd/internal/event"
	"superd/superd/internal/spawn"
)

// Superd is upgraded in place: by execve(2) of what its path leads to now, with
// all descriptors that matter. The process stays the same, and so the parent of
// its children. Before that the new program is rehearsed: started beside this
// one, with the state as it is then, it checks that it could go on.

// willVariable is in the environment of an heir: its will, or for a rehearsal
// that word. It never gets to a program.
const (
	willVariable = spawn.HeirVariable
	rehearsal    = "rehearsal"
)

// A will says where the estate is, and which signals have come since it was
// drawn up.
type will struct {
	fd      int
	signals []unix.Signal
}

func (w will) String() string {
	text := strconv.Itoa(w.fd)
	for _, s := range w.signals {
		text += " " + strconv.Itoa(int(s))
	}
	return text
}

func readWill(text string) (w will, err error) {
	for i, word := range strings.Fields(text) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return w, err
		}
		if i == 0 {
			w.fd = n
		} else {
			w.signals = append(w.signals, unix.Signal(n))
		}
	}
	return w, nil
}

// What superd was started with, before it has taken anything from that.
var startEnvironment = withoutWill(os.Environ())

func withoutWill(env []string) []string {
	handedOver := []string{willVariable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} // sockets once, and to this program
	return slices.DeleteFunc(env, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(handedOver, name)
	})
}

// An executable is the file that superd is executed from.
type executable struct {
	path string
	id   unix.Stat_t // of what is there
}

// ownPath is where superd was started from: the path that it was called by,
// where that is known, so that a symbolic link may come to lead elsewhere; else
// the one that the kernel knows.
func ownPath() (string, error) {
	if called := os.Args[0]; strings.Contains(called, "/") {
		path, err := filepath.Abs(called)
		if err == nil && sameFile(path, "/proc/self/exe") {
			return path, nil
		}
	}
	return os.Executable()
}

func sameFile(a, b string) bool {
	var one, other unix.Stat_t
	return unix.Stat(a, &one) == nil && unix.Stat(b, &other) == nil && one.Dev == other.Dev && one.Ino == other.Ino
}

// look notes which file is at the path.
func (p *executable) look() error {
	if err := unix.Stat(p.path, &p.id); err != nil {
		return fmt.Errorf("cannot upgrade to %s: %w", p.path, err)
	}
	return nil
}

// same tells whether that file is there still, as it was.
func (p *executable) same() bool {
	var now unix.Stat_t
	return unix.Stat(p.path, &now) == nil && now.Dev == p.id.Dev && now.Ino == p.id.Ino && now.Size == p.id.Size &&
		now.Mtim == p.id.Mtim && now.Ctim == p.id.Ctim
}

var (
	errUpgrading = errors.New("superd is being upgraded already")
	errReplaced  = errors.New("cannot upgrade: the program was replaced meanwhile; try again")
	errReloaded  = errors.New("cannot upgrade: the file was taken up anew meanwhile; try again")
)

const notUpgraded = "cannot upgrade, superd goes on as it was"

// upgrade has the program that is installed now take superd's place. It returns
// only if it does not: then nothing has changed. Any goroutine but the serving
// one may call it.
func (d *daemon) upgrade(asker *control.Asker) error {
	if !d.upgrading.CompareAndSwap(false, true) {
		return errUpgrading
	}
	defer d.upgrading.Store(false)
	err := d.tryUpgrade(asker)
	if err != nil && err != errStopping {
		for _, line := range linesOf(err) {
			d.log.Error(line)
		}
		d.log.Error(notUpgraded, event.F("version", version))
	}
	return err
}

// mostRehearsals is how often the new program is rehearsed anew, since a reload
// has come between: it must never meet a file that it has not agreed to.
const mostRehearsals = 5

func (d *daemon) tryUpgrade(asker *control.Asker) (err error) {
	p := &executable{path: d.self}
	if err := p.look(); err != nil {
		return err
	}
	for range mostRehearsals {
		if err = d.attempt(p, asker); err != errReloaded {
			break
		}
	}
	return err
}

func (d *daemon) attempt(p *executable, asker *control.Asker) error {
	files, err := readFiles(d.path)
	if err != nil {
		return err
	}
	var e *estate
	var bad error
	if !d.do(func() { e, bad = d.draft(files) }) {
		return errStopping
	}
	if bad == nil {
		bad = d.rehearse(p, e)
	}
	if bad != nil {
		return bad
	}
	if !d.do(func() { bad = d.handOver(p, e, asker) }) {
		return errStopping
	}
	return bad
}

// draft is the estate as it is now, for a rehearsal.
func (d *daemon) draft(files *config.Files) (*estate, error) {
	resume, err := d.pause()
	if err != nil {
		return nil, err
	}
	defer resume()
	e, release := d.survey()
	release()
	e.File = *files
	return e, nil
}

// rehearsalLimit is how long the new program may take to check everything.
const rehearsalLimit = 10 * time.Second

// consent is what a program says at the end of its rehearsal, in a line of its
// own: no other program does.
const consent = "superd can go on as version "

// rehearse finds out whether a program can take superd's place.
func (d *daemon) rehearse(p *executable, e *estate) error {
	fd, err := deposit(e)
	if err != nil {
		return fmt.Errorf("cannot write superd's state down: %w", err)
	}
	defer unix.Close(fd)
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("cannot rehearse the upgrade: %w", err)
	}
	said, end, err := d.engine.Rehearse(&spawn.Rehearsal{
		Path: p.path, Argv: os.Args, Env: append(slices.Clone(startEnvironment), willVariable+"="+rehearsal),
		Dir: dir, Input: fd, Limit: rehearsalLimit, Quit: d.leaving,
	})
	switch {
	case err == unix.ECANCELED:
		return errStopping
	case err == unix.ETIMEDOUT:
		err = fmt.Errorf("it takes longer than %s", rehearsalLimit)
	case err == nil:
		err = verdict(string(said), end)
	}
	if err != nil {
		return fmt.Errorf("cannot upgrade to %s: %w", p.path, err)
	}
	return nil
}

// verdict is what is wrong with a program, by what it said.
func verdict(said string, end spawn.End) error {
	agrees := false
	var lines []string
	for line := range strings.Lines(said) {
		line = strings.TrimRight(line, "\r\n")
		if agrees = strings.HasPrefix(line, consent); !agrees && line != "" {
			lines = append(lines, line)
		}
	}
	switch how := (badEnd{&event.Exit{Signaled: end.Signaled, Status: end.Status, Signal: end.Signal}}).short(); {
	case !end.Signaled && end.Status == 0 && agrees:
		return nil
	case len(lines) > 0:
		return errors.New("it " + how + ", and says: " + printable(strings.Join(lines[max(0, len(lines)-mostLines):], "; ")))
	default:
		return errors.New("it " + how + ", and does not say that it can go on with superd's work")
	}
}

// mostLines is how many of the last lines of a program are told.
const mostLines = 20

// How long an upgrade waits for what is under way.
const (
	longestPause   = time.Second            // for threads that pause, each
	longestDepart  = 100 * time.Millisecond // for children on their way to their programs
	longestAnswers = 3 * time.Second        // for answers at the administrative socket
	longestFlush   = time.Second            // of the log, before the pause
	lastFlush      = time.Second            // and in it; what is not written then is counted as dropped
)

// handOver has p take superd's place; it returns only if that fails, with
// everything as it was. The serving goroutine calls it.
func (d *daemon) handOver(p *executable, draft *estate, asker *control.Asker) error {
	defer control.Rest(d.operator.server, d.operator.web, asker, longestAnswers, d.work)()
	if len(d.stops) > 0 {
		return errStopping
	}
	if d.generation != draft.Generation && !d.config.Files.Same(&draft.File) {
		return errReloaded
	}
	d.log.Info("upgrading", event.F("file", p.path))
	d.log.Flush(longestFlush)
	resume, err := d.pause()
	if err != nil {
		return err
	}
	defer resume()
	d.table.Depart(longestDepart)
	e, release := d.survey()
	defer release()
	e.File = draft.File
	if asker != nil {
		e.Asker = asker.FD()
	}
	d.log.Flush(lastFlush)
	e.Log = d.log.Carry()
	return d.replace(p, e)
}

// work does what others have told the serving goroutine to do meanwhile.
func (d *daemon) work() {
	select {
	case task := <-d.tasks:
		task()
	default:
	}
}

// pause has everything stand still that accepts, starts, watches or lets in.
// What comes meanwhile is kept by the kernel.
func (d *daemon) pause() (resume func(), err error) {
	var paused []func()
	resume = func() {
		for _, f := range slices.Backward(paused) {
			f()
		}
	}
	d.calm.Lock()
	paused = append(paused, d.calm.Unlock)
	for _, part := range []interface {
		Pause(time.Duration) (func(), bool)
	}{d.sets[plain], d.sets[confined], d.table} {
		again, ok := part.Pause(longestPause)
		if !ok {
			resume()
			return nil, fmt.Errorf("cannot upgrade: superd is not at rest within %s", longestPause)
		}
		paused = append(paused, again)
	}
	return resume, nil
}

// replace executes p with the estate. It returns only if that fails.
func (d *daemon) replace(p *executable, e *estate) error {
	fd, err := deposit(e)
	if err != nil {
		return fmt.Errorf("cannot write superd's state down: %w", err)
	}
	defer unix.Close(fd)
	if !p.same() {
		return errReplaced
	}
	heirlooms := append(e.descriptors(), fd)
	keepAcrossExec(heirlooms, true)
	defer keepAcrossExec(heirlooms, false)
	restore, err := spawn.OriginalLimits()
	if err != nil {
		return fmt.Errorf("cannot upgrade: %w", err)
	}
	defer restore()
	waiting, release := d.holdSignals()
	defer release()
	env := append(slices.Clone(startEnvironment), willVariable+"="+will{fd, waiting}.String())
	return fmt.Errorf("cannot execute %s: %w", p.path, syscall.Exec(p.path, os.Args, env))
}

// keepAcrossExec sets whether descriptors stay open in another program.
func keepAcrossExec(list []int, keep bool) {
	flag := unix.FD_CLOEXEC
	if keep {
		flag = 0
	}
	for _, fd := range list {
		unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag)
	}
}

// upgradeForSignal is what USR2 does: whoever sent it looks into the log.
func (d *daemon) upgradeForSignal() {
	if err := d.upgrade(nil); err == errUpgrading || err == errStopping {
		d.log.Warn(err.Error() + ", nothing was changed")
	}
}
