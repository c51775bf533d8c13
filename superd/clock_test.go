package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/control"
)

// A clock that is set, by days, changes what clocks show and nothing else.

// wallClock is what makes a time of the wall clock's: a time.Time tells how long
// something takes by the monotonic clock until one of these is done with it.
var wallClock = regexp.MustCompile(`\.(Unix|UnixMilli|UnixNano|UTC|In|AppendFormat|Format|Weekday|Clock|Date)\(|\.Round\(0\)|CLOCK_REALTIME|\bWall\b`)

// showsTime is where that has its place, and why.
var showsTime = map[string]string{
	"imagine.go":                "the name of a connection that is none",
	"daemon.go":                 "hands both clocks to admission",
	"metrics.go":                "dates of the file and of the start, for Prometheus",
	"tables.go":                 "since when, for people",
	"service.go":                "the second that the services time and daytime speak of",
	"internal/admit/admit.go":   "what hours look at",
	"internal/admit/explain.go": "hours",
	"internal/admit/gate.go":    "hours",
	"internal/admit/hours.go":   "hours",
	"internal/conn/visitor.go":  "the first part of names, at the start",
	"internal/event/log.go":     "the date of a record",
	"internal/event/syslog.go":  "the date of a message",
}

// TestWallClock holds the list against the source.
func TestWallClock(t *testing.T) {
	used := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "bench/") {
			return err
		}
		text, err := os.ReadFile(path)
		for line := range strings.Lines(string(text)) {
			code, _, _ := strings.Cut(line, "//")
			if found := wallClock.FindString(code); found != "" {
				used[path] = true
				if showsTime[path] == "" {
					t.Errorf("%s goes by the wall clock: %s", path, strings.TrimSpace(line))
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for path := range showsTime {
		if !used[path] {
			t.Errorf("%s has nothing of the wall clock any more", path)
		}
	}
}

// stepClock sets the machine's clock.
func stepClock(t *testing.T, by time.Duration) {
	t.Helper()
	now := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
	if err := unix.Settimeofday(&now); err != nil {
		t.Fatal(err)
	}
}

// TestClockStep sets the clock by a day and more, forth and back, beside live
// connections, queues, bans and rates, and over an upgrade.
func TestClockStep(t *testing.T) {
	if os.Getenv("SUPERD_TEST_CLOCK") == "" {
		t.Skip("SKIPPED: this sets the machine's clock: make test-vm does")
	}
	begin := time.Now()
	defer func() { // back to where it was, as far as time has not gone on
		was := unix.NsecToTimeval(begin.UnixNano() + int64(time.Since(begin)))
		unix.Settimeofday(&was)
	}()
	today := begin.Weekday().String()[:3]
	if soon := begin.Add(10 * time.Minute).Weekday().String()[:3]; soon != today {
		today += ", " + soon
	}
	a := startAsked(t, several(
		"cat", `listen: "127.0.0.1:0", run: /bin/cat, sandbox: none, timeout: {session: 2h, idle: 1h}`,
		"brief", `listen: "127.0.0.1:0", run: /bin/cat, sandbox: none, timeout: {session: 4s}`,
		"queue", `listen: "127.0.0.1:0", run: /bin/cat, sandbox: none, max: 1, queue: {timeout: 1h}`,
		"byte", `listen: "127.0.0.1:0", run: /bin/cat, sandbox: none, timeout: {first_byte: 1h}`,
		"hours", `listen: "127.0.0.1:0", builtin: greeting, hours: [`+today+`]`,
		"banned", `listen: "127.0.0.1:0", run: /bin/cat, sandbox: none, max_per_source: 1, on_limit: refuse, ban: {after: 2, within: 1h, for: 1h}`,
		"rate", `listen: "127.0.0.1:0", run: /bin/cat, sandbox: none, rate: 1/h, on_limit: refuse`))
	cat, brief, queue := a.held("cat"), a.dial("brief"), a.held("queue")
	waits, silent := a.dial("queue"), a.dial("byte")
	banned, rate := a.held("banned"), a.held("rate")
	for range 2 {
		a.closed(a.dial("banned"))
	}
	named := func(name string) control.Service {
		list := a.status().Services
		return list[slices.IndexFunc(list, func(s control.Service) bool { return s.Name == name })]
	}
	eventually(t, func() error {
		if s := named("queue"); s.Waiting != 1 {
			return fmt.Errorf("%d wait", s.Waiting)
		}
		return nil
	})
	refused := map[string]int{}
	refusal := func(service, reason string) {
		t.Helper()
		a.closed(a.dial(service))
		refused[service]++
		if by := named(service).RefusedBy; by[reason] != uint64(refused[service]) {
			t.Errorf("%s has refused %v, and %d for %s", service, by, refused[service], reason)
		}
	}
	look := func(open bool) {
		t.Helper()
		a.talk(cat, "still here\n")
		refusal("banned", "banned")
		refusal("rate", "rate")
		s := a.status()
		if w := named("queue").Waiting; w != 1 {
			t.Errorf("%d wait for a place", w)
		}
		if s.UptimeMS < 0 || s.UptimeMS > time.Since(begin).Milliseconds() {
			t.Errorf("superd says that it runs for %d ms", s.UptimeMS)
		}
		for _, b := range s.Blocks {
			if b.LeftMS <= 0 || b.LeftMS > time.Hour.Milliseconds() {
				t.Errorf("the ban lasts %d ms more", b.LeftMS)
			}
		}
		for _, c := range a.connections() {
			if c.AgeMS < 0 || c.AgeMS > time.Since(begin).Milliseconds() || c.IdleMS != nil && (*c.IdleMS < 0 || *c.IdleMS > time.Since(begin).Milliseconds()) {
				t.Errorf("after %v a connection is %+v", time.Since(begin), c)
			}
		}
		if open {
			if got := a.ask("hours", ""); got != "hi client" {
				t.Errorf("it says %q, at its hours", got)
			}
		} else {
			refusal("hours", "hours")
		}
	}
	look(true)
	stepClock(t, 26*time.Hour)
	look(false)
	a.upgradeNow(1)
	look(false)
	stepClock(t, -52*time.Hour)
	look(false)
	a.upgradeNow(2)
	stepClock(t, 26*time.Hour)
	look(true)
	r := a.exited("brief", 1)[0]
	if checkReason(t, r, "timeout.session"); r.number("duration_ms") < 4000 || r.number("duration_ms") > time.Since(begin).Seconds()*1000 {
		t.Errorf("a session of 4s is recorded as %v", r)
	}
	var days []string
	for _, r := range a.awaitMany(1, func(r record) bool { return r.is("refused") || r.is("upgraded") }) {
		if day := r.text("time")[:10]; !slices.Contains(days, day) {
			days = append(days, day)
		}
	}
	if len(days) < 3 {
		t.Errorf("the records are of the days %v", days)
	}
	queue.Close()
	a.talk(waits, "in\n")
	a.talk(silent, "said\n")
	for _, c := range []net.Conn{cat, brief, waits, silent, banned, rate} {
		c.Close()
	}
}
