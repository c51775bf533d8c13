package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Carried is an administrative socket with which another superd goes on, that
// takes this one's place in the same process: whoever connects meanwhile waits,
// and its path always leads to superd. It is plain data, but for the
// descriptor.
type Carried struct {
	Path          string
	FD            int
	Device, Inode uint64
	Mode          uint32
}

// Carry tells all about the socket, which stays the server's.
func (s *Server) Carry() Carried {
	return Carried{s.path, s.web.listener.number(), s.own.device, s.own.inode, s.own.mode}
}

// Resume goes on with the socket, where its path still leads to it; else it is
// closed. Path and mode of the options are not looked at.
func Resume(c *Carried, o Options) (*Server, error) {
	was := identity{device: c.Device, inode: c.Inode, mode: c.Mode}
	now, err := identify(c.Path)
	if err == nil && !now.same(was) {
		err = errors.New("another file is there")
	}
	if err == nil {
		err = unix.Listen(c.FD, math.MaxInt32)
	}
	if err != nil {
		unix.Close(c.FD)
		return nil, fmt.Errorf("cannot go on with the administrative socket %s: %w", c.Path, err)
	}
	o.Path = c.Path
	return newServer(c.FD, o)
}

// A CarriedWeb is an HTTP listener with which another superd goes on.
type CarriedWeb struct {
	At, Local netip.AddrPort
	FD        int
}

// Carry tells all about the listener, which stays w's.
func (w *Web) Carry() CarriedWeb { return CarriedWeb{w.at, w.local, w.server.listener.number()} }

// ResumeWeb goes on with an HTTP listener. Above and complain are as in [Options].
func ResumeWeb(c *CarriedWeb, above func(fd int) (int, error), complain func(what string, err error)) (*Web, error) {
	if err := unix.Listen(c.FD, backlog); err != nil {
		unix.Close(c.FD)
		return nil, fmt.Errorf("cannot go on listening on %s: %w", c.Local, err)
	}
	return newWeb(c.FD, c.At, above, complain)
}

// number is the listener's descriptor. It stays the listener's.
func (l *listener) number() int { return numberOf(l.file) }

// numberOf is a file's descriptor. os.File.Fd would make it blocking.
func numberOf(f *os.File) (number int) {
	number = -1
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { number = int(fd) })
	}
	return number
}

// A hold keeps a listener from accepting.
type hold struct {
	mu   sync.Mutex
	over chan struct{} // closed when it accepts again; nil while it does; guarded by mu
}

// present is closed when the listener accepts again; nil where it does.
func (h *hold) present() chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.over
}

// Rest leaves who connects from now on, to the socket, nil for none, or to webs, in
// the kernel's queue, until resume is called, and waits that long at most until
// nobody is left but asker, nil for none: who has been accepted is answered, or
// not at all. Meanwhile it calls work again and again: who is answered may need
// the caller for that.
func Rest(s *Server, webs []*Web, asker *Asker, within time.Duration, work func()) (resume func()) {
	var all []*webServer
	if s != nil {
		all = append(all, s.web)
	}
	for _, w := range webs {
		all = append(all, w.server)
	}
	others := 0
	if asker != nil {
		others = 1
	}
	for _, w := range all {
		w.listener.hold.begin()
	}
	const pause = time.Millisecond
	for until := time.Now().Add(within); present(all) > others && time.Now().Before(until); {
		work()
		time.Sleep(pause)
	}
	return func() {
		for _, w := range all {
			w.listener.hold.end()
		}
	}
}

// present is how many clients there are.
func present(list []*webServer) (n int) {
	for _, w := range list {
		for _, c := range w.crowds {
			n += c.size()
		}
	}
	return n
}

func (h *hold) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = make(chan struct{})
}

func (h *hold) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.over)
	h.over = nil
}

func (c *crowd) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.here)
}

// An Asker is a client whose question another superd is to answer.
type Asker struct{ connection *connection }

// FD is the descriptor of the connection, which stays the server's.
func (a *Asker) FD() int { return numberOf(a.connection.file) }

// Reply answers a question that another superd was asked in this process, and
// closes the connection: nobody else reads what its client sends.
func Reply(fd int, answer any) {
	defer unix.Close(fd)
	body, err := json.Marshal(answer)
	if err != nil {
		return
	}
	text := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		http.StatusOK, http.StatusText(http.StatusOK), len(body)+1, body)
	unix.SendmsgN(fd, []byte(text), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	unix.Shutdown(fd, unix.SHUT_WR)
	var rest [largestBody]byte
	unix.Recvfrom(fd, rest[:], unix.MSG_DONTWAIT) // closing on it would be a reset
}
