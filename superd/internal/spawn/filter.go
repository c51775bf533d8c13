package spawn

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filters make each filter once, when the first plan asks for it; all plans
// share it.
var filters = struct{ common, offline, tight, tightNetwork func() []unix.SockFilter }{
	common:       filterOf(defaultPolicy),
	offline:      filterOf(offlinePolicy),
	tight:        filterOf(func() policy { return tightPolicy(false) }),
	tightNetwork: filterOf(func() policy { return tightPolicy(true) }),
}

func filterOf(meaning func() policy) func() []unix.SockFilter {
	return sync.OnceValue(func() []unix.SockFilter {
		p := meaning()
		return ownArchitecture.assemble(p.segments(ownArchitecture))
	})
}

// buildFilter gives p the filter that its service's system_calls names. The
// steps that follow its installation (rt_sigprocmask, execve or execveat, and
// the exit of a child that fails) pass every one of them.
func (p *Plan) buildFilter() error {
	var filter func() []unix.SockFilter
	switch s := &p.spec.Sandbox; s.SystemCalls {
	case "", "all":
		return nil
	case "default":
		filter = filters.common
		if !s.Network {
			filter = filters.offline
		}
	case "tight":
		filter = filters.tight
		if s.Network {
			filter = filters.tightNetwork
		}
	default:
		return fmt.Errorf("no filter has the name %q", s.SystemCalls)
	}
	if err := filtersWork(); err != nil {
		return err
	}
	p.engine.watchViolations()
	if !p.spec.Inherit {
		p.walls.filter = filter()
	}
	return nil
}

// withoutFilter says what is open where there is no filter.
func (p *Plan) withoutFilter() string { return "every system call is let through" }

// filtersWork asks whether a filter can kill, which is to ask for filters at
// all (seccomp(2), SECCOMP_GET_ACTION_AVAIL, Linux 4.14).
func filtersWork() error {
	action := uint32(kill)
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	switch errno {
	case 0:
		return nil
	case unix.ENOSYS, unix.EINVAL, unix.EOPNOTSUPP:
		return errors.New("this kernel has no system call filters")
	}
	return fmt.Errorf("seccomp is refused: %w", errno)
}
