package listen

import (
	"slices"
	"time"
)

// Shut takes what the kernel has queued for door already, as far as there is
// room for it, closes its sockets and returns. Serve must be running, or have
// returned.
func (s *Set) Shut(door Door) {
	shut := make(chan struct{})
	s.Order(func() {
		for _, k := range slices.Clone(s.doors[door]) {
			s.Finish(k)
		}
		close(shut)
	})
	select {
	case <-shut:
	case <-s.done:
	}
}

// longestQueue is as many connections as the file can have the kernel queue at
// one socket, by listen.backlog.
const longestQueue = 65535

// takeQueue accepts all that waits at a socket, as far as there is room. Nobody
// comes by its file any more; who comes meanwhile by an address does not make it
// go on for ever.
func (s *Set) takeQueue(k *Socket) {
	if k == nil {
		return
	}
	k.withdraw()
	if k.porter != nil {
		return
	}
	begin := k.accepted
	for left := -1; left != k.accepted && k.accepted-begin < longestQueue; {
		left = k.accepted
		s.burst(k)
	}
}

// Answers tells whether Serve does its work, given that much time to show it.
func (s *Set) Answers(within time.Duration) bool {
	answer := make(chan struct{})
	s.Order(func() { close(answer) })
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
