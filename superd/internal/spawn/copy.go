package spawn

import (
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// isCopied tells whether children of p begin with a copy of superd's memory
// instead of superd's own. That costs half a millisecond and more, but nothing
// else is safe where other programs fill the cgroup that a child is born in:
// while it shares superd's memory it can be the largest there, and to kill it
// is to kill superd. An attended child is exempt only until the kernel has
// told the attendant, which is a moment before it has memory of its own; in a
// cgroup that it has to itself nobody else brings the kernel to look just
// then.
func (p *Plan) isCopied() bool {
	c := &p.spec.Cgroup
	return c.On && c.Memory > 0 && !c.PerConnection
}

// common is memory that superd and its copies have in common. It is the
// process's, and never freed.
var common struct {
	sync.Mutex
	free []*told
}

// listen gives in where its children tell of their way: the heap, or where they
// are copies common memory. Told stays nil where there is none to be had.
func (in *instance) listen() {
	if !in.plan.isCopied() {
		in.told = new(told)
		return
	}
	common.Lock()
	defer common.Unlock()
	if len(common.free) == 0 {
		common.free = moreCommon()
	}
	n := len(common.free)
	if n == 0 {
		return
	}
	in.told = common.free[n-1]
	common.free = common.free[:n-1]
	runtime.AddCleanup(in, giveCommon, in.told)
}

func giveCommon(t *told) {
	common.Lock()
	defer common.Unlock()
	common.free = append(common.free, t)
}

func moreCommon() (list []*told) {
	page, err := unix.Mmap(-1, 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil
	}
	const size = int(unsafe.Sizeof(told{}))
	for at := 0; at+size <= len(page); at += size {
		list = append(list, (*told)(unsafe.Pointer(&page[at])))
	}
	return list
}
