package control

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Peer is the process at the other end of the administrative socket, as it
// was when it connected (SO_PEERCRED, unix(7)).
type Peer struct {
	PID      int // 0 is outside of superd's process namespace
	UID, GID uint32
}

// peerOf is who is at the other end of a unix socket.
func peerOf(fd int) (Peer, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	return Peer{PID: int(c.Pid), UID: c.Uid, GID: c.Gid}, nil
}

// confined tells whether a process is under more system call filters than
// superd is, as its programs are, whoever they run as: no filter is ever taken
// away, and a child has its parent's. A process that is gone may have been one.
func (p Peer) confined(own int) bool {
	if p.PID == 0 {
		return false // programs are in superd's namespace or below it
	}
	its, err := filters(p.PID)
	return err != nil || its > own
}

// ownFilters is how many superd has. It is asked for before any thread of
// superd's confines itself.
func ownFilters() int {
	n, err := filters(os.Getpid())
	if err != nil {
		return math.MaxInt // this kernel knows none
	}
	return n
}

// filters is how many system call filters a process has (proc(5)).
func filters(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(status, []byte("\nSeccomp_filters:\t"))
	number, _, _ := bytes.Cut(rest, []byte("\n"))
	return strconv.Atoi(string(number))
}
