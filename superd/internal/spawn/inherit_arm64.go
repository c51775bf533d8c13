package spawn

import "golang.org/x/sys/unix"

// cloneStep is clone(flags, stack, parent_tid, tls, child_tid); the pidfd is
// written where the parent's number of the child would be (clone(2)).
func cloneStep(flags, pidfd, tid uintptr) step {
	return step{number: unix.SYS_CLONE, args: [6]uintptr{flags, 0, pidfd, 0, tid}}
}
