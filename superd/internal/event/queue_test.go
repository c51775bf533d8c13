package event

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const lineSize = 256

// floods has each service put lines of stderr, in turn, until none of them gets one in, and says how many bytes each
// has in the queue.
func floods(q *queue, services ...*Service) map[*Service]int {
	in := map[*Service]int{}
	line := make([]byte, lineSize)
	line[lineSize-1] = '\n'
	for more := true; more; {
		more = false
		for _, s := range services {
			if q.putStderr(s, line) {
				in[s] += lineSize
				more = true
			}
		}
	}
	return in
}

// TestShares: however many services flood, each has the same, and there is room for who is quiet, and for records.
func TestShares(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 50} {
		l := quiet(nil, Options{})
		services := make([]*Service, n)
		for i := range services {
			services[i] = l.Service(fmt.Sprint(i))
		}
		in := floods(l.queue, services...)
		least, most, all := maxPending, 0, 0
		for _, s := range services {
			least, most, all = min(least, in[s]), max(most, in[s]), all+in[s]
		}
		if most-least > lineSize || most > maxPending/4 || all > maxStderr*n/(n+2) {
			t.Errorf("%d floods have from %d to %d bytes, %d in all", n, least, most, all)
		}
		if l.Service("quiet").Stderr(sampleConn(), []byte("line"), false); l.Service("quiet").Counts().Lost > 0 {
			t.Errorf("beside %d floods is no room for a line of stderr", n)
		}
		l.queue.mu.Lock()
		room := (maxPending - len(l.queue.pending.lines)) / lineSize
		l.queue.mu.Unlock()
		for range room {
			if !l.queue.put(make([]byte, lineSize)) {
				t.Fatalf("beside %d floods is no room for %d records", n, room)
			}
		}
		if room*lineSize < maxPending/4 {
			t.Errorf("beside %d floods is room for %d bytes of records", n, room*lineSize)
		}
	}
}

// TestSharesAreForATurn: what the writer has taken is no longer anybody's share.
func TestSharesAreForATurn(t *testing.T) {
	l := quiet(nil, Options{})
	a, c := l.Service("a"), l.Service("c")
	want := floods(l.queue, a, c)
	var b batch
	for range 3 {
		l.queue.take(&b)
		if len(b.gaps) != 2 || b.gaps[0] != (gap{a, 1}) && b.gaps[0].lines == 0 || b.dropped != 0 {
			t.Errorf("missing are %v, and %d", b.gaps, b.dropped)
		}
		if got := floods(l.queue, a, c); got[a] != want[a] || got[c] != want[c] {
			t.Errorf("got %d and %d, want %d and %d", got[a], got[c], want[a], want[c])
		}
	}
	l.queue.take(&b)
	l.queue.take(&b)
	if b.size() != 0 {
		t.Errorf("there is something of nothing: %+v", b)
	}
}

// TestOneGapOfAShare: behind a line that found no room in the share, a short one that would find some is dropped.
func TestOneGapOfAShare(t *testing.T) {
	l := quiet(nil, Options{})
	s := l.Service("a")
	for _, c := range []struct {
		size int
		in   bool
	}{{maxStderr/3 - 1, true}, {2, false}, {1, false}} {
		if in := l.queue.putStderr(s, make([]byte, c.size)); in != c.in {
			t.Errorf("%d bytes: %v", c.size, in)
		}
	}
}

