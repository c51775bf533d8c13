package event

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// change applies what must be possible.
func change(t *testing.T, l *Log, name string, o Options) {
	t.Helper()
	c, err := l.Prepare(name, os.Stderr, o, true)
	if err != nil {
		t.Fatal(err)
	}
	c.Apply()
}

// Every line is on the output that held when it was said, or the next one, in
// its order, however often that changes meanwhile.
func TestChangeOfOutput(t *testing.T) {
	defer func(usual time.Duration) { lastPatience = usual }(lastPatience)
	lastPatience = patience
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	l, err := OpenOutput(paths[0], os.Stderr, Options{})
	if err != nil {
		t.Fatal(err)
	}
	const changes, each, speakers = 20, 100, 3
	for i := range changes {
		var said sync.WaitGroup
		for s := range speakers {
			said.Go(func() {
				for n := range each {
					l.Info("line", F("speaker", s), F("seq", i*each+n))
				}
			})
		}
		change(t, l, paths[(i+1)%2], Options{Format: []string{"json", "auto"}[i%2]})
		said.Wait()
	}
	l.Info("last")
	l.Close(patience)
	<-l.writer.Load().done
	if n := l.Dropped(); n != 0 {
		t.Errorf("%d lines were dropped", n)
	}
	total := 0
	seen := map[[2]int]bool{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		next := map[int]int{}
		for _, r := range records(t, string(text)) {
			if r["message"] != "line" {
				continue
			}
			speaker, seq := int(r["speaker"].(float64)), int(r["seq"].(float64))
			if seq < next[speaker] || seen[[2]int{speaker, seq}] {
				t.Fatalf("line %d of %d comes late, or again", seq, speaker)
			}
			next[speaker], seen[[2]int{speaker, seq}] = seq, true
			total++
		}
	}
	if total != changes*each*speakers {
		t.Errorf("%d of %d lines are there", total, changes*each*speakers)
	}
	if text, _ := os.ReadFile(paths[changes%2]); !strings.Contains(string(text), `"last"`) {
		t.Error("the last output does not have the last line")
	}
}

// An output that takes nothing does not keep the log from going elsewhere,
// where what is missing is told.
func TestChangeFromWhatNobodyReads(t *testing.T) {
	eachPipe(t, func(t *testing.T, blocking bool) {
		for range 5 { // since the writer of before may be late with what is missing
			if text := changeFromWhatNobodyReads(t, blocking); blocking || strings.Contains(text, "log lines were dropped because nobody reads the log") {
				return
			}
		}
		t.Error("of what is missing it says nothing")
	})
}

// changeFromWhatNobodyReads returns what the other output has at first.
func changeFromWhatNobodyReads(t *testing.T, blocking bool) string {
	t.Helper()
	_, w := pipe(t, blocking)
	l := Open(w, Options{})
	for l.Dropped() == 0 {
		l.Info("line")
	}
	path := filepath.Join(t.TempDir(), "log")
	change(t, l, path, Options{})
	l.Info("elsewhere")
	if !l.Flush(patience) {
		t.Fatal("it is not written")
	}
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "elsewhere") && !strings.Contains(string(text), "were dropped") {
		t.Errorf("the other output has %q, %v", text, err)
	}
	l.Info("one more")
	l.Flush(patience)
	if text, _ := os.ReadFile(path); !strings.Contains(string(text), "one more") {
		t.Errorf("later it has %q", text)
	}
	w.Close() // lets a write that blocks end
	l.Close(patience)
	return string(text)
}

// What cannot be had changes nothing, and leaves nothing open.
func TestChangeThatIsNot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	l, err := OpenOutput(path, os.Stderr, Options{Level: "error"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Prepare(filepath.Join(dir, "none/log"), os.Stderr, Options{}, true); err == nil || !strings.HasPrefix(err.Error(), "cannot open the log ") {
		t.Errorf("the error is %v", err)
	}
	before := descriptors(t)
	c, err := l.Prepare(filepath.Join(dir, "other"), os.Stderr, Options{}, true)
	if err != nil {
		t.Fatal(err)
	}
	c.Abandon()
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
	l.Info("not said")
	l.Error("said")
	l.Close(patience)
	if text, _ := os.ReadFile(path); strings.Count(string(text), "\n") != 1 {
		t.Errorf("it has %q", text)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// The level and the form of addresses change without another output; who has
// one hash keeps it.
func TestChangeOfOptions(t *testing.T) {
	peer := netip.MustParseAddrPort("192.0.2.7:99")
	shown := func(s *Service) string { return string(s.AppendPeer(nil, peer)) }
	text := written(t, Options{Level: "error", Address: "hash"}, func(l *Log) {
		s := l.Service("a")
		hash := shown(s)
		set := func(o Options) {
			t.Helper()
			c, err := l.Prepare("", nil, o, false)
			if err != nil {
				t.Fatal(err)
			}
			c.Apply()
			s.SetLevel("")
		}
		l.Info("one")
		s.Listening("1")
		set(Options{Level: "info", Address: "hash"})
		l.Info("two")
		s.Listening("2")
		if again := shown(s); again != hash {
			t.Errorf("the hash was %s and is %s", hash, again)
		}
		set(Options{Level: "error", Address: "prefix"})
		l.Info("three")
		s.Listening("3")
		if got := shown(s); got != "192.0.2.0/24" {
			t.Errorf("the prefix is %s", got)
		}
		set(Options{Level: "debug", Address: "full"})
		s.Accepted(&Conn{ID: []byte("x")})
		if got := shown(s); got != peer.String() {
			t.Errorf("the address is %s", got)
		}
	})
	var said []string
	for _, r := range records(t, text) {
		said = append(said, fmt.Sprint(r["message"]))
	}
	if got := strings.Join(said, " "); got != "two listening accepted" {
		t.Errorf("it has %s", got)
	}
}
