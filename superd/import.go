package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"superd/superd/internal/config"
	"superd/superd/internal/migrate"
)

// importVerb writes what others are configured by in superd's words. It stops
// looking for flags behind the format, since a command line has its own.
func importVerb() *cli.Command {
	afterFormat := 1
	return &cli.Command{
		Name:         "import",
		Usage:        "write what inetd, xinetd, systemd or tcpserver is configured by as a file for superd",
		ArgsUsage:    "FORMAT FILE...",
		OnUsageError: onUsageError,
		StopOnNthArg: &afterFormat,
		Action: func(_ context.Context, c *cli.Command) error {
			args := c.Args().Tail()
			return importFrom(c.Args().First(), args, behindDashes(args))
		},
	}
}

// behindDashes tells arguments that stand behind a --, which the library takes
// away. They are the last ones that there are.
func behindDashes(args []string) bool {
	before := len(os.Args) - len(args) - 1
	return before > 0 && os.Args[before] == "--"
}

// importFrom writes the file to stdout, and what is not in it to stderr. Behind
// dashes, tcpserver's arguments are its command line.
func importFrom(format string, args []string, dashes bool) error {
	format = strings.TrimSuffix(format, ".conf")
	switch known := migrate.Formats(); {
	case !slices.Contains(known, format):
		return usageError{fmt.Errorf("import needs a format, which is one of %s", strings.Join(known, ", "))}
	case !dashes && len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-':
		return usageError{fmt.Errorf("import %s takes files, and no option like %q", format, args[0])}
	case len(args) == 0:
		return usageError{fmt.Errorf("import %s needs the name of a file, or - for its standard input", format)}
	}
	read := func() (*migrate.Result, error) { return migrate.Import(format, args, machine{}) }
	if dashes && format == "tcpserver" {
		read = func() (*migrate.Result, error) { return migrate.CommandLine(args, machine{}) }
	}
	result, err := read()
	for _, n := range result.Notes {
		fmt.Fprintln(os.Stderr, n)
	}
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(result.Text)
	return err
}

// machine is this one, as an import sees it.
type machine struct{}

// ReadFile takes a file of the administrator's choice, which may be a pipe.
func (machine) ReadFile(name string) (data []byte, err error) {
	f := os.Stdin
	if name != "-" {
		if f, err = os.Open(name); err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", name, cause(err))
		}
		defer f.Close()
	}
	data, err = io.ReadAll(io.LimitReader(f, migrate.Largest+1))
	if err != nil {
		err = fmt.Errorf("cannot read %s: %w", name, cause(err))
	}
	return whole(name, data, err)
}

func (machine) Include(name string) ([]byte, error) {
	data, err := config.Machine.ReadFile(name, migrate.Largest)
	if err != nil {
		err = fmt.Errorf("cannot read %s: %w", name, err)
	}
	return whole(name, data, err)
}

// whole refuses a file of which there is more.
func whole(name string, data []byte, err error) ([]byte, error) {
	if err == nil && len(data) > migrate.Largest {
		return nil, fmt.Errorf("cannot read %s: it is larger than 8 MiB", name)
	}
	return data, err
}

func (machine) ReadDir(name string) (names []string, err error) {
	list, err := os.ReadDir(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, cause(err))
	}
	for _, e := range list {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (machine) LookupPort(network, service string) (int, error) {
	return net.LookupPort(network, service)
}
