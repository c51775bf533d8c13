package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait; it decides nothing about speed.
const patience = time.Minute

// A fake is a Daemon that notes what it is told.
type fake struct {
	mu      sync.Mutex
	told    []string // guarded by mu
	err     error    // of all orders
	listing chan struct{}
	rows    int
}

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, fmt.Sprintf(format, args...))
}

func (f *fake) heard() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.told
	f.told = nil
	return list
}

func (f *fake) Status() Status { return Status{Version: "1", State: "serving"} }

func (f *fake) Connections(s Selection) []Connection {
	f.note("connections %q %q %v", s.ID, s.Service, s.Source)
	if f.listing != nil {
		<-f.listing
	}
	return make([]Connection, f.rows)
}

func (f *fake) Blocks() []Block { return []Block{{Source: "10.0.0.0/8"}} }

func (f *fake) Ordered(o Order) {
	f.note("ordered %s %q by %d %v", o.Verb, o.What, o.From.UID, o.From.PID == os.Getpid())
}

func (f *fake) Reload() (Report, error)          { return Report{Generation: 2}, f.err }
func (f *fake) Upgrade(*Asker) (Upgraded, error) { return Upgraded{Version: "2"}, f.err }
func (f *fake) Stop(now bool)                    { f.note("stop %v", now) }

func (f *fake) Drain(service string, limit *time.Duration) (Drained, error) {
	if limit == nil {
		f.note("drain %q", service)
	} else {
		f.note("drain %q %v", service, *limit)
	}
	return Drained{Live: 3}, f.err
}

func (f *fake) Kill(s Selection) (Killed, error) {
	f.note("kill %q %q %v", s.ID, s.Service, s.Source)
	return Killed{2}, f.err
}

func (f *fake) Block(p Source, length time.Duration) error {
	f.note("block %v %v", p, length)
	return f.err
}

func (f *fake) Unblock(p Source) (Unblocked, error) {
	f.note("unblock %v", p)
	return Unblocked{1}, f.err
}

func (f *fake) Explain(service string, who Applicant) (Explanation, error) {
	f.note("explain %q %+v", service, who)
	return Explanation{Verdict: "enters"}, f.err
}

// high moves a descriptor as the daemon does.
func high(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 64)
	unix.Close(fd)
	return n, err
}

func options(t *testing.T, path string) Options {
	return Options{Path: path, Rights: Rights{0o600, -1}, Above: high, Complain: func(what string, err error) { t.Errorf("%s: %v", what, err) }}
}

// serve is a server that has a fake behind it, at a path of its own.
func serve(t *testing.T, f *fake) *Server {
	t.Helper()
	s := patientServer(t, options(t, filepath.Join(t.TempDir(), "socket")))
	s.Serve(f)
	t.Cleanup(s.Close)
	return s
}

// patientServer is one whose clients may be as late as a test.
func patientServer(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	s.web.http.ReadTimeout, s.web.http.WriteTimeout = patience, patience
	return s
}

func dial(t *testing.T, s *Server) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", s.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.UnixConn)
}

