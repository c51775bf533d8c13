package control

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"net/http"
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

// resume is openSocket for a socket that is open already, or was to be, in
// another place: then that one is closed. The descriptor is owned in any case.
func (c *Carried) resume(path string, mode fs.FileMode) (fd int, err error) {
	was := identity{c.Device, c.Inode, c.Mode}
	now, err := identify(c.Path)
	same := err == nil && now.device == was.device && now.inode == was.inode
	if same && c.Path == path {
		err := unix.Chmod(path, uint32(mode.Perm()))
		if err == nil {
			err = unix.Listen(c.FD, math.MaxInt32)
		}
		if err == nil {
			return c.FD, nil
		}
	}
	c.Close()
	return openSocket(path, mode)
}

// Close frees a socket with which nobody goes on.
func (c *Carried) Close() {
	unix.Close(c.FD)
	if now, err := identify(c.Path); err == nil && now.device == c.Device && now.inode == c.Inode {
		unix.Unlink(c.Path)
	}
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

// Rest leaves who connects from now on in the kernel's queue, until resume is
// called, and waits that long at most until nobody is left but asker, nil for
// none: who has been accepted is answered, or not at all. Meanwhile it calls
// work again and again: who is answered may need the caller for that.
func (s *Server) Rest(asker *Asker, within time.Duration, work func()) (resume func()) {
	l := s.web.listener
	l.hold.mu.Lock()
	l.hold.over = make(chan struct{})
	l.hold.mu.Unlock()
	others := 0
	if asker != nil {
		others = 1
	}
	const pause = time.Millisecond
	for until := time.Now().Add(within); s.masters.size()+s.readers.size() > others && time.Now().Before(until); {
		work()
		time.Sleep(pause)
	}
	return func() {
		l.hold.mu.Lock()
		defer l.hold.mu.Unlock()
		close(l.hold.over)
		l.hold.over = nil
	}
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
