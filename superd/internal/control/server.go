package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What one client may take, of time and of what it sends.
const (
	longestRequest = 5 * time.Second // from the connection to its request's last byte
	longestAnswer  = 20 * time.Second
	largestHeader  = 8 << 10
	largestBody    = 64 << 10
)

// How many clients there may be. Those who may only read have places of their
// own, so that they cannot keep those out who may give orders.
const (
	mostMasters = 16
	mostReaders = 8
)

// MostDescriptors is how many descriptors the administrative socket can have
// at a time.
func MostDescriptors() int { return 1 + allowed(mostMasters) + allowed(mostReaders) }

// allowed is how many of so many clients there may be: fewer where the limit of
// open files is low.
func allowed(most int) int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return most
	}
	return int(max(1, min(limit.Cur/64, uint64(most))))
}

// A Server is the administrative socket.
type Server struct {
	path    string
	own     identity // of the file at path
	uid     uint32   // who may give orders beside root
	filters int      // of system calls, on superd itself
	masters crowd
	readers crowd
	web     *webServer
}

// Options say where and how the administrative socket is opened.
type Options struct {
	Path          string
	Rights        Rights                       // of the socket; who may write there may ask
	MakeDirectory bool                         // where the directory of Path is missing
	Above         func(fd int) (int, error)    // moves a descriptor out of accept's way
	Complain      func(what string, err error) // hears of what is wrong in superd itself
}

// Rights are those of the socket's file.
type Rights struct {
	Mode  fs.FileMode
	Group int // its number; -1 to leave it as it is
}

// Open opens the administrative socket. Clients wait until Serve. Close frees
// it and removes the file.
func Open(o Options) (*Server, error) {
	s, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("cannot open the administrative socket %s: %w", o.Path, err)
	}
	return s, nil
}

func open(o Options) (*Server, error) {
	if o.MakeDirectory {
		if err := makeDirectory(o.Path); err != nil {
			return nil, err
		}
	}
	fd, err := openSocket(o.Path, o.Rights)
	if err != nil {
		return nil, err
	}
	return newServer(fd, o)
}

// newServer takes fd over, the socket at the options' path.
func newServer(fd int, o Options) (*Server, error) {
	s := &Server{path: o.Path, uid: uint32(os.Geteuid()), filters: ownFilters(),
		masters: crowd{most: allowed(mostMasters)}, readers: crowd{most: allowed(mostReaders)}}
	s.own, _ = identify(o.Path)
	l, err := newListener(fd, o.Above, s.admit)
	if err != nil {
		s.removeFile()
		return nil, err
	}
	s.web = newWebServer(l, o.Complain, &s.masters, &s.readers)
	return s, nil
}

// SetRights changes the rights of the socket, unless its path leads to another
// file by now.
func (s *Server) SetRights(r Rights) error {
	now, err := identify(s.path)
	switch {
	case err != nil:
		return err
	case !now.same(s.own):
		return errors.New("the socket is not there any more")
	case fs.FileMode(now.mode).Perm() == r.Mode.Perm() && (r.Group < 0 || uint32(r.Group) == now.group):
		return nil
	}
	return r.apply(s.path)
}

// Reachable tells whether the socket's path leads to it still.
func (s *Server) Reachable() bool {
	now, err := identify(s.path)
	return err == nil && now.same(s.own)
}

// Path is where the socket is.
func (s *Server) Path() string { return s.path }

// admit counts a client among its kind.
func (s *Server) admit(c *connection) {
	if s.mayOrder(c.peer) {
		s.masters.enter(c)
	} else {
		s.readers.enter(c)
	}
}

// mayOrder: reading may be opened to a group by the socket's mode, writing not.
func (s *Server) mayOrder(p Peer) bool { return p.UID == 0 || p.UID == s.uid }

// Serve answers clients until Close.
func (s *Server) Serve(d Daemon) { s.web.serve(&desk{server: s, daemon: d}) }

// Close ends all conversations; those that are being answered have a moment.
// The file is removed, unless it is another's by now.
func (s *Server) Close() {
	s.removeFile()
	s.web.close()
}

// Retire is Close for a superd that goes on elsewhere: it does not wait for those
// that are being answered, who have longer.
func (s *Server) Retire() {
	s.removeFile()
	s.web.retire()
}

func (s *Server) removeFile() {
	if s.Reachable() {
		os.Remove(s.path)
	}
}

// A webServer answers HTTP on one listener.
type webServer struct {
	http     http.Server
	listener *listener
	crowds   []*crowd // of its clients
	serving  bool
	done     chan struct{} // closed when nobody accepts any more
}

func newWebServer(l *listener, complain func(what string, err error), crowds ...*crowd) *webServer {
	w := &webServer{listener: l, crowds: crowds, done: make(chan struct{})}
	w.http = http.Server{
		ReadTimeout:    longestRequest,
		WriteTimeout:   longestAnswer,
		MaxHeaderBytes: largestHeader,
		ErrorLog:       log.New(panics(complain), "", 0),
		ConnContext:    withConnection,
	}
	w.http.SetKeepAlivesEnabled(false) // each connection is one request, and easy to bound
	return w
}

// connectionKey finds the connection in the context of its request.
type connectionKey struct{}

func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// panics is where net/http says what went wrong. Most of that is clients'
// doing; what is left is a mistake in superd.
type panics func(what string, err error)

func (p panics) Write(line []byte) (int, error) {
	if text := string(line); strings.Contains(text, "panic") {
		p("cannot answer a request", errors.New(strings.TrimSpace(text)))
	}
	return len(line), nil
}

var _ io.Writer = panics(nil)

// serve starts to answer with h.
func (w *webServer) serve(h http.Handler) {
	w.serving = true
	w.http.Handler = http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
			c.busy.Store(true)
		}
		h.ServeHTTP(a, r)
	})
	go func() { // ends with close
		defer close(w.done)
		w.http.Serve(w.listener)
	}()
}

// lastMoment is how long clients have for their answers at superd's end.
const lastMoment = time.Second

func (w *webServer) close() { w.closeWithin(lastMoment) }

func (w *webServer) retire() {
	w.listener.Close()
	go w.closeWithin(longestAnswer) // ends with its clients
}

func (w *webServer) closeWithin(limit time.Duration) {
	w.listener.Close()
	if !w.serving {
		return
	}
	<-w.done
	for _, c := range w.crowds {
		c.dismissSilent()
	}
	soon, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if w.http.Shutdown(soon) != nil {
		w.http.Close()
	}
}
