package tcpmux

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

var lines = []struct {
	text  string
	ended bool
	name  string
	n     int
	err   error
}{
	{"", false, "", 0, ErrMore},
	{"", true, "", 0, nil},
	{"a", false, "", 0, ErrMore},
	{"a", true, "a", 1, nil},
	{"a\r", false, "", 0, ErrMore},
	{"a\r", true, "a", 2, nil},
	{"a\n", false, "a", 2, nil},
	{"a\r\n", false, "a", 3, nil},
	{"a\r\r\n", false, "a\r", 4, nil},
	{"a\rb\r\n", false, "a\rb", 5, nil},
	{"\r\n", false, "", 2, nil},
	{"\n", false, "", 1, nil},
	{"Echo\r\n\r\nrest", false, "Echo", 6, nil},
	{"echo\nrest\r\n", true, "echo", 5, nil},
	{"a b\x00\xff\r\n", false, "a b\x00\xff", 7, nil},
	{strings.Repeat("a", MostBytes-1) + "\n", false, strings.Repeat("a", MostBytes-1), MostBytes, nil},
	{strings.Repeat("a", MostBytes-2) + "\r\n", false, strings.Repeat("a", MostBytes-2), MostBytes, nil},
	{strings.Repeat("a", MostBytes-1), false, "", 0, ErrMore},
	{strings.Repeat("a", MostBytes), false, "", 0, ErrLong},
	{strings.Repeat("a", MostBytes), true, "", 0, ErrLong},
	{strings.Repeat("a", MostBytes-1) + "\r\n", false, "", 0, ErrLong},
	{strings.Repeat("a", 10*MostBytes) + "\r\n", false, "", 0, ErrLong},
}

func TestParse(t *testing.T) {
	for _, l := range lines {
		name, n, err := Parse([]byte(l.text), l.ended)
		if string(name) != l.name || n != l.n || err != l.err {
			t.Errorf("%q, ended %v: the name is %q, %d bytes, %v", l.text, l.ended, name, n, err)
		}
	}
}

func TestFold(t *testing.T) {
	known := map[Name]string{}
	for _, name := range []string{"echo", "a.b-c_d", strings.Repeat("x", longestName), ""} {
		n, ok := Fold([]byte(name))
		if !ok {
			t.Errorf("%q is no name", name)
		}
		known[n] = name
	}
	for text, want := range map[string]string{"ECHO": "echo", "eChO": "echo", "A.B-C_D": "a.b-c_d", strings.Repeat("X", longestName): strings.Repeat("x", longestName)} {
		n, ok := Fold([]byte(text))
		if known[n] != want || !ok {
			t.Errorf("%q is folded to %q, %v", text, known[n], ok)
		}
	}
	for _, text := range []string{"ech", "echo ", "echo\x00", "\x00", "[cho", "@cho", "ec\xe8o"} {
		if n, ok := Fold([]byte(text)); ok && known[n] != "" {
			t.Errorf("%q is taken for %q", text, known[n])
		}
	}
	if _, ok := Fold(bytes.Repeat([]byte("x"), longestName+1)); ok {
		t.Error("a name that is too long is one")
	}
}

func TestShown(t *testing.T) {
	for name, want := range map[string]string{
		"": "", "echo": "echo", "a b\x1b[2J\r\"\xff": "a?b??2J???", strings.Repeat("x", 100): strings.Repeat("x", longestName) + "...",
	} {
		if got := Shown([]byte(name)); got != want {
			t.Errorf("%q is shown as %q", name, got)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	b := []byte("Echo\r\nrest")
	e, _ := Fold([]byte("echo"))
	known := map[Name]int{e: 1}
	if n := testing.AllocsPerRun(100, func() {
		name, _, err := Parse(b, false)
		folded, ok := Fold(name)
		if err != nil || !ok || known[folded] != 1 {
			t.Fatal("it is not found")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// fit is what a log can have.
var fit = regexp.MustCompile(`^[A-Za-z0-9_.?-]*$`)

func FuzzParse(f *testing.F) {
	for _, l := range lines {
		f.Add([]byte(l.text), l.ended)
	}
	f.Fuzz(func(t *testing.T, b []byte, ended bool) {
		name, n, err := Parse(b, ended)
		if n < 0 || n > len(b) || n > MostBytes || len(name) > n || err != nil && (n != 0 || name != nil) {
			t.Fatalf("%q: the name is %q, %d bytes, %v", b, name, n, err)
		}
		if end := bytes.IndexByte(b, '\n'); (end >= 0 && end < MostBytes) != (err == nil && n > 0 && b[n-1] == '\n') || err == nil && !ended && n != end+1 {
			t.Fatalf("%q: the line has %d bytes, %v", b, n, err)
		}
		// However it was split, nothing else comes of it.
		for i := range min(len(b), MostBytes) {
			part, m, early := Parse(b[:i], false)
			if early == ErrMore {
				continue
			}
			if !bytes.Equal(part, name) || m != n || early != err {
				t.Fatalf("%q: of %d bytes the name is %q, %d bytes, %v", b, i, part, m, early)
			}
		}
		shown := Shown(name)
		if len(shown) > longestName+3 || !fit.MatchString(shown) {
			t.Fatalf("%q is shown as %q", name, shown)
		}
		if folded, ok := Fold(name); ok {
			other, same := Fold(bytes.ToLower(name))
			if isASCII(name) && (!same || other != folded) {
				t.Fatalf("%q is another name in lower case", name)
			}
		}
	})
}

func isASCII(b []byte) bool { return bytes.IndexFunc(b, func(r rune) bool { return r > 0x7f }) < 0 }
