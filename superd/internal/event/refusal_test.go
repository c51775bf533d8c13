package event

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestRefusalRate: a script of steps, "+500ms" sets the clock, "flush" is the writer's look once a second, any other
// word is a refusal for that reason by that service. Lines are "service:reason", "+n" for those suppressed, and "!"
// when the line speaks of no connection. The last line of want is what Close adds.
func TestRefusalRate(t *testing.T) {
	for _, c := range []struct{ name, steps, want string }{
		{"each reason has its line", "a:limit a:rate a:load", "a:limit a:rate a:load"},
		{"each service has its line", "a:limit b:limit", "a:limit b:limit"},
		{"the rest of the second is held", "a:limit a:limit a:limit +999ms a:limit", "a:limit a:limit+3!"},
		{"the next line tells", "a:limit a:limit a:limit +1s a:limit", "a:limit a:limit+2"},
		{"told once", "a:limit a:limit +1s a:limit +1s a:limit", "a:limit a:limit+1 a:limit"},
		{"the second counts from the line", "a:limit +900ms a:limit +200ms a:limit +500ms a:limit", "a:limit a:limit+1 a:limit+1!"},
		{"another reason does not tell", "a:limit a:limit +2s a:rate", "a:limit a:rate a:limit+1!"},
		{"the writer tells", "a:limit a:limit a:limit +1s flush +1s a:limit", "a:limit a:limit+2! a:limit"},
		{"the writer's line is a line", "a:limit a:limit +1s flush a:limit +1s a:limit", "a:limit a:limit+1! a:limit+1"},
		{"too early for the writer", "a:limit a:limit +999ms flush +1ms a:limit", "a:limit a:limit+1"},
		{"nothing held, nothing told", "a:limit +1s flush +1s flush", "a:limit"},
		{"a long silence", "a:limit a:limit +24h a:limit", "a:limit a:limit+1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := newClock()
			refused := map[string]uint64{}
			text := writtenLater(t, Options{Format: "json", Now: now.Now}, func(l *Log) {
				for _, step := range strings.Fields(c.steps) {
					if d, err := time.ParseDuration(step); err == nil {
						now.advance(d)
					} else if step == "flush" {
						l.flush(false)
					} else {
						refused[step]++
						service, word, _ := strings.Cut(step, ":")
						l.Service(service).Refused(sampleConn(), reasonOf(t, word), nil)
					}
				}
				for step, n := range refused {
					service, word, _ := strings.Cut(step, ":")
					if got := l.Service(service).Counts().Refused[reasonOf(t, word)]; got != n {
						t.Errorf("%s counted %d, want %d", step, got, n)
					}
				}
			})
			var lines []string
			for _, record := range records(t, text) {
				line := fmt.Sprintf("%s:%s", record["service"], record["reason"])
				step := line
				if n, ok := record["suppressed"].(float64); ok {
					line += fmt.Sprintf("+%v", n)
					refused[step] -= uint64(n)
				}
				if record["conn"] == nil {
					line += "!"
				} else {
					refused[step]--
				}
				lines = append(lines, line)
			}
			if got := strings.Join(lines, " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			for step, n := range refused {
				if n != 0 {
					t.Errorf("%s: the log does not account for %d", step, int64(n))
				}
			}
		})
	}
}

func reasonOf(t *testing.T, word string) Reason {
	t.Helper()
	for _, r := range Reasons() {
		if r.String() == word {
			return r
		}
	}
	t.Fatal("no such reason: ", word)
	return 0
}

// TestHeldWakesWriter: a writer that sleeps must set its clock when the first refusal is held back.
func TestHeldWakesWriter(t *testing.T) {
	l := quiet(lent(os.Stderr, ""), Options{Now: newClock().Now})
	s := l.Service("echo")
	s.Refused(sampleConn(), ReasonLimit, nil)
	<-l.queue.wake // for the line
	if l.holding.Load() {
		t.Error("nothing is held yet")
	}
	s.Refused(sampleConn(), ReasonLimit, nil)
	if len(l.queue.wake) != 1 || !l.holding.Load() {
		t.Error("the writer does not know")
	}
}

// TestHeldIsToldByItself: nothing happens after the flood, and the count comes nevertheless.
func TestHeldIsToldByItself(t *testing.T) {
	t.Parallel()
	r, w := pipe(t, true)
	now := newClock()
	l := Open(w, Options{Format: "json", Now: now.Now})
	s := l.Service("echo")
	for range 3 {
		s.Refused(sampleConn(), ReasonLimit, nil)
	}
	now.advance(refusalEvery)
	lines := bufio.NewReader(r)
	var text strings.Builder
	for range 2 { // waits for the second line, which only the writer's clock brings
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(line)
	}
	if last := records(t, text.String())[1]; last["suppressed"] != 2.0 || last["reason"] != "limit" || last["service"] != "echo" {
		t.Errorf("got %v", last)
	}
	l.Close(patience)
	<-l.writer.Load().done
}
