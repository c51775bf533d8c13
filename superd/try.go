package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/spawn"
)

// tryVerb is the verb try.
func tryVerb() *cli.Command {
	return &cli.Command{
		Name:          "try",
		Usage:         "run the program of SERVICE on this terminal, as its user and inside its walls",
		ArgsUsage:     "SERVICE",
		OnUsageError:  onUsageError,
		ShellComplete: completeService,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "the configuration is `FILE`; without it " + systemFile, TakesFile: true},
			&cli.StringFlag{Name: "from", Usage: "as for a client from `ADDRESS[:PORT]` (default: one of this machine)", HideDefault: true},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			if err := checkArguments(c, "SERVICE"); err != nil {
				return err
			}
			return try(c.String("config"), c.Args().First(), c.String("from"))
		},
	}
}

// An outcome is how a program ended that was tried: what there is to say, and
// superd's own exit code.
type outcome struct {
	text string // "" for nothing
	code int
}

func (o outcome) Error() string { return o.text }

// exitNoProgram is superd's where the program could not be started, as a shell
// has it.
const exitNoProgram = 127

// try starts the program of a service as superd would, but for its descriptors
// and its session, and waits for its end. The error is an outcome then.
func try(path, name, from string) error {
	if err := spawn.Supported(); err != nil {
		return err
	}
	file, err := load(path)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := spawn.Conceal(); err != nil {
			return fmt.Errorf("cannot make superd undumpable: %w", err)
		}
	}
	m, err := imagine(file, name, uint32(os.Geteuid()), true)
	if err != nil {
		return err
	}
	defer m.close()
	c, err := m.clientToTry(from)
	if err != nil {
		return err
	}
	return m.try(c)
}

// clientToTry is whom the program is started for: it was named, or is the first
// of this machine who could come.
func (m *imagined) clientToTry(from string) (*stranger, error) {
	switch {
	case m.leads():
		return nil, fmt.Errorf("%s: a service with builtin: tcpmux has no program to try", m.config.Name)
	case m.config.Wait != "":
		return nil, fmt.Errorf("%s: with wait, its program wants the listening socket itself, which try does not have", m.config.Name)
	case len(m.problems) > 0:
		return nil, m.problems
	}
	list := []string{from}
	if from == "" {
		list = []string{"127.0.0.1", "::1", fmt.Sprint("uid:", os.Getuid()), "vsock:1"}
	}
	var err error
	for _, text := range list {
		var c stranger
		if c, err = parseStranger(text, m.daemon.engine.System()); err != nil {
			return nil, err
		}
		if err = c.meet(m.config); err == nil {
			m.doubt(&c, from)
			return &c, nil
		}
	}
	return nil, err
}

// doubt warns of a client that was named and could not come.
func (m *imagined) doubt(c *stranger, named string) {
	x := m.gate.Explain(m.clientOf(c.applicant()), m.daemon.now())
	if named != "" && x.Verdict == admit.Refused {
		fmt.Fprintf(os.Stderr, "warning: %s: %s would be refused: %s\n", m.config.Name, named, x.Reason)
	}
}

func (m *imagined) try(c *stranger) error {
	_, plan := m.entryFor(c)
	for _, note := range plan.Notes() {
		fmt.Fprintln(os.Stderr, "warning:", m.config.Problem(note.Key, note.What, note.Hint).Error())
	}
	engine := m.daemon.engine
	signals := hearTerminal()
	child, err := engine.Start(plan, spawn.Streams{Connection: -1, Stderr: -1}, m.factsOf(c, 0))
	if err != nil {
		return m.outcome("%w", err)
	}
	defer unix.Close(child.PIDFD)
	go relaySignals(signals, child.PIDFD) // ends with superd
	end, err := spawn.Wait(child.PIDFD)
	if err != nil {
		return fmt.Errorf("cannot wait for the program: %w", err)
	}
	failure := engine.Failure(child)
	engine.Release(child, m.config.Leftover == "leave")
	switch {
	case failure != nil:
		return m.outcome("%w", failure)
	case end.Signaled:
		return m.signaled(child.PID, end.Signal)
	case end.Status != 0:
		return outcome{code: end.Status}
	}
	return nil
}

// outcome is that the program could not be started.
func (m *imagined) outcome(format string, args ...any) error {
	return outcome{m.config.Name + ": " + fmt.Errorf(format, args...).Error(), exitNoProgram}
}

// signaled is how a program ended by a signal. Who has pressed Ctrl-C need not
// be told.
func (m *imagined) signaled(pid int, s unix.Signal) error {
	o := outcome{code: 128 + int(s)}
	if s == unix.SIGINT {
		return o
	}
	o.text = fmt.Sprintf("%s: the program was ended by %s", m.config.Name, unix.SignalName(s))
	if s == unix.SIGSYS {
		o.text += m.violation(pid)
	}
	return o
}

// violation names the system call that the filter has killed a program for, as
// far as the kernel tells.
func (m *imagined) violation(pid int) string {
	engine := m.daemon.engine
	call, known := engine.Violation(pid)
	for _, delay := range spawn.RecordDelays {
		if known || !engine.HearsViolations() {
			break
		}
		time.Sleep(delay)
		call, known = engine.Violation(pid)
	}
	if !known {
		return ": it made a system call that its filter kills for"
	}
	return ": its filter kills for the system call " + call
}

// hearTerminal keeps superd from being ended by what is meant for the program.
// From the terminal both get it: they are of one process group.
func hearTerminal() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	return signals
}

// relaySignals passes on to the program what only superd has been sent.
func relaySignals(signals <-chan os.Signal, pidfd int) {
	for s := range signals {
		number := s.(unix.Signal)
		typed := number == unix.SIGINT || number == unix.SIGQUIT || number == unix.SIGWINCH
		if !typed || !inForeground() {
			unix.PidfdSendSignal(pidfd, number, nil, 0)
		}
	}
}

// inForeground tells whether the terminal sends superd's process group what is
// typed there.
func inForeground() bool {
	tty, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return false // there is none
	}
	defer unix.Close(tty)
	group, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
