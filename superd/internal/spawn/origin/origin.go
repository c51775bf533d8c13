// Package origin remembers what superd was started with before Go's own start
// changed it. Package syscall raises the soft limit of open descriptors in its
// initializer; a program must get the one that the administrator set.
//
// It works because packages are initialized in the order of their import paths
// as soon as their imports are (The Go Programming Language Specification,
// "Program initialization"), "superd/..." sorts before "syscall", and this
// package imports nothing.
package origin

// NoFile is RLIMIT_NOFILE as superd was started with it.
var NoFile = openFileLimit()

// Limit is a resource limit in the layout of prlimit64(2).
type Limit struct{ Soft, Hard uint64 }

func openFileLimit() (l Limit) {
	getNoFile(&l)
	return l
}

// getNoFile is prlimit64(0, RLIMIT_NOFILE, NULL, l); it cannot fail with these
// arguments.
//
//go:noescape
func getNoFile(l *Limit)
