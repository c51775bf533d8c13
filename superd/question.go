package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"superd/superd/internal/config"
	"superd/superd/internal/control"
)

// askingTime is how long superd has for an answer.
const askingTime = 15 * time.Second

// A question is one use of a verb that a running superd answers.
type question struct {
	*cli.Command
	client control.Client
	out    io.Writer
}

// whereToAsk finds the administrative socket.
func whereToAsk(file, socket string) (string, error) {
	if socket != "" {
		return socket, nil
	}
	c, err := controlOf(file)
	if err != nil {
		return "", fmt.Errorf("%w\nthe socket can be named with --socket", err)
	}
	path := socketOf(&c)
	if c.PathSet || os.Geteuid() == 0 {
		return path, nil
	}
	if _, err := os.Lstat(path); path == "" || err != nil { // a superd of one's own does not run
		return rootSocket, nil
	}
	return path, nil
}

// controlOf reads what the file, or else the system's, says about the socket.
// The system's may be closed to whoever asks.
func controlOf(file string) (config.Control, error) {
	if file != "" {
		return config.LoadControl(file)
	}
	c, err := config.LoadControl(systemFile)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return config.Control{}, nil
	}
	return c, err
}

// answer fills what is wanted from an answer of superd's. Who wants JSON has that
// also of what superd has refused.
func (q *question) answer(text []byte, err error, wanted any) error {
	if err != nil {
		if r := new(control.Refusal); q.Bool("json") && errors.As(err, &r) {
			q.out.Write(r.Answer)
		}
		return err
	}
	if err := json.Unmarshal(text, wanted); err != nil {
		return fmt.Errorf("cannot understand what answers at %s: %w", q.client.Path, err)
	}
	return nil
}

// list prints an answer as it is, or as people like it.
func list[T any](q *question, text []byte, err error, form func(T) string) error {
	var wanted T
	if err := q.answer(text, err, &wanted); err != nil {
		return err
	}
	if q.Bool("json") {
		_, err = q.out.Write(text)
	} else {
		_, err = io.WriteString(q.out, form(wanted))
	}
	return err
}

func (q *question) say(format string, args ...any) error {
	_, err := fmt.Fprintf(q.out, format+"\n", args...)
	return err
}

func (q *question) status() error {
	text, err := q.client.Ask("status", nil)
	return list(q, text, err, statusText)
}

func (q *question) connections() error {
	text, err := q.client.Ask("connections", nil)
	return list(q, text, err, connectionsText)
}

const betweenLooks = time.Second

// watch prints connections until it is interrupted, or superd has ended.
func (q *question) watch(terminal *os.File) error {
	clear := ""
	if info, err := terminal.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && !q.Bool("json") {
		clear = "\x1b[H\x1b[2J" // cursor home, erase all (ECMA-48)
	}
	for ; ; time.Sleep(betweenLooks) {
		text, err := q.client.Ask("connections", nil)
		err = list(q, text, err, func(l []control.Connection) string { return clear + connectionsText(l) + "\n" })
		if err != nil {
			return err
		}
	}
}

func (q *question) reload() error {
	text, err := q.client.Order("reload", nil)
	if errors.Is(err, control.ErrNobody) && q.String("socket") == "" {
		err = fmt.Errorf("%w (if control.path is what has changed, name the socket of before with --socket)", err)
	}
	return list(q, text, err, reportText)
}

func (q *question) upgrade() error {
	var done control.Upgraded
	text, err := q.client.Order("upgrade", nil)
	err = list(q, text, err, func(u control.Upgraded) string {
		return fmt.Sprintf("superd %s goes on with %s, generation %d\n", u.Version, plural(u.Connections, "connection", "connections"), u.Generation)
	})
	if err != nil {
		return err
	}
	if err = q.answer(text, nil, &done); err == nil && len(done.Problems) > 0 {
		err = errors.New(strings.Join(append(done.Problems, "cannot take the file up, "+staysInForce), "\n"))
	}
	return err
}

