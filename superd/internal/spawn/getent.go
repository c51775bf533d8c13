package spawn

import (
	"bytes"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
)

// getentTime bounds one question to the system's databases: what hangs must not
// keep superd hanging. It is more than the machine's own services need to find
// out that a directory server is down (sssd: 6 seconds), and to go on with what
// is in files; and more than a machine that is busy with its start needs for
// what is in files.
const getentTime = 30 * time.Second

// getent asks getent(1) for one entry: "" where there is none, or where the
// machine has no getent and so nothing but its files.
func (e *Engine) getent(database, key string) (string, error) {
	const program = "/usr/bin/getent"
	if _, err := os.Stat(program); err != nil {
		return "", nil
	}
	out, status, err := e.output([]string{program, database, "--", key}, getentTime)
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot ask getent for %s %s: %w", database, key, err)
	case status == 0:
		return string(out), nil
	case status == 2: // getent(1): the key was not found
		return "", nil
	}
	return "", fmt.Errorf("cannot ask getent for %s %s: exit status %d", database, key, status)
}

// output runs a program of the system at load and returns what it wrote.
func (e *Engine) output(argv []string, limit time.Duration) (out []byte, status int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, 0, err
	}
	defer unix.Close(ends[0])
	plan, err := e.Compile(Spec{Path: argv[0], Argv: argv, Env: []string{"PATH=" + DefaultPath}, Stderr: StderrNull, Dir: "/", Umask: 0o22})
	if err != nil {
		return nil, 0, err
	}
	defer plan.Close()
	child, err := e.Start(plan, Streams{Connection: ends[1], Stderr: -1}, &Facts{Peer: &peer.Peer{}})
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(child.PIDFD)
	for e.Settle() > 0 {
		time.Sleep(time.Millisecond)
	}
	out, err = readUntil(ends[0], time.Now().Add(limit))
	if err != nil {
		unix.PidfdSendSignal(child.PIDFD, unix.SIGKILL, nil, 0)
	}
	end, waitErr := Wait(child.PIDFD)
	if err == nil {
		err = waitErr
	}
	if failure := e.Failure(child); failure != nil {
		err = failure
	}
	return out, end.Status, err
}

// readUntil reads fd to its end, or fails when that takes longer than until.
func readUntil(fd int, until time.Time) ([]byte, error) {
	var all bytes.Buffer
	part := make([]byte, 4096)
	for {
		left := time.Until(until).Milliseconds()
		if left <= 0 {
			return nil, unix.ETIMEDOUT
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left))
		if err == unix.EINTR || err == nil && ready == 0 {
			continue
		}
		n, err := unix.Read(fd, part)
		if err != nil || n == 0 {
			return all.Bytes(), err
		}
		all.Write(part[:n])
	}
}
