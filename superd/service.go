package main

import (
	"net/netip"
	"os"
	"time"

	"superd/services"
	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/listen"
	"superd/superd/internal/spawn"
)

// A service is one entry of the file at work: the door that accepted
// connections come in by. It never changes while it listens.
type service struct {
	config   *config.Service
	local    []netip.AddrPort // where it listens
	gate     *admit.Gate
	conn     conn.Service
	table    *conn.Table
	stale    bool // its rules could not be renewed; touched by the refreshing goroutine only
	inherits bool // programs are started by the thread that has entered their walls
	counts   bool // programs are told how many connections their source has

	image  *spawn.Image // of a built-in; else nil
	second int64        // that the image speaks of; touched by the accepting thread only
}

// Enter implements listen.Door.
func (s *service) Enter() bool { return s.gate.Enter() }

// Leave implements listen.Door.
func (s *service) Leave() { s.gate.Leave() }

// Connection implements listen.Door: from here on the table owns fd.
func (s *service) Connection(fd int, remote, local netip.AddrPort) {
	peer := conn.Peer{Remote: remote, Local: local}
	if s.counts {
		peer.FromSource = s.gate.Count(remote.Addr())
	}
	s.refreshImage()
	s.table.Start(&s.conn, fd, &peer)
}

// release gives back what Enter and Connection took.
func (s *service) release(source netip.Addr) {
	if s.counts {
		s.gate.Forget(source)
	}
	s.gate.Leave()
}

// refreshImage makes the image anew for a built-in that tells the time, once
// in a second at most.
func (s *service) refreshImage() {
	if s.image == nil || !services.Clocked(s.config.Builtin) {
		return
	}
	now := time.Now()
	if now.Unix() == s.second {
		return
	}
	content, err := services.Image(s.config.Builtin, services.Options{Now: now})
	if err == nil && s.image.Replace(content) == nil {
		s.second = now.Unix()
	}
}

// newImage builds the program of a built-in service; nil for one that runs a
// file.
func newImage(e *spawn.Engine, c *config.Service) (*spawn.Image, error) {
	if c.Builtin == "" {
		return nil, nil
	}
	o := services.Options{Now: time.Now()}
	if c.Text != "" {
		o.Text = &c.Text
	}
	content, err := services.Image(c.Builtin, o)
	if err != nil {
		return nil, err
	}
	return e.NewImage(c.Builtin, content)
}

// specOf is what a service's plan is made of. Id is nil where the program
// keeps superd's own identity, and who is whom its environment speaks of.
func specOf(c *config.Service, image *spawn.Image, id, who *spawn.Identity) spawn.Spec {
	s := spawn.Spec{
		Service:  c.Name,
		Argv:     []string{c.Builtin},
		Image:    image,
		Env:      spawn.Environment(c.Name, who, passed(c.EnvPass), own(c.Env)),
		EnvStyle: c.EnvStyle,
		Stderr:   c.Stderr,
		Dir:      c.Dir,
		Umask:    c.Umask,
		Nice:     c.Nice,
		OOMScore: c.OOMScore,
		Identity: id,
		Chroot:   c.Chroot,
		Rlimits:  c.Rlimits,
		Sandbox:  c.Sandbox,
		Cgroup:   c.Cgroup,
	}
	if image == nil {
		s.Path, s.Argv = c.Run[0], append([]string{}, c.Run...)
	}
	if c.Argv0 != "" {
		s.Argv[0] = c.Argv0
	}
	return s
}

// passed is what of superd's own environment a service takes over.
func passed(names []string) (list []string) {
	for _, name := range names {
		if value, set := os.LookupEnv(name); set {
			list = append(list, name+"="+value)
		}
	}
	return list
}

func own(env []config.EnvVar) (list []string) {
	for _, v := range env {
		list = append(list, v.Name+"="+v.Value)
	}
	return list
}

var _ listen.Door = (*service)(nil)
