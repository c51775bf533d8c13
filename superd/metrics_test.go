package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What superd measures, and whether it is well.

// A watched is a superd that can be asked over HTTP.
type watched struct {
	asked
	web string
}

func startWatched(t testing.TB, yaml string) watched {
	t.Helper()
	a := startAsked(t, "http: {listen: '127.0.0.1:0'}\n"+yaml)
	return watched{a, a.await(func(r record) bool { return r.is("http") }).text("local")}
}

// get asks for a page. The client keeps nothing open.
func (w watched) get(path string) (status int, body string) {
	w.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	answer, err := client.Get("http://" + w.web + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// page is a page in one line.
func (w watched) page(path string) string {
	w.t.Helper()
	status, body := w.get(path)
	return fmt.Sprint(status, " ", strings.TrimSpace(body))
}

// A sample is one number of /metrics, without its labels' values.
type sample struct {
	family, kind string
	labels       []string
}

var sampleLine = regexp.MustCompile(`^([a-z_]+?)(?:\{([^}]*)\})? ([0-9.e+-]+)$`)

// metrics reads /metrics, and checks its form: each name is described once,
// before its numbers, and no number is there twice.
func (w watched) metrics() (values map[string]float64, families map[string]*sample) {
	w.t.Helper()
	status, text := w.get("/metrics")
	if status != 200 {
		w.t.Fatalf("the status is %d", status)
	}
	values, families = map[string]float64{}, map[string]*sample{}
	current, helped := &sample{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		words := strings.SplitN(line, " ", 4)
		m := sampleLine.FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(line, "# HELP ") && families[words[2]] == nil && len(words) == 4:
			helped = words[2]
		case strings.HasPrefix(line, "# TYPE ") && words[2] == helped:
			current = &sample{family: helped, kind: words[3]}
			families[helped] = current
		case m != nil && (m[1] == current.family || current.kind == "histogram" && strings.HasPrefix(m[1], current.family+"_")):
			if _, twice := values[m[1]+"{"+m[2]+"}"]; twice {
				w.t.Errorf("it is there twice: %s", line)
			}
			values[m[1]+"{"+m[2]+"}"], _ = strconv.ParseFloat(m[3], 64)
			current.note(m[2])
		default:
			w.t.Errorf("this line is out of place: %s", line)
		}
	}
	return values, families
}

// note keeps the names of labels.
func (s *sample) note(labels string) {
	for _, l := range strings.Split(labels, ",") {
		if name, _, is := strings.Cut(l, "="); is && name != "le" && !slices.Contains(s.labels, name) {
			s.labels = append(s.labels, name)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	w := startWatched(t, `
services:
  cat:    {listen: "127.0.0.1:0", run: /bin/cat, max: 20}
  fails:  {listen: "127.0.0.1:0", `+shell("echo one >&2; echo two >&2; exit 3")+`}
  absent: {listen: "127.0.0.1:0", run: /nowhere/none}
`)
	live := w.held("cat")
	for range 3 {
		w.ask("cat", "hello\n")
		w.ask("fails", "")
		w.ask("absent", "")
	}
	w.exited("cat", 3)
	w.exited("fails", 3)
	w.refused("absent")
	var values map[string]float64
	eventually(t, func() error { // an answer holds for a moment
		if values, _ = w.metrics(); values[`superd_connections_total{service="absent",result="refused"}`] != 3 {
			return fmt.Errorf("%v", values)
		}
		return nil
	})
	for name, want := range map[string]float64{
		`superd_ready{}`:                                                    1,
		`superd_config_generation{}`:                                        1,
		`superd_config_last_reload_successful{}`:                            1,
		`superd_blocks{}`:                                                   0,
		`superd_service_state{service="cat",state="ready"}`:                 1,
		`superd_service_state{service="cat",state="draining"}`:              0,
		`superd_connections_live{service="cat"}`:                            1,
		`superd_connections_max{service="cat"}`:                             20,
		`superd_connections_accepted_total{service="cat"}`:                  4,
		`superd_connections_total{service="cat",result="ok"}`:               3,
		`superd_connections_total{service="fails",result="failed"}`:         3,
		`superd_connections_total{service="fails",result="ok"}`:             0,
		`superd_connections_refused_total{service="absent",reason="spawn"}`: 3,
		`superd_connections_refused_total{service="cat",reason="limit"}`:    0,
		`superd_received_bytes_total{service="cat"}`:                        18,
		`superd_sent_bytes_total{service="cat"}`:                            18,
		`superd_stderr_lines_total{service="fails"}`:                        6,
		`superd_spawn_seconds_count{service="cat"}`:                         4,
		`superd_spawn_seconds_bucket{service="cat",le="+Inf"}`:              4,
		`superd_session_seconds_count{service="cat"}`:                       3,
		`superd_session_seconds_bucket{service="cat",le="3600"}`:            3,
		`superd_queue_wait_seconds_count{service="cat"}`:                    0,
	} {
		if got, is := values[name]; !is || got != want {
			t.Errorf("%s is %v (%v), not %v", name, got, is, want)
		}
	}
	for _, name := range []string{
		`superd_spawn_seconds_sum{service="cat"}`, `superd_session_seconds_sum{service="cat"}`, `process_open_fds{}`, `superd_connections_limit{}`,
		`process_resident_memory_bytes{}`, `process_cpu_seconds_total{}`, `process_max_fds{}`, `go_goroutines{}`,
	} {
		if values[name] <= 0 {
			t.Errorf("%s is %v", name, values[name])
		}
	}
	age := time.Since(time.UnixMilli(int64(values[`process_start_time_seconds{}`] * 1000)))
	if age < 0 || age > time.Since(begin)+2*time.Second { // the kernel's dates are coarse
		t.Errorf("superd was started %v ago", age)
	}
	for _, service := range []string{"cat", "fails", "absent"} {
		over := 0.0
		for _, result := range []string{"ok", "failed", "refused"} {
			over += values[`superd_connections_total{service="`+service+`",result="`+result+`"}`]
		}
		if total, live := values[`superd_connections_accepted_total{service="`+service+`"}`], values[`superd_connections_live{service="`+service+`"}`]; total != over+live {
			t.Errorf("of %v connections of %s, %v are over and %v live", total, service, over, live)
		}
	}
	live.Close()
}

// TestManualHasEveryMetric, with its kind and its labels, and no other.
func TestManualHasEveryMetric(t *testing.T) {
	t.Parallel()
	_, families := startWatched(t, one("cat", "run: /bin/cat")).metrics()
	var names []string
	for _, i := range manual(t, "superd.8").section(t, "METRICS").items("Va") {
		for _, name := range i.names {
			names = append(names, name)
			f := families[name]
			if f == nil {
				continue // compareLists tells
			}
			if labels := i.body.words("Cm"); !slices.Equal(labels[:min(len(f.labels), len(labels))], f.labels) {
				t.Errorf("%s: the manual has the labels %v, the code %v", name, labels, f.labels)
			}
			if total := strings.HasSuffix(name, "_total"); total != (f.kind == "counter") {
				t.Errorf("%s is a %s", name, f.kind)
			}
		}
	}
	sameNames(t, "metrics", names, slices.Collect(maps.Keys(families)))
}

// TestReadiness turns false with a drain; superd is well all the same.
func TestReadiness(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(w watched)
		want string
	}{
		"drain": {func(w watched) { w.told("drain", "--no-wait", "--limit", "1h") }, "503 draining"},
		"TERM":  {func(w watched) { w.signal(syscall.SIGTERM) }, "503 stopping"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startWatched(t, "drain: 1h\n"+one("cat", "run: /bin/cat"))
			conn := w.held("cat")
			if got := w.page("/readyz"); got != "200 ok" {
				t.Errorf("first it is %s", got)
			}
			c.end(w)
			w.await(func(r record) bool { return r.is("draining") })
			if got := w.page("/readyz"); got != c.want {
				t.Errorf("then it is %s", got)
			}
			eventually(t, func() error { // who stands still for a while is not well
				if got := w.page("/healthz"); got != "200 ok" {
					return fmt.Errorf("its health is %s", got)
				}
				return nil
			})
			if values, _ := w.metrics(); values["superd_ready{}"] != 0 || values[`superd_connections_live{service="cat"}`] != 1 {
				t.Errorf("ready is %v", values["superd_ready{}"])
			}
			conn.Close()
			w.exited("cat", 1)
			if name == "drain" { // else it ends by itself
				w.signal(syscall.SIGTERM)
			}
			w.stopped()
		})
	}
}

// TestDrainOfOneIsReady: the others are served.
func TestDrainOfOneIsReady(t *testing.T) {
	t.Parallel()
	w := startWatched(t, `
services:
  one: {listen: "127.0.0.1:0", run: /bin/cat}
  two: {listen: "127.0.0.1:0", run: /bin/cat}
`)
	w.told("drain", "one")
	if got := w.page("/readyz"); got != "200 ok" {
		t.Errorf("it is %s", got)
	}
	eventually(t, func() error {
		if values, _ := w.metrics(); values[`superd_service_state{service="one",state="draining"}`] != 1 {
			return fmt.Errorf("%v", values)
		}
		return nil
	})
	w.idle--
}

// TestWebPortIsTaken: all that is wrong is told together, with its place.
func TestWebPortIsTaken(t *testing.T) {
	t.Parallel()
	w := startWatched(t, one("cat", "run: /bin/cat"))
	yaml := fmt.Sprintf("http: {listen: %q}\nservices: {cat: {listen: %q, run: /bin/cat}}\n", w.web, w.address("cat"))
	cmd := prepare(t, yaml)
	file := cmd.Args[len(cmd.Args)-1]
	code, _, complaints := finished(t, cmd)
	for _, want := range []string{
		fmt.Sprintf("%s:1:16: http.listen: cannot listen on %s: address already in use", file, w.web),
		fmt.Sprintf("services.cat.listen: cannot listen on %s: address already in use", w.address("cat")),
	} {
		if code != 1 || !strings.Contains(complaints, want) {
			t.Errorf("it ends with %d and does not say %s, but %s", code, want, complaints)
		}
	}
}

// TestWebUnderAttack: whoever is slow there delays no connection and leaves
// nothing behind; what he sends reaches no number.
func TestWebUnderAttack(t *testing.T) {
	t.Parallel()
	w := startWatched(t, one("echo", "builtin: echo"))
	var silent []net.Conn
	for i := range 150 {
		c, err := net.Dial("tcp", w.web)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: attacker\r\nSlow: "[:i%45])
		silent = append(silent, c)
		if i%15 == 0 {
			if got := w.ask("echo", "hello"); got != "hello" {
				t.Errorf("a client is answered with %q", got)
			}
			if got := w.page("/readyz"); got != "200 ok" {
				t.Errorf("it is %s", got)
			}
		}
	}
	if n := w.descriptors(); n > w.idle+40 {
		t.Errorf("%d descriptors are open, %d without the slow ones", n, w.idle)
	}
	_, before := w.metrics()
	for _, c := range silent {
		c.Close()
	}
	w.settled()
	if _, after := w.metrics(); len(after) != len(before) {
		t.Errorf("there are %d numbers, %d before", len(after), len(before))
	}
}

// inExpression is a metric's name in an expression of Prometheus.
var inExpression = regexp.MustCompile(`\b(?:superd|process)_[a-z_]+`)

// TestMonitoringExamples: they speak of numbers that there are.
func TestMonitoringExamples(t *testing.T) {
	t.Parallel()
	_, families := startWatched(t, one("cat", "run: /bin/cat")).metrics()
	for _, name := range []string{"superd.rules.yml", "superd-dashboard.json"} {
		text := document(t, "etc/monitoring/"+name)
		if strings.HasSuffix(name, ".json") && !json.Valid([]byte(text)) {
			t.Errorf("%s is not JSON", name)
		}
		found := inExpression.FindAllString(text, -1)
		for _, word := range found {
			if families[word] == nil && families[strings.TrimSuffix(word, "_bucket")] == nil {
				t.Errorf("%s: there is no %s", name, word)
			}
		}
		if len(found) < 10 {
			t.Errorf("%s has %d names: this test looks in the wrong way", name, len(found))
		}
	}
}

func TestAlertRules(t *testing.T) {
	promtool := program(t, "promtool")
	if out, err := exec.Command(promtool, "check", "rules", filepath.Join(root, "etc/monitoring/superd.rules.yml")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
