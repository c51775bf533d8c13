package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/control"
	"superd/superd/internal/spawn"
)

// explainVerb is the verb explain.
func explainVerb() *cli.Command {
	verb := onDaemon("explain", "what would become of a client from ADDRESS, why, and what its program would get", "SERVICE ADDRESS[:PORT]", func(q *question) error {
		return q.explain(q.Args().Get(0), q.Args().Get(1))
	}, asJSON(), &cli.BoolFlag{Name: "offline", Usage: "do not ask a superd that runs: as if one had just been started"})
	verb.ShellComplete = completeService
	return verb
}

// An explained client is what the verb has found out.
type explained struct {
	control.Explanation
	Program *outfit `json:"program,omitempty"` // nothing where the service starts none, or it is not known
	unknown error   // why it is not
	newer   bool    // the file says something else by now
}

func (q *question) explain(name, address string) error {
	c, err := parseStranger(address, spawn.NewEngine().System())
	if err != nil {
		return err
	}
	x, err := q.explained(name, &c)
	if err != nil {
		return err
	}
	if q.Bool("json") {
		text, err := json.Marshal(x)
		if err == nil {
			err = q.say("%s", text)
		}
		return err
	}
	return q.say("%s", strings.TrimSuffix(x.text(), "\n"))
}

// explained asks the superd that runs, if there is one for the file, and else
// imagines one. What a program gets is not asked for: it may be a secret of the
// file's.
func (q *question) explained(name string, c *stranger) (*explained, error) {
	if q.Bool("offline") {
		return q.imagined(name, c)
	}
	var x explained
	who := c.applicant()
	text, err := q.client.Ask("explain", who.Query(name))
	err = q.answer(text, err, &x.Explanation)
	switch {
	case errors.Is(err, control.ErrNobody) && q.String("socket") == "":
		return q.imagined(name, c)
	case q.servesAnother():
		return q.imagined(name, c)
	case err != nil:
		return nil, fmt.Errorf("%w (--offline asks nobody)", err)
	}
	x.unknown = x.fill(c)
	return &x, nil
}

// servesAnother tells whether the superd that runs has another file than the one
// that was named, if one was, and says so.
func (q *question) servesAnother() bool {
	named := q.String("config")
	if named == "" || q.String("socket") != "" {
		return false
	}
	var s control.Status
	text, err := q.client.Ask("status", nil)
	if q.answer(text, err, &s) != nil {
		return false
	}
	path := s.File
	if !filepath.IsAbs(path) {
		path = filepath.Join(fmt.Sprintf("/proc/%d/cwd", s.PID), path)
	}
	one, err := os.Stat(named)
	other, wrong := os.Stat(path)
	if err == nil && wrong == nil && os.SameFile(one, other) {
		return false
	}
	fmt.Fprintf(os.Stderr, "warning: the superd that runs, process %d, serves another file, %s\n", s.PID, s.File)
	return true
}

// imagined explains what a superd would do that had just been started.
func (q *question) imagined(name string, c *stranger) (*explained, error) {
	file, err := load(q.String("config"))
	if err != nil {
		return nil, err
	}
	m, err := imagine(file, name, uint32(os.Geteuid()), false)
	if err != nil {
		return nil, err
	}
	defer m.close()
	if err := c.meet(m.config); err != nil {
		return nil, err
	}
	x := &explained{Explanation: m.explain(c.applicant(), imagineLoops(file), m.daemon.now())}
	x.Program = m.outfitFor(c, x.Live)
	return x, nil
}

// fill adds what the program would get, as the file says by now.
func (x *explained) fill(c *stranger) error {
	file, err := configOf(x.File)
	if err != nil {
		return err
	}
	m, err := imagine(file, x.Service, x.UID, false)
	if err != nil {
		return err
	}
	defer m.close()
	if err := c.meet(m.config); err != nil {
		return err
	}
	x.Program = m.outfitFor(c, x.Live)
	x.newer = x.isOlder(file, m, c)
	return nil
}

// isOlder tells whether the file has changed since superd has read it, as far as
// can be seen.
func (x *explained) isOlder(file *config.Config, m *imagined, c *stranger) bool {
	paths := []string{file.Path}
	for _, f := range file.Files.Included {
		paths = append(paths, f.Path)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(x.Loaded) {
			return true
		}
	}
	now := m.explain(c.applicant(), imagineLoops(file), m.daemon.now())
	return !slices.EqualFunc(now.Rules, x.Rules, func(a, b control.Rule) bool { return a.Rule == b.Rule && a.Holds == b.Holds })
}

