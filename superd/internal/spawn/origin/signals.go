package origin

// A signal that comes while this program takes the place of another superd
// (execve) must not end it. Go's start gives each a handler that ends the
// program unless somebody has asked for the signal, and nobody can ask before
// all packages are initialized. So this one, among the first, puts a handler in
// their place that only takes note.

// signals are those that mean something to superd: SIGHUP, SIGINT, SIGUSR1,
// SIGUSR2 and SIGTERM.
var signals = [...]uintptr{1, 2, 10, 12, 15}

// Noted has a bit set, by its number, for each signal that has come since. It is
// changed by handlers until LetGo.
var Noted uint64

// action is struct sigaction of the kernel.
type action struct{ handler, flags, restorer, mask uintptr }

// before are the actions that the signals had, by their places.
var before = hold()

func hold() (list [len(signals)]action) {
	for i := range signals {
		setAction(signals[i], nil, &list[i])
	}
	gos := list[len(list)-1] // Go's own, which SIGTERM always has
	for i := range signals {
		setAction(signals[i], &action{noteAddress(), gos.flags, gos.restorer, gos.mask}, nil)
	}
	return list
}

// LetGo gives the signals the actions back that they had, but for those that
// have another one by now.
func LetGo() {
	for i := range signals {
		var now action
		if setAction(signals[i], nil, &now); now.handler == noteAddress() {
			setAction(signals[i], &before[i], nil)
		}
	}
}

// setAction is rt_sigaction(2); it cannot fail with these arguments.
//
//go:noescape
func setAction(signal uintptr, to, before *action)

// note is the handler. The kernel calls it.
func note()

// noteAddress is where that is.
func noteAddress() uintptr
