package spawn

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Failure is a system call that kept a program from being started.
type Failure struct {
	Words string // what could not be done: "execute /x"
	Errno unix.Errno
	Hint  string // what that means here; may be ""
	Child bool   // the child came to grief on its way: no lack of superd's own
}

// Error reads "cannot execute /x: ENOENT (no such file or directory)".
func (f *Failure) Error() string {
	return fmt.Sprintf("cannot %s: %s (%s)", f.Words, unix.ErrnoName(f.Errno), f.cause())
}

// cause is what the error number means.
func (f *Failure) cause() string {
	if f.Hint != "" {
		return f.Hint
	}
	return f.Errno.Error()
}

// failure puts a failed step into words.
func (p *Plan) failure(step int, errno unix.Errno) *Failure {
	return &Failure{Words: p.words[step], Errno: errno, Hint: p.hint(step, errno), Child: true}
}

// execHints says what execve's errors mean for a program, from execve(2).
// They are made from what is known without a look at the file: it may lie on
// a file system that hangs.
func (p *Plan) execHints() map[unix.Errno]string {
	return map[unix.Errno]string{
		unix.ENOENT:  "the file does not exist, or the interpreter that it names does not",
		unix.EACCES:  "it is not executable by " + p.runsAs() + ", or a directory above it is closed to that user" + p.confinementHint(),
		unix.ENOEXEC: "not a program of this machine's architecture, and no script with a #! line",
		unix.ELIBBAD: "its interpreter is not a program of this machine's architecture",
		unix.ELOOP:   "too many symbolic links, or an interpreter that needs an interpreter",
		unix.E2BIG:   "arguments and environment are too long",
		unix.ETXTBSY: "the file is open for writing; it was probably being replaced",
		unix.EAGAIN:  "the user " + p.runsAs() + " has too many processes",
		unix.ENOTDIR: "a part of the path is not a directory",
		unix.EISDIR:  "it is a directory",
		unix.EINVAL:  "the file is damaged: it names more than one interpreter",
		unix.EPERM:   "not permitted: the file system is mounted nosuid or noexec, or a security module refused",
	}
}

// confinementHint is what else EACCES can mean where Landlock has rules.
func (p *Plan) confinementHint() string {
	if p.walls.rules == nil {
		return ""
	}
	return ", or the sandbox does not let its interpreter or loader be executed"
}

// startHints says what clone3's errors mean, from clone(2).
var startHints = map[unix.Errno]string{
	unix.EAGAIN: "a limit on processes is reached: see RLIMIT_NPROC, kernel.pid_max and the cgroup's pids.max",
	unix.ENOMEM: "the system is out of memory for another process",
}

// runsAs names the user that the program runs as.
func (p *Plan) runsAs() string {
	if p.spec.Identity == nil {
		return "superd's own user"
	}
	return p.spec.Identity.UserName()
}

// errnoOf finds the error number in err; EIO stands for what has none.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}
