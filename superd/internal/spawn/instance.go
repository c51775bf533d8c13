package spawn

// A step is one system call of a plan, in the layout that the walker reads.
type step struct {
	number  uintptr
	args    [6]uintptr
	ignored uintptr // not 0: an error of this step changes nothing
	decimal uintptr // not 0: where the result is written in digits; what stands behind them is left alone
}

// cloneArgs is struct clone_args of clone3(2), version 2 (Linux 5.7).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID  uint64
	exitSignal, stack, stackSize, tls  uint64
	setTID, setTIDSize, cgroupOfTarget uint64
}

// instance is what one child walks: a copy of a plan's steps with this
// connection's numbers and environment in them.
//
// It lives on the heap, where nothing moves, and stays referenced by its
// engine's lists; the child reads it in the shared memory until the kernel
// zeroes tid, and until then nobody may change or reuse it.
type instance struct {
	// What the assembly knows. The kernel writes tid, pidfd and born.
	start   step // the call that makes the child: clone3 or clone
	clone   cloneArgs
	blocked uint64  // every signal, for rt_sigprocmask(2) around clone3
	mask    uint64  // the calling thread's own mask meanwhile
	first   uintptr // &steps[0]
	told    *told
	tid     uint32 // not 0 until the child has left our memory
	pidfd   int32
	born    int32 // of an attended child: its number, or the negated error of clone3; a futex

	// What only Go knows; owned by Start until the
	// child exists, then guarded by the engine's lock.
	plan     *Plan
	steps    []step
	envp     []uintptr
	text     []byte // the variables of this connection
	lows     []int  // descriptors to close once the child has a table of its own
	nlows    int
	pid      int
	leaf     *leaf  // of the service's cgroup; nil for none
	cell     *cell  // nil where the child makes its own, or needs none
	passes   bool   // the steps are set to pass by what makes one
	use      uint32 // counts uses, so that a Child knows whether the instance is still its own
	reported bool   // a failure in it has been read
}

// told is what a child tells of its way.
type told struct {
	done   uint32 // steps behind it
	failed uint32 // number of the step that failed, counted from 1
	errno  uint32 // why
}

// launch starts the child of in with all signals blocked and returns its
// number, or the negated error number of that call. The child never returns: it
// walks in.first until execve replaces it or a step fails, and exits 127 then.
//
//go:noescape
func launch(in *instance) int
