package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"superd/superd/internal/control"
)

// askingVerbs are those that ask, or tell, a superd that runs.
func askingVerbs() []*cli.Command {
	return []*cli.Command{
		onDaemon("status", "services, with their state and counts", "", func(q *question) error {
			return q.status()
		}, asJSON()),
		onDaemon("ps", "live connections", "", func(q *question) error {
			if q.Bool("watch") {
				return q.watch(os.Stdout)
			}
			return q.connections()
		}, asJSON(), &cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "print them anew every second"}),
		onDaemon("reload", "read the file again", "", func(q *question) error {
			return q.reload()
		}, asJSON()),
		onDaemon("drain", "let SERVICE, or all, take no more connections, and wait until those that live have ended", "[SERVICE]", func(q *question) error {
			return q.drain(q.Args().First())
		}, asJSON(),
			&cli.DurationFlag{Name: "limit", Usage: "connections may go on for `TIME`, then they are ended (default: the key drain)", HideDefault: true, Validator: notNegative},
			&cli.BoolFlag{Name: "no-wait", Usage: "do not wait until they have ended"}),
		onDaemon("upgrade", "go on as the program that is installed now", "", func(q *question) error {
			return q.upgrade()
		}, asJSON()),
		onDaemon("stop", "drain, then end superd, and wait for that", "", func(q *question) error {
			return q.stop(q.Bool("now"))
		}, &cli.BoolFlag{Name: "now", Usage: "do not let connections finish"}),
		onDaemon("kill", "end the connection ID, or several", "[ID]", func(q *question) error {
			return q.kill(q.Args().First(), q.String("service"), q.String("source"))
		},
			&cli.StringFlag{Name: "service", Usage: "end those of `SERVICE`"},
			&cli.StringFlag{Name: "source", Usage: "end those from `NETWORK`, such as 10.0.0.0/8, an address, or the user uid:1000"}),
		onDaemon("block", "refuse connections from NETWORK, or from the user uid:1000", "NETWORK", func(q *question) error {
			return q.block(q.Args().First(), q.Duration("for"))
		}, &cli.DurationFlag{Name: "for", Usage: "end by itself after `TIME` (default: until it is unblocked)", HideDefault: true, Validator: positive}),
		onDaemon("unblock", "lift all blocks and bans inside NETWORK, or of uid:1000", "NETWORK", func(q *question) error {
			return q.unblock(q.Args().First())
		}),
	}
}

func asJSON() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

func notNegative(d time.Duration) error {
	if d < 0 {
		return errors.New("it cannot be negative")
	}
	return nil
}

func positive(d time.Duration) error {
	if d <= 0 {
		return errors.New("it must be more than 0")
	}
	return nil
}

// onDaemon is a verb that is said to a running superd.
func onDaemon(name, usage, arguments string, do func(*question) error, more ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name:         name,
		Usage:        usage,
		ArgsUsage:    arguments,
		OnUsageError: onUsageError,
		Flags: append([]cli.Flag{
			&cli.StringFlag{
				Name:      "config",
				Aliases:   []string{"c"},
				Usage:     "superd is asked at the socket that `FILE` names; without it the file is " + systemFile,
				TakesFile: true,
			},
			&cli.StringFlag{Name: "socket", Usage: "superd is asked at `PATH`, whatever a file says", TakesFile: true},
		}, more...),
		Action: func(_ context.Context, c *cli.Command) error {
			if err := checkArguments(c, arguments); err != nil {
				return err
			}
			path, err := whereToAsk(c.String("config"), c.String("socket"))
			if err != nil {
				return err
			}
			return do(&question{Command: c, client: control.Client{Path: path, Timeout: askingTime}, out: os.Stdout})
		},
	}
}

// checkArguments: what is in brackets may be left out.
func checkArguments(c *cli.Command, wanted string) error {
	for _, name := range []string{"config", "socket"} {
		if c.IsSet(name) && c.String(name) == "" {
			return usageError{fmt.Errorf("--%s needs a path", name)}
		}
	}
	switch {
	case wanted == "":
		return noArguments(c)
	case strings.Contains(wanted, " "):
		return checkTwo(c, wanted)
	case c.NArg() > 1:
		return usageError{fmt.Errorf("%s takes one argument: %q is too much", c.Name, c.Args().Get(1))}
	case wanted[0] != '[' && c.NArg() == 0:
		return usageError{fmt.Errorf("%s needs an argument: %s", c.Name, wanted)}
	case c.NArg() == 1 && c.Args().First() == "":
		return usageError{fmt.Errorf("%s: the argument is empty", c.Name)}
	}
	return nil
}

// checkTwo is for verbs that take two arguments.
func checkTwo(c *cli.Command, wanted string) error {
	if c.NArg() != 2 || c.Args().Get(0) == "" || c.Args().Get(1) == "" {
		return usageError{fmt.Errorf("%s takes two arguments: %s", c.Name, wanted)}
	}
	return nil
}
