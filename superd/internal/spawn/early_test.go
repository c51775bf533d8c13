package spawn

import (
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSignalsAreNotedEarly: a signal that nobody could ask for yet does not end
// an heir, and comes when somebody can.
func TestSignalsAreNotedEarly(t *testing.T) {
	if os.Getenv(HeirVariable) == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestSignalsAreNotedEarly$")
		c.Env = append(os.Environ(), HeirVariable+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("the heir ends with %v: %s", err, out)
		}
		return
	}
	heard := []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTERM}
	c := make(chan os.Signal, len(heard))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, s := range slices.Concat(heard, heard) { // to this thread, which has heard of it when the call returns
		unix.Tgkill(os.Getpid(), unix.Gettid(), s)
	}
	for _, s := range heard {
		signal.Notify(c, s)
	}
	ReleaseSignals()
	got := map[os.Signal]bool{}
	for range heard {
		select {
		case s := <-c:
			got[s] = true
		case <-time.After(patience):
			t.Fatalf("only %v came", got)
		}
	}
	if len(got) != len(heard) {
		t.Errorf("%v came", got)
	}
	unix.Kill(os.Getpid(), unix.SIGTERM) // and from now on as ever
	<-c
}
