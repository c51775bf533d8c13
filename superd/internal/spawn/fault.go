package spawn

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// A Fault is what of a Spec cannot be had on this machine, as this user.
type Fault struct {
	Key  string // of the service in the file: rlimits.nofile, sandbox.read[1]; "" for none
	What string // in the words of the log
	Hint string // what that means here, or what to do; may be ""
}

// Error is the fault without its key, which says where it belongs.
func (f Fault) Error() string {
	if f.Hint == "" {
		return f.What
	}
	return f.What + " (" + f.Hint + ")"
}

// Faults is everything that is wrong with a Spec.
type Faults []Fault

// Error has a line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// fault puts a step that fails whenever it is walked into words.
func (p *Plan) fault(step int, errno unix.Errno) Fault {
	f := p.failure(step, errno)
	return Fault{Key: p.keys[step], What: fmt.Sprintf("cannot %s: %s", f.Words, unix.ErrnoName(errno)), Hint: f.cause()}
}
