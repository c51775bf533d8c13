package spawn

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// call is struct seccomp_data, what a filter sees.
type call struct {
	arch   uint32
	number uint32
	args   [6]uint64
}

// word is the 32 bits of c at offset.
func (c call) word(offset uint32) uint32 {
	switch offset {
	case 0:
		return c.number
	case 4:
		return c.arch
	}
	if offset < 16 || offset >= 64 || offset%4 != 0 {
		panic(fmt.Sprintf("a filter reads at %d", offset))
	}
	return uint32(c.args[(offset-16)/8] >> (8 * (offset % 8)))
}

// run interprets filter for c and tells how many instructions that took.
func run(filter []unix.SockFilter, c call) (got verdict, steps int) {
	var a uint32
	for pc := 0; ; pc++ {
		steps++
		i := filter[pc]
		holds := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = c.word(i.K)
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= i.K
			continue
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_RET | unix.BPF_K:
			return verdict(i.K), steps
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			holds = a == i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			holds = a >= i.K
		default:
			panic(fmt.Sprintf("instruction %d has the code %#x", pc, i.Code))
		}
		if holds {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
}

// of is what o means for c.
func (o outcome) of(c call) verdict {
	if o.condition == nil {
		return o.verdict
	}
	for _, value := range o.condition.values {
		if uint32(c.args[o.condition.arg])&o.condition.mask == value {
			return o.condition.then
		}
	}
	return o.condition.otherwise
}

// TestAssembledIsWhatWasMeant makes filters of random segments, short ones and
// such as need jumps farther than a conditional jump goes.
func TestAssembledIsWhatWasMeant(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	gotos := 0
	for _, n := range []int{1, 2, 3, 10, 100, 200, 300, 600, 1500} {
		for range 8 {
			segments := randomSegments(random, n)
			filter := architectures["amd64"].assemble(segments)
			for _, i := range filter {
				if i.Code == opGoto {
					gotos++
				}
			}
			for i, s := range segments {
				end := uint32(math.MaxUint32)
				if i+1 < len(segments) {
					end = segments[i+1].first - 1
				}
				for _, number := range []uint32{s.first, end} {
					c := call{arch: unix.AUDIT_ARCH_X86_64, number: number}
					for j := range c.args {
						c.args[j] = random.Uint64N(6) | random.Uint64()<<32
					}
					if got, _ := run(filter, c); got != s.of(c) {
						t.Fatalf("seed %d, %d segments: call %+v gets %#x, want %#x", seed, n, c, got, s.of(c))
					}
				}
			}
			if got, _ := run(filter, call{arch: unix.AUDIT_ARCH_I386}); got != kill {
				t.Fatalf("another architecture gets %#x", got)
			}
		}
	}
	if gotos == 0 {
		t.Error("no filter was long enough")
	}
}

// TestOneNumberIsOneComparison: what lies on both sides of it is the same.
func TestOneNumberIsOneComparison(t *testing.T) {
	filter := architectures["amd64"].assemble([]segment{
		{first: 0, outcome: outcome{verdict: allow}}, {first: 5, outcome: outcome{verdict: kill}}, {first: 6, outcome: outcome{verdict: allow}}})
	comparisons := 0
	for _, i := range filter {
		if i.Code == opEqual || i.Code == opAtLeast {
			comparisons++
		}
	}
	if comparisons != 2 { // the architecture, and the number
		t.Errorf("%d comparisons in %v", comparisons, filter)
	}
}

func randomSegments(random *rand.Rand, n int) (list []segment) {
	first := uint32(0)
	for range n {
		s := segment{first: first, outcome: outcome{verdict: verdict(random.Uint32N(5))}}
		if random.IntN(4) == 0 {
			s.condition = &condition{arg: random.IntN(6), mask: random.Uint32() | 3, then: 10 + s.verdict, otherwise: 20 + s.verdict}
			for range random.IntN(4) {
				s.condition.values = append(s.condition.values, random.Uint32N(6)&s.condition.mask)
			}
		}
		list = append(list, s)
		first += 1 + random.Uint32N(5)
	}
	return list
}
