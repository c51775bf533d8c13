package event

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// evil is every control character, and what else moves a cursor or turns a line around.
func evil() string {
	var b strings.Builder
	for r := rune(0); r < 0xA0; r++ {
		b.WriteRune(r)
	}
	return b.String() + "\x1b]0;title\x07\x1b[2J\u202e\u2028\ufeff\xff\x9b\xc2"
}

// TestNoControlCharacters: in every form, no text from outside reaches the log as more than visible characters.
func TestNoControlCharacters(t *testing.T) {
	say := func(l *Log) {
		l.Info(evil(), F("text", evil()), F("error", errors.New(evil())), F("list", []any{evil()}), F("bytes", []byte(evil())),
			F("map", map[string]any{evil(): evil()}))
		s := l.Service(evil())
		c := &Conn{ID: []byte(evil()), Peer: []byte(evil()), Local: []byte(evil())}
		s.Listening(evil())
		s.Exited(c, &Exit{Reason: evil()})
		s.Stderr(c, []byte(evil()), true)
		s.Refused(c, ReasonProxy, errors.New(evil()))
	}
	for _, format := range []string{"json", "console"} {
		text := written(t, Options{Level: "debug", Format: format}, say)
		if n := strings.Count(text, "\n"); n != 5 {
			t.Errorf("%s: %d lines, want 5:\n%q", format, n, text)
		}
		visibleOnly(t, format, text)
	}
	var lines string
	form := consoleForm(true)
	written(t, Options{}, func(l *Log) {
		q := newQueue()
		l.logger = l.logger.Output(q)
		say(l)
		var b batch
		q.take(&b)
		lines = string(form(b.lines))
	})
	if !strings.Contains(lines, "\x1b[32mINF\x1b[0m") {
		t.Error("no color: ", lines)
	}
	visibleOnly(t, "color", regexp.MustCompile(`\x1b\[\d*m`).ReplaceAllString(lines, ""))
}

func visibleOnly(t *testing.T, form, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%s: not UTF-8", form)
	}
	for i, r := range text {
		if r < ' ' && r != '\n' || r >= 0x7f && r < 0xA0 {
			t.Errorf("%s: %U in %q", form, r, text[max(0, i-20):min(len(text), i+20)])
		}
	}
}

// TestJSONKeepsText: what is escaped is the same text.
func TestJSONKeepsText(t *testing.T) {
	const text = "caf\u00e9 \u00a0 \u0080\u009b\u009f \u00c2 \u20ac \U0001F600 \x7f\x1b"
	got := records(t, written(t, Options{Format: "json"}, func(l *Log) {
		l.Service("echo").Stderr(&Conn{}, []byte(text), false)
	}))
	if got[0]["text"] != text {
		t.Errorf("got %q, want %q", got[0]["text"], text)
	}
}

func TestConsoleShowsWhatIsNotJSON(t *testing.T) {
	if got := string(consoleForm(false)([]byte("{\x1b\n"))); got != `"{\x1b\n"`+"\n" {
		t.Errorf("got %q", got)
	}
}

func TestFormOf(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	outs := map[string]*os.File{"null": null}
	if terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0); err == nil {
		defer terminal.Close()
		outs["terminal"] = terminal
	}
	line := `{"level":"info","time":"2026-01-02T10:04:05.678Z","message":"hello"}` + "\n"
	const plain, color = "12:04:05 INF superd     hello\n", "\x1b[90m12:04:05\x1b[0m \x1b[32mINF\x1b[0m superd     \x1b[1mhello\x1b[0m\n"
	for _, c := range []struct{ out, format, noColor, term, want string }{
		{"null", "auto", "", "", line},
		{"null", "", "", "", line},
		{"null", "json", "", "", line},
		{"null", "console", "", "", plain},
		{"terminal", "auto", "", "", color},
		{"terminal", "", "", "", color},
		{"terminal", "json", "", "", line},
		{"terminal", "console", "", "", color},
		{"terminal", "auto", "1", "", plain},
		{"terminal", "auto", "", "dumb", plain},
	} {
		out := outs[c.out]
		if out == nil {
			continue
		}
		t.Setenv("NO_COLOR", c.noColor)
		t.Setenv("TERM", c.term)
		if got := string(formOf(isTerminal(out), c.format)([]byte(line))); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}
