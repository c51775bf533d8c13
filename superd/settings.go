package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/control"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
)

// Settings are what a file says beside services, made ready to hold: where the
// log goes, and where superd is asked. Until apply they have no effect on anybody.
type settings struct {
	operator *operator
	config   *config.Config
	log      *event.Change
	server   *control.Server // that there will be; nil for none
	rights   control.Rights  // of its socket
	web      []*control.Web
	opened   []*control.Web // of those, that are new
}

// prepare makes the settings of a file ready. Where anything is wrong, beside what
// is known already, all of that is told; what was made is the caller's to
// abandon.
func (o *operator) prepare(c *config.Config, known config.Problems) (*settings, config.Problems) {
	s := &settings{operator: o, config: c}
	d := o.daemon
	fallen := d.will != nil && d.will.fallen // there is nothing else to fall back to
	problems := append(s.prepareControl(), s.prepareWeb()...)
	if len(problems)+len(known) > 0 && !fallen {
		return s, append(problems, d.logProblems(c)...) // without making a file for nothing
	}
	problems = append(problems, s.prepareLog()...)
	if !fallen {
		return s, problems
	}
	for _, p := range problems {
		d.log.Error(p.Error())
	}
	return s, nil
}

func (s *settings) prepareLog() config.Problems {
	d, c := s.operator.daemon, s.config
	other := c.Log.Output != d.logging.Output || c.Log.Format != d.logging.Format
	change, err := d.log.Prepare(c.Log.Output, os.Stderr, logOptions(c, d.engine), other)
	if err != nil {
		return config.Problems{c.Problem("log.output", err.Error(), "")}
	}
	s.log = change
	return nil
}

// prepareControl opens the administrative socket, unless it is open already.
// Where the file does not name it, superd does without one that cannot be had.
func (s *settings) prepareControl() config.Problems {
	o, c := s.operator, &s.config.Control
	path := socketOf(c)
	rights, err := o.rights(c)
	if err != nil {
		return config.Problems{s.config.Problem("control.group", err.Error(), missing(err))}
	}
	s.rights = rights
	switch {
	case path == "" && o.server == nil && o.daemon.serving:
		return nil // as before
	case path == "":
		o.daemon.log.Warn("XDG_RUNTIME_DIR is not set: superd runs without an administrative socket (name one with control.path)")
		return nil
	case o.server != nil && o.server.Path() == path && o.server.Reachable():
		s.server = o.server
		return nil
	}
	server, err := control.Open(o.options(c, path, rights))
	switch {
	case err == nil:
		s.server = server
	case c.PathSet:
		return config.Problems{controlProblem(c, err)}
	default:
		o.daemon.log.Warn("superd runs without an administrative socket", event.F("error", err.Error()))
	}
	return nil
}

// rights are those that the file gives the administrative socket. Its group is
// superd's own again where the file before named one.
func (o *operator) rights(c *config.Control) (control.Rights, error) {
	r := control.Rights{Mode: os.FileMode(c.Mode), Group: -1}
	switch {
	case c.Group != "":
		gid, _, err := o.daemon.engine.System().GroupID(c.Group)
		r.Group = int(gid)
		return r, err
	case o.settings != nil && o.settings.config.Control.Group != "":
		r.Group = os.Getegid()
	}
	return r, nil
}

func (o *operator) options(c *config.Control, path string, r control.Rights) control.Options {
	return control.Options{
		Path:          path,
		Rights:        r,
		MakeDirectory: makesDirectory(c, path),
		Above:         o.daemon.engine.Above,
		Complain:      o.complain,
	}
}

// makesDirectory tells whether the administrative socket's directory is made
// where it is missing: /run is empty after each start of the machine.
func makesDirectory(c *config.Control, path string) bool {
	return !c.PathSet || strings.HasPrefix(path, "/run/")
}

// prepareWeb opens the HTTP listeners that are not open already.
func (s *settings) prepareWeb() (problems config.Problems) {
	o, c := s.operator, &s.config.HTTP
	for _, at := range c.Listen {
		if w := o.webAt(at); w != nil {
			s.web = append(s.web, w)
			continue
		}
		w, err := control.OpenWeb(at, o.daemon.engine.Above, o.complain)
		if err != nil {
			problems = append(problems, config.Problem{At: c.At, Path: "http.listen", What: err.Error(), Hint: o.webHint(at, err)})
			continue
		}
		s.web, s.opened = append(s.web, w), append(s.opened, w)
	}
	return problems
}

// webAt is the HTTP listener that was asked for by that address; nil where there
// is none.
func (o *operator) webAt(at netip.AddrPort) *control.Web {
	for _, w := range o.web {
		if w.At() == at {
			return w
		}
	}
	return nil
}

// webHint is for an address that somebody has, or superd itself.
func (o *operator) webHint(at netip.AddrPort, err error) string {
	for _, w := range o.web {
		if at.Port() != 0 && w.Local().Port() == at.Port() {
			return fmt.Sprintf("superd itself listens on %s until the reload is done: take that out first, reload, and then add this", w.Local())
		}
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return listen.HolderOf(at.Port())
	}
	return ""
}

// abandon frees what was made for settings that will not be.
func (s *settings) abandon() {
	if s.log != nil {
		s.log.Abandon()
	}
	if s.server != nil && s.server != s.operator.server {
		s.server.Close()
	}
	for _, w := range s.opened {
		w.Close()
	}
}

// applyLog has the log be as the file says. Services are told their levels next.
func (s *settings) applyLog() {
	if s.log != nil {
		s.log.Apply()
		s.operator.daemon.logging = s.config.Log
	}
}

// apply has superd be asked where the file says. Those whose requests are being
// answered are answered.
func (s *settings) apply() {
	o := s.operator
	server, web := o.server, o.web
	o.server, o.web, o.settings = s.server, s.web, s
	if server != nil && server != s.server {
		if s.server != nil && s.server.Path() == server.Path() {
			o.daemon.log.Warn("the administrative socket was not there any more, it is opened anew", event.F("path", server.Path()))
		}
		server.Retire()
	}
	for _, w := range web {
		if !slices.Contains(s.web, w) {
			w.Retire()
		}
	}
	if server != nil && server == s.server {
		s.setRights()
	}
	if !o.daemon.serving {
		return // serve comes
	}
	if s.server != nil && server != s.server {
		s.server.Serve(o)
	}
	for _, w := range s.opened {
		w.Serve(o)
	}
}

func (s *settings) setRights() {
	if err := s.server.SetRights(s.rights); err != nil {
		s.operator.daemon.log.Warn("cannot change the rights of the administrative socket", event.F("path", s.server.Path()), event.F("error", err.Error()))
	}
}

// announce logs where metrics and health can be asked for, so far as it is new.
func (s *settings) announce() {
	for _, w := range s.opened {
		s.operator.daemon.log.Info("http", event.F("local", w.Local().String()))
	}
}

// take goes on with the sockets at which another superd was asked.
func (o *operator) take(in *inheritance) {
	complain := func(err error) { o.daemon.log.Warn(err.Error()) }
	if in.Control != nil {
		server, err := control.Resume(in.Control, o.options(&config.Control{}, in.Control.Path, control.Rights{}))
		if err != nil {
			complain(err)
		} else {
			o.server = server
		}
	}
	for i := range in.Web {
		w, err := control.ResumeWeb(&in.Web[i], o.daemon.engine.Above, o.complain)
		if err != nil {
			complain(err)
			continue
		}
		o.web = append(o.web, w)
	}
}
