package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A load is one run of connections against a server on this machine: each is
// opened, read to its end and closed. One thread keeps a number of them under
// way, so that the client takes as little of the machine as it can.
type load struct {
	port        int
	connections int
	atOnce      int
	want        string // every answer, whole

	set     int
	started int
	done    int
	wrong   int
	got     map[int]int // bytes so far, by descriptor
	times   map[int]time.Time
	waits   []time.Duration
	buffer  [4096]byte
}

// A result is what a load measured.
type result struct {
	perSecond    float64
	median, tail time.Duration // of one connection: half, and 99 of 100
	wrong        int
}

func (l *load) run() (result, error) {
	var err error
	if l.set, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return result{}, err
	}
	defer unix.Close(l.set)
	l.got, l.times = map[int]int{}, map[int]time.Time{}
	begin := time.Now()
	var events [128]unix.EpollEvent
	for l.done < l.connections {
		for l.started < l.connections && len(l.got) < l.atOnce {
			if err := l.open(); err != nil {
				return result{}, err
			}
		}
		n, err := unix.EpollWait(l.set, events[:], silence)
		if n == 0 && err == nil {
			l.giveUp()
		}
		for i := range max(n, 0) {
			l.read(int(events[i].Fd))
		}
	}
	return l.summary(time.Since(begin)), nil
}

// silence is how long, in milliseconds, a server may leave all connections
// without a byte before they count as lost.
const silence = 3000

// giveUp counts what is open as lost.
func (l *load) giveUp() {
	for fd := range l.got {
		unix.Close(fd)
		delete(l.got, fd)
		l.done++
		l.wrong++
	}
}

func (l *load) open() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	l.started++
	l.times[fd] = time.Now()
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: l.port, Addr: [4]byte{127, 0, 0, 1}})
	if err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("cannot connect to port %d: %w", l.port, err)
	}
	l.got[fd] = 0
	return unix.EpollCtl(l.set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (l *load) read(fd int) {
	n, err := unix.Read(fd, l.buffer[:])
	switch {
	case n > 0:
		at := l.got[fd]
		if at+n > len(l.want) || l.want[at:at+n] != string(l.buffer[:n]) {
			l.wrong++
		}
		l.got[fd] += n
		return
	case err == unix.EAGAIN:
		return
	case err != nil || l.got[fd] != len(l.want):
		l.wrong++
	}
	unix.Close(fd)
	l.waits = append(l.waits, time.Since(l.times[fd]))
	delete(l.got, fd)
	l.done++
}
