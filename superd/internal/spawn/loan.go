package spawn

import "golang.org/x/sys/unix"

// A loan is a descriptor of superd's that steps of the child need: each spawn
// has one of its own in the window, closed there with the rest.
type loan struct {
	lend  func(*instance) (int, error) // puts it into the window, for that instance's child
	words string                       // what it is: "the built-in echo"
	uses  []use
}

// A use is an argument of a step that is to be the descriptor.
type use struct{ step, arg int }

// mostLoans bounds the loans of a plan: an image, two namespaces and a set of
// Landlock rules.
const mostLoans = 4

// borrow has each child get a copy of fd, which is above the window; the steps
// that need it say so with use.
func (p *Plan) borrow(words string, fd func(*instance) int) *loan {
	return p.borrowEach(words, func(in *instance) (int, error) { return dupFrom(fd(in), 0) })
}

// borrowEach has each child get a descriptor that lend makes for it.
func (p *Plan) borrowEach(words string, lend func(*instance) (int, error)) *loan {
	l := &loan{lend: lend, words: words}
	p.loans = append(p.loans, l)
	return l
}

// use names a step and its argument that is to be the descriptor.
func (l *loan) use(step, arg int) { l.uses = append(l.uses, use{step, arg}) }

// lend puts the loans of in's plan into the window and returns the highest
// number among them. The numbers below first are the program's.
func (in *instance) lend(first int) (highest int, err error) {
	p := in.plan
	var lent [mostLoans]int
	for i, l := range p.loans {
		fd, err := l.lend(in)
		if err == nil {
			fd, err = p.clear(fd)
		}
		if err != nil {
			return 0, &Failure{Words: "hand over " + l.words, Errno: errnoOf(err)}
		}
		in.hold(fd)
		for _, u := range l.uses {
			in.steps[u.step].args[u.arg] = uintptr(fd)
		}
		insert(lent[:i], fd, lent[:i+1])
		highest = max(highest, fd)
	}
	in.closeBetween(first, lent[:len(p.loans)])
	return highest, nil
}

// insert puts fd into sorted, which grows by one within the same memory.
func insert(sorted []int, fd int, grown []int) {
	i := len(sorted)
	for ; i > 0 && sorted[i-1] > fd; i-- {
		grown[i] = sorted[i-1]
	}
	grown[i] = fd
}

// closeBetween sets the ranges that the child closes: from first on, all but
// lent.
func (in *instance) closeBetween(first int, lent []int) {
	for i, fd := range lent {
		in.setGap(i, first, uintptr(fd-1))
		first = fd + 1
	}
	in.setGap(len(lent), first, ^uintptr(0)>>32)
}

func (in *instance) setGap(i, first int, last uintptr) {
	s := &in.steps[in.plan.gaps[i]]
	s.args[0], s.args[1] = uintptr(first), last
}

// closeAll closes descriptors that a plan owns.
func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
