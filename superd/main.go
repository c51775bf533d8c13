// Superd listens on the sockets that a YAML file names, and runs the service's
// program for each connection, with the connection as its standard input and
// output. See superd(8).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"superd/superd/internal/control"
)

// version is set by the Makefile.
var version = "0.1.0"

// Exit codes of superd(8).
const (
	exitFailed = 1
	exitUsage  = 2
	exitNobody = 3 // no superd answers
)

func main() {
	os.Exit(supervise(func() int { return execute(os.Args) }))
}

// execute runs the command line and returns the exit code.
func execute(args []string) int {
	err := command().Run(context.Background(), args)
	var usage usageError
	var tried outcome
	switch {
	case err == nil:
		return 0
	case errors.As(err, &tried):
		if tried.text != "" {
			fmt.Fprintln(os.Stderr, tried.text)
		}
		return tried.code
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "superd: %v\n", err)
		return exitUsage
	case errors.Is(err, control.ErrNobody):
		fmt.Fprintln(os.Stderr, err)
		return exitNobody
	}
	fmt.Fprintln(os.Stderr, err)
	return exitFailed
}

// usageError is wrong use of the command line.
type usageError struct{ error }

func command() *cli.Command {
	root := &cli.Command{
		Name:                  "superd",
		Usage:                 "run programs for network connections",
		UsageText:             "superd VERB [-c FILE]",
		Description:           "The manual is superd(8); superd.yaml(5) is the configuration file.",
		Version:               version,
		EnableShellCompletion: true,
		Suggest:               true,
		HideHelpCommand:       true,
		ExitErrHandler:        func(context.Context, *cli.Command, error) {}, // execute does
		OnUsageError:          noVerbFirst,
		Action:                unknownVerb,
		Commands: []*cli.Command{
			onFile("run", "stay in the foreground and serve; the log goes to stderr, or where the file says", func(c *cli.Command) error {
				return run(c.String("config"))
			}),
			onFile("check", "report every mistake in the file", func(c *cli.Command) error {
				return check(c.String("config"), c.Bool("verbose"))
			}, &cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "print as whom and inside which walls each program runs, and who may come in"}),
			explainVerb(),
			tryVerb(),
			{
				Name:         "connect",
				Usage:        "be a client of ADDRESS: stdin goes there, its answer to stdout",
				ArgsUsage:    "ADDRESS",
				OnUsageError: onUsageError,
				Action: func(_ context.Context, c *cli.Command) error {
					if c.NArg() != 1 {
						return usageError{errors.New("connect needs one address, such as 127.0.0.1:7007")}
					}
					return connect(c.Args().First(), os.Stdin, os.Stdout)
				},
			},
			importVerb(),
			{
				Name:         "version",
				Usage:        "print the version",
				OnUsageError: onUsageError,
				Action: func(_ context.Context, c *cli.Command) error {
					if err := noArguments(c); err != nil {
						return err
					}
					cli.ShowVersion(c.Root())
					return nil
				},
			},
		},
	}
	last := len(root.Commands) - 1
	root.Commands = slices.Insert(root.Commands, last, askingVerbs()...)
	for _, verb := range root.Commands {
		addVersion(verb)
	}
	return root
}

// addVersion makes a verb understand --version as superd itself does, and -v
// where that means nothing else.
func addVersion(verb *cli.Command) {
	const name, short = "version", "v"
	f := &cli.BoolFlag{Name: name, Usage: "print the version", HideDefault: true}
	if !slices.ContainsFunc(verb.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), short) }) {
		f.Aliases = []string{short}
	}
	verb.Flags = append(verb.Flags, f)
	do := verb.Action
	verb.Action = func(ctx context.Context, c *cli.Command) error {
		if c.Bool(name) {
			cli.ShowVersion(c.Root())
			return nil
		}
		return do(ctx, c)
	}
}

// onFile is a verb that works on a configuration file.
func onFile(name, usage string, do func(*cli.Command) error, more ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name:         name,
		Usage:        usage,
		OnUsageError: onUsageError,
		Flags: append([]cli.Flag{&cli.StringFlag{
			Name:      "config",
			Aliases:   []string{"c"},
			Usage:     "the configuration is `FILE`; without it " + systemFile + ", and where there is none, echo and greeting on this machine",
			TakesFile: true,
		}}, more...),
		Action: func(_ context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.IsSet("config") && c.String("config") == "" {
				return usageError{errors.New("-c needs the name of a file")}
			}
			return do(c)
		},
	}
}

func noArguments(c *cli.Command) error {
	if c.NArg() > 0 {
		return usageError{fmt.Errorf("%s takes no argument: %q (a file is named with -c)", c.Name, c.Args().First())}
	}
	return nil
}

func onUsageError(_ context.Context, _ *cli.Command, err error, _ bool) error {
	return usageError{err}
}

// noVerbFirst is wrong use of a flag where no verb came before it.
func noVerbFirst(ctx context.Context, c *cli.Command, err error, _ bool) error {
	if c.NArg() > 0 {
		return unknownVerb(ctx, c)
	}
	return usageError{fmt.Errorf("%w; the verb comes first: superd VERB [-c FILE]", err)}
}

// unknownVerb runs where the first word is no verb.
func unknownVerb(_ context.Context, c *cli.Command) error {
	if c.NArg() == 0 {
		return usageError{errors.New("no verb; try superd --help")}
	}
	word := c.Args().First()
	// The library finds the nearest verb however far it is, and "help" among them.
	near := cli.SuggestCommand(c.VisibleCommands(), word)
	if near != "" && near != word && strings.HasPrefix(word, near[:1]) {
		return usageError{fmt.Errorf("no verb %q; did you mean %q?", word, near)}
	}
	return usageError{fmt.Errorf("no verb %q; try superd --help", word)}
}