// say sends a request as it is and returns the answer's status and body.
func say(t *testing.T, s *Server, request string) (status int, body string) {
	t.Helper()
	c := dial(t, s)
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	answer, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%.100q is answered with %v", request, err)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(text))
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: superd\r\n\r\n" }

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: superd\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// TestConversation is all that can be said, and what becomes of it.
func TestConversation(t *testing.T) {
	f := &fake{}
	s := serve(t, f)
	ordered := func(verb, what string) string {
		return fmt.Sprintf("ordered %s %q by %d true", verb, what, os.Getuid())
	}
	for _, c := range []struct {
		request string
		status  int
		body    string // "" for any
		told    []string
	}{
		{get("/v1/status"), 200, "", nil},
		{get("/v1/connections"), 200, "[]", []string{`connections "" "" invalid Prefix`}},
		{get("/v1/connections?service=a&source=10.1.2.3/8&id=x-1"), 200, "[]", []string{`connections "x-1" "a" 10.0.0.0/8`}},
		{get("/v1/connections?source=nowhere"), 400, `{"error":"\"nowhere\" is neither an address, nor a network such as 10.0.0.0/8, nor a user such as uid:1000"}`, nil},
		{get("/v1/connections?source=uid:1000"), 200, "[]", []string{`connections "" "" uid:1000`}},
		{get("/v1/blocks"), 200, `[{"source":"10.0.0.0/8"}]`, nil},
		{get("/v1/explain?service=a&address=10.0.0.1"), 200, "",
			[]string{`explain "a" {Addr:10.0.0.1 Port:0 Unix:false UID:0 GID:0 Groups:[] Datagrams:false}`}},
		{get("/v1/explain?service=a&address=::1&port=7&datagrams=true"), 200, "",
			[]string{`explain "a" {Addr:::1 Port:7 Unix:false UID:0 GID:0 Groups:[] Datagrams:true}`}},
		{get("/v1/explain?service=a&uid=0&gid=1&gid=4"), 200, "",
			[]string{`explain "a" {Addr:invalid IP Port:0 Unix:true UID:0 GID:1 Groups:[4] Datagrams:false}`}},
		{get("/v1/explain?service=a"), 200, "", []string{`explain "a" {Addr:invalid IP Port:0 Unix:false UID:0 GID:0 Groups:[] Datagrams:false}`}},
		{get("/v1/explain?address=10.0.0.1"), 400, `{"error":"explain needs a service"}`, nil},
		{get("/v1/explain?service=a&address=here"), 400, `{"error":"\"here\" is not an address"}`, nil},
		{get("/v1/explain?service=a&address=10.0.0.1&port=65536"), 400, `{"error":"\"65536\" is not a number of 16 bits"}`, nil},
		{get("/v1/explain?service=a&uid=0"), 400, `{"error":"a process has a uid, a gid or several, and no address"}`, nil},
		{get("/v1/explain?service=a&uid=0&gid=0&address=10.0.0.1"), 400, "", nil},
		{get("/v1/explain?service=a&uid=-1&gid=0"), 400, "", nil},
		{get("/v1/explain?service=a&uid=0&gid=x"), 400, "", nil},
		{post("/v1/explain?service=a", ""), 405, "", nil},
		{post("/v1/reload", ""), 200, `{"generation":2,"added":null,"changed":null,"removed":null,"resumed":null,"settings":null,"warnings":null}`, []string{ordered("reload", "")}},
		{post("/v1/upgrade", "{}"), 200, `{"version":"2","before":"","generation":0,"connections":0,"paused_ms":0}`, []string{ordered("upgrade", "")}},
		{post("/v1/drain", ""), 200, `{"services":null,"live":3,"limit_ms":0}`, []string{ordered("drain", ""), `drain ""`}},
		{post("/v1/drain", `{"service": "web", "limit": "1m30s"}`), 200, "", []string{ordered("drain", "web"), `drain "web" 1m30s`}},
		{post("/v1/drain", `{"limit": "0"}`), 200, "", []string{ordered("drain", ""), `drain "" 0s`}},
		{post("/v1/drain", `{"limit": "-1s"}`), 400, `{"error":"limit is \"-1s\", and must be a duration such as 30s or 1h"}`, nil},
		{post("/v1/drain", `{"limit": "soon"}`), 400, "", nil},
		{post("/v1/drain", `{"limit": 30}`), 400, "", nil},
		{post("/v1/drain", `{"servcie": "web"}`), 400, `{"error":"drain is not asked for like that: json: unknown field \"servcie\""}`, nil},
		{post("/v1/drain", `{} {}`), 400, `{"error":"drain is not asked for like that: there is more than one value"}`, nil},
		{post("/v1/drain", `[]`), 400, "", nil},
		{post("/v1/drain", `{"service": "`), 400, "", nil},
		{post("/v1/drain", `{"service": "`+strings.Repeat("x", largestBody)+`"}`), 413, "", nil},
		{post("/v1/stop", ""), 200, "{}", []string{ordered("stop", ""), "stop false"}},
		{post("/v1/stop", `{"now": true}`), 200, "{}", []string{ordered("stop", "now"), "stop true"}},
		{post("/v1/stop", `{"now": "yes"}`), 400, "", nil},
		{post("/v1/kill", `{"id": "x-1"}`), 200, `{"killed":2}`, []string{ordered("kill", "connection x-1"), `kill "x-1" "" invalid Prefix`}},
		{post("/v1/kill", `{"service": "a", "source": "::ffff:10.0.0.1"}`), 200, "",
			[]string{ordered("kill", "service a, source 10.0.0.1/32"), `kill "" "a" 10.0.0.1/32`}},
		{post("/v1/kill", ""), 400, `{"error":"kill needs an id, a service or a source"}`, nil},
		{post("/v1/kill", `{"source": "fe80::1%eth0"}`), 400, "", nil},
		{post("/v1/block", `{"network": "10.0.0.0/8", "for": "1h"}`), 200, "{}", []string{ordered("block", "10.0.0.0/8 for 1h"), "block 10.0.0.0/8 1h0m0s"}},
		{post("/v1/block", `{"network": "2001:db8::1"}`), 200, "{}", []string{ordered("block", "2001:db8::1/128"), "block 2001:db8::1/128 0s"}},
		{post("/v1/block", `{"network": "10.0.0.0/33"}`), 400, "", nil},
		{post("/v1/block", `{"network": "uid:4294967295"}`), 200, "{}", []string{ordered("block", "uid:4294967295"), "block uid:4294967295 0s"}},
		{post("/v1/block", `{"network": "uid:4294967296"}`), 400, "", nil},
		{post("/v1/block", `{"network": "uid:"}`), 400, "", nil},
		{post("/v1/block", ""), 400, "", nil},
		{post("/v1/unblock", `{"network": "10.0.0.0/8"}`), 200, `{"lifted":1}`, []string{ordered("unblock", "10.0.0.0/8"), "unblock 10.0.0.0/8"}},
		{post("/v1/unblock", `{"network": "uid:0"}`), 200, "", []string{ordered("unblock", "uid:0"), "unblock uid:0"}},
		{get("/v1/stop"), 405, `{"error":"/v1/stop is asked for with POST"}`, nil},
		{post("/v1/status", ""), 405, "", nil},
		{"HEAD /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 405, "", nil},
		{get("/"), 404, `{"error":"there is no / here; superd(8) lists what there is"}`, nil},
		{get("/v1/"), 404, "", nil},
		{get("/v1/status/"), 404, "", nil},
		{get("/v2/status"), 404, "", nil},
		{get("/v1/../v1/status"), 404, "", nil},
		{"GET /v1/status HTTP/1.0\r\n\r\n", 200, "", nil},
		{"nonsense\r\n\r\n", 400, "", nil},
		{"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 3*largestHeader) + "\r\n\r\n", 431, "", nil},
	} {
		name := c.request[:min(len(c.request), 80)]
		status, body := say(t, s, c.request)
		if status != c.status || c.body != "" && body != c.body {
			t.Errorf("%q is answered with %d %s", name, status, body)
		}
		if got := f.heard(); !slices.Equal(got, c.told) {
			t.Errorf("%q: the daemon heard %q, not %q", name, got, c.told)
		}
	}
}

func TestWhatTheDaemonCannotDo(t *testing.T) {
	f := &fake{}
	s := serve(t, f)
	for want, err := range map[int]error{
		404: Unknown("there is no service x"),
		501: Unsupported("not yet"),
		409: errors.New("superd.yaml:1:1: bad\nsuperd.yaml:2:1: worse"),
	} {
		f.err = err
		for _, verb := range []string{"reload", "upgrade", "drain"} {
			status, body := say(t, s, post("/v1/"+verb, ""))
			var p problem
			if json.Unmarshal([]byte(body), &p); status != want || p.Error != err.Error() {
				t.Errorf("%s is answered with %d %s", verb, status, body)
			}
		}
	}
}

// TestWhoMayOrder: those who may only read are told so, and nothing happens.
func TestWhoMayOrder(t *testing.T) {
	f := &fake{}
	s := serve(t, f)
	for uid, may := range map[uint32]bool{0: true, s.uid: true, 4711: false} {
		if s.mayOrder(Peer{UID: uid}) != may {
			t.Errorf("user %d may give orders: %v", uid, !may)
		}
	}
	d := &desk{server: s, daemon: f}
	for _, r := range routes {
		c := &connection{peer: Peer{UID: 4711}}
		a := request(t, c, r.method, root+r.name+"?service=x", "")
		d.ServeHTTP(a, a.request)
		if read := r.method == http.MethodGet; read != (a.status == 200) || !read && a.status != 403 {
			t.Errorf("%s for who may read is answered with %d %s", r.name, a.status, &a.body)
		}
	}
	f.heard()
	for _, told := range f.heard() {
		t.Errorf("the daemon heard %s", told)
	}
}

// A recorder is one request and its answer, without a network.
type recorder struct {
	request *http.Request
	header  http.Header
	status  int
	body    strings.Builder
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func request(t testing.TB, c *connection, method, path, body string) *recorder {
	t.Helper()
	r, err := http.NewRequestWithContext(withConnection(t.Context(), c), method, "http://superd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return &recorder{request: r, header: http.Header{}}
}

// FuzzOrders: whatever is sent, the answer is JSON with a sensible status.
func FuzzOrders(f *testing.F) {
	for _, body := range []string{"", "{}", "[]", `{"service":"x","limit":"1h"}`, `{"id":"x","source":"::/0"}`,
		`{"network":"10.0.0.0/8","for":"1h"}`, `{"now":true}`, "\x00", `{"network":{}}`, strings.Repeat("[", 1000)} {
		f.Add(body)
	}
	d := &desk{server: &Server{}, daemon: &fake{}}
	f.Fuzz(func(t *testing.T, body string) {
		for _, r := range routes {
			a := request(t, &connection{}, r.method, root+r.name, body)
			d.ServeHTTP(a, a.request)
			if !json.Valid([]byte(a.body.String())) || !slices.Contains([]int{200, 400, 413}, a.status) {
				t.Errorf("%s of %q is answered with %d %s", r.name, body, a.status, &a.body)
			}
		}
	})
}

// goroutines waits until there are no more than before.
func goroutines(t *testing.T, before int) {
	t.Helper()
	eventually(t, func() error {
		if n := runtime.NumGoroutine(); n > before {
			stacks := make([]byte, 1<<20)
			return fmt.Errorf("%d goroutines, %d before\n%s", n, before, stacks[:runtime.Stack(stacks, true)])
		}
		return nil
	})
}

// descriptors waits until there are no more than before.
func descriptors(t *testing.T, before int) {
	t.Helper()
	eventually(t, func() error {
		if n := openFiles(t); n > before {
			return fmt.Errorf("%d descriptors, %d before", n, before)
		}
		return nil
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func eventually(t *testing.T, ask func() error) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

// TestSilentClients: however many connect and say nothing, or half of
// something, or do not read, who has a question is answered; and when they have
// gone, nothing of them is left.
func TestSilentClients(t *testing.T) {
	f := &fake{rows: 100_000}
	s := serve(t, f)
	say(t, s, get("/v1/status"))
	files, routines := openFiles(t), runtime.NumGoroutine()
	var silent []net.Conn
	for i := range 300 {
		c := dial(t, s)
		switch i % 3 {
		case 1:
			io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost")
		case 2:
			c.SetReadBuffer(1)
			io.WriteString(c, get("/v1/connections")) // some 20 MB, which nobody reads
		}
		silent = append(silent, c)
		if i%10 == 0 {
			if status, _ := say(t, s, get("/v1/status")); status != 200 {
				t.Fatalf("with %d silent clients the answer is %d", i, status)
			}
		}
	}
	eventually(t, func() error {
		if n := openFiles(t) - len(silent); n > files+mostMasters {
			return fmt.Errorf("%d descriptors for clients, %d are allowed", n-files, mostMasters)
		}
		return nil
	})
	for _, c := range silent {
		c.Close()
	}
	descriptors(t, files)
	goroutines(t, routines)
}

// TestSlowClient: who does not finish a request is cut off in time.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	s, err := Open(options(t, filepath.Join(t.TempDir(), "socket")))
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(&fake{})
	defer s.Close()
	begun := time.Now()
	c := dial(t, s)
	io.WriteString(c, "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{") // if it is not too late for that already
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	if took := time.Since(begun); took < longestRequest/2 {
		t.Errorf("it was cut off after %v", took)
	}
}

// TestCloseLeavesNothing: also clients who are connected do not keep superd.
func TestCloseLeavesNothing(t *testing.T) {
	files, routines := openFiles(t), runtime.NumGoroutine()
	for range 3 {
		s := patientServer(t, options(t, filepath.Join(t.TempDir(), "socket")))
		s.Serve(&fake{})
		say(t, s, get("/v1/status"))
		c := dial(t, s)
		io.WriteString(c, "GET /v1/sta")
		s.Close()
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Error(err)
		}
		c.Close()
		if _, err := os.Lstat(s.Path()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file is left: %v", err)
		}
	}
	descriptors(t, files)
	goroutines(t, routines)
}

// TestConnectionsStayOutOfTheWindow: low numbers are for programs.
func TestConnectionsStayOutOfTheWindow(t *testing.T) {
	f := &fake{listing: make(chan struct{})}
	s := serve(t, f)
	before := lowFiles(t)
	done := make(chan struct{})
	for range 4 {
		go func() { // ends with its answer
			say(t, s, get("/v1/connections"))
			done <- struct{}{}
		}()
	}
	eventually(t, func() error {
		s.masters.mu.Lock()
		defer s.masters.mu.Unlock()
		if n := len(s.masters.here); n != 4 {
			return fmt.Errorf("%d of 4 clients are there", n)
		}
		return nil
	})
	// The clients' own ends are low, as nobody moves them.
	if after := lowFiles(t); after != before+4 {
		t.Errorf("%d of the server's descriptors are low", after-before-4)
	}
	close(f.listing)
	for range 4 {
		<-done
	}
}

func lowFiles(t *testing.T) (n int) {
	t.Helper()
	for fd := range 64 {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			n++
		}
	}
	return n
}

func TestCrowd(t *testing.T) {
	for _, c := range []struct {
		name string
		busy string // of those who are there, oldest first
		out  int
	}{
		{"the oldest of the silent", "....", 0},
		{"the oldest silent one behind a busy one", "b..b", 1},
		{"the last silent one", "bbb.", 3},
		{"the oldest where all are busy", "bbbb", 0},
	} {
		all := crowd{most: len(c.busy)}
		var list []*connection
		for _, b := range c.busy + "." {
			n := &connection{file: os.NewFile(^uintptr(0), "none")}
			n.busy.Store(b == 'b')
			list = append(list, n)
		}
		for _, n := range list {
			all.enter(n)
		}
		want := slices.Delete(slices.Clone(list), c.out, c.out+1)
		if !slices.Equal(all.here, want) {
			t.Errorf("%s: it was another one", c.name)
		}
		for _, n := range want {
			all.leave(n)
			all.leave(n)
		}
		if len(all.here) != 0 {
			t.Errorf("%s: %d are left", c.name, len(all.here))
		}
	}
}

// TestPanic: a mistake in superd costs one answer, and is told.
func TestPanic(t *testing.T) {
	told := make(chan error, 10)
	o := options(t, filepath.Join(t.TempDir(), "socket"))
	o.Complain = func(_ string, err error) { told <- err }
	s := patientServer(t, o)
	defer s.Close()
	s.Serve(broken{&fake{}})
	c := dial(t, s)
	io.WriteString(c, get("/v1/blocks"))
	io.ReadAll(c)
	if err := <-told; !strings.Contains(err.Error(), "a mistake") {
		t.Errorf("it is told as %v", err)
	}
	for _, bad := range []string{"\r\n\r\n", "GET /v1/connections?a;b HTTP/1.1\r\nHost: x\r\n\r\n"} {
		say(t, s, bad) // is the client's doing
	}
	if status, _ := say(t, s, get("/v1/status")); status != 200 || len(told) > 0 {
		t.Errorf("then the answer is %d; %d complaints", status, len(told))
	}
}

type broken struct{ *fake }

func (broken) Blocks() []Block { panic("a mistake") }

// What a client asks is what the daemon hears.
func TestApplicantsKeepTheirShape(t *testing.T) {
	for _, a := range []Applicant{
		{},
		{Addr: netip.MustParseAddr("10.0.0.1")},
		{Addr: netip.MustParseAddr("fe80::1%eth0"), Port: 65535, Datagrams: true},
		{Unix: true, Groups: []uint32{}},
		{Unix: true, UID: 1<<32 - 2, GID: 7, Groups: []uint32{4, 0}},
	} {
		if got, err := applicant(a.Query("x")); err != nil || fmt.Sprint(got) != fmt.Sprint(a) {
			t.Errorf("%+v becomes %+v, %v", a, got, err)
		}
	}
}
