package conn

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/spawn"
)

// pidfdGroups tells whether the kernel signals a process group by its
// leader's pidfd, even when the leader has been reaped and its number could be
// another's (Linux 6.9, pidfd_send_signal(2)).
var pidfdGroups = probePidfdGroups()

// pidfdSignalGroup is PIDFD_SIGNAL_PROCESS_GROUP.
const pidfdSignalGroup = 4

func probePidfdGroups() bool {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(self)
	// EINVAL is an unknown flag; ESRCH that we lead no group.
	return unix.PidfdSendSignal(self, 0, nil, pidfdSignalGroup) != unix.EINVAL
}

// termZombiesGroup sends TERM to the group of pid, which has ended and not
// been reaped: its number is still its own. Kernels that know the group by
// pidfd need no haste.
func termZombiesGroup(pid int) {
	if !pidfdGroups {
		unix.Kill(-pid, unix.SIGTERM)
	}
}

// signalGroup signals what is left of the group of c, which has been reaped.
// Without pidfdGroups it goes by number, which stays taken as long as the
// group has a member (setpgid(2)).
func signalGroup(c spawn.Child, sig unix.Signal) error {
	if pidfdGroups {
		return unix.PidfdSendSignal(c.PIDFD, sig, nil, pidfdSignalGroup)
	}
	return unix.Kill(-c.PID, sig)
}

// groupLives tells whether anything is left of c's group, zombies included.
func groupLives(c spawn.Child) bool { return signalGroup(c, 0) == nil }

// endLeftovers ends the processes that outlived r's program: they are counted
// for the record, then TERM, then KILL.
func (t *Table) endLeftovers(r *record) {
	if r.killAt == 0 {
		r.killAt = later(t.now, r.service.Stop)
	}
	r.state = leftovers
	t.uncounted = append(t.uncounted, r)
	t.count()
}

// count has all process groups counted that wait for it, in one pass over
// /proc beside Watch: the pass takes as long as the machine has processes. The
// goroutine ends with the order that it gives.
func (t *Table) count() {
	if t.counting || len(t.uncounted) == 0 {
		return
	}
	t.counting = true
	list := t.uncounted
	t.uncounted = nil
	go func() {
		sizes := groupSizes()
		t.order(func() {
			t.counting = false
			for _, r := range list {
				t.counted(r, sizes[r.child.PID])
			}
			t.count()
		})
	}()
}

// counted begins to end r's leftovers, n of them alive. None means that all of
// them are zombies whose parent is about to reap them, or that they fork faster
// than a pass can see: that is killed, and no fork gets past it (fork(2) fails
// with KILL pending).
func (t *Table) counted(r *record, n int) {
	if r.ended.Leftovers = n; n == 0 {
		if !pidfdGroups && groupLives(r.child) && r.passes < mostPasses {
			r.passes++ // to kill by number takes a member that was seen
			t.uncounted = append(t.uncounted, r)
			return
		}
		if pidfdGroups {
			signalGroup(r.child, unix.SIGKILL)
		}
		t.conclude(r)
		return
	}
	signalGroup(r.child, unix.SIGTERM)
	signalGroup(r.child, unix.SIGCONT)
	t.arm(r, t.now+int64(recheck))
}

// mostPasses is how often those are looked for again who may be there.
const mostPasses = 5

const (
	recheck = 20 * time.Millisecond // between looks at leftovers: they are not our children
	giveUp  = time.Second           // after KILL; what is left then is beyond KILL (a zombie, or D state)
)

// pressLeftovers looks at r's leftovers again, and kills them when their time
// is up.
func (t *Table) pressLeftovers(r *record) {
	switch {
	case !groupLives(r.child), t.now >= later(r.killAt, giveUp):
		t.conclude(r)
		return
	case t.now >= r.killAt:
		signalGroup(r.child, unix.SIGKILL)
	}
	t.arm(r, t.now+int64(recheck))
}

// groupSizes counts the live processes of each process group (proc(5)).
func groupSizes() map[int]int {
	sizes := map[int]int{}
	proc, err := os.Open("/proc")
	if err != nil {
		return sizes
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		if stat, err := os.ReadFile("/proc/" + name + "/stat"); err == nil {
			if group, alive := groupOf(stat); alive {
				sizes[group]++
			}
		}
	}
	return sizes
}

// groupOf reads the process group from a line of /proc/PID/stat; the name in
// it can hold anything and ends with the last parenthesis.
func groupOf(stat []byte) (group int, alive bool) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 3 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return 0, false
	}
	group, err := strconv.Atoi(string(fields[2]))
	return group, err == nil
}
