package services

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImage reads every image as a stranger would.
func TestImage(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	buffered := []string{"chargen", "discard", "echo"}
	for arch := range architectures {
		for _, name := range Names() {
			t.Run(arch+"/"+name, func(t *testing.T) {
				content := mustImage(t, arch, name)
				if again := mustImage(t, arch, name); !bytes.Equal(content, again) {
					t.Error("the same service gave other bytes")
				}
				f, err := elf.NewFile(bytes.NewReader(content))
				if err != nil {
					t.Fatal(err)
				}
				if f.Machine != machines[arch] || f.Type != elf.ET_EXEC || len(f.Sections) != 0 {
					t.Errorf("%v %v with %d sections", f.Machine, f.Type, len(f.Sections))
				}
				if len(content) > 3*4096 {
					t.Errorf("image has %d bytes", len(content))
				}
				want := []string{"PF_X+PF_R", "PF_R", "PF_W+PF_R", "PT_GNU_STACK PF_W+PF_R"}
				if !slices.Contains(buffered, name) {
					want = slices.Delete(want, 2, 3)
				}
				if got := layout(t, f, len(content)); !slices.Equal(got, want) {
					t.Errorf("segments are %v, want %v", got, want)
				}
			})
		}
	}
}

// layout checks each segment and gives their flags; only the stack's type is
// not PT_LOAD.
func layout(t *testing.T, f *elf.File, size int) (flags []string) {
	const page = 64 << 10
	last := uint64(0)
	for _, s := range f.Progs {
		if s.Type != elf.PT_LOAD {
			flags = append(flags, s.Type.String()+" "+s.Flags.String())
			continue
		}
		flags = append(flags, s.Flags.String())
		if s.Align != page || s.Vaddr%page != s.Off%page {
			t.Errorf("segment at %#x from %#x is aligned to %#x", s.Vaddr, s.Off, s.Align)
		}
		if s.Vaddr/page <= last {
			t.Errorf("segment at %#x shares a page with the one before", s.Vaddr)
		}
		last = (s.Vaddr + s.Memsz - 1) / page
		if s.Off+s.Filesz > uint64(size) || s.Filesz > s.Memsz {
			t.Errorf("segment at %#x has %d of the file's bytes and %d in memory", s.Vaddr, s.Filesz, s.Memsz)
		}
		inside := f.Entry >= s.Vaddr && f.Entry < s.Vaddr+s.Filesz
		if inside != (s.Flags&elf.PF_X != 0) {
			t.Errorf("entry %#x and the segment at %#x, %v", f.Entry, s.Vaddr, s.Flags)
		}
		if writable := s.Flags&elf.PF_W != 0; writable && (s.Filesz != 0 || s.Memsz != bufferSize) {
			t.Errorf("writable: %d bytes of the file, %d in memory", s.Filesz, s.Memsz)
		}
	}
	return flags
}

func mustImage(t *testing.T, arch, name string) []byte {
	t.Helper()
	content, err := imageFor(arch, name, Options{Now: someSecond})
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestListing lets an assembler make the walkers from their source.
func TestListing(t *testing.T) {
	assemblers := map[string][]string{
		"amd64": {"x86_64-linux-gnu-as", "-msyntax=intel", "-mnaked-reg"},
		"arm64": {"aarch64-linux-gnu-as"},
	}
	for arch, a := range architectures {
		t.Run(arch, func(t *testing.T) {
			command := assemblers[arch]
			object := filepath.Join(t.TempDir(), "walker.o")
			as := exec.Command(tool(t, command[0]), append(command[1:], "-o", object, "-")...)
			as.Stdin = strings.NewReader(source(a.listing))
			if out, err := as.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if got, want := machineCode(t, object), a.code(); !bytes.Equal(got, want) {
				t.Errorf("the assembler makes\n% x, the listing has\n% x", got, want)
			}
		})
	}
}

// source is the right side of a listing, without its remarks.
func source(listing string) string {
	var b strings.Builder
	for line := range strings.Lines(listing) {
		_, right, _ := strings.Cut(line, "|")
		instruction, _, _ := strings.Cut(right, ";")
		b.WriteString(instruction + "\n")
	}
	return b.String()
}

func machineCode(t *testing.T, object string) []byte {
	t.Helper()
	file, err := os.Open(object)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f, err := elf.NewFile(file)
	if err != nil {
		t.Fatal(err)
	}
	code, err := f.Section(".text").Data()
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// TestRecord: the layout that both listings count on.
func TestRecord(t *testing.T) {
	if got := len(little(nil, record{})); got != recordSize {
		t.Errorf("a record has %d bytes, recordSize says %d", got, recordSize)
	}
}
