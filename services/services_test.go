package services

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNamesAreFiles(t *testing.T) {
	names := Names()
	if !slices.IsSorted(names) || len(names) != 7 {
		t.Errorf("names are %v", names)
	}
	for _, name := range names {
		if _, err := os.Stat(name + ".go"); err != nil {
			t.Error(err)
		}
	}
	var clocked, texts []string
	for _, name := range append(names, "nothing") {
		if Clocked(name) {
			clocked = append(clocked, name)
		}
		if TakesText(name) {
			texts = append(texts, name)
		}
	}
	if got := fmt.Sprint(clocked, texts); got != "[daytime time] [greeting qotd]" {
		t.Errorf("clocked and with a text: %s", got)
	}
}

func TestEcho(t *testing.T) {
	for _, size := range []int{0, 1, 65535, 65536, 65537, 10 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			onEachConnection(t, "echo", Options{}, func(t *testing.T, c client, cmd *exec.Cmd) {
				sent := noise(size)
				go func() {
					c.Write(sent)
					c.finish()
				}()
				// Small bites keep the program's output blocked most of the time.
				received, err := io.ReadAll(io.LimitReader(bites{c, 1000}, int64(size)+1))
				if err != nil {
					t.Error(err)
				}
				if !bytes.Equal(received, sent) {
					t.Errorf("sent %d bytes, received %d others", len(sent), len(received))
				}
				ended(t, cmd)
			})
		})
	}
}

// TestEchoTakesTurns: a byte comes back while more may follow.
func TestEchoTakesTurns(t *testing.T) {
	onEachConnection(t, "echo", Options{}, func(t *testing.T, c client, cmd *exec.Cmd) {
		for _, word := range []string{"a", "longer", "b"} {
			io.WriteString(c, word)
			if got := readN(t, c, len(word)); got != word {
				t.Fatalf("sent %q, received %q", word, got)
			}
		}
		c.finish()
		ended(t, cmd)
	})
}

func TestDiscard(t *testing.T) {
	onEachConnection(t, "discard", Options{}, func(t *testing.T, c client, cmd *exec.Cmd) {
		if _, err := c.Write(noise(1 << 20)); err != nil {
			t.Error(err)
		}
		c.finish()
		expect(t, c, cmd, "")
	})
}

func TestSayings(t *testing.T) {
	word := func(s string) *string { return &s }
	long := strings.Repeat("0123456789abcde\n", 20000)
	for _, test := range []struct {
		service string
		options Options
		want    string
	}{
		{"greeting", Options{}, "hi client"},
		{"greeting", Options{Text: word("")}, ""},
		{"greeting", Options{Text: word("220 a.example\r\n\x00\xff")}, "220 a.example\r\n\x00\xff"},
		{"greeting", Options{Text: word(long)}, long},
		{"qotd", Options{}, "Simplicity is prerequisite for reliability.\r\n    -- Edsger W. Dijkstra\r\n"},
		{"qotd", Options{Text: word("")}, ""},
		{"qotd", Options{Text: word("one")}, "one\r\n"},
		{"qotd", Options{Text: word("one\ntwo\r\nthree\n")}, "one\r\ntwo\r\nthree\r\n"},
		{"qotd", Options{Text: word(strings.Repeat("x", 509))}, strings.Repeat("x", 509) + "\r\n"},
		{"daytime", Options{Now: someSecond}, "Saturday, November 21, 2026 08:33:00-UTC\r\n"},
		{"daytime", Options{Now: someSecond.In(time.FixedZone("EST", -5*3600))}, "Saturday, November 21, 2026 08:33:00-UTC\r\n"},
		{"time", Options{Now: time.Unix(0, 0)}, "\x83\xaa\x7e\x80"}, // 2,208,988,800: RFC 868
	} {
		t.Run(test.service, func(t *testing.T) {
			onEachConnection(t, test.service, test.options, func(t *testing.T, c client, cmd *exec.Cmd) {
				expect(t, c, cmd, test.want)
			})
		})
	}
}

