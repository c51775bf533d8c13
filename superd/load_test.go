package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/services"
)

// Many connections, one after another and at once.

// A burst is what one of many clients does, and what the log must have added up
// to when n of them have ended.
type burst struct {
	service string
	program string // what the service runs
	client  func(visit) error
	in, out int // bytes of all clients together; -1 where nobody can know
}

func TestManyConnections(t *testing.T) {
	n := fewer(10_000, 500)
	for _, b := range bursts(t, n) {
		t.Run(b.service, func(t *testing.T) {
			t.Parallel()
			d := start(t, fmt.Sprintf("services: {%s: {listen: '127.0.0.1:0', %s}}", b.service, b.program))
			crowdOf(t, n, 50, d.address(b.service), func(v visit) error {
				return errors.Join(d.logged(v.number-behind), b.client(v))
			})
			list := d.allExited(b.service, n)
			checkStatus(t, list)
			if in, out := total(list, "bytes_in"), total(list, "bytes_out"); b.in >= 0 && (in != b.in || out != b.out) {
				t.Errorf("%d bytes went in and %d out, the log says %d and %d", b.in, b.out, in, out)
			}
			d.ends()
		})
	}
}

func bursts(t *testing.T, n int) []burst {
	const (
		hello   = "hi client"
		chatter = 10_000
	)
	quote := "Simplicity is prerequisite for reliability.\r\n    -- Edsger W. Dijkstra\r\n"
	noises := 0
	for i := range n {
		noises += noiseSize(i)
	}
	return []burst{
		{"tiny", "run: " + tiny(t), says(hello), 0, n * len(hello)},
		{"greeting", "builtin: greeting", says(hello), 0, n * len(hello)},
		{"qotd", "builtin: qotd", says(quote), 0, n * len(quote)},
		{"echo", "builtin: echo", echoes, noises, noises},
		{"discard", "builtin: discard", isSilent, noises, 0},
		{"chargen", "builtin: chargen", chatters(chatter), -1, -1},
		{"daytime", "builtin: daytime", tellsDaytime, -1, -1},
		{"time", "builtin: time", tellsTime, 0, n * 4},
	}
}

// tiny is the smallest program there is, as a file.
func tiny(t *testing.T) string {
	image, err := services.Image("greeting", services.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, publicDir(t), "tiny", string(image), 0o755)
}

func says(text string) func(visit) error {
	return func(v visit) error {
		b, err := readAll(v)
		if err == nil && string(b) != text {
			err = fmt.Errorf("%q came, not %q", b, text)
		}
		return err
	}
}

// noiseSize is how much client i sends.
func noiseSize(i int) int { return 1 + i*37%4096 }

func (v visit) noise() []byte { return noise(uint64(v.number), noiseSize(v.number)) }

func echoes(v visit) error {
	sent := v.noise()
	if _, err := v.Write(sent); err != nil {
		return err
	}
	v.CloseWrite()
	b, err := readAll(v)
	if err != nil {
		return err
	}
	return checkSame(b, sent)
}

func isSilent(v visit) error {
	if _, err := v.Write(v.noise()); err != nil {
		return err
	}
	v.CloseWrite()
	b, err := readAll(v)
	if err == nil && len(b) > 0 {
		err = fmt.Errorf("%q came", b)
	}
	return err
}

// chatters reads the beginning of what has no end.
func chatters(n int) func(visit) error {
	var lines []byte // as RFC 864 recommends them
	for first := 0; len(lines) < n; first++ {
		for i := range 72 {
			lines = append(lines, byte(' '+(first+i)%95))
		}
		lines = append(lines, "\r\n"...)
	}
	return func(v visit) error {
		b := make([]byte, n)
		if _, err := io.ReadFull(v, b); err != nil {
			return err
		}
		return checkSame(b, lines[:n])
	}
}

// check looks at a time that was told during the visit.
func (v visit) check(told time.Time) error {
	if told.Before(v.begun.Truncate(time.Second)) || told.After(time.Now()) {
		return fmt.Errorf("%v is not between %v and %v", told, v.begun, time.Now())
	}
	return nil
}

