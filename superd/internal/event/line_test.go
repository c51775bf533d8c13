package event

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
)

// decoded is a line as encoding/json reads it, checked against what fields says.
func decoded(t *testing.T, line []byte) map[string]any {
	t.Helper()
	var want map[string]any
	if err := json.Unmarshal(line, &want); err != nil {
		t.Fatalf("%v: %q", err, line)
	}
	got := map[string]any{}
	for name, value := range fields(line) {
		var v any
		if err := json.Unmarshal(value, &v); err != nil {
			t.Fatalf("%s is %q in %q", name, value, line)
		}
		if text, isText := v.(string); isText && text != string(plain(value)) {
			t.Errorf("%s is %q, plainly %q", name, text, plain(value))
		}
		got[string(plain(append(append([]byte{'"'}, name...), '"')))] = v
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	return want
}

func TestFieldsOfEveryRecord(t *testing.T) {
	text, err := os.ReadFile("testdata/json.golden")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		decoded(t, line)
	}
}

func TestFieldsOfWhatIsNoRecord(t *testing.T) {
	for line, want := range map[string]int{
		"": 0, "{": 0, "{}": 0, "{}\n": 0, "[]": 0, "null": 0, `"text"`: 0, `{"a":1`: 0, `{"a"1}`: 0, `{a:1}`: 0, `{"a":}`: 0,
		`{"a":"`: 0, `{"a":"\"}`: 0, `{"a":[1`: 0, `{"a":1}`: 1, `{"a":1,`: 1, `{"a":1,2}`: 1, `{"a":1 "b":2}`: 1, `{"a":{"b":[1,"}"]},"c":2}`: 2,
	} {
		n := 0
		for range fields([]byte(line)) {
			n++
		}
		if n != want {
			t.Errorf("%q has %d fields, want %d", line, n, want)
		}
	}
}

func TestSentence(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"info","service":"echo","time":"x","conn":"1f","status":0,"message":"exited"}`:         "echo exited conn=1f status=0",
		`{"level":"info","time":"x","message":"ready","file":"/etc/superd/superd.yaml","services":2}`:    "ready file=/etc/superd/superd.yaml services=2",
		`{"service":"a b\n","message":"\u001b[1m"}`:                                                      `a b\n \x1b[1m`,
		`{"message":"stderr","text":"two words","empty":"","quote":"a\"b","equal":"a=b","back":"a\\b"}`:  `stderr text="two words" empty="" quote="a\"b" equal="a=b" back="a\\b"`,
		`{"message":"stderr","text":"caf\u00e9","control":"\u009b","list":["a"],"cut":true,"none":null}`: `stderr text="café" control="\u009b" list="[\"a\"]" cut=true none=null`,
	} {
		if got := string(appendSentence(nil, []byte(line))); got != want {
			t.Errorf("%s\n got %s\nwant %s", line, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		text string
		size int
		want string
	}{
		{"abcdef", 6, "abcdef"}, {"abcdefg", 6, "abc..."}, {"ab\u20acdefg", 6, "ab..."}, {"\u20ac\u20ac\u20ac", 7, "\u20ac..."},
	} {
		if got := string(cut([]byte(c.text), c.size)); got != c.want {
			t.Errorf("%q cut to %d is %q, want %q", c.text, c.size, got, c.want)
		}
	}
}

// FuzzLetters: whatever a program writes, a record is read as encoding/json reads it; syslog's text is one visible
// line, and the journal's entry says the same as the record.
func FuzzLetters(f *testing.F) {
	f.Add("service", []byte("text"))
	f.Add("a\\\"b", []byte(`{"level":"info"}`))
	f.Add("", []byte(evil()))
	f.Add("\n", []byte("a\nb\\"))
	f.Add("}", []byte(strings.Repeat("\xff", 8<<10)))
	f.Fuzz(func(t *testing.T, service string, text []byte) {
		text = text[:min(len(text), 8<<10)]
		l := quiet(nil, Options{})
		l.Service(service).Stderr(&Conn{ID: []byte("1f"), Pid: 1}, text, true)
		var b batch
		l.queue.take(&b)
		record := decoded(t, b.lines)
		line := bytes.TrimSuffix(b.lines, []byte{'\n'})
		for _, l := range []letter{sentenceLetter, jsonLetter} {
			sent := l(nil, line)
			visibleOnly(t, "syslog", string(sent))
			if bytes.IndexByte(sent, '\n') >= 0 || len(sent) > mostSent {
				t.Errorf("%d bytes: %.300q", len(sent), sent)
			}
		}
		entry := entryOf(t, journalLetter(nil, line))
		if entry["SUPERD_TEXT"] != record["text"] || entry["SUPERD_SERVICE"] != record["service"] || entry["SUPERD_CONN"] != record["conn"] {
			t.Errorf("the entry %.300q is not as the record %.300q", entry, line)
		}
		visibleOnly(t, "journald", entry["MESSAGE"])
	})
}
