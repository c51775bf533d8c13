package main

import (
	"errors"
	"slices"

	"superd/services"
	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/spawn"
)

// compile makes the services of a file; its warnings grow by what is doubtful
// about them on this machine. Disabled ones are checked all the same. What was
// made is the caller's to close.
func (d *daemon) compile(c *config.Config) (list []*service, problems config.Problems) {
	b := &build{daemon: d, config: c, who: newIdentities(d.engine.System())}
	for _, c := range c.Services {
		s, wrong := b.service(c)
		problems = append(problems, wrong...)
		if s != nil {
			list = append(list, s)
		}
	}
	b.config.Warnings = b.config.Once(b.config.Warnings)
	return list, problems
}

// A build makes the services of one file.
type build struct {
	daemon *daemon
	config *config.Config
	who    *identities
}

func (b *build) warn(w ...config.Problem) { b.config.Warnings = append(b.config.Warnings, w...) }

// service compiles one service. Who it runs as is one question, who may come in
// another and what its walls need a third, so that all answers are told.
func (b *build) service(c *config.Service) (*service, config.Problems) {
	if c.Builtin == config.BuiltinMux {
		return b.leader(c)
	}
	id, user, problems := b.who.of(c)
	if w, due := b.who.rootWarning(c, user); due && len(problems) == 0 {
		b.warn(w)
	}
	owners, unknown := b.who.owners(c)
	admission, wrong := admissionOf(c, b.who)
	problems = slices.Concat(problems, unknown, wrong)
	if len(wrong) == 0 {
		b.warn(admission.warnings()...)
	}
	s := &service{daemon: b.daemon, config: c, owners: owners, table: b.daemon.table, admission: admission}
	if err := b.images(s); err != nil {
		s.close()
		return nil, append(problems, c.Problem("builtin", err.Error(), ""))
	}
	if problems = append(problems, b.plans(s, id, user)...); len(problems) > 0 {
		s.close()
		return nil, problems
	}
	if c.Wait != "" {
		s.lend()
	}
	if converses(c) {
		b.converse(s)
	}
	s.counts = s.conn.Plan.CountsSource()
	s.hall = b.daemon.hallOf(s)
	return s, nil
}

// leader compiles a service that starts no program.
func (b *build) leader(c *config.Service) (*service, config.Problems) {
	owners, problems := b.who.owners(c)
	admission, wrong := admissionOf(c, b.who)
	if problems = append(problems, wrong...); len(problems) > 0 {
		return nil, problems
	}
	b.warn(admission.warnings()...)
	s := &service{daemon: b.daemon, config: c, owners: owners, table: b.daemon.table, admission: admission, conn: b.daemon.connService(c, nil)}
	s.hall = b.daemon.halls[plain]
	return s, nil
}

// plans makes the plan of a service, and those of the clients for whom
// something else is run. All of them are started by one thread.
func (b *build) plans(s *service, id, user *spawn.Identity) (problems config.Problems) {
	list := s.planned()
	specs := make([]spawn.Spec, len(list))
	s.inherits = !b.daemon.trying && !converses(s.config) && s.config.Wait == "" // so that sessions, and what they are answered from, belong to one thread, whatever a reload makes of the service
	for i, p := range list {
		specs[i] = specOf(p.config, p.image, id, user)
		s.inherits = s.inherits && spawn.Inheritable(&specs[i])
	}
	for i, p := range list {
		specs[i].Inherit = s.inherits
		plan, wrong := b.plan(p.config, specs[i])
		for _, p := range wrong { // what all of them ask for is told once
			if !slices.Contains(problems, p) {
				problems = append(problems, p)
			}
		}
		if plan != nil {
			*p.conn = b.daemon.connService(p.config, plan)
			p.conn.Apology = s.admission.texts[admit.ReasonSpawn]
			s.plans = append(s.plans, plan)
		}
	}
	return problems
}

// A planned is a program that a service can start.
type planned struct {
	config *config.Service
	conn   *conn.Service
	image  *spawn.Image // nil for a file
}

// planned are the programs of s and of its overrides, for connections and, where
// those are others, for datagrams.
func (s *service) planned() []planned {
	list := []planned{{s.config, &s.conn, s.image}}
	if s.letters != nil {
		list = append(list, planned{s.config, &s.sessions, s.letters})
	}
	for _, o := range s.overrides() {
		o.owner = s
		list = append(list, planned{o.service, &o.conn, s.image})
		if s.letters != nil {
			list = append(list, planned{o.service, &o.sessions, s.letters})
		}
	}
	return list
}

// images builds the programs of a built-in: one for connections, one for
// datagrams, or as the service has only these, one that is for all it has.
func (b *build) images(s *service) (err error) {
	if s.config.Builtin == "" {
		return nil
	}
	s.image, err = b.image(s.config, s.config.OnlyDatagrams())
	if err == nil && converses(s.config) && !s.config.OnlyDatagrams() {
		s.letters, err = b.image(s.config, true)
	}
	return err
}

func (b *build) image(c *config.Service, datagrams bool) (*spawn.Image, error) {
	content, err := services.Image(c.Builtin, optionsOf(c, datagrams))
	if err != nil {
		return nil, err
	}
	return b.daemon.engine.NewImage(c.Builtin, content)
}

// converse completes what s starts for the peers of datagrams.
func (b *build) converse(s *service) {
	s.relays = true
	complete := func(sessions, conn *conn.Service) {
		if sessions.Plan == nil {
			*sessions = *conn
		}
		sessions.Keep, sessions.Idle, sessions.Linger, sessions.Apology = false, 0, 0, nil
	}
	complete(&s.sessions, &s.conn)
	for _, o := range s.overrides() {
		complete(&o.sessions, &o.conn)
	}
	if h := b.daemon.halls[plain]; h != nil { // a check has none
		h.readMail()
	}
}

func (b *build) plan(c *config.Service, spec spawn.Spec) (*spawn.Plan, config.Problems) {
	spec.Check, spec.Terminal = b.daemon.checking && !b.daemon.trying, b.daemon.trying
	plan, err := b.daemon.engine.Compile(spec)
	if plan != nil {
		for _, note := range plan.Notes() {
			b.warn(c.Problem(note.Key, note.What, note.Hint))
		}
	}
	return plan, problemsOf(c, err)
}

// problemsOf puts what a service's plan cannot have at the keys that ask for it.
func problemsOf(c *config.Service, err error) (list config.Problems) {
	var faults spawn.Faults
	if err != nil && !errors.As(err, &faults) {
		return config.Problems{c.Problem("", err.Error(), "")}
	}
	for _, f := range faults {
		list = append(list, c.Problem(f.Key, f.What, f.Hint))
	}
	return list
}

// connService is what the table must know of connections whose programs are
// started by plan.
func (d *daemon) connService(c *config.Service, plan *spawn.Plan) conn.Service {
	return conn.Service{
		Events:    d.log.Service(c.Name),
		Plan:      plan,
		Keep:      c.Keep,
		Linger:    c.Linger,
		Session:   c.Timeout.Session,
		Idle:      c.Timeout.Idle,
		Stop:      c.Timeout.Stop,
		LogStderr: c.Stderr == spawn.StderrLog,
		Leave:     c.Leftover == "leave",
		Release:   release,
	}
}
