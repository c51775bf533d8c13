package control

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A sick is a set of pages that can fail.
type sick struct {
	health, readiness error
	asked             atomic.Int32
	long              int
}

func (s *sick) Metrics(m *Metrics) {
	s.asked.Add(1)
	m.Family("n", Gauge, "help")
	for i := range s.long + 1 {
		m.Number(float64(i), "long", strings.Repeat("x", 100))
	}
}

func (s *sick) Healthy() error { return s.health }
func (s *sick) Ready() error   { return s.readiness }

func serveWeb(t *testing.T, p Pages) *Web {
	t.Helper()
	w, err := OpenWeb(netip.MustParseAddrPort("127.0.0.1:0"), high, func(what string, err error) { t.Errorf("%s: %v", what, err) })
	if err != nil {
		t.Fatal(err)
	}
	w.server.http.ReadTimeout, w.server.http.WriteTimeout = patience, patience // its clients may be as late as the test
	w.Serve(p)
	t.Cleanup(w.Close)
	return w
}

func dialWeb(t *testing.T, w *Web) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", w.Local().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// visit is one request and its answer.
func visit(t *testing.T, w *Web, method, path string) (answer *http.Response, body string) {
	t.Helper()
	c := dialWeb(t, w)
	defer c.Close()
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\n\r\n", method, path)
	answer, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(text)
}

