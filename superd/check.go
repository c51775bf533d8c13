package main

import (
	"fmt"
	"os"

	"superd/superd/internal/config"
	"superd/superd/internal/spawn"
)

// check reports everything that is wrong with a file on this machine. It opens
// no socket, so that it can be asked while superd runs.
func check(path string) error {
	c, err := load(path)
	if err != nil {
		return err
	}
	problems := checkIdentities(c)
	for _, w := range c.Warnings {
		fmt.Fprintln(os.Stderr, "warning:", w.Error())
	}
	if len(problems) > 0 {
		return problems
	}
	services := "services"
	if len(c.Services) == 1 {
		services = "service"
	}
	fmt.Printf("%s: %d %s, no mistakes\n", c.Path, len(c.Services), services)
	return nil
}

// checkIdentities looks up the users that the services run as.
func checkIdentities(c *config.Config) (problems config.Problems) {
	who := newIdentities(spawn.NewEngine().System())
	for _, s := range c.Services {
		_, user, wrong := who.of(s)
		problems = append(problems, wrong...)
		if len(wrong) > 0 {
			continue
		}
		if w, due := who.rootWarning(s, user); due {
			c.Warnings = append(c.Warnings, w)
		}
	}
	return problems
}
