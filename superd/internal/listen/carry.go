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
}

// Carry tells all about a socket, which stays its set's.
func (k *Socket) Carry() Carried {
	return Carried{FD: k.fd, Listener: *k.listener, Self: k.self, File: k.file.path, Dev: k.file.dev, Ino: k.file.ino}
}

// Likeness is a socket that can only say where the carried one is.
func (c *Carried) Likeness() *Socket { return &Socket{fd: -1, listener: &c.Listener, self: c.Self} }

// Revive makes a socket of what was carried, and owns its descriptor then. It
// belongs to no set yet.
func Revive(c *Carried) (*Socket, error) {
	listening, err := unix.GetsockoptInt(c.FD, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err == nil && listening == 0 {
		err = unix.EINVAL
	}
	if err != nil {
		return nil, os.NewSyscallError("getsockopt SO_ACCEPTCONN", err)
	}
	k := &Socket{fd: c.FD, listener: &c.Listener, self: c.Self, any: c.Listener.Addr.Addr().IsUnspecified()}
	if c.File != "" {
		k.file = file{c.File, c.Dev, c.Ino}
	}
	return k, nil
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
