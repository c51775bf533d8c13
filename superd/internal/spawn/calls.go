package spawn

import (
	"runtime"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// An architecture is what a system call filter must know of one.
type architecture struct {
	audit   uint32   // AUDIT_ARCH_*, as seccomp_data's arch has it (seccomp(2))
	calls   []string // names by number; "" is a hole
	foreign span     // numbers that lead to another system call table
}

// A span of numbers; first == end is none.
type span struct{ first, end uint32 }

// x32Bit marks in an amd64 number the x32 table, whose calls have numbers of
// their own and arrive under amd64's AUDIT_ARCH (seccomp(2), Caveats). From
// 1<<31 on, numbers are negative and mean no call at all.
const x32Bit = 1 << 30

// architectures are those that superd runs on, by their Go name. Both are in
// every build, so that a test sees both filters on either machine.
var architectures = map[string]*architecture{
	"amd64": {unix.AUDIT_ARCH_X86_64, x86Calls, span{x32Bit, 1 << 31}},
	"arm64": {unix.AUDIT_ARCH_AARCH64, arm64Calls, span{}},
}

// ownArchitecture is this machine's.
var ownArchitecture = architectures[runtime.GOARCH]

// number is the call's number, -1 where the architecture has no such call.
func (a *architecture) number(call string) int { return slices.Index(a.calls, call) }

// name is the call's name, or "number 999" where the table has none.
func (a *architecture) name(number int) string {
	if number >= 0 && number < len(a.calls) && a.calls[number] != "" {
		return a.calls[number]
	}
	return "number " + strconv.Itoa(number)
}

// SystemCallName is the name of a system call of this machine's architecture:
// "mount", or "number 999" for one that is newer than superd.
func SystemCallName(number int) string { return ownArchitecture.name(number) }
