package listen

import (
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// A shortage is a time in which connections cannot be accepted, since the
// system is out of something. They wait in the kernel's queues, and superd
// tries again with a growing delay. Everything else goes on meanwhile.
type shortage struct {
	resting bool          // no connection is accepted until
	until   time.Time     // then
	delay   time.Duration // the last one; 0 when accept has worked since
	latest  time.Time     // when accept last was out of something
	others  []unix.PollFd // what is waited for meanwhile: the waker, and then what is watched
}

// Delays between attempts to accept while the system is out of something.
const (
	shortestDelay = 5 * time.Millisecond
	longestDelay  = time.Second
)

// calm is how long accept has to work for the next trouble to be a new one:
// each is complained of once.
const calm = time.Minute

// trouble deals with an error of accept. Those of one connection concern
// nobody (accept(2), "Error handling").
func (s *Set) trouble(k *Socket, err error) {
	if !scarce(err) {
		return
	}
	now := s.remark(err)
	told := k.door.Impatient() && s.turnAway(k)
	if s.resting && !told {
		return
	}
	if s.delay = min(max(2*s.delay, shortestDelay), longestDelay); told {
		s.delay = shortestDelay // more of them may wait for an answer
	}
	s.resting, s.until = true, now.Add(s.delay)
}

var errShut = errors.New("a program that had the socket has shut it down: take its address out of the file, reload, and add it again")

// remark complains of err, unless that is the trouble of before.
func (s *Set) remark(err error) (now time.Time) {
	now = time.Now()
	if s.latest.IsZero() || now.Sub(s.latest) > calm {
		s.complain(err)
	}
	s.latest = now
	return now
}

func scarce(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) ||
		errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// rest waits for everything but connections, for as many milliseconds at most
// as Serve may sleep; -1 until something happens. An order ends the delay.
func (s *Set) rest(timeout int) {
	left := time.Until(s.until)
	if left <= 0 {
		s.resting = false
		return
	}
	sleep := int((left + time.Millisecond - 1) / time.Millisecond)
	if timeout < 0 {
		timeout = math.MaxInt
	}
	if n, err := unix.Poll(s.others, min(sleep, timeout)); n <= 0 || err != nil {
		return
	}
	if s.others[0].Revents != 0 {
		s.obey()
	}
	for i, ready := range s.watched {
		if s.others[1+i].Revents != 0 {
			ready()
		}
	}
}

// turnAway uses the number of the reserve to tell clients that there is no
// room, who would rather know than wait; it tells whether there were any.
func (s *Set) turnAway(k *Socket) (told bool) {
	for n := 0; n < burstLength && s.reserve >= 0; n++ {
		unix.Close(s.reserve)
		fd, err := k.acceptOne(&s.peer)
		if err == nil {
			k.door.TurnAway(fd, &s.peer)
			told = true
		}
		s.reserve, _ = unix.FcntlInt(uintptr(s.waker), unix.F_DUPFD_CLOEXEC, s.reserve)
		if err != nil {
			break
		}
	}
	return told
}

// restock makes the reserve anew where its number was lost to somebody else.
func (s *Set) restock() {
	if s.reserve >= 0 {
		return
	}
	if fd, err := unix.FcntlInt(uintptr(s.waker), unix.F_DUPFD_CLOEXEC, 0); err == nil {
		s.reserve, _ = s.above(fd)
	}
}
