package control

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Pages is what stands behind the HTTP listener. Its methods are called from
// several goroutines.
type Pages interface {
	Metrics(*Metrics)
	Healthy() error // why superd does not do its work; nil where it does
	Ready() error   // why it is not ready for connections
}

// mostScrapers is how many clients there may be.
const mostScrapers = 16

// Web is the HTTP listener for metrics and health.
type Web struct {
	at     netip.AddrPort // as it was asked for
	local  netip.AddrPort
	crowd  crowd
	server *webServer
}

// MostWebDescriptors is how many descriptors one HTTP listener can have at a
// time.
func MostWebDescriptors() int { return 1 + allowed(mostScrapers) }

// OpenWeb opens the HTTP listener. Clients wait until Serve; Close frees it.
// Above and complain are as in [Options].
func OpenWeb(at netip.AddrPort, above func(fd int) (int, error), complain func(what string, err error)) (*Web, error) {
	fd, err := openTCP(at)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", at, err)
	}
	return newWeb(fd, at, above, complain)
}

// newWeb takes fd over, a socket that listens on at.
func newWeb(fd int, at netip.AddrPort, above func(fd int) (int, error), complain func(what string, err error)) (*Web, error) {
	w := &Web{at: at, local: boundTo(fd, at), crowd: crowd{most: allowed(mostScrapers)}}
	l, err := newListener(fd, above, w.crowd.enter)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", at, err)
	}
	w.server = newWebServer(l, complain, &w.crowd)
	return w, nil
}

func openTCP(at netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err = bindTCP(fd, at); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// backlog is how many clients the kernel queues.
const backlog = 128

func bindTCP(fd int, at netip.AddrPort) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	var address unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(at.Addr().AsSlice()), Port: int(at.Port())}
	if at.Addr().Is6() {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
		address = &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())}
	}
	if err := unix.Bind(fd, address); err != nil {
		return err
	}
	return unix.Listen(fd, backlog)
}

// boundTo is at with the port that the kernel chose.
func boundTo(fd int, at netip.AddrPort) netip.AddrPort {
	own, _ := unix.Getsockname(fd)
	switch own := own.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(at.Addr(), uint16(own.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(at.Addr(), uint16(own.Port))
	}
	return at
}

// Local is the address that is listened on.
func (w *Web) Local() netip.AddrPort { return w.local }

// At is the address that was asked for: of its port the kernel may have chosen
// another.
func (w *Web) At() netip.AddrPort { return w.at }

// Serve answers clients until Close.
func (w *Web) Serve(p Pages) { w.server.serve(newPages(p)) }

// Close ends all conversations; those that are being answered have a moment.
func (w *Web) Close() { w.server.close() }

// Retire is Close for a superd that goes on elsewhere: it does not wait for those
// that are being answered, who have longer.
func (w *Web) Retire() { w.server.retire() }

// pages are the answers. What costs superd time is made anew at most once in a
// moment: who asks without end gets no more of it than who asks often.
type pages struct {
	metrics, healthy memo
	ready            func() error
}

func newPages(p Pages) http.Handler {
	s := &pages{ready: p.Ready}
	s.metrics.make = func() page {
		var m Metrics
		p.Metrics(&m)
		return page{http.StatusOK, m.text.Bytes()}
	}
	s.healthy.make = func() page { return verdict(p.Healthy()) }
	return s
}

// A page is an answer.
type page struct {
	status int
	text   []byte
}

func verdict(err error) page {
	if err != nil {
		return page{http.StatusServiceUnavailable, []byte(err.Error() + "\n")}
	}
	return page{http.StatusOK, []byte("ok\n")}
}

// moment is how long an answer holds.
const moment = 100 * time.Millisecond

// A memo is an answer that holds for a moment.
type memo struct {
	make func() page

	mu   sync.Mutex
	made time.Time // guarded by mu
	last page      // guarded by mu; never changed
}

func (m *memo) page() page {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made.IsZero() || time.Since(m.made) > moment {
		m.last = m.make()
		m.made = time.Now()
	}
	return m.last
}

// metricsType is the type of the text form.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

// ServeHTTP implements http.Handler.
func (s *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	var p page
	switch r.URL.Path {
	case "/metrics":
		w.Header().Set("Content-Type", metricsType)
		p = s.metrics.page()
	case "/healthz":
		p = s.healthy.page()
	case "/readyz":
		p = verdict(s.ready())
	default:
		p = page{http.StatusNotFound, []byte("there are /metrics, /healthz and /readyz\n")}
	}
	w.WriteHeader(p.status)
	w.Write(p.text) // a client who has gone needs no answer
}
