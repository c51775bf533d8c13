package conn

import (
	"container/heap"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLater(t *testing.T) {
	const now = int64(5 * time.Hour)
	for _, c := range []struct {
		d    time.Duration
		want int64
	}{
		{0, now},
		{time.Second, now + 1e9},
		{-time.Second, now - 1e9},
		{math.MaxInt64, notDue},
		{math.MaxInt64 - time.Hour, notDue},
	} {
		if got := later(now, c.d); got != c.want {
			t.Errorf("%v later it is %d, want %d", c.d, got, c.want)
		}
	}
	if got := later(notDue, time.Second); got != notDue {
		t.Errorf("after the end of time it is %d", got)
	}
}

// Under any order of setting and removing, the first deadline is the earliest,
// and each record knows its place.
func TestDeadlines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d deadlines
		records := make([]*record, rapid.IntRange(1, 12).Draw(t, "records"))
		want := map[*record]int64{}
		for i := range records {
			records[i] = newRecord(uint32(i))
		}
		one := rapid.SampledFrom(records)
		due := rapid.OneOf(rapid.Int64Range(-3, 20), rapid.Just(int64(notDue)))
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				r, at := one.Draw(t, "record"), due.Draw(t, "due")
				d.set(r, at)
				if want[r] = at; at == notDue {
					delete(want, r)
				}
				if r.due != at {
					t.Fatalf("record %d is due at %d, not %d", r.slot, r.due, at)
				}
			},
			"remove": func(t *rapid.T) {
				r := one.Draw(t, "record")
				d.remove(r)
				delete(want, r)
			},
			"pop": func(t *rapid.T) {
				if len(d) == 0 {
					t.Skip("nothing is due")
				}
				r := heap.Pop(&d).(*record)
				for _, at := range want {
					if at < r.due {
						t.Fatalf("%d comes before %d", r.due, at)
					}
				}
				delete(want, r)
			},
			"": func(t *rapid.T) {
				if len(d) != len(want) {
					t.Fatalf("%d are due, want %d", len(d), len(want))
				}
				for _, r := range records {
					_, due := want[r]
					if due != (r.heap >= 0) || due && d[r.heap] != r {
						t.Fatalf("record %d does not know its place %d", r.slot, r.heap)
					}
				}
			},
		})
	})
}

// cut is what a cutter makes of parts: its lines, those marked that were cut.
func cut(parts ...string) (lines []string) {
	var c lineCutter
	emit := func(line []byte, cut bool) {
		text := string(line)
		if len(text) > 20 {
			text = fmt.Sprintf("%c*%d", text[0], len(text))
		}
		if cut {
			text += "..."
		}
		lines = append(lines, text)
	}
	for _, p := range parts {
		c.write([]byte(p), emit)
	}
	c.flush(emit)
	return lines
}

func TestLineCutter(t *testing.T) {
	full := strings.Repeat("x", longestLine)
	for _, c := range []struct {
		name  string
		parts []string
		want  []string
	}{
		{"nothing", nil, nil},
		{"nothing written", []string{""}, nil},
		{"a line", []string{"one\n"}, []string{"one"}},
		{"no end", []string{"one"}, []string{"one"}},
		{"several", []string{"one\ntwo\nthree"}, []string{"one", "two", "three"}},
		{"in parts", []string{"o", "n", "e\nt", "wo", "\n"}, []string{"one", "two"}},
		{"empty lines", []string{"\n\none\n\n"}, []string{"", "", "one", ""}},
		{"of DOS", []string{"one\r\n", "two\r", "\nthr\ree\r\r\n"}, []string{"one", "two", "thr\ree\r"}},
		{"a lone CR at the end", []string{"one\r"}, []string{"one"}},
		{"as long as can be", []string{full + "\n"}, []string{"x*8192"}},
		{"as long as can be, without an end", []string{full}, []string{"x*8192"}},
		{"longer by one", []string{full + "y\n" + "after\n"}, []string{"x*8192...", "after"}},
		{"longer by one, later", []string{full, "y", "\nafter"}, []string{"x*8192...", "after"}},
		{"longer by far", []string{full, full, full, "\n", "after\n"}, []string{"x*8192...", "after"}},
		{"long and without an end", []string{full, full}, []string{"x*8192..."}},
		{"long, then long", []string{full + "y\n" + full + "y\n"}, []string{"x*8192...", "x*8192..."}},
		{"the end alone, after what is full", []string{full, "\n", "after\n"}, []string{"x*8192", "after"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := cut(c.parts...); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// How what is written comes in parts changes nothing.
func TestLineCutterForgetsTheParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{"\n", "\r", "a", "word", strings.Repeat("x", 5000)})
		parts := rapid.SliceOf(word).Draw(t, "parts")
		want := cut(strings.Join(parts, ""))
		if got := cut(parts...); !slices.Equal(got, want) {
			t.Errorf("in parts %q, in one %q", got, want)
		}
	})
}

