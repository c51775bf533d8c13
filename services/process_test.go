package services

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPartialWrite stops and continues a program whose write has done a part
// of its work: that is when a blocking write returns early.
func TestPartialWrite(t *testing.T) {
	onEach(t, func(t *testing.T, m machine) {
		const room = 4096
		stdin, in := pipe(t)
		out, stdout := pipe(t)
		size, err := unix.FcntlInt(stdout.Fd(), unix.F_SETPIPE_SZ, room)
		if err != nil {
			t.Fatal(err)
		}
		sent := noise(3*size + 1)
		if _, err := in.Write(sent); err != nil {
			t.Fatal(err)
		}
		in.Close()

		cmd := m.start(t, "echo", Options{}, stdin, stdout)
		poll := []unix.PollFd{{Fd: int32(out.Fd()), Events: unix.POLLIN}}
		_, err = unix.Poll(poll, -1)
		for err == unix.EINTR {
			_, err = unix.Poll(poll, -1)
		}
		if err != nil {
			t.Fatal(err)
		}
		pid := cmd.Process.Pid
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(pid, unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(out)
		if err != nil || string(got) != string(sent) {
			t.Errorf("sent %d bytes, received %d or others, %v", len(sent), len(got), err)
		}
		ended(t, cmd)
	})
}

// TestProcess looks at a program from outside: ps shows its service, and no
// memory of it is both writable and executable.
func TestProcess(t *testing.T) {
	m := machine{arch: runtime.GOARCH}
	if architectures[m.arch] == nil {
		t.Skipf("no walker for %s", m.arch)
	}
	c, stdin, stdout := tcpConnection(t)
	cmd := m.start(t, "echo", Options{}, stdin, stdout)
	io.WriteString(c, "x")
	readN(t, c, 1)

	if got := proc(t, cmd.Process.Pid, "comm"); got != "echo\n" {
		t.Errorf("the name is %q", got)
	}
	maps := proc(t, cmd.Process.Pid, "maps")
	if regexp.MustCompile(`(?m)^\S+ .wx`).MatchString(maps) {
		t.Errorf("writable and executable:\n%s", maps)
	}
	for _, want := range []string{"00400000-\\S+ r-xp", "00601000-\\S+ r--p", "00800000-00810000 rw-p", `\S+ rw-p .*\[stack\]`} {
		if !regexp.MustCompile(`(?m)^` + want).MatchString(maps) {
			t.Errorf("no %s in\n%s", want, maps)
		}
	}
	c.finish()
	ended(t, cmd)
}

func proc(t *testing.T, pid int, file string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTerminal is what superd try does: 0 and 1 are a terminal, whose user
// ends the input with ^D.
func TestTerminal(t *testing.T) {
	onEach(t, func(t *testing.T, m machine) {
		user, stdin, stdout := terminal(t)
		cmd := m.start(t, "echo", Options{}, stdin, stdout)
		io.WriteString(user, "hello\n")
		const twice = "hello\r\nhello\r\n" // the terminal's echo, and ours
		if got := readN(t, user, len(twice)); got != twice {
			t.Errorf("the screen shows %q", got)
		}
		io.WriteString(user, "\x04")
		ended(t, cmd)
	})
}

// TestChargenOnTerminal: there recvfrom fails, and the lines go on until the
// terminal is closed.
func TestChargenOnTerminal(t *testing.T) {
	onEach(t, func(t *testing.T, m machine) {
		user, stdin, stdout := terminal(t)
		cmd := m.start(t, "chargen", Options{}, stdin, stdout)
		got := readN(t, user, 200*75)
		if want := strings.ReplaceAll(ring(), "\n", "\r\n"); !strings.HasPrefix(got, want) {
			t.Errorf("the screen shows %.300q", got)
		}
		user.Close()
		ended(t, cmd)
	})
}

// terminal is a new one: the user's side, and twice the program's.
func terminal(t *testing.T) (user, stdin, stdout *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		file, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	return user, open(), open()
}
