package spawn

import (
	"bytes"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
	"superd/superd/internal/spawn/origin"
)

// A Carried is a child with which another superd goes on, that takes this one's
// place in the same process: it stays the parent. It is plain data, but for
// the descriptor.
type Carried struct {
	PID, PIDFD int
	Failure    *Failure // why it has not become its program, as far as that is known
	Leaf       string   // the directory of a cgroup of its own; "" for none
	Killed     bool     // cgroup.kill was used there
}

// Aboard tells whether c is on its way to its program still, and shares
// superd's memory.
func (c *Child) Aboard() bool { return c.in != nil && c.in.use == c.use && !c.in.gone() }

// Carry tells all about c.
func (e *Engine) Carry(c *Child) Carried {
	e.mu.Lock()
	defer e.mu.Unlock()
	one := Carried{PID: c.PID, PIDFD: c.PIDFD, Failure: c.carried}
	if c.in != nil && c.in.use == c.use && c.in.gone() && c.in.told.failed > 0 {
		one.Failure = c.in.plan.failure(int(c.in.told.failed)-1, unix.Errno(c.in.told.errno))
	}
	if c.leaf != nil {
		one.Leaf, one.Killed = c.leaf.dir, c.leaf.killed
	}
	return one
}

// Resume goes on with a child. P is the plan of its service now, nil for none:
// there others use its cgroup after it.
func (e *Engine) Resume(c *Carried, p *Plan) Child {
	child := Child{PID: c.PID, PIDFD: c.PIDFD, carried: c.Failure}
	if c.Leaf == "" {
		return child
	}
	leaf, err := e.openLeaf(c.Leaf)
	if err != nil {
		return child // somebody has taken it away: nothing is in it
	}
	leaf.killed = c.Killed
	child.leaf = leaf
	if p != nil && p.walls.cgroup != nil && p.walls.cgroup.limits.PerConnection && p.walls.cgroup.dir == filepath.Dir(c.Leaf) {
		child.group = p.walls.cgroup
		child.group.know(c.Leaf)
	}
	return child
}

// openLeaf opens what newLeaf has made.
func (e *Engine) openLeaf(dir string) (l *leaf, err error) {
	l = &leaf{dir: dir, fd: -1, kill: -1, populated: -1}
	if l.fd, err = e.openAbove(dir, unix.O_PATH|unix.O_DIRECTORY); err == nil {
		l.kill, err = e.openAbove(filepath.Join(dir, "cgroup.kill"), unix.O_WRONLY)
	}
	if err == nil {
		l.populated, err = e.openAbove(filepath.Join(dir, "cgroup.events"), unix.O_RDONLY)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// A Rehearsal is a program of superd's own that is run to its end.
type Rehearsal struct {
	Path      string
	Argv, Env []string
	Dir       string
	Input     int // its descriptor 0; the caller's
	Limit     time.Duration
	Quit      <-chan struct{} // closed when nobody waits for it any more
}

// mostSaid bounds what is kept of what a rehearsed program says.
const mostSaid = 64 << 10

// Rehearse runs a program that is none of a service's, with superd's own
// identity and limits, and returns what it wrote to descriptor 2.
func (e *Engine) Rehearse(r *Rehearsal) (said []byte, end End, err error) {
	plan, err := e.Compile(Spec{Path: r.Path, Argv: r.Argv, Env: r.Env, Stderr: StderrLog, Dir: r.Dir, Umask: 0o22})
	if err != nil {
		return nil, end, err
	}
	defer plan.Close()
	input, err := dupFrom(r.Input, 3)
	if err != nil {
		return nil, end, &Failure{Words: "rehearse the upgrade", Errno: errnoOf(err)}
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		unix.Close(input)
		return nil, end, &Failure{Words: "rehearse the upgrade", Errno: errnoOf(err)}
	}
	defer unix.Close(ends[0])
	child, err := e.Start(plan, Streams{Connection: input, Stderr: ends[1]}, &Facts{Peer: &peer.Peer{}})
	if err != nil {
		if Busy(err) {
			unix.Close(input)
			unix.Close(ends[1])
		}
		return nil, end, err
	}
	defer unix.Close(child.PIDFD)
	for e.Settle() > 0 {
		time.Sleep(time.Millisecond)
	}
	said, err = r.listen(ends[0])
	if err != nil {
		unix.Kill(-child.PID, unix.SIGKILL)
		unix.PidfdSendSignal(child.PIDFD, unix.SIGKILL, nil, 0)
	}
	end, waitErr := Wait(child.PIDFD)
	if err == nil {
		err = waitErr
	}
	if failure := e.Failure(child); failure != nil {
		err = failure
	}
	return said, end, err
}

// look is how often it is looked whether anybody still waits.
const look = 50 * time.Millisecond

// listen reads fd to its end.
func (r *Rehearsal) listen(fd int) ([]byte, error) {
	var all bytes.Buffer
	part := make([]byte, 4096)
	for until := time.Now().Add(r.Limit); time.Now().Before(until); {
		select {
		case <-r.Quit:
			return all.Bytes(), unix.ECANCELED
		default:
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(look.Milliseconds()))
		if err == unix.EINTR || err == nil && ready == 0 {
			continue
		}
		n, err := unix.Read(fd, part)
		if err != nil || n == 0 {
			return all.Bytes(), err
		}
		all.Write(part[:min(n, mostSaid-all.Len())])
	}
	return all.Bytes(), unix.ETIMEDOUT
}

// OriginalLimits sets the limit of open files to what superd was started with,
// for a program that takes its place; what is open stays so. Restore takes that
// back.
func OriginalLimits() (restore func(), err error) {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		return nil, err
	}
	first := unix.Rlimit{Cur: origin.NoFile.Soft, Max: now.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &first); err != nil {
		return nil, err
	}
	return func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &now) }, nil
}