// TestTimeWraps has the examples of RFC 868 and the end of its first era.
func TestTimeWraps(t *testing.T) {
	for when, want := range map[string]uint32{
		"1976-01-01T00:00:00Z": 2398291200,
		"1980-01-01T00:00:00Z": 2524521600,
		"1983-05-01T00:00:00Z": 2629584000,
		"2036-02-07T06:28:15Z": 0xffffffff,
		"2036-02-07T06:28:16Z": 0,
		"2036-02-07T06:28:17Z": 1,
	} {
		now, err := time.Parse(time.RFC3339, when)
		if err != nil {
			t.Fatal(err)
		}
		p, err := timeProtocol.steps(Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint32([]byte(p[0].args[1].bytes)); got != want {
			t.Errorf("at %s the time is %d, want %d", when, got, want)
		}
	}
}

func TestChargen(t *testing.T) {
	onEachConnection(t, "chargen", Options{}, func(t *testing.T, c client, cmd *exec.Cmd) {
		var want strings.Builder
		printing := "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~ "
		line := " " + printing[:71]
		for i := range 200 {
			want.WriteString(line + "\r\n")
			line = line[1:] + string(printing[(71+i)%95])
		}
		if got := readN(t, c, want.Len()); got != want.String() {
			t.Errorf("lines are wrong:\n%s", got)
		}
		c.gone()
		ended(t, cmd)
	})
}

// TestChargenDiscards: a client that reads may also write as much as it likes.
func TestChargenDiscards(t *testing.T) {
	onEach(t, func(t *testing.T, m machine) {
		for _, kind := range []string{"tcp", "unix"} {
			t.Run(kind, func(t *testing.T) {
				c, stdin, stdout := connections[kind](t)
				cmd := m.start(t, "chargen", Options{}, stdin, stdout)
				go io.Copy(io.Discard, c)
				if _, err := c.Write(noise(8 << 20)); err != nil {
					t.Error(err)
				}
				c.finish()
				c.gone()
				ended(t, cmd)
			})
		}
	})
}

// TestClientGoneBefore: there is nobody when the program starts.
func TestClientGoneBefore(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, m machine) {
				for kind, connect := range connections {
					t.Run(kind, func(t *testing.T) {
						c, stdin, stdout := connect(t)
						io.WriteString(c, "is anybody there?")
						c.gone()
						ended(t, m.start(t, name, Options{}, stdin, stdout))
					})
				}
			})
		})
	}
}

// TestClientGoneAmid: the program is at work when the client goes.
func TestClientGoneAmid(t *testing.T) {
	for _, name := range []string{"echo", "discard", "chargen"} {
		t.Run(name, func(t *testing.T) {
			onEachConnection(t, name, Options{}, func(t *testing.T, c client, cmd *exec.Cmd) {
				written := make(chan struct{})
				go func() {
					defer close(written)
					c.Write(noise(1 << 20))
				}()
				if name == "discard" {
					<-written
				} else {
					readN(t, c, 1)
				}
				c.gone()
				<-written
				ended(t, cmd)
			})
		})
	}
}

func TestRefused(t *testing.T) {
	word := func(n int) *string { s := strings.Repeat("x", n); return &s }
	for _, test := range []struct {
		arch, service string
		options       Options
		want          string
	}{
		{"amd64", "finger", Options{}, `no built-in named "finger" (there are [chargen daytime discard echo greeting qotd time])`},
		{"riscv64", "echo", Options{}, `cannot make built-ins for riscv64: no walker`},
		{"arm64", "echo", Options{Text: word(0)}, `echo: takes no text`},
		{"amd64", "greeting", Options{Text: word(maxText + 1)}, `greeting: text has 1048577 bytes, more than 1048576`},
		{"amd64", "qotd", Options{Text: word(510)}, `qotd: text has 512 bytes with its line ends, RFC 865 allows 511`},
		{"amd64", "daytime", Options{}, `daytime: needs to know the time`},
		{"amd64", "time", Options{}, `time: needs to know the time`},
	} {
		if _, err := imageFor(test.arch, test.service, test.options); err == nil || err.Error() != test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

// TestFiles: 0 and 1 need not be connections at all.
func TestFiles(t *testing.T) {
	onEach(t, func(t *testing.T, m machine) {
		dir := t.TempDir()
		sent := noise(100000)
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		if err := os.WriteFile(from, sent, 0o600); err != nil {
			t.Fatal(err)
		}
		stdin, err := os.Open(from)
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := os.Create(to)
		if err != nil {
			t.Fatal(err)
		}
		ended(t, m.start(t, "echo", Options{}, stdin, stdout))
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("copied %d of %d bytes, %v", len(got), len(sent), err)
		}
	})
}

// expect reads to the end, which must be the program's own.
func expect(t *testing.T, c client, cmd *exec.Cmd, want string) {
	t.Helper()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != want {
		t.Errorf("received %q, %v, want %q", got, err, want)
	}
	ended(t, cmd)
}

func readN(t *testing.T, r io.Reader, n int) string {
	t.Helper()
	b := make([]byte, n)
	if n, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("cannot read more than %d bytes: %v", n, err)
	}
	return string(b)
}

// noise is the same for the same size.
func noise(size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// bites reads little at a time.
type bites struct {
	r    io.Reader
	most int
}

func (b bites) Read(p []byte) (int, error) { return b.r.Read(p[:min(len(p), b.most)]) }
