package spawn

import (
	"slices"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
)

// try has a child walk p's steps as a connection's would, but for the working
// directory, which may come later, and for execve. What superd's privileges do
// not allow is found that way, whatever decides on them. To find all of it,
// what serves a key that has a fault is left out and the rest tried again.
func (p *Plan) try() {
	left := []string{"dir"}
	for _, f := range p.faults {
		left = append(left, f.Key)
	}
	for {
		f, is := p.tryWithout(left)
		if !is {
			return
		}
		p.faults = append(p.faults, f)
		if f.Key == "" {
			return // nothing that comes later can be reached
		}
		left = append(left, f.Key)
	}
}

// tryWithout is one such child, without the steps that serve one of the keys.
func (p *Plan) tryWithout(left []string) (Fault, bool) {
	in := p.newInstance()
	for i, key := range p.keys {
		if key != "" && slices.Contains(left, key) {
			in.steps[i] = step{number: unix.SYS_GETPID}
		}
	}
	in.steps[p.exec] = step{number: unix.SYS_EXIT_GROUP}
	defer p.forgetInstances()
	streams, err := trialStreams()
	if err != nil {
		return Fault{}, false // for want of descriptors; nothing is wrong with p
	}
	c, err := p.engine.start(in, streams, &Facts{Peer: &peer.Peer{}})
	if err != nil {
		return p.unstarted(err)
	}
	Wait(c.PIDFD)
	unix.Close(c.PIDFD)
	failed, errno := in.told.failed, unix.Errno(in.told.errno)
	p.engine.Failure(c)
	p.engine.Release(c, false)
	if failed == 0 {
		return Fault{}, false
	}
	return p.fault(int(failed)-1, errno), true
}

// trialStreams stand for a connection and a pipe.
func trialStreams() (Streams, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return Streams{}, err
	}
	stderr, err := dupFrom(fd, 0)
	if err != nil {
		unix.Close(fd)
		return Streams{}, err
	}
	return Streams{Connection: fd, Stderr: stderr}, nil
}

// unstarted is a fault only where it is the cgroup that takes no child: the
// system may have no room for one just now.
func (p *Plan) unstarted(err error) (Fault, bool) {
	passing := []unix.Errno{unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE}
	if p.walls.cgroup == nil || slices.Contains(passing, errnoOf(err)) {
		return Fault{}, false
	}
	return Fault{Key: "cgroup", What: err.Error()}, true
}

// forgetInstances drops those that were made for a trial.
func (p *Plan) forgetInstances() {
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	p.engine.settle()
	p.free, p.busy = nil, nil
}