// TestGapsAreTold: where the lines are missing, with the service, and in its counters; records of the same service,
// and lines of others, are there.
func TestGapsAreTold(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	l := quiet(lent(out, "json"), Options{})
	loud, quiet := l.Service("loud"), l.Service("quiet")
	const said = 5000
	for range 2 {
		for range said {
			loud.Stderr(&Conn{}, []byte("a line of noise"), false)
		}
		loud.Exited(sampleConn(), sampleExit())
		quiet.Stderr(&Conn{}, []byte("a word"), false)
		quiet.Exited(sampleConn(), sampleExit())
		l.writer.Load().deliver()
	}
	var order []string
	lines, missing := 0, 0
	for _, r := range records(t, textOf(t, out)) {
		word := fmt.Sprint(r["service"], " ", r["message"])
		if n, isGap := r["dropped"].(float64); isGap {
			missing += int(n)
			if want := fmt.Sprintf("loud %v lines of stderr were dropped", n); word != want || r["level"] != "warn" {
				t.Errorf("the gap is told as %v", r)
			}
			word = "gap"
		}
		if word == "loud stderr" {
			lines++
		}
		if len(order) == 0 || order[len(order)-1] != word {
			order = append(order, word)
		}
	}
	turn := "loud stderr, loud exited, quiet stderr, quiet exited, gap"
	if got := strings.Join(order, ", "); got != turn+", "+turn {
		t.Errorf("the log is %s", got)
	}
	if lines+missing != 2*said || missing == 0 {
		t.Errorf("of %d lines %d are there and %d are told as missing", 2*said, lines, missing)
	}
	if c := loud.Counts(); c.Lost != uint64(missing) || c.LostStderr != uint64(missing) || l.Dropped() != uint64(missing) {
		t.Errorf("%d are missing, counted are %d, %d and %d", missing, c.Lost, c.LostStderr, l.Dropped())
	}
	if c := quiet.Counts(); c.Lost != 0 {
		t.Errorf("the quiet one lost %d", c.Lost)
	}
}

// TestGapIsNotForgotten: where the gap cannot be told now, it is told when it can be, with what came to it.
func TestGapIsNotForgotten(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	l := quiet(nil, Options{})
	services := []*Service{l.Service("a"), l.Service("b")}
	for _, o := range []output{&fails{syscall.EIO}, &fails{syscall.EIO}, lent(out, "json")} {
		l.writer.Load().out = o
		floods(l.queue, services...)
		l.writer.Load().deliver()
	}
	l.writer.Load().deliver()
	told := map[any]float64{}
	for line := range strings.Lines(textOf(t, out)) {
		if strings.HasPrefix(line, "{") {
			r := records(t, line)[0]
			told[r["service"]] += r["dropped"].(float64)
		}
	}
	if told["a"] != 3 || told["b"] != 3 || told[nil] == 0 || len(told) != 3 {
		t.Errorf("told is %v", told)
	}
}

// TestLostByService: what the output does not take is counted with the service that it is of.
func TestLostByService(t *testing.T) {
	l := quiet(&fails{syscall.EIO}, Options{Level: "debug"})
	a, evil := l.Service("a"), l.Service("\\\"\x1b")
	a.Accepted(sampleConn())
	a.Stderr(sampleConn(), []byte(`{"service":"b"}`), false)
	evil.Stderr(sampleConn(), []byte("line"), false)
	l.Info("a word", F("service", "unknown"))
	l.Warn("a word")
	l.writer.Load().deliver()
	l.queue.close()
	a.Started(sampleConn())
	a.Stderr(sampleConn(), []byte("line"), false)
	for s, want := range map[*Service]Counts{a: {Lost: 4, LostStderr: 2}, evil: {Lost: 1, LostStderr: 1}} {
		if c := s.Counts(); c.Lost != want.Lost || c.LostStderr != want.LostStderr {
			t.Errorf("%q: lost %d and %d, want %d and %d", s.name, c.Lost, c.LostStderr, want.Lost, want.LostStderr)
		}
	}
	if l.Dropped() != 7 {
		t.Errorf("%d were dropped", l.Dropped())
	}
}

// TestBurst: what the output can take in time is not lost, though it is more than a share.
func TestBurst(t *testing.T) {
	l := quiet(nil, Options{})
	s := l.Service("a")
	line := make([]byte, 1<<10)
	for n := 0; n < muchPending; n += len(line) {
		if len(l.queue.much) != 0 {
			t.Fatalf("the writer is hurried by %d bytes", n)
		}
		l.queue.putStderr(s, line)
	}
	if len(l.queue.much) != 1 {
		t.Error("the writer is not hurried")
	}
}

// take gives all that is pending in b, whose memory the next lines get.
func (q *queue) take(b *batch) {
	b.clear()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.swap(b)
}
