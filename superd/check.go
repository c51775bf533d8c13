package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/control"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/spawn"
)

// check reports everything that is wrong with a file on this machine: it
// builds all that superd would build, but listens on nothing, so that it can be
// asked while superd runs. With verbose it prints as whom and inside which
// walls each program runs, and who may come in.
func check(path string, verbose bool) error {
	c, err := load(path)
	if err != nil {
		return err
	}
	log := event.Open(os.Stderr, event.Options{Level: "error", Format: c.Log.Format})
	defer log.Close(time.Second)
	d := newDaemon(c, log, spawn.NewEngine())
	d.checking = true
	defer d.close()
	services, problems := d.compile(c)
	d.services = services // for close
	problems = slices.Concat(problems, d.logProblems(c), d.placeProblems(c))
	for _, s := range c.Services {
		problems = append(problems, fileProblems(s)...)
	}
	for _, s := range services {
		for _, o := range s.admission.overrides {
			if o.rule.Run != nil {
				problems = append(problems, fileProblems(o.service)...)
			}
		}
	}
	problems, c.Warnings = c.Once(problems), c.Once(c.Warnings)
	c.Sort(problems)
	if verbose {
		for _, s := range services {
			printService(s, services)
		}
	}
	for _, w := range c.Warnings {
		fmt.Fprintln(os.Stderr, "warning:", w.Error())
	}
	if len(problems) > 0 {
		return problems
	}
	noun := "services"
	if len(c.Services) == 1 {
		noun = "service"
	}
	fmt.Printf("%s: %d %s, no mistakes\n", c.Path, len(c.Services), noun)
	return nil
}

// logProblems asks whether the log can go where the file wants it.
func (d *daemon) logProblems(c *config.Config) (list config.Problems) {
	if err := event.CheckOutput(c.Log.Output, logOptions(c, d.engine)); err != nil {
		list = append(list, c.Problem("log.output", err.Error(), ""))
	}
	return list
}

// placeProblems asks whether superd could listen where the file wants it: a
// running one, which answers at the file's administrative socket, has most of
// that and keeps it.
func (d *daemon) placeProblems(c *config.Config) (list config.Problems) {
	path := socketOf(&c.Control)
	checker := listen.Checker{Running: control.Running(path), Unasked: path == ""}
	who := newIdentities(d.engine.System())
	for _, s := range c.Services {
		owners, _ := who.owners(s) // what is unknown has been told
		problems, warnings := checker.Check(s.Listen, owners)
		list, c.Warnings = append(list, problems...), append(c.Warnings, warnings...)
	}
	for _, at := range c.HTTP.Listen {
		if err := checker.CheckTCP(at); err != nil {
			list = append(list, webProblem(&c.HTTP, at, err))
		}
	}
	if c.Control.Group != "" {
		if _, _, err := d.engine.System().GroupID(c.Control.Group); err != nil {
			list = append(list, c.Problem("control.group", err.Error(), missing(err)))
		}
	}
	if !c.Control.PathSet {
		return list // superd does without it then
	}
	if err := control.Check(path, makesDirectory(&c.Control, path)); err != nil {
		list = append(list, controlProblem(&c.Control, err))
	}
	return list
}

// webProblem says that the HTTP listener cannot be had.
func webProblem(c *config.HTTP, at netip.AddrPort, err error) config.Problem {
	p := config.Problem{At: c.At, Path: "http.listen", What: fmt.Sprintf("cannot listen on %s: %s", at, err)}
	if errors.Is(err, unix.EADDRINUSE) {
		p.Hint = listen.HolderOf(at.Port())
	}
	return p
}

// controlProblem says that the administrative socket cannot be had.
func controlProblem(c *config.Control, err error) config.Problem {
	p := config.Problem{At: c.At, Path: "control.path", What: err.Error()}
	if dir := filepath.Dir(c.Path); errors.Is(err, unix.ENOENT) {
		p.Hint = "the directory " + dir + " does not exist: make it, or have systemd make it with RuntimeDirectory="
	}
	return p
}

func printService(s *service, all []*service) {
	fmt.Printf("%s:\n", s.config.Name)
	if !s.config.Enabled {
		fmt.Println("    enabled false")
	}
	program := describeMux(all)
	if !s.leads() {
		program = s.conn.Plan.Describe()
	}
	for _, line := range slices.Concat(program, s.admission.describe()) {
		fmt.Printf("    %s\n", line)
	}
}

// fileProblems looks at what a service's program is started from. What is
// missing is an error here, while superd itself runs without it and says so to
// each connection's record. Where there is no root directory to look in, that
// has been said.
func fileProblems(c *config.Service) (list config.Problems) {
	if _, err := spawn.Look(c.Chroot, "/"); err != nil {
		return nil
	}
	if p, is := directoryProblem(c); is {
		list = append(list, p)
	}
	if p, is := programProblem(c); is {
		list = append(list, p)
	}
	return list
}

func directoryProblem(c *config.Service) (p config.Problem, is bool) {
	info, err := spawn.Look(c.Chroot, c.Dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return c.Problem("dir", "the directory "+c.Dir+" does not exist", ""), true
	case err != nil:
		return c.Problem("dir", "cannot look at the directory: "+err.Error(), ""), true
	}
	return c.Problem("dir", c.Dir+" is not a directory", ""), !info.IsDir()
}

func programProblem(c *config.Service) (p config.Problem, is bool) {
	if c.Builtin != "" {
		return p, false
	}
	info, err := spawn.Look(c.Chroot, c.Run[0])
	switch {
	case errors.Is(err, os.ErrNotExist):
		return c.Problem("run", "the program "+c.Run[0]+" does not exist", ""), true
	case err != nil:
		return c.Problem("run", "cannot look at the program: "+err.Error(), ""), true
	case info.IsDir():
		return c.Problem("run", c.Run[0]+" is a directory", ""), true
	case info.Mode()&0o111 == 0:
		return c.Problem("run", "the program "+c.Run[0]+" is not executable", "chmod +x"), true
	}
	return p, false
}
