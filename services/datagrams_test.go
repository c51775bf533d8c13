package services

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// conversation starts a service for one end of a pair, as the daemon does for a
// peer's datagrams, with those that have come already; fd is the other end.
func conversation(t *testing.T, m machine, name string, o Options, sizes ...int) (fd int, cmd *exec.Cmd) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ends[0]) })
	for _, size := range sizes {
		if err := unix.Send(ends[0], noise(size), 0); err != nil {
			t.Fatal(err)
		}
	}
	stdout, err := unix.FcntlInt(uintptr(ends[1]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	o.Datagrams = true
	return ends[0], m.start(t, name, o, os.NewFile(uintptr(ends[1]), "stdin"), os.NewFile(uintptr(stdout), "stdout"))
}

// take is the next answer; "" is the end.
func take(t *testing.T, fd int) string {
	t.Helper()
	b := make([]byte, bufferSize)
	n, err := unix.Read(fd, b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// A datagram is answered with no more bytes than it has, or where that is
// allowed, with all that there is to say; and all that have come are answered
// before the end.
func TestAnswersToDatagrams(t *testing.T) {
	const daytime = "Saturday, November 21, 2026 08:33:00-UTC\r\n"
	text := "short"
	for _, c := range []struct {
		service string
		options Options
		whole   string
	}{
		{"daytime", Options{}, daytime},
		{"time", Options{Now: time.Unix(0, 0)}, "\x83\xaa\x7e\x80"},
		{"qotd", Options{Text: &text}, "short\r\n"},
		{"chargen", Options{}, ring()[:512]},
	} {
		for _, amplify := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,amplify=%t", c.service, amplify), func(t *testing.T) {
				onEach(t, func(t *testing.T, m machine) {
					c.options.Amplify = amplify
					sizes := []int{1, 3, 600, 65507, 2}
					fd, cmd := conversation(t, m, c.service, c.options, sizes...)
					for _, size := range sizes {
						want := c.whole
						if !amplify {
							want = want[:min(len(want), size)]
						}
						if got := take(t, fd); got != want {
							t.Errorf("%d bytes are answered with %q, not %q", size, got, want)
						}
					}
					if got := take(t, fd); got != "" {
						t.Errorf("nothing is answered with %q", got)
					}
					ended(t, cmd)
				})
			})
		}
	}
}

// The program that ends by itself takes nothing that it would not answer: what
// is sent from its last look on is an error.
func TestAnswersAreWhole(t *testing.T) {
	onEach(t, func(t *testing.T, m machine) {
		for range 20 {
			fd, cmd := conversation(t, m, "time", Options{}, 4)
			sent, answered := 1, 0
			for unix.Send(fd, []byte("1234"), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT) == nil {
				sent++
				if answered < sent-1 { // the program has to come to an end some time
					take(t, fd)
					answered++
				}
				if sent == 1000 {
					unix.Shutdown(fd, unix.SHUT_WR)
				}
			}
			for ; answered < sent; answered++ {
				if got := take(t, fd); len(got) != 4 {
					t.Fatalf("of %d datagrams %d are answered", sent, answered)
				}
			}
			ended(t, cmd)
		}
	})
}

// echo and discard go on until the end.
func TestStreamsOfDatagrams(t *testing.T) {
	onEach(t, func(t *testing.T, m machine) {
		fd, cmd := conversation(t, m, "echo", Options{})
		for _, word := range []string{"a", "longer", strings.Repeat("x", 65507), "b"} {
			unix.Send(fd, []byte(word), 0)
			if got := take(t, fd); got != word {
				t.Errorf("%.20q comes back as %.20q", word, got)
			}
		}
		unix.Shutdown(fd, unix.SHUT_WR)
		ended(t, cmd)
		fd, cmd = conversation(t, m, "discard", Options{}, 1, 65507)
		unix.Shutdown(fd, unix.SHUT_WR)
		if got := take(t, fd); got != "" {
			t.Errorf("discard says %q", got)
		}
		ended(t, cmd)
	})
}
