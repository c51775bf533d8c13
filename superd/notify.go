package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A notifier tells the service manager that started superd how things stand
// (sd_notify(3)). It is ten lines and not a library: whoever does not read what
// he is told must not be waited for.
type notifier struct {
	socket   string        // "" where nobody wants to know
	watchdog time.Duration // how often a sign of life is due; 0 for never
}

// newNotifier takes what is for superd alone from the environment, so that not
// even env_pass can give it to a program.
func newNotifier() notifier {
	n := notifier{socket: take("NOTIFY_SOCKET")}
	us, err := strconv.ParseInt(take("WATCHDOG_USEC"), 10, 64)
	pid := take("WATCHDOG_PID")
	if err == nil && us > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		n.watchdog = time.Duration(us) * time.Microsecond
	}
	return n
}

func take(variable string) string {
	value := os.Getenv(variable)
	os.Unsetenv(variable)
	return value
}

// tell sends assignments such as READY=1, at once or not at all.
func (n notifier) tell(assignments ...string) error {
	if n.socket == "" {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, []byte(strings.Join(assignments, "\n")), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: n.socket})
}

// assign is a number, as an assignment.
func assign(name string, n int64) string { return fmt.Sprint(name, "=", n) }