// drain waits, since whoever drains wants to do something to what is behind
// the service next.
func (q *question) drain(service string) error {
	how := map[string]string{"service": service}
	if q.IsSet("limit") {
		how["limit"] = q.Duration("limit").String()
	}
	var begun control.Drained
	text, err := q.client.Order("drain", how)
	if err := q.answer(text, err, &begun); err != nil {
		return err
	}
	if q.Bool("json") {
		q.out.Write(text)
	} else if begun.Live > 0 {
		q.stillThere(service, &begun)
	}
	if q.Bool("no-wait") {
		return nil
	}
	if err := q.until(func(s *control.Status) bool { return liveOf(s, service) == 0 && q.nobody(service) }); err != nil || q.Bool("json") {
		return err
	}
	return q.say("%s: drained", strings.Join(begun.Services, ", "))
}

// stillThere lists who has not ended yet.
func (q *question) stillThere(service string, d *control.Drained) {
	if here, err := q.connectionsOf(service); err == nil && len(here) > 0 {
		q.say("for %s at most, until these have ended:\n%s", shortTime(d.LimitMS), connectionsText(here))
	}
}

// connectionsOf are those of a service, or all.
func (q *question) connectionsOf(service string) (list []control.Connection, err error) {
	text, err := q.client.Ask("connections", url.Values{"service": {service}})
	return list, q.answer(text, err, &list)
}

// nobody tells whether a service has no program left, or none has: status does
// not know of services that the file has no more.
func (q *question) nobody(service string) bool {
	here, err := q.connectionsOf(service)
	return err == nil && len(here) == 0
}

func liveOf(s *control.Status, service string) (live uint64) {
	for _, v := range s.Services {
		if service == "" || v.Name == service {
			live += v.Live
		}
	}
	return live
}

const betweenQuestions = 100 * time.Millisecond

// until asks how things stand until that is as it should be.
func (q *question) until(done func(*control.Status) bool) error {
	for {
		var now control.Status
		text, err := q.client.Ask("status", nil)
		if err := q.answer(text, err, &now); err != nil {
			return err
		}
		if done(&now) {
			return nil
		}
		time.Sleep(betweenQuestions)
	}
}

// stop waits until superd has ended, or another one answers in its place.
func (q *question) stop(now bool) error {
	var before control.Status
	text, err := q.client.Ask("status", nil)
	if err := q.answer(text, err, &before); err != nil {
		return err
	}
	if _, err := q.client.Order("stop", map[string]bool{"now": now}); err != nil {
		return err
	}
	if before.Live > 0 && !now {
		q.say("%s left", plural(before.Live, "connection is", "connections are"))
	}
	err = q.until(func(s *control.Status) bool { return !s.Started.Equal(before.Started) || s.PID != before.PID })
	if err != nil && !errors.Is(err, control.ErrNobody) {
		return err
	}
	return q.say("stopped")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

func (q *question) kill(id, service, source string) error {
	switch {
	case id == "" && service == "" && source == "":
		return usageError{errors.New("kill needs the ID of a connection, --service or --source")}
	case id != "" && (service != "" || source != ""):
		return usageError{errors.New("kill takes an ID, or --service and --source")}
	}
	if source != "" {
		if _, err := sourceOf(source); err != nil {
			return err
		}
	}
	var done control.Killed
	text, err := q.client.Order("kill", map[string]string{"id": id, "service": service, "source": source})
	if err := q.answer(text, err, &done); err != nil {
		return err
	}
	return q.say("%s told to end", plural(done.Killed, "connection was", "connections were"))
}

// sourceOf reads an argument.
func sourceOf(text string) (config.Spec, error) {
	s, err := control.ParseSource(text)
	if err != nil {
		return config.Spec{}, usageError{err}
	}
	return asSpec(s), nil
}

func (q *question) block(source string, length time.Duration) error {
	whom, err := sourceOf(source) // of an address with a length the network is blocked
	if err != nil {
		return err
	}
	how := map[string]string{"network": whom.String()}
	if length > 0 {
		how["for"] = length.String()
	}
	if _, err := q.client.Order("block", how); err != nil {
		return err
	}
	if length > 0 {
		return q.say("%s is blocked for %s", whom, shortTime(length.Milliseconds()))
	}
	return q.say("%s is blocked until it is unblocked", whom)
}

func (q *question) unblock(source string) error {
	if _, err := sourceOf(source); err != nil {
		return err
	}
	var done control.Unblocked
	text, err := q.client.Order("unblock", map[string]string{"network": source})
	if err := q.answer(text, err, &done); err != nil {
		return err
	}
	return q.say("%s lifted", plural(done.Lifted, "block or ban was", "blocks and bans were"))
}