func TestGroupOf(t *testing.T) {
	for _, c := range []struct {
		stat  string
		group int
		alive bool
	}{
		{"7 (cat) S 1 42 42 0 -1", 42, true},
		{"7 (cat) R 1 42 42", 42, true},
		{"7 (a) b) S 9 (c) Z 1 42 42", 0, false},
		{"7 (a) R 3 4 5) S 1 42 42", 42, true},
		{"7 (line\nbreak) D 1 42 42", 42, true},
		{"7 () T 1 42 42", 42, true},
		{"7 (cat) Z 1 42 42", 0, false},
		{"7 (cat) X 1 42 42", 0, false},
		{"7 (cat) S 1", 0, false},
		{"7 (cat)", 0, false},
		{"", 0, false},
	} {
		if group, alive := groupOf([]byte(c.stat)); group != c.group || alive != c.alive {
			t.Errorf("%q: group %d, alive %v", c.stat, group, alive)
		}
	}
}

func TestGroupSizes(t *testing.T) {
	script := `sleep 1000 & sleep 1000 & echo; read x; kill 0`
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		cmd.Wait()
	}()
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if got := groupSizes()[cmd.Process.Pid]; got != 3 {
		t.Errorf("a group of three has %d", got)
	}
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	if group, alive := groupOf(own); !alive || group != syscall.Getpgrp() {
		t.Errorf("this process is in group %d, alive: %v", group, alive)
	}
}

func TestIDs(t *testing.T) {
	i := newIDs(time.UnixMilli(1_700_000_000_000))
	prefix := strconv.FormatInt(1_700_000_000_000, 36) + "-"
	for n := range 3 {
		if got, want := string(i.appendNext(nil)), prefix+strconv.Itoa(n+1); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := string(i.appendNext([]byte("before "))); got != "before "+prefix+"4" {
		t.Errorf("got %s", got)
	}
	later := newIDs(time.UnixMilli(1_700_000_000_001))
	if string(later.prefix) == prefix {
		t.Error("a superd that starts a millisecond later gives the same names")
	}
}

func TestIDsAreNeverTheSame(t *testing.T) {
	const each = 1000
	i := newIDs(time.Now())
	var seen sync.Map
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			var b []byte
			for range each {
				b = i.appendNext(b[:0])
				if _, twice := seen.LoadOrStore(string(b), true); twice {
					t.Errorf("%s is given twice", b)
				}
			}
		})
	}
	all.Wait()
}

func TestKeyFitsIntoAnEvent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := key{
			slot: rapid.Uint32().Draw(t, "slot"),
			use:  rapid.Uint32Range(0, useMask).Draw(t, "use"),
			kind: rapid.SampledFrom([]kind{processEnded, stderrReadable, connectionMoved, ordered}).Draw(t, "kind"),
		}
		e := k.event(5)
		if got := keyOf(&e); got != k || e.Events != 5 {
			t.Errorf("%v comes back as %v, for the events %d", k, got, e.Events)
		}
	})
}

// Of a record's use only so much is kept as fits; it still tells one use from
// the next.
func TestKeyOfAnOldUse(t *testing.T) {
	for _, use := range []uint32{useMask, useMask + 1, math.MaxUint32 - 1, math.MaxUint32, rand.Uint32()} {
		k, next := key{use: use}, key{use: use + 1}
		e, f := k.event(0), next.event(0)
		if keyOf(&e).use == keyOf(&f).use {
			t.Errorf("the uses %d and %d look the same", use, use+1)
		}
		if keyOf(&e).kind != k.kind {
			t.Errorf("the use %d changes the kind", use)
		}
	}
}
