package spawn

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Violation tells which system call killed the process pid, which has died by
// SIGSYS: "mount"; ok is false where that is not known. It is told once.
//
// A parent learns from waitid no more than the signal. But the kernel writes
// an audit record for each such death (seccomp(2), actions_logged), and sends
// it to every listener of a netlink group: it arrives beside an audit daemon,
// and in a burst, where the kernel log has a rate limit. To listen takes
// CAP_AUDIT_READ and the machine's own network and process namespaces; a
// kernel without audit, or started with audit=0, writes no records.
//
// The record comes by a thread of the kernel and can be a moment later than
// the end of the process. Violation does not wait; a caller that can do so
// asks again after each of [RecordDelays], where [Engine.HearsViolations] says
// that there may be a record.
func (e *Engine) Violation(pid int) (call string, ok bool) {
	violations.mu.Lock()
	defer violations.mu.Unlock()
	violations.receive()
	return violations.take(pid)
}

// HearsViolations tells whether the kernel's records come here, so that it may
// be worth while to ask again.
func (e *Engine) HearsViolations() bool {
	violations.mu.Lock()
	defer violations.mu.Unlock()
	return violations.listening
}

// RecordDelays are what a busy machine may need from the end of a process to the
// record of it, each after the one before: a second in all.
var RecordDelays = [...]time.Duration{20 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond,
	160 * time.Millisecond, 300 * time.Millisecond, 400 * time.Millisecond}

// A violation is a record of the kernel's: what killed a process.
type violation struct {
	pid    int
	arch   uint32 // AUDIT_ARCH_*
	number int
}

// keptViolations bounds the records that are kept; those of programs that are
// not superd's nobody asks for, and the oldest go first.
const keptViolations = 256

// violationLog is what this process hears of violations. Until a program has
// died it costs a socket: nothing is read, and nobody is woken.
type violationLog struct {
	mu        sync.Mutex
	tried     bool // to listen; guarded by mu, like all that follows
	listening bool
	fd        int // above the window, where listening
	kept      [keptViolations]violation
	next      int // the place in kept for the next record
	buffer    [maxRecord]byte
}

// violations is for the whole process, as the kernel's records are.
var violations violationLog

// watchViolations begins to listen, with the first filter. Where that is not
// possible, programs die all the same, and the log does not name the call.
func (e *Engine) watchViolations() {
	violations.mu.Lock()
	defer violations.mu.Unlock()
	if violations.tried {
		return
	}
	violations.tried = true
	if !inFirstPIDNamespace() {
		return // the records have other numbers than we
	}
	low, err := listenForRecords()
	if err != nil {
		return
	}
	if fd, err := e.Above(low); err == nil {
		violations.fd, violations.listening = fd, true
	}
}

// inFirstPIDNamespace looks for the inode that the kernel gives the first one
// (PROC_PID_INIT_INO).
func inFirstPIDNamespace() bool {
	var s unix.Stat_t
	return unix.Stat("/proc/self/ns/pid", &s) == nil && s.Ino == 0xeffffffc
}

// readlogGroup is AUDIT_NLGRP_READLOG as a bit of a netlink address.
const readlogGroup = 1

// listenForRecords opens a netlink socket that receives records of violations
// and no others.
func listenForRecords() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_AUDIT)
	if err != nil {
		return -1, err
	}
	// The filter is there before the first record can be.
	if err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, violationsOnly()); err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: readlogGroup})
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// violationsOnly drops messages of other types than AUDIT_SECCOMP, so that the
// socket holds a few hundred violations until somebody asks. A socket filter
// reads the type, which has the machine's byte order, in the network's.
func violationsOnly() *unix.SockFprog {
	const typeOffset = 4 // in struct nlmsghdr
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: typeOffset},
		{Code: opEqual, Jf: 1, K: uint32(bits.ReverseBytes16(unix.AUDIT_SECCOMP))},
		{Code: opReturn, K: maxRecord},
		{Code: opReturn, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
}

// maxRecord is a netlink header and MAX_AUDIT_MESSAGE_LENGTH.
const maxRecord = unix.SizeofNlMsghdr + 8970

// receive keeps what has arrived.
func (l *violationLog) receive() {
	for l.listening {
		n, from, err := unix.Recvfrom(l.fd, l.buffer[:], 0)
		switch {
		case err == unix.EINTR || err == unix.ENOBUFS: // some were lost
			continue
		case err != nil:
			return
		}
		kernel, is := from.(*unix.SockaddrNetlink)
		if !is || kernel.Pid != 0 || n < unix.SizeofNlMsghdr {
			continue
		}
		if v, ok := parseViolation(string(l.buffer[unix.SizeofNlMsghdr:n])); ok {
			l.keep(v)
		}
	}
}

func (l *violationLog) keep(v violation) {
	l.kept[l.next] = v
	l.next = (l.next + 1) % keptViolations
}

// take finds the latest record of pid and forgets it: the number will be
// another process's.
func (l *violationLog) take(pid int) (string, bool) {
	for back := range keptViolations {
		v := &l.kept[(l.next+keptViolations-1-back)%keptViolations]
		if pid > 0 && v.pid == pid {
			call := v.call()
			*v = violation{}
			return call, true
		}
	}
	return "", false
}

// parseViolation reads the kernel's text:
//
//	audit(1700000000.123:4): auid=… pid=8475 comm="x" exe="/bin/x" sig=31 arch=c000003e syscall=39 compat=0 …
//
// What a program chose, comm and exe, is without spaces: the kernel writes
// such text in hexadecimal digits. The group of threads is the pid.
func parseViolation(text string) (violation, bool) {
	field := map[string]string{}
	for word := range strings.FieldsSeq(text) {
		if key, value, is := strings.Cut(word, "="); is {
			field[key] = value
		}
	}
	pid, err1 := strconv.Atoi(field["pid"])
	arch, err2 := strconv.ParseUint(field["arch"], 16, 32)
	number, err3 := strconv.Atoi(field["syscall"])
	ok := err1 == nil && err2 == nil && err3 == nil && field["sig"] == strconv.Itoa(int(unix.SIGSYS))
	return violation{pid, uint32(arch), number}, ok
}

// call names the system call: as SystemCallName does, where it came from the
// machine's own table.
func (v violation) call() string {
	own := ownArchitecture
	switch foreign := own.foreign; {
	case v.arch != own.audit:
		return fmt.Sprintf("number %d of the 32-bit table", v.number)
	case v.number >= int(foreign.first) && v.number < int(foreign.end):
		return fmt.Sprintf("number %d of the x32 table", v.number-x32Bit)
	}
	return own.name(v.number)
}