func TestPages(t *testing.T) {
	for _, c := range []struct {
		pages        *sick
		method, path string
		status       int
		kind, body   string
	}{
		{&sick{}, "GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8",
			"# HELP n help\n# TYPE n gauge\nn{long=\"" + strings.Repeat("x", 100) + "\"} 0\n"},
		{&sick{}, "HEAD", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8", ""},
		{&sick{}, "GET", "/metrics?x=y", 200, "", "-"},
		{&sick{}, "GET", "/healthz", 200, "text/plain; charset=utf-8", "ok\n"},
		{&sick{health: errors.New("ill")}, "GET", "/healthz", 503, "text/plain; charset=utf-8", "ill\n"},
		{&sick{health: errors.New("ill")}, "HEAD", "/healthz", 503, "", ""},
		{&sick{}, "GET", "/readyz", 200, "", "ok\n"},
		{&sick{readiness: errors.New("draining")}, "GET", "/readyz", 503, "", "draining\n"},
		{&sick{health: errors.New("ill")}, "GET", "/readyz", 200, "", "ok\n"},
		{&sick{}, "GET", "/", 404, "", "there are /metrics, /healthz and /readyz\n"},
		{&sick{}, "GET", "/metrics/", 404, "", "-"},
		{&sick{}, "POST", "/metrics", 405, "", ""},
		{&sick{}, "DELETE", "/", 405, "", ""},
	} {
		answer, body := visit(t, serveWeb(t, c.pages), c.method, c.path)
		if answer.StatusCode != c.status || c.body != "-" && body != c.body || c.kind != "" && answer.Header.Get("Content-Type") != c.kind {
			t.Errorf("%s %s is answered with %d %v %q", c.method, c.path, answer.StatusCode, answer.Header, body)
		}
	}
}

// TestManyScrapes: who asks without end does not make superd count without end.
func TestManyScrapes(t *testing.T) {
	p := &sick{}
	w := serveWeb(t, p)
	begun := time.Now()
	const n = 200
	for range n {
		visit(t, w, "GET", "/metrics")
	}
	if most := int32(time.Since(begun)/moment) + 1; p.asked.Load() > most {
		t.Errorf("%d of %d questions cost superd time", p.asked.Load(), n)
	}
	eventually(t, func() error { // and the numbers are not old
		before := p.asked.Load()
		if visit(t, w, "GET", "/metrics"); p.asked.Load() == before {
			return errors.New("they are never counted again")
		}
		return nil
	})
}

// TestSilentScrapers is TestSilentClients for the HTTP listener.
func TestSilentScrapers(t *testing.T) {
	w := serveWeb(t, &sick{long: 100_000})
	visit(t, w, "GET", "/healthz")
	files, routines := openFiles(t), runtime.NumGoroutine()
	var silent []net.Conn
	for i := range 200 {
		c := dialWeb(t, w)
		switch i % 3 {
		case 1:
			io.WriteString(c, "GET /metrics HTTP/1.1\r\nHo")
		case 2:
			io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n") // some 10 MB, which nobody reads
		}
		silent = append(silent, c)
		if i%10 == 0 {
			if answer, _ := visit(t, w, "GET", "/readyz"); answer.StatusCode != 200 {
				t.Fatalf("with %d silent clients the answer is %d", i, answer.StatusCode)
			}
		}
	}
	eventually(t, func() error {
		if n := openFiles(t) - len(silent); n > files+mostScrapers {
			return fmt.Errorf("%d descriptors for clients, %d are allowed", n-files, mostScrapers)
		}
		return nil
	})
	for _, c := range silent {
		c.Close()
	}
	descriptors(t, files)
	goroutines(t, routines)
}

func TestWebAddresses(t *testing.T) {
	first := serveWeb(t, &sick{})
	_, err := OpenWeb(first.Local(), high, nil)
	if want := fmt.Sprintf("cannot listen on %s: address already in use", first.Local()); err == nil || err.Error() != want || !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	six, err := OpenWeb(netip.MustParseAddrPort("[::1]:0"), high, nil)
	if err != nil {
		if os.Getenv("SUPERD_TEST_STRICT") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: this machine has no IPv6")
	}
	defer six.Close()
	if l := six.Local(); l.Addr() != netip.IPv6Loopback() || l.Port() == 0 {
		t.Errorf("it listens on %v", l)
	}
	six.server.http.ReadTimeout = patience
	six.Serve(&sick{})
	if answer, _ := visit(t, six, "GET", "/readyz"); answer.StatusCode != 200 {
		t.Errorf("the answer is %d", answer.StatusCode)
	}
}

func TestMetricsText(t *testing.T) {
	var m Metrics
	m.Family("superd_a_total", Counter, "One\nline with \\ in it.")
	m.Number(3)
	m.Number(1e9, "service", "x")
	m.Family("superd_b", Gauge, "b")
	m.Number(0.25, "service", "a\"b\\c\nd", "reason", "ü")
	m.Number(-1)
	m.Histogram("superd_c_seconds", "c")
	labels := []string{"service", "x", "spare", "spare"}[:2]
	m.Buckets([]float64{0.00005, 1, 3600}, []uint64{0, 2, 2, 5}, 12.5, labels...)
	const want = `# HELP superd_a_total One\nline with \\ in it.
# TYPE superd_a_total counter
superd_a_total 3
superd_a_total{service="x"} 1e+09
# HELP superd_b b
# TYPE superd_b gauge
superd_b{service="a\"b\\c\nd",reason="ü"} 0.25
superd_b -1
# HELP superd_c_seconds c
# TYPE superd_c_seconds histogram
superd_c_seconds_bucket{service="x",le="5e-05"} 0
superd_c_seconds_bucket{service="x",le="1"} 2
superd_c_seconds_bucket{service="x",le="3600"} 2
superd_c_seconds_bucket{service="x",le="+Inf"} 5
superd_c_seconds_sum{service="x"} 12.5
superd_c_seconds_count{service="x"} 5
`
	if got := m.text.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if labels[:4][2] != "spare" {
		t.Error("the caller's labels were written over")
	}
}

func BenchmarkMetrics(b *testing.B) {
	for b.Loop() {
		var m Metrics
		for range 100 {
			m.Histogram("superd_c_seconds", "c")
			m.Buckets([]float64{0.00005, 1, 3600}, []uint64{0, 2, 2, 5}, 12.5, "service", "x")
		}
	}
}
