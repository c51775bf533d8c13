package spawn

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// A program can get listening sockets themselves, from descriptor 3 on, by the
// protocol of sd_listen_fds(3): the environment says how many, what they are
// called, and whom they are for. The last must be the program's own number, so
// that a child of its does not take them for its own; but the number is known
// only once the child is there, and the child makes system calls and nothing
// else. The call that starts its session returns the session's number, which is
// the child's (setsid(2)), and the walker writes it as text where the child's
// environment has room for it: that memory is the instance's, and nobody else's
// until execve has copied it.

// firstSocket is the number of the first of them (SD_LISTEN_FDS_START).
const firstSocket = 3

// LongestSocketName is how many bytes the name of a socket may have, as
// systemd has it (FDNAME_MAX).
const LongestSocketName = 255

// named are the variables about the sockets beside listenPID.
var named = []variable{
	{"LISTEN_FDS=", func(b []byte, f *Facts) []byte { return strconv.AppendInt(b, int64(len(f.Names)), 10) }},
	{"LISTEN_FDNAMES=", func(b []byte, f *Facts) []byte {
		for i, name := range f.Names {
			if i > 0 {
				b = append(b, ':')
			}
			b = append(b, name...)
		}
		return b
	}},
}

// listenPID has room behind the name for the digits of any process number, and
// for the byte that ends them.
var listenPID = variable{"LISTEN_PID=", func(b []byte, _ *Facts) []byte { return append(b, make([]byte, 20)...) }}

// socketVariables are those of a program that gets sockets.
func (s *Spec) socketVariables() []variable {
	if s.Sockets == 0 {
		return nil
	}
	return append([]variable{listenPID}, named...)
}

// roomForNames is how much of an environment the names of sockets can be.
func (p *Plan) roomForNames() int { return p.spec.Sockets * (LongestSocketName + 1) }

// beyond is the first number that no socket of the program's has: whatever else
// the child needs until execve stands there.
func (p *Plan) beyond() int {
	if p.spec.Terminal {
		return spareStdin + 1
	}
	return firstSocket + p.spec.Sockets
}

// addSockets is what a program has as 0 and 1 that gets sockets and no
// connection: nothing to read, and what it writes goes where its errors go.
func (p *Plan) addSockets() {
	p.emptyStdin()
	p.stdout = p.add("make descriptor 1", unix.SYS_DUP3, 0, 1)
}

func (p *Plan) emptyStdin() {
	p.ignore(p.add("close descriptor 0", unix.SYS_CLOSE, 0))
	at := unix.AT_FDCWD
	p.add("open /dev/null", unix.SYS_OPENAT, uintptr(at), p.string("/dev/null"), unix.O_RDWR)
}

// restoreStdin makes 0 again what it was before it was used for something else.
func (p *Plan) restoreStdin() {
	switch {
	case p.spec.Terminal:
		p.add("make descriptor 0 again", unix.SYS_DUP3, spareStdin, 0)
	case p.spec.Sockets > 0:
		p.emptyStdin()
	default:
		p.add("make the connection descriptor 0 again", unix.SYS_DUP3, 1, 0)
	}
}

// addSocketNumbers comes when nothing is needed any more that has one of the
// numbers.
func (p *Plan) addSocketNumbers() {
	for i := range p.spec.Sockets {
		p.sockets = append(p.sockets, p.add("hand over a listening socket", unix.SYS_DUP3, 0, uintptr(firstSocket+i)))
	}
}

// output is what descriptor 1 is made of: the connection, or where there is none
// the pipe to the log, or else /dev/null, which is 0 by then.
func (p *Plan) output(s Streams) int {
	switch {
	case p.spec.Sockets == 0:
		return s.Connection
	case p.spec.Stderr == StderrLog:
		return s.Stderr
	}
	return 0
}

// lendSockets has the child get copies of fds, and returns the highest of their
// numbers. In the place of those that a plan has steps for but this child does
// not get stands /dev/null, until the gaps are closed.
func (in *instance) lendSockets(fds []int) (highest int, err error) {
	p := in.plan
	for i, step := range p.sockets {
		fd := 0
		if i < len(fds) {
			if fd, err = dupFrom(fds[i], p.beyond()); err != nil {
				return 0, &Failure{Words: "hand over a listening socket", Errno: errnoOf(err)}
			}
			in.hold(fd)
			highest = max(highest, fd)
		}
		in.steps[step].args[0] = uintptr(fd)
	}
	return highest, nil
}

// clear moves fd, which is in's to close, away from the numbers of the sockets.
func (p *Plan) clear(fd int) (int, error) {
	if fd >= p.beyond() {
		return fd, nil
	}
	high, err := dupFrom(fd, p.beyond())
	unix.Close(fd)
	return high, err
}
