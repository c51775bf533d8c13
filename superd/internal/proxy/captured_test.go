package proxy

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file anew")

// describe is an answer for people.
func describe(a answer) string {
	switch {
	case a.err != nil:
		return a.err.Error() + "\n"
	case a.h.Local:
		return fmt.Sprintf("%d bytes, version %d, local\n", a.n, a.h.Version) + describeFields(&a.h)
	}
	return fmt.Sprintf("%d bytes, version %d, %s > %s\n", a.n, a.h.Version, a.h.Source, a.h.Destination) + describeFields(&a.h)
}

func describeFields(h *Header) string {
	text := ""
	for _, f := range []struct {
		name  string
		value []byte
	}{
		{"alpn", h.ALPN}, {"authority", h.Authority}, {"unique id", h.UniqueID}, {"namespace", h.Namespace}, {"version", h.SSL.Version},
		{"cipher", h.SSL.Cipher}, {"name", h.SSL.CommonName}, {"signature", h.SSL.SignatureAlgorithm}, {"key", h.SSL.KeyAlgorithm},
	} {
		if f.value != nil {
			text += fmt.Sprintf("    %s %q\n", f.name, f.value)
		}
	}
	if h.SSL.On {
		text += fmt.Sprintf("    ssl, certificate %v, verified %v\n", h.SSL.Certificate, h.SSL.Verified)
	}
	return text + strings.ReplaceAll(string(h.AppendVariables(nil)), "\x00", "\n")
}

type capture struct{ name, bytes string }

func captures(t testing.TB) (list []capture) {
	t.Helper()
	text, err := os.ReadFile("testdata/captured.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, quoted, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || name == "#" {
			continue
		}
		bytes, err := strconv.Unquote(quoted)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		list = append(list, capture{name, bytes})
	}
	return list
}

// TestCaptured reads what the software behind which superd will stand sends.
func TestCaptured(t *testing.T) {
	const golden = "testdata/captured.golden"
	got := ""
	for _, c := range captures(t) {
		got += c.name + ": " + describe(ask([]byte(c.bytes)))
	}
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