// text is for people.
func (x *explained) text() string {
	var b strings.Builder
	if x.PID != 0 {
		fmt.Fprintf(&b, "superd, process %d, would decide now, by generation %d of %s:\n", x.PID, x.Generation, printable(x.File))
	} else {
		fmt.Fprintf(&b, "with nobody connected, by %s:\n", printable(x.File))
	}
	fmt.Fprintf(&b, "%s %s\n", printable(x.Client), printable(x.outcome()))
	for _, note := range x.Notes {
		fmt.Fprintf(&b, "    %s\n", printable(note))
	}
	b.WriteString("\n" + table(x.checks()))
	if rows := x.rules(); len(rows) > 1 {
		b.WriteString("\n" + table(rows))
	}
	fmt.Fprintf(&b, "\ncounted as %s\n", x.Source)
	b.WriteString(x.programText())
	return b.String()
}

// outcome is the verdict in words.
func (x *explained) outcome() string {
	switch {
	case x.Verdict == disabled:
		return "finds no " + x.Service + ": it is disabled"
	case x.Cause != "":
		return fmt.Sprintf("is refused by %s: %s (%s)", x.Service, x.Reason, x.Cause)
	case x.Reason == "":
		return "enters " + x.Service
	case x.Verdict == verdicts[admit.Waits]:
		return fmt.Sprintf("waits for %s: %s", x.Service, x.Reason)
	}
	return fmt.Sprintf("is refused by %s: %s", x.Service, x.Reason)
}

func (x *explained) checks() [][]string {
	rows := [][]string{{"CHECK", "RESULT", "WHY"}}
	for _, c := range x.Checks {
		result := "pass"
		if !c.Passes {
			result = "FAIL"
		}
		rows = append(rows, []string{c.Check, result, c.Why})
	}
	return rows
}

func (x *explained) rules() [][]string {
	rows := [][]string{{"RULE", "HOLDS", "WHERE"}}
	for _, r := range x.Rules {
		holds := ""
		if r.Holds {
			holds = "yes"
		}
		rows = append(rows, []string{r.Rule, holds, r.At})
	}
	return rows
}

// programText is what would be started, or why that is not known.
func (x *explained) programText() string {
	var b strings.Builder
	p := x.Program
	if x.newer {
		fmt.Fprintf(&b, "\n%s has changed since superd has read it; what follows is as it says now\n", printable(x.File))
	}
	switch {
	case x.unknown != nil:
		fmt.Fprintf(&b, "\nwhat its program would get is not known: %s\n", x.unknown)
	case p != nil:
		p.write(&b)
	}
	return b.String()
}

func (p *outfit) write(b *strings.Builder) {
	if len(p.Argv) > 0 {
		b.WriteString("\n" + table(p.rows()))
	}
	section := func(title string, lines []string) {
		if len(lines) > 0 {
			fmt.Fprintf(b, "\n%s\n", title)
		}
		for _, line := range lines {
			fmt.Fprintf(b, "    %s\n", printable(line))
		}
	}
	section("WALLS", p.Walls)
	section("ENVIRONMENT", p.Environment)
	section("IT COULD NOT BE STARTED", p.Problems)
}

func (p *outfit) rows() [][]string {
	what := p.Path
	if p.Builtin != "" {
		what = "built-in " + p.Builtin
	}
	rows := [][]string{{"PROGRAM", what}, {"argv", commandLine(p.Argv)}, {"dir", p.Dir}, {"umask", p.Umask}}
	if p.Nice != 0 {
		rows = append(rows, []string{"nice", fmt.Sprint(p.Nice)})
	}
	if p.OOMScore != nil {
		rows = append(rows, []string{"oom_score_adj", fmt.Sprint(*p.OOMScore)})
	}
	return append(rows, []string{"stderr", p.Stderr})
}

// commandLine writes arguments so that it can be seen where each ends.
func commandLine(argv []string) string {
	return joined(argv, func(arg string) string {
		if arg == "" || strings.ContainsFunc(arg, func(r rune) bool { return !strings.ContainsRune(plainRunes, r) }) {
			return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		return arg
	}, " ")
}

// plainRunes mean themselves to a shell.
const plainRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_"

// completeService proposes the names of the file's services for the first word.
func completeService(ctx context.Context, c *cli.Command) {
	if c.NArg() == 0 {
		if file, err := load(c.String("config")); err == nil {
			for _, s := range file.Services {
				fmt.Fprintln(c.Root().Writer, s.Name)
			}
		}
	}
	cli.DefaultCompleteWithFlags(ctx, c)
}
