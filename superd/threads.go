package main

import (
	"runtime"
	"sync"
)

// Superd accepts with one thread, watches with one and logs with one.
const (
	mostRunning = 4 // threads that run Go code at once
	mostBlocked = 8 // threads that wait in system calls meanwhile; Go's own are among them
)

// reserveThreads makes the threads that superd will need before there are
// connections: when programs have reached a limit on processes, there is no
// thread to be had either, and Go ends a process that needs one then. Threads
// that are idle are kept for good.
func reserveThreads() {
	running := min(runtime.GOMAXPROCS(0), mostRunning)
	runtime.GOMAXPROCS(running)
	var held, done sync.WaitGroup
	held.Add(running + mostBlocked)
	for range running + mostBlocked {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			held.Done()
			held.Wait() // all of them have a thread of their own now
		})
	}
	done.Wait()
}
