package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"superd/superd/internal/config"
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
	defer d.close()
	services, problems := d.compile(c)
	problems = append(logProblems(c), problems...)
	d.services = services // for close
	for _, s := range services {
		problems = append(problems, programProblems(s.config)...)
		for _, o := range s.admission.overrides {
			if o.rule.Run != nil {
				problems = append(problems, programProblems(o.service)...)
			}
		}
		problems = append(problems, listen.Check(s.config.Listen)...)
		if verbose {
			printService(s)
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
func logProblems(c *config.Config) (list config.Problems) {
	if err := event.CheckOutput(c.Log.Output, logOptions(c)); err != nil {
		list = append(list, c.Problem("log.output", err.Error(), ""))
	}
	return list
}

func printService(s *service) {
	fmt.Printf("%s:\n", s.config.Name)
	for _, line := range slices.Concat(s.conn.Plan.Describe(), s.admission.describe()) {
		fmt.Printf("    %s\n", line)
	}
}

// programProblems looks at the program of a service: one that is missing is an
// error here, while superd itself runs without it and says so to each
// connection's record.
func programProblems(c *config.Service) (list config.Problems) {
	if c.Builtin != "" {
		return nil
	}
	info, err := os.Stat(filepath.Join(c.Chroot, c.Run[0]))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return config.Problems{c.Problem("run", "the program "+c.Run[0]+" does not exist", "")}
	case err != nil:
		return config.Problems{c.Problem("run", "cannot look at the program: "+err.Error(), "")}
	case info.IsDir():
		return config.Problems{c.Problem("run", c.Run[0]+" is a directory", "")}
	case info.Mode()&0o111 == 0:
		return config.Problems{c.Problem("run", "the program "+c.Run[0]+" is not executable", "chmod +x")}
	case info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 && c.Sandbox.NoNewPrivs:
		return config.Problems{c.Problem("run", "the program "+c.Run[0]+" is set-user-ID or set-group-ID, which no_new_privs makes ineffective",
			"name the user that it needs with user, or write sandbox: {no_new_privs: false, system_calls: all}")}
	}
	return nil
}
