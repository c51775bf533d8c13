package listen

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
	"superd/superd/internal/peer"
)

// A Carried is a socket that another superd goes on with, which takes this
// one's place in the same process. It is plain data, but for the descriptor.
type Carried struct {
	FD       int
	Listener config.Listener
	Self     peer.Peer
	File     string // of a unix socket with a path; "" for none
	Dev, Ino uint64 // of the file
	Lent     bool   // a program has it
	Handed   *Handed

	Datagrams bool // what comes to it, whatever the listener knows of that
}

// Handed is what a socket was called that superd was started with.
type Handed struct {
	FD     int // of one that is not in use
	Number int
	Name   string
}

// Carry tells all about a socket, which stays its set's.
func (k *Socket) Carry() Carried {
	c := Carried{FD: k.fd, Listener: *k.listener, Self: k.self, File: k.file.path, Dev: k.file.dev, Ino: k.file.ino, Lent: k.Lent(), Datagrams: k.Datagrams()}
	if h := k.heirloom; h != nil {
		c.Handed = &Handed{Number: h.number, Name: h.name}
	}
	return c
}

// Carry tells about the sockets that are not in use, which stay the
// inheritance's.
func (in *Inheritance) Carry() (list []Handed) {
	for _, h := range in.find(func(h *heirloom) bool { return h.fd >= 0 }) {
		list = append(list, Handed{h.fd, h.number, h.name})
	}
	return list
}

// Resume has the inheritance own sockets that another one has carried.
func (in *Inheritance) Resume(list []Handed) {
	for i := range list {
		in.rest = append(in.rest, in.resume(&list[i], list[i].FD))
	}
}

func (in *Inheritance) resume(c *Handed, fd int) *heirloom {
	h := &heirloom{from: in, fd: fd, number: c.Number, name: c.Name}
	h.kind, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	h.examine()
	return h
}

// Likeness is a socket that can only say where the carried one is.
func (c *Carried) Likeness() *Socket { return &Socket{fd: -1, listener: &c.Listener, self: c.Self} }

// Revive makes a socket of what was carried, and owns its descriptor then. It
// belongs to no set yet. One that superd was started with goes to in when it is
// closed.
func Revive(c *Carried, in *Inheritance) (*Socket, error) {
	if err := c.sound(); err != nil {
		return nil, err
	}
	k := &Socket{fd: c.FD, listener: &c.Listener, self: c.Self, any: everywhere(&c.Self)}
	if c.File != "" {
		k.file = file{c.File, c.Dev, c.Ino}
	}
	if c.Handed != nil {
		k.heirloom = in.resume(c.Handed, c.FD)
	}
	k.lease.lent = c.Lent
	return k, nil
}

// sound tells whether the descriptor is what it is said to be.
func (c *Carried) sound() error {
	name, option, want := "SO_ACCEPTCONN", unix.SO_ACCEPTCONN, 1
	if c.Datagrams || c.Listener.Datagrams() {
		name, option, want = "SO_TYPE", unix.SO_TYPE, unix.SOCK_DGRAM
	}
	is, err := unix.GetsockoptInt(c.FD, unix.SOL_SOCKET, option)
	if err == nil && is != want {
		err = unix.EINVAL
	}
	return os.NewSyscallError("getsockopt "+name, err)
}

// Pause has Serve do nothing, once it has done what was ordered before, until
// resume is called; it returns false, with nothing changed, where Serve is not
// that far within a time.
func (s *Set) Pause(within time.Duration) (resume func(), ok bool) {
	paused, again := make(chan struct{}), make(chan struct{})
	s.Order(func() {
		close(paused)
		<-again
	})
	patience := time.NewTimer(within)
	defer patience.Stop()
	select {
	case <-paused:
		return func() { close(again) }, true
	case <-s.done:
	case <-patience.C:
	}
	close(again)
	return nil, false
}
