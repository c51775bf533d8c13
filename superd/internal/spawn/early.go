package spawn

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"superd/superd/internal/spawn/origin"
)

// HeirVariable is in the environment of a superd that takes the place of
// another: until ReleaseSignals, signals are only noted there.
const HeirVariable = "SUPERD_ESTATE"

func init() {
	if os.Getenv(HeirVariable) == "" {
		ReleaseSignals()
	}
}

// ReleaseSignals gives signals to Go, and sends those again that have come
// since superd was executed. Whoever wants one must have said so (os/signal).
func ReleaseSignals() {
	origin.LetGo()
	noted := atomic.SwapUint64(&origin.Noted, 0)
	for s := unix.Signal(1); s < 64; s++ {
		if noted&(1<<s) != 0 {
			unix.Kill(os.Getpid(), s)
		}
	}
}
