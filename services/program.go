package services

import (
	"encoding/binary"
	"slices"
)

// A program is what a service does: system calls, one after the other. Behind
// its last step it ends.
type program []step

// A step is one system call and where to go from there: to the step below
// unless said otherwise, and after an error to the end, since with the
// descriptors that a built-in has an error means that the client has gone.
type step struct {
	call   call
	args   [6]argument
	whole  bool // repeat with what is left until args[2] bytes are done
	next   target
	zero   target // where a result of 0 leads
	failed target
}

// A call is a system call by name; each architecture has its own numbers.
type call int

const (
	callRead call = iota
	callWrite
	callRecvfrom
	callShutdown
	callPrctl
	callRtSigaction
	callExitGroup
	calls // how many there are
)

// An argument is a number, or the address of constant bytes.
type argument struct {
	number uint64
	bytes  string
}

// n, as a count, is the last result that was not 0.
const n = -1

// buffer is the zero-filled memory of the program.
var buffer = argument{number: bufferAt}

func number(i int) argument      { return argument{number: uint64(i)} }
func text(bytes string) argument { return argument{bytes: bytes} }

// A target is a step by its index, or one of these.
type target int

const (
	below  target = -1
	end    target = -2
	asNext target = -3 // where next leads
)

func newStep(c call, args ...argument) step {
	s := step{call: c, next: below, zero: asNext, failed: end}
	copy(s.args[:], args)
	return s
}

// read takes what is there, at most a buffer of it.
func read(fd int, into argument) step {
	return newStep(callRead, number(fd), into, number(bufferSize))
}

// write writes all of the bytes, in as many calls as that takes.
func write(fd int, from argument, count int) step {
	s := newStep(callWrite, number(fd), from, number(count))
	s.whole = true
	return s.endWhen0() // no progress and no error: do not spin
}

func recvfrom(fd int, into argument, flags int) step {
	return newStep(callRecvfrom, number(fd), into, number(bufferSize), number(flags))
}

// answer is the program that answers each datagram with words, and ends when it
// has answered all that are there: its peer is as well served by another one, and
// an image that tells a second is true for that second only. From a record that
// is longer than is asked for the kernel takes only so much, and says how much
// (unix(7), SOCK_SEQPACKET): so the answer is never longer than the datagram,
// unless it may be. What comes after the last look is not lost: by the shutdown,
// superd learns that it is for another program, and what came before it is
// answered.
func (o Options) answer(words string) program {
	take, give := len(words), n
	if o.Amplify {
		take, give = bufferSize, len(words)
	}
	if words == "" {
		return program{}
	}
	again := func() step { return newStep(callRecvfrom, number(0), buffer, number(take), number(msgDontWait)) }
	return program{
		0: newStep(callRead, number(0), buffer, number(take)).endWhen0(),
		1: newStep(callWrite, number(1), text(words), number(give)),
		2: again().endWhen0().backTo(1).otherwise(3),
		3: newStep(callShutdown, number(0), number(shutRead)).anyhow(),
		4: again().endWhen0(),
		5: newStep(callWrite, number(1), text(words), number(give)).backTo(4),
	}
}

const (
	msgTrunc    = 0x20 // recv(2): of TCP, discard without copying
	msgDontWait = 0x40
	shutRead    = 0 // shutdown(2)
)

// setName makes ps show the service's name, and not the number of the
// descriptor that the image was executed by (prctl(2)).
func setName(name string) step {
	const prSetName = 15
	return newStep(callPrctl, number(prSetName), text(name+"\x00")).anyhow()
}

// ignoreSIGPIPE makes a write to a client that has gone an error, which ends
// the program, and not a death by signal, which would look like a failure.
func ignoreSIGPIPE() step {
	const sigpipe, maskSize = 13, 8
	ignore := binary.LittleEndian.AppendUint64(nil, 1) // struct sigaction of the kernel, SIG_IGN first
	ignore = append(ignore, make([]byte, 24)...)       // flags, restorer, mask
	return newStep(callRtSigaction, number(sigpipe), text(string(ignore)), number(0), number(maskSize)).anyhow()
}

func exit(status int) step {
	s := newStep(callExitGroup, number(status))
	s.next = end // itself: there is nothing below
	return s
}

// endWhen0 ends the program where the call's result is 0: no more input.
func (s step) endWhen0() step { s.zero = end; return s }

// backTo goes on with step i.
func (s step) backTo(i int) step { s.next = target(i); return s }

// otherwise goes on with step i after an error.
func (s step) otherwise(i int) step { s.failed = target(i); return s }

// anyhow goes on after an error as after any other result.
func (s step) anyhow() step { s.failed = asNext; return s }

// named puts before p what every built-in does first, and an exit behind it.
func (p program) named(name string) program {
	first := program{setName(name)}
	if slices.ContainsFunc(p, func(s step) bool { return s.call == callWrite }) {
		first = append(first, ignoreSIGPIPE())
	}
	moved := target(len(first))
	whole := append(first, p...)
	for i := range whole[moved:] {
		s := &whole[int(moved)+i]
		for _, t := range []*target{&s.next, &s.zero, &s.failed} {
			if *t >= 0 {
				*t += moved
			}
		}
	}
	return append(whole, exit(0))
}

func (p program) usesBuffer() bool {
	return slices.ContainsFunc(p, func(s step) bool { return slices.Contains(s.args[:], buffer) })
}

// A record is a step as the walker reads it; the offsets of its fields stand
// in amd64.go and arm64.go.
type record struct {
	Call               uint64
	Args               [6]uint64
	Whole              uint64
	Next, Zero, Failed uint64 // addresses of records
}

const recordSize = 8 * 11

// table is the data of p's image: its records, then the constant bytes that
// they point to.
func (p program) table(numbers [calls]uint64) []byte {
	records, constants := []byte{}, []byte{}
	for i, s := range p {
		r := record{
			Call:   numbers[s.call],
			Next:   p.after(i, s.next),
			Zero:   p.after(i, s.zero),
			Failed: p.after(i, s.failed),
		}
		if s.whole {
			r.Whole = 1
		}
		for j, a := range s.args {
			r.Args[j] = a.number
			if a.bytes != "" {
				r.Args[j] = dataAt + uint64(len(p)*recordSize+len(constants))
				constants = append(constants, a.bytes...)
				constants = append(constants, make([]byte, -len(constants)&7)...) // a struct starts at a multiple of 8
			}
		}
		records = little(records, r)
	}
	return append(records, constants...)
}

// after is the address of the record that t leads to from step i.
func (p program) after(i int, t target) uint64 {
	if t == asNext {
		t = p[i].next
	}
	switch t {
	case below:
		t = target(i + 1)
	case end:
		t = target(len(p) - 1) // exit
	}
	return dataAt + uint64(t)*recordSize
}

// little appends v, of fixed size, as memory has it on both architectures.
func little(b []byte, v any) []byte {
	b, err := binary.Append(b, binary.LittleEndian, v)
	if err != nil {
		panic(err) // v has no fixed size: a mistake in this package
	}
	return b
}
