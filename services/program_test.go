package services

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTable reads echo as the walker does, and chargen's way through errors.
func TestTable(t *testing.T) {
	for _, test := range []struct {
		service string
		want    string
	}{
		{"discard", `
			0 prctl(15, constant, 0x0) 1 1 1
			1 read(0, 0x800000, 0x10000) 1 2 2
			2 exit_group(0, 0x0, 0x0) 2 2 2`},
		{"echo", `
			0 prctl(15, constant, 0x0) 1 1 1
			1 rt_sigaction(13, constant, 0x0) 2 2 2
			2 read(0, 0x800000, 0x10000) 3 4 4
			3 write(1, 0x800000, 0xffffffffffffffff) whole 2 4 4
			4 exit_group(0, 0x0, 0x0) 4 4 4`},
		{"chargen", `
			0 prctl(15, constant, 0x0) 1 1 1
			1 rt_sigaction(13, constant, 0x0) 2 2 2
			2 write(1, constant, 0x1b76) whole 3 4 4
			3 recvfrom(0, 0x800000, 0x10000) 2 2 2
			4 exit_group(0, 0x0, 0x0) 4 4 4`},
		{"time of datagrams", `
			0 prctl(15, constant, 0x0) 1 1 1
			1 rt_sigaction(13, constant, 0x0) 2 2 2
			2 read(0, 0x800000, 0x4) 3 8 8
			3 write(1, constant, 0xffffffffffffffff) 4 4 8
			4 recvfrom(0, 0x800000, 0x4) 3 8 5
			5 shutdown(0, 0x0, 0x0) 6 6 6
			6 recvfrom(0, 0x800000, 0x4) 7 8 8
			7 write(1, constant, 0xffffffffffffffff) 6 6 8
			8 exit_group(0, 0x0, 0x0) 8 8 8`},
	} {
		name, _, datagrams := strings.Cut(test.service, " of ")
		p, err := all[name].steps(Options{Datagrams: datagrams})
		if err != nil {
			t.Fatal(err)
		}
		p = p.named(test.service)
		got := words(t, p, p.table(amd64.numbers))
		if want := strings.ReplaceAll(strings.TrimSpace(test.want), "\t", ""); got != want {
			t.Errorf("%s is\n%s\nwant\n%s", test.service, got, want)
		}
	}
}

// words is a table in words: what a call is given, and the numbers of the
// records that it leads to: next, after 0, after an error.
func words(t *testing.T, p program, table []byte) string {
	t.Helper()
	names := map[uint64]string{0: "read", 1: "write", 13: "rt_sigaction", 45: "recvfrom", 48: "shutdown", 157: "prctl", 231: "exit_group"}
	var b strings.Builder
	for i := range p {
		var r record
		if _, err := binary.Decode(table[i*recordSize:], binary.LittleEndian, &r); err != nil {
			t.Fatal(err)
		}
		from := fmt.Sprintf("%#x", r.Args[1])
		if constant := p[i].args[1].bytes; constant != "" {
			from = "constant"
			if r.Args[1]%8 != 0 {
				t.Errorf("%x at %#x, which is no place for a struct", constant, r.Args[1])
			}
			if !bytes.HasPrefix(table[r.Args[1]-dataAt:], []byte(constant)) {
				t.Errorf("no %x at %#x", constant, r.Args[1])
			}
		}
		whole := ""
		if r.Whole != 0 {
			whole = "whole "
		}
		index := func(address uint64) uint64 { return (address - dataAt) / recordSize }
		fmt.Fprintf(&b, "%d %s(%d, %s, %#x) %s%d %d %d\n", i, names[r.Call], r.Args[0], from, r.Args[2], whole,
			index(r.Next), index(r.Zero), index(r.Failed))
	}
	return strings.TrimSpace(b.String())
}

// TestSixArguments has the walker make a call that uses all of them, which no
// built-in does: copy_file_range(2).
func TestSixArguments(t *testing.T) {
	copyFileRange := map[string]uint64{"amd64": 326, "arm64": 285}
	onEach(t, func(t *testing.T, m machine) {
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		sent := noise(5000)
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
		a := *architectures[m.arch]
		a.numbers[callRecvfrom] = copyFileRange[m.arch]
		const count, flags = 4321, 0
		in, out := buffer, argument{number: bufferAt + 8} // offsets, both 0
		p := program{newStep(callRecvfrom, number(0), in, number(1), out, number(count), number(flags))}
		ended(t, m.run(t, a.image(p.named("copy")), stdin, stdout))
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, sent[:count]) {
			t.Errorf("copied %d of %d bytes, %v", len(got), count, err)
		}
	})
}
