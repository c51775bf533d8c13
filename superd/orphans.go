package main

import (
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/spawn"
)

// An orphanage is superd's duty as process 1, such as that of a container: to
// reap the processes whose own parents have ended. Superd's first thread does
// nothing else then.
type orphanage struct {
	ours   atomic.Pointer[func(pid int) bool] // whom Watch reaps; nil while nobody knows
	reaped atomic.Uint64
}

// adopted are the processes that this one was given.
var adopted orphanage

func init() {
	if os.Getpid() == 1 {
		runtime.LockOSThread() // keeps the first thread for main
	}
}

// supervise is work, beside which orphans are reaped where this is process 1.
func supervise(work func() (code int)) (code int) {
	if os.Getpid() != 1 {
		return work()
	}
	done := make(chan int, 1)
	go func() { done <- work() }()
	return adopted.reapUntil(done)
}

// breath is how long nobody is reaped after somebody was. Superd does not ask
// for signals meanwhile: each end of a program is one, and to hear of them all
// takes a tenth of its time at 7,000 connections a second.
const breath = 20 * time.Millisecond

func (o *orphanage) reapUntil(done <-chan int) (code int) {
	deaths := make(chan os.Signal, 1)
	for {
		signal.Notify(deaths, unix.SIGCHLD)
		if o.reap() { // those who have ended unheard; now there is nothing to do
			select {
			case code := <-done:
				return code
			case <-deaths:
			}
		}
		signal.Stop(deaths)
		select {
		case code := <-done:
			return code
		case <-time.After(breath):
		}
	}
}

// reap reaps all orphans that have ended; false where it has to look again.
// A child of superd's is found here only if the thread that started it is no
// more.
func (o *orphanage) reap() (all bool) {
	for pid := spawn.Orphan(); pid != 0; pid = spawn.Orphan() {
		ours := o.ours.Load()
		if ours == nil || (*ours)(pid) {
			return false
		}
		spawn.Bury(pid)
		o.reaped.Add(1)
	}
	return true
}
