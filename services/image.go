package services

import (
	"debug/elf"
	"encoding/hex"
	"slices"
	"strings"
)

// Where an image's parts lie in memory. Addresses and offsets in the file
// agree modulo 64 KiB, the largest page that arm64 has, so that a kernel with
// any page size maps them.
const (
	alignment = 0x10000

	codeAt     = 0x400000 // headers and walker: read, execute
	dataAt     = 0x601000 // steps and texts: read only
	bufferAt   = 0x800000 // zeros, and a page of memory only where it is used: read, write
	bufferSize = 64 << 10 // bytes

	dataOffset = 0x1000 // in the file; the code is the page before
)

// An architecture is what differs between two machines.
type architecture struct {
	machine elf.Machine
	numbers [calls]uint64 // of the system calls
	listing string        // of the walker, see code
}

var architectures = map[string]*architecture{"amd64": &amd64, "arm64": &arm64}

const (
	headerSize  = 64 // elf.Header64
	segmentSize = 56 // elf.Prog64
)

// image writes p as an executable file. No page of it is ever writable and
// executable; what steers the walker is not even writable.
func (a *architecture) image(p program) []byte {
	data, walker := p.table(a.numbers), a.code()
	segments := []elf.Prog64{
		{}, // the code: its size is known when all segments are
		segment(elf.PF_R, dataAt, dataOffset, len(data)),
	}
	if p.usesBuffer() {
		zeros := segment(elf.PF_R|elf.PF_W, bufferAt, 0, 0)
		zeros.Memsz = bufferSize
		segments = append(segments, zeros)
	}
	// Without this one the kernel makes the stack executable.
	segments = append(segments, elf.Prog64{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W), Align: 16})

	start := headerSize + segmentSize*len(segments)
	segments[0] = segment(elf.PF_R|elf.PF_X, codeAt, 0, start+len(walker))

	file := little(nil, a.header(len(segments), codeAt+uint64(start)))
	file = little(file, segments)
	file = append(file, walker...)
	file = append(file, make([]byte, dataOffset-len(file))...)
	return append(file, data...)
}

// segment is a part of the file that is mapped as it is.
func segment(flags elf.ProgFlag, at, offset uint64, size int) elf.Prog64 {
	return elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(flags),
		Off: offset, Vaddr: at, Paddr: at,
		Filesz: uint64(size), Memsz: uint64(size), Align: alignment,
	}
}

// header is that of a program which stands at fixed addresses and needs no
// other file.
func (a *architecture) header(segments int, entry uint64) elf.Header64 {
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(a.machine), Version: uint32(elf.EV_CURRENT),
		Entry: entry,
		Phoff: headerSize, Ehsize: headerSize, Phentsize: segmentSize, Phnum: uint16(segments),
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	h.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	return h
}

// code is the machine code of the walker. Its listing has, left of the bar,
// the code in the form of objdump -d, bytes on amd64 and words on arm64, and
// right of it what an assembler makes that code from; a test lets one do so.
func (a *architecture) code() []byte {
	var code []byte
	for line := range strings.Lines(a.listing) {
		left, _, _ := strings.Cut(line, "|")
		for _, digits := range strings.Fields(left) {
			unit, err := hex.DecodeString(digits)
			if err != nil {
				panic(err) // a slip in the listing
			}
			slices.Reverse(unit) // a word's lowest byte comes first in memory
			code = append(code, unit...)
		}
	}
	return code
}
