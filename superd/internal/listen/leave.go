package listen

import (
	"time"

	"golang.org/x/sys/unix"
)

// Shut takes what the kernel has queued for door already, as far as there is
// room for it, closes its sockets and returns. Serve must be running, or have
// returned.
func (s *Set) Shut(door Door) {
	shut := make(chan struct{})
	s.order(func() {
		for _, k := range s.doors[door] {
			s.takeQueue(k)
			s.leave(k)
		}
		delete(s.doors, door)
		close(shut)
	})
	select {
	case <-shut:
	case <-s.done:
	}
}

// takeQueue accepts all that waits at a socket, as far as there is room.
func (s *Set) takeQueue(k *Socket) {
	for left := -1; left != k.accepted; {
		left = k.accepted
		s.burst(k)
	}
}

// leave closes a socket. It keeps its number: an event of it can be under way.
func (s *Set) leave(k *Socket) {
	unix.EpollCtl(s.set, unix.EPOLL_CTL_DEL, k.fd, nil)
	unix.Close(k.fd)
	k.fd, k.paused = -1, true
}

// Answers tells whether Serve does its work, given that much time to show it.
func (s *Set) Answers(within time.Duration) bool {
	answer := make(chan struct{})
	s.order(func() { close(answer) })
	patience := time.NewTimer(within)
	defer patience.Stop()
	select {
	case <-answer:
		return true
	case <-patience.C:
	case <-s.done:
	}
	return false
}
