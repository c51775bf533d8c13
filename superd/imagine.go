package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/control"
	"superd/superd/internal/event"
	"superd/superd/internal/spawn"
)

// An imagined is one service as a superd that had just been started would have
// it. It is closed with its daemon.
type imagined struct {
	*service
	daemon   *daemon
	log      *event.Log
	problems config.Problems // what keeps its programs from being started; nothing of admission
	uid      uint32          // who would start them
	id, user *spawn.Identity // as in specOf
}

// imagine makes the service of that name, of a superd that the user uid runs.
// Where that is not who asks, the walls are not tried. To be tried on a terminal,
// its plans are others.
func imagine(c *config.Config, name string, uid uint32, trying bool) (*imagined, error) {
	i := slices.IndexFunc(c.Services, func(s *config.Service) bool { return s.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%s: %s", c.Path, noService(name, c.Services))
	}
	m := &imagined{uid: uid, log: event.Open(os.Stderr, event.Options{Level: "error", Format: c.Log.Format})}
	m.daemon = newDaemon(c, m.log, spawn.NewEngine())
	m.daemon.checking, m.daemon.trying = true, trying
	if err := m.build(c.Services[i]); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *imagined) build(c *config.Service) error {
	d, own := m.daemon, m.uid == uint32(os.Geteuid())
	b := &build{daemon: d, config: d.config, who: newIdentities(d.engine.System())}
	b.who.root, b.who.self = m.uid == 0, m.uid
	if own {
		m.service, m.problems = b.service(c)
	}
	if m.service == nil {
		admission, wrong := admissionOf(c, b.who)
		if len(wrong) > 0 {
			return wrong
		}
		m.service = &service{daemon: d, config: c, admission: admission, conn: d.connService(c, nil)}
	}
	d.services = []*service{m.service}
	var wrong config.Problems
	if m.id, m.user, wrong = b.who.of(c); len(m.problems) == 0 {
		m.problems = wrong
	}
	if !own {
		m.id = m.user // or it would be described as who asks
	}
	m.gate = d.house.Gate(c.Name, m.admission.policy, func() {})
	d.house.SetLimits(admit.Limits{Max: d.config.Limits.Max, MaxLoad: d.config.Limits.MaxLoad}, d.now())
	d.lookAtLoad()
	return nil
}

func (m *imagined) close() {
	m.daemon.close()
	m.log.Close(time.Second)
}

// overrideFor is what the rule that holds for an applicant has it run; nil for
// the service's own program.
func (m *imagined) overrideFor(who control.Applicant) *override {
	rule := m.gate.Explain(m.clientOf(who), m.daemon.now()).Rule
	if rule == nil {
		return nil
	}
	o, _ := rule.Data.(*override)
	return o
}

// An outfit is what would be started for a stranger, and inside which walls.
type outfit struct {
	Path        string   `json:"path,omitempty"` // nothing for a built-in
	Builtin     string   `json:"builtin,omitempty"`
	Argv        []string `json:"argv"`
	Dir         string   `json:"dir"`
	Umask       string   `json:"umask"`
	Nice        int      `json:"nice"`
	OOMScore    *int     `json:"oom_score_adj,omitempty"`
	Stderr      string   `json:"stderr"`
	Walls       []string `json:"walls"`
	Environment []string `json:"environment"`
	Problems    []string `json:"problems"` // why it could not be started
}

// outfitFor is what c would get, who has so many connections; nil where the
// service starts no program.
func (m *imagined) outfitFor(c *stranger, live int) *outfit {
	if m.leads() {
		return nil
	}
	if m.user == nil {
		return &outfit{Argv: []string{}, Walls: []string{}, Environment: []string{}, Problems: m.allProblems(m.config)}
	}
	entry, plan := m.entryFor(c)
	spec := specOf(entry, nil, m.id, m.user)
	p := &outfit{
		Path: spec.Path, Builtin: entry.Builtin, Argv: spec.Argv, Dir: spec.Dir,
		Umask: fmt.Sprintf("%03o", spec.Umask), Nice: spec.Nice, OOMScore: spec.OOMScore, Stderr: spec.Stderr,
		Walls:       spec.Describe(),
		Environment: spec.Variables(m.factsOf(c, live)),
		Problems:    m.allProblems(entry),
	}
	if plan != nil {
		p.Walls = plan.Describe()
	}
	return p
}

// entryFor is what the file says of a service for c, and its plan.
func (m *imagined) entryFor(c *stranger) (*config.Service, *spawn.Plan) {
	entry, stream, datagrams := m.config, &m.conn, &m.sessions
	if o := m.overrideFor(c.applicant()); o != nil {
		entry, stream, datagrams = o.service, &o.conn, &o.sessions
	}
	if c.peer.Datagrams && datagrams.Plan != nil {
		return entry, datagrams.Plan
	}
	return entry, stream.Plan
}

// allProblems are those of m, and what is missing on this machine.
func (m *imagined) allProblems(entry *config.Service) []string {
	list := []string{}
	for _, p := range slices.Concat(m.problems, m.missing(entry)) {
		list = append(list, p.Error())
	}
	return list
}

// missing looks for what a program is started from, unless somebody else would
// start it.
func (m *imagined) missing(entry *config.Service) config.Problems {
	if m.uid != uint32(os.Geteuid()) {
		return nil
	}
	return fileProblems(entry)
}

// factsOf is what the program of c would learn of its connection.
func (m *imagined) factsOf(c *stranger, live int) *spawn.Facts {
	f := &spawn.Facts{ID: sampleID(time.Now()), Peer: &c.peer, FromSource: live + 1}
	f.Peer.Listening = m.config.Wait != ""
	if m.config.Wait == config.WaitListenFDs {
		for _, l := range m.config.Listen {
			f.Names = append(f.Names, cmp.Or(l.Label, m.config.Name))
		}
	}
	return f
}

// sampleID is the name of a connection that is none.
func sampleID(now time.Time) []byte {
	return append(strconv.AppendInt(nil, now.UnixMilli(), 36), "-1"...)
}

// configOf reads the file that a superd has said it serves.
func configOf(path string) (*config.Config, error) {
	if path == builtInName {
		return builtIn().Parse(config.Machine)
	}
	return load(path)
}
