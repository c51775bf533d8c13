package spawn

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// To install a filter costs a child a third of its whole start: the kernel
// compiles it anew and asks it about every system call. What the common
// filter allows is enough for superd to start programs, so the thread that
// starts those of the common services enters the walls itself, once, and its
// children have them from birth, for nothing. no_new_privs and filters belong
// to a thread (prctl(2), seccomp(2)); the other threads do not have them.

// Inheritable tells whether a program inside these walls can be started by a
// thread that has entered no_new_privs and the common filter: none of its
// steps is among what the filter refuses.
func Inheritable(s *Spec) bool {
	b := &s.Sandbox
	return b.SystemCalls == "default" && b.NoNewPrivs && b.Network && !b.PrivateTmp && !b.Confined && !s.Cgroup.On && s.OOMScore == nil
}

// Confine has the calling thread enter no_new_privs and the common filter, for
// good. The caller has locked its goroutine to the thread and never unlocks
// it.
func (e *Engine) Confine() error {
	if err := filtersWork(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot set no_new_privs: %w", err)
	}
	filter := filters.common()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("cannot install the system call filter: %w", errno)
	}
	return nil
}

const sharing = unix.CLONE_VM | unix.CLONE_FILES | unix.CLONE_CHILD_CLEARTID | unix.CLONE_PIDFD

// setStart writes the call that makes the child. The common filter refuses
// clone3, whose flags it cannot see; a thread behind it uses clone, which
// knows neither CLONE_CLEAR_SIGHAND nor cgroups.
func (in *instance) setStart() {
	tid, pidfd := uintptr(unsafe.Pointer(&in.tid)), uintptr(unsafe.Pointer(&in.pidfd))
	if in.plan.spec.Inherit {
		in.start = cloneStep(sharing|uintptr(unix.SIGCHLD), pidfd, tid)
		return
	}
	in.clone = cloneArgs{
		flags:      sharing | unix.CLONE_CLEAR_SIGHAND,
		pidfd:      uint64(pidfd),
		childTID:   uint64(tid),
		exitSignal: uint64(unix.SIGCHLD),
	}
	switch {
	case in.plan.isCopied():
		in.clone.flags &^= unix.CLONE_VM | unix.CLONE_CHILD_CLEARTID
	case in.plan.isAttended():
		in.clone.flags |= unix.CLONE_VFORK | unix.CLONE_PARENT_SETTID
		in.clone.parentTID = uint64(uintptr(unsafe.Pointer(&in.born)))
	}
	in.start = step{number: unix.SYS_CLONE3, args: [6]uintptr{uintptr(unsafe.Pointer(&in.clone)), unsafe.Sizeof(in.clone)}}
}