func tellsDaytime(v visit) error {
	b, err := readAll(v)
	if err != nil {
		return err
	}
	told, err := time.Parse("Monday, January 2, 2006 15:04:05-MST\r\n", string(b))
	if err != nil {
		return err
	}
	return v.check(told)
}

func tellsTime(v visit) error {
	b, err := readAll(v)
	if err != nil || len(b) != 4 {
		return fmt.Errorf("%d bytes came (%v)", len(b), err)
	}
	const from1900to1970 = 2208988800 // seconds, RFC 868; the number wraps
	past := int32(uint32(v.begun.Unix()+from1900to1970) - binary.BigEndian.Uint32(b))
	return v.check(time.Unix(v.begun.Unix()-int64(past), 0))
}

// holdable is how many connections of wanted can be held at once here: the
// test needs a descriptor for each, superd perConnection, and each program a
// process of the user.
func holdable(t *testing.T, wanted int) int {
	t.Helper()
	n := uint64(wanted)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	own := 200 + min(limit.Cur/8, 1024) // descriptors that superd and the test have besides
	n = min(n, (max(limit.Cur, own)-own)/perConnection)
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
		t.Fatal(err)
	}
	n = min(n, limit.Cur/2)
	if n < uint64(wanted) {
		t.Logf("the limits leave room for %d connections, not %d", n, wanted)
	}
	if n < 10 {
		skip(t, "the limits are too low")
	}
	return int(n)
}

// residentKB is how much memory superd has.
func (d *process) residentKB() int {
	return fieldKB(d.t, fmt.Sprintf("/proc/%d/status", d.pid()), "VmRSS:")
}

// fieldKB reads one number of a file in /proc.
func fieldKB(t testing.TB, path, name string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, _ := strconv.Atoi(f[1])
			return n
		}
	}
	t.Fatalf("%s has no %s", path, name)
	return 0
}

func TestHeldConnections(t *testing.T) {
	n := holdable(t, fewer(5000, 500))
	d := start(t, `services: {echo: {listen: "127.0.0.1:0", builtin: echo}}`)
	const meminfo, available = "/proc/meminfo", "MemAvailable:"
	systemBefore, superdBefore := fieldKB(t, meminfo, available), d.residentKB()

	held := make([]*net.TCPConn, n)
	t.Cleanup(func() {
		for _, c := range held {
			if c != nil {
				c.Close()
			}
		}
	})
	crowd(t, n, 50, func(i int) (err error) {
		held[i], err = dialAddress(d.address("echo"))
		return err
	})
	crowd(t, n, 50, func(i int) error { return exchange(held[i], i) })
	t.Logf("%d held connections: %d KB each of the system's memory, %.1f KB each of superd's own", n,
		(systemBefore-fieldKB(t, meminfo, available))/n, float64(d.residentKB()-superdBefore)/float64(n))
	if programs := len(d.children()); programs != n {
		t.Errorf("%d programs run for %d connections", programs, n)
	}
	crowd(t, n, 50, func(i int) error { return errors.Join(d.logged(i-behind), held[i].Close()) })
	list := d.allExited("echo", n)
	checkStatus(t, list)
	if sum := total(list, "bytes_in"); sum != total(list, "bytes_out") || sum != n*messageSize {
		t.Errorf("the log counts %d bytes in and %d out, not %d", sum, total(list, "bytes_out"), n*messageSize)
	}
	d.ends()
}

const messageSize = 100

// exchange sends a message and hears it again.
func exchange(c *net.TCPConn, i int) error {
	c.SetDeadline(time.Now().Add(patience))
	message := noise(uint64(i), messageSize)
	if _, err := c.Write(message); err != nil {
		return err
	}
	b := make([]byte, messageSize)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if !bytes.Equal(b, message) {
		return checkSame(b, message)
	}
	return nil
}
