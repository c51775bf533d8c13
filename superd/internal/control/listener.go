package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A listener accepts for an HTTP server. Package net's own would leave each
// connection at a low number of the descriptor table, where the programs'
// connections land and are handed over: these are moved above.
type listener struct {
	file  *os.File // non-blocking; closed by Close
	above func(fd int) (int, error)
	admit func(*connection) // takes a place for it; may close another one
	done  chan struct{}     // closed by Close, once
	close sync.Once
	hold  hold
}

// newListener takes fd over, a listening socket.
func newListener(fd int, above func(int) (int, error), admit func(*connection)) (*listener, error) {
	high, err := above(fd)
	if err != nil {
		return nil, err
	}
	return &listener{file: os.NewFile(uintptr(high), "listener"), above: above, admit: admit, done: make(chan struct{})}, nil
}

// Accept implements net.Listener. It fails only when the listener is closed.
func (l *listener) Accept() (net.Conn, error) {
	for pause := shortestPause; ; pause = min(2*pause, longestPause) {
		c, err := l.acceptOne()
		switch {
		case err == nil:
			return c, nil
		case err == errHeld:
			l.await(l.hold.present())
			continue
		case l.closed() || errors.Is(err, os.ErrClosed):
			return nil, net.ErrClosed
		}
		l.rest(pause)
	}
}

// Pauses after accept has failed: descriptors or memory have run out.
const (
	shortestPause = 5 * time.Millisecond
	longestPause  = time.Second
)

func (l *listener) acceptOne() (*connection, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	low, failed := -1, error(nil)
	err = raw.Read(func(fd uintptr) (done bool) {
		if l.hold.present() != nil {
			failed = errHeld
			return true
		}
		for low, failed = accept(int(fd)); failed == unix.EINTR || failed == unix.ECONNABORTED; {
			low, failed = accept(int(fd))
		}
		return failed != unix.EAGAIN
	})
	if failed == errHeld {
		return nil, errHeld
	}
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	fd, err := l.above(low)
	if err != nil {
		return nil, err
	}
	return l.connection(fd), nil
}

func accept(fd int) (low int, err error) {
	low, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	return low, err
}

func (l *listener) connection(fd int) *connection {
	c := &connection{file: os.NewFile(uintptr(fd), "connection")}
	c.peer, _ = peerOf(fd) // of TCP there is none
	l.admit(c)
	return c
}

func (l *listener) rest(pause time.Duration) {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.done:
	}
}

// errHeld says that nobody is to be accepted now.
var errHeld = errors.New("held")

// await waits until held is closed, nil being so, or the listener is.
func (l *listener) await(held chan struct{}) {
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-l.done:
	}
}

func (l *listener) closed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.close.Do(func() {
		close(l.done)
		l.file.Close()
	})
	return nil
}

// Addr implements net.Listener. Nobody asks for it.
func (l *listener) Addr() net.Addr { return nowhere{} }

type nowhere struct{}

func (nowhere) Network() string { return "superd" }
func (nowhere) String() string  { return "superd" }

// A connection is one client. Its place in a crowd ends with Close.
type connection struct {
	file  *os.File
	peer  Peer
	crowd *crowd
	busy  atomic.Bool // its request is being answered
}

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.file.Read(b)
	return n, bare(err)
}

// Write implements net.Conn.
func (c *connection) Write(b []byte) (int, error) {
	n, err := c.file.Write(b)
	return n, bare(err)
}

// bare is an error as net/http knows it, which tells a deadline from a failure
// by the type.
func bare(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	if c.crowd != nil {
		c.crowd.leave(c)
	}
	return c.file.Close()
}

// LocalAddr implements net.Conn.
func (c *connection) LocalAddr() net.Addr { return nowhere{} }

// RemoteAddr implements net.Conn.
func (c *connection) RemoteAddr() net.Addr { return nowhere{} }

// SetDeadline implements net.Conn.
func (c *connection) SetDeadline(t time.Time) error { return c.file.SetDeadline(t) }

// SetReadDeadline implements net.Conn.
func (c *connection) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *connection) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }

// CloseWrite ends the answer of a connection that is about to be closed with
// input unread, so that the reset which that causes finds the answer read.
func (c *connection) CloseWrite() error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Shutdown(int(fd), unix.SHUT_WR) })
	return errors.Join(err, failed)
}
