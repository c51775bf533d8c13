package spawn

import "golang.org/x/sys/unix"

// A program can be tried as an ordinary child of the process that starts it: on
// its terminal, say, whose signals and job control it then knows. What makes
// that a plan of its own is that 0, 1 and 2 are there already, and that there is
// no connection to make 0 of again once a step has used that number.

// spareStdin is where a child keeps its 0 meanwhile, closed by execve.
const spareStdin = 3

// addTerminal keeps the descriptors that the child was born with, and its
// session: from another one it could not read from the terminal (setsid(2)).
func (p *Plan) addTerminal() {
	p.add("keep descriptor 0", unix.SYS_DUP3, 0, spareStdin, unix.O_CLOEXEC)
	switch p.spec.Stderr {
	case StderrNull:
		p.addNull()
	case StderrClient:
		p.add("make descriptor 2", unix.SYS_DUP3, 1, 2)
	}
}

// highestKept is the highest of the descriptors that a child has from birth, or
// -1 for none.
func (p *Plan) highestKept() int {
	if p.spec.Terminal {
		return 2
	}
	return -1
}

// firstClosed is the lowest number that a child with so many sockets does not
// need.
func (p *Plan) firstClosed(sockets int) int {
	if p.spec.Terminal {
		return p.beyond()
	}
	return firstSocket + sockets
}

// ofTerminal is where the cgroup of a program that is tried stands: not below
// that of whoever tries it, where processes may be that are not to be moved, but
// at the top, where whoever manages the tree has given out its controllers.
func (t cgroupTree) ofTerminal() cgroupTree {
	return cgroupTree{top: t.top, own: t.top, root: true}
}
