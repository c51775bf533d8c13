package spawn

import (
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// A verdict is what a filter returns for a call: SECCOMP_RET_* (seccomp(2)).
type verdict uint32

const (
	allow verdict = unix.SECCOMP_RET_ALLOW
	kill  verdict = unix.SECCOMP_RET_KILL_PROCESS
)

// fails lets the call return errno without being made.
func fails(errno unix.Errno) verdict { return unix.SECCOMP_RET_ERRNO | verdict(errno) }

// A condition is a verdict that hangs on one argument: then where its masked
// low half is one of values, otherwise where not. Every argument that is
// looked at is an int, or flags of 32 bits, to the kernel: what stands in the
// high half changes nothing, or is an error to the kernel itself.
type condition struct {
	arg             int
	mask            uint32
	values          []uint32
	then, otherwise verdict
}

// An outcome is what becomes of a call: by its argument where there is a
// condition, or else the same whatever its arguments.
type outcome struct {
	verdict   verdict
	condition *condition
}

// A segment is the outcome of all numbers from first to the next segment's.
type segment struct {
	first uint32
	outcome
}

// Offsets into struct seccomp_data of the number, the architecture, and the
// low half of the first argument; both architectures are little-endian.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

// The instructions that a filter needs, of linux/bpf_common.h.
const (
	opLoad    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	opAnd     = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opReturn  = unix.BPF_RET | unix.BPF_K
	opGoto    = unix.BPF_JMP | unix.BPF_JA
	opEqual   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	opAtLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
)

// assemble makes the filter of a: calls of another architecture kill, the
// others get the outcome of the segment that their number lies in. The first
// segment begins at 0.
func (a *architecture) assemble(segments []segment) []unix.SockFilter {
	b := &assembler{returns: map[verdict]label{}}
	own := b.before(b.search(stretches(segments)), opLoad, dataNumber)
	check := b.jump(opEqual, a.audit, own, b.result(kill))
	b.before(check, opLoad, dataArch)
	slices.Reverse(b.reversed)
	return b.reversed
}

// An assembler writes a filter from its end to its beginning: jumps lead
// forward only, so that what they lead to is always there already.
type assembler struct {
	reversed []unix.SockFilter
	returns  map[verdict]label // the latest return of each verdict
}

// A label is an instruction, counted from the filter's end.
type label int

func (b *assembler) emit(code uint16, k uint32) label {
	b.reversed = append(b.reversed, unix.SockFilter{Code: code, K: k})
	return label(len(b.reversed) - 1)
}

// before puts an instruction in front of l.
func (b *assembler) before(l label, code uint16, k uint32) label {
	if skip := b.distance(l); skip > 0 {
		b.emit(opGoto, uint32(skip))
	}
	return b.emit(code, k)
}

// A stretch is a segment in which one number may have an outcome of its own.
type stretch struct {
	segment
	exception *segment // nil for none
}

// stretches joins what a single number parts: to ask for that number is one
// comparison, where three segments take two. Half of a policy's segments are
// such numbers, and each instruction of a filter costs a connection a tenth of
// a microsecond, since the kernel compiles it anew for each.
func stretches(segments []segment) (list []stretch) {
	for len(segments) > 0 {
		s, taken := stretch{segment: segments[0]}, 1
		if len(segments) > 2 && segments[2].first == segments[1].first+1 && segments[2].outcome == s.outcome {
			s.exception, taken = &segments[1], 3
		}
		list, segments = append(list, s), segments[taken:]
	}
	return list
}

// search finds the stretch of the number that was loaded, by halves: a call
// costs the logarithm of the filter's length. So does the kernel's own walk
// through all numbers when it installs the filter (seccomp_cache_prepare,
// Linux 5.11), which is a part of the price of each connection.
func (b *assembler) search(list []stretch) label {
	if len(list) == 1 {
		return b.stretch(list[0])
	}
	half := len(list) / 2
	high := b.search(list[half:])
	low := b.search(list[:half])
	return b.jump(opAtLeast, list[half].first, high, low)
}

func (b *assembler) stretch(s stretch) label {
	others := b.outcome(s.outcome)
	if s.exception == nil {
		return others
	}
	return b.jump(opEqual, s.exception.first, b.outcome(s.exception.outcome), others)
}

func (b *assembler) outcome(o outcome) label {
	if o.condition == nil {
		return b.result(o.verdict)
	}
	c := o.condition
	otherwise := b.result(c.otherwise)
	then := b.result(c.then)
	first := otherwise
	for _, value := range slices.Backward(c.values) {
		first = b.jump(opEqual, value, then, first)
	}
	if c.mask != math.MaxUint32 {
		first = b.before(first, opAnd, c.mask)
	}
	return b.before(first, opLoad, dataArgs+8*uint32(c.arg))
}

// result is a return of v that a jump written next can reach.
func (b *assembler) result(v verdict) label {
	if at, is := b.returns[v]; is && b.distance(at) < farthest {
		return at
	}
	at := b.emit(opReturn, uint32(v))
	b.returns[v] = at
	return at
}

// jump goes on at yes where the comparison with k holds, and else at no.
func (b *assembler) jump(code uint16, k uint32, yes, no label) label {
	yes, no = b.near(yes), b.near(no)
	jt, jf := b.distance(yes), b.distance(no)
	at := b.emit(code, k)
	b.reversed[at].Jt, b.reversed[at].Jf = uint8(jt), uint8(jf)
	return at
}

// farthest is how far a conditional jump may lead, less what near may yet put
// between.
const farthest = math.MaxUint8 - 2

// distance is how many instructions the next one would skip to go on at l.
func (b *assembler) distance(l label) int { return len(b.reversed) - int(l) - 1 }

// near is l, or a place that leads to it where l is out of a jump's reach.
func (b *assembler) near(l label) label {
	if b.distance(l) < farthest {
		return l
	}
	if target := b.reversed[l]; target.Code == opReturn {
		return b.result(verdict(target.K))
	}
	return b.emit(opGoto, uint32(b.distance(l)))
}
