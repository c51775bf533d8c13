package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a service asks for and cannot have here is found before anybody comes,
// by run as by check, at the key that asks for it.

// lacking is superd as root without one capability.
func lacking(t *testing.T, capability string, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	needRoot(t)
	outer := exec.Command(program(t, "setpriv"), append([]string{"--bounding-set", "-" + capability, cmd.Path}, cmd.Args[1:]...)...)
	outer.Env = cmd.Env
	return outer
}

// aboveHard is a limit of superd's own that is finite, and how the file asks
// for more.
func aboveHard(t *testing.T) (own uint64, more string) {
	t.Helper()
	var limit unix.Rlimit
	const msgqueue = 12 // RLIMIT_MSGQUEUE
	if err := unix.Getrlimit(msgqueue, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max == unix.RLIM_INFINITY {
		skip(t, "this needs a limit of message queues")
	}
	return limit.Max, fmt.Sprintf("{soft: 1K, hard: %dK}", limit.Max>>10+1)
}

func TestWhatRootLacks(t *testing.T) {
	t.Parallel()
	own, more := aboveHard(t)
	const resource = "it takes root: CAP_SYS_RESOURCE"
	for _, c := range []struct {
		capability, keys string
		want             []string
	}{
		{"setuid", "", []string{"user: cannot set the user " + unprivileged + ": EPERM (it takes root: CAP_SETUID)"}},
		{"setgid", "group: '64001'", []string{
			"groups: cannot set the supplementary groups: EPERM (it takes root: CAP_SETGID)",
			"group: cannot set the group 64001: EPERM (it takes root: CAP_SETGID)"}},
		{"sys_chroot", "chroot: /usr", []string{"chroot: cannot change the root directory to /usr: EPERM (it takes root: CAP_SYS_CHROOT)"}},
		{"sys_nice", "nice: -5", []string{"nice: cannot set the nice value -5: EACCES (less than superd's own takes root: CAP_SYS_NICE)"}},
		{"sys_resource", "oom_score_adj: -1000", []string{
			"oom_score_adj: cannot set oom_score_adj to -1000: EACCES (less than superd was started with takes root: CAP_SYS_RESOURCE)"}},
		{"sys_resource", "rlimits: {core: 0, msgqueue: " + more + "}", []string{fmt.Sprintf(
			"rlimits.msgqueue: cannot set the limit msgqueue: EPERM (superd's own hard limit is %d, and more takes root: CAP_SYS_RESOURCE)", own)}},
		{"net_raw", "sandbox: {capabilities: [chown, net_raw]}", []string{
			"sandbox.capabilities: cannot set the capabilities: EPERM (superd itself does not have net_raw)"}},
		{"setpcap", "sandbox: {capabilities: [], no_new_privs: false, system_calls: all}", []string{
			"sandbox.capabilities: cannot drop the capability chown for good: EPERM (to take capabilities away takes CAP_SETPCAP)"}},
		{"setpcap", "sandbox: {capabilities: []}", nil}, // behind no_new_privs there are none to be had
		{"sys_admin", "sandbox: strict", []string{
			"sandbox.private_tmp: cannot build the mount namespace: it takes root: CAP_SYS_ADMIN (start superd as root, or do without it by best_effort: true)",
			"sandbox.network: cannot build the network namespace: it takes root: CAP_SYS_ADMIN (start superd as root, or do without it by best_effort: true)"}},
	} {
		t.Run(c.capability, func(t *testing.T) {
			t.Parallel()
			file := writeFile(t, publicDir(t), "superd.yaml", one("x", "run: /bin/cat, "+c.keys), 0o644)
			code, _, complaints := finished(t, lacking(t, c.capability, superd("check", "-c", file)))
			if said := saidOf("services.x", complaints); code != ifAny(c.want) || !slices.Equal(said, c.want) {
				t.Errorf("%s: %d\n%q\n%q", c.keys, code, said, c.want)
			}
		})
	}
}

// ifAny is the exit code of who has complaints.
func ifAny(complaints []string) int { return min(len(complaints), 1) }

// TestEveryFaultAtOnce: of much that an ordinary user's superd cannot give,
// each is told once, at its place, in the order of the file.
func TestEveryFaultAtOnce(t *testing.T) {
	needLandlock(t, 3)
	t.Parallel()
	_, more := aboveHard(t)
	yaml := `
services:
  much:
    listen: "127.0.0.1:0"
    run: /bin/cat
    nice: -5
    oom_score_adj: -1000
    chroot: /usr
    rlimits: {core: 0, msgqueue: ` + more + `}
    cgroup: {memory: 64M, tasks: 16}
    sandbox: {private_tmp: true, network: false, read: [/none, /bin, /nowhere], capabilities: [chown]}
  missing:
    listen: "127.0.0.1:0"
    builtin: echo
    chroot: /none
    sandbox: strict
  good:
    listen: "127.0.0.1:0"
    run: /bin/cat
`
	want := []string{
		"FILE:6:11: services.much.nice: cannot set the nice value -5",
		"FILE:7:20: services.much.oom_score_adj: cannot set oom_score_adj to -1000",
		"FILE:8:13: services.much.chroot: cannot change the root directory to /usr: EPERM",
		"FILE:9:34: services.much.rlimits.msgqueue: cannot set the limit msgqueue: EPERM",
		"FILE:11:28: services.much.sandbox.private_tmp: cannot build the mount namespace",
		"FILE:11:43: services.much.sandbox.network: cannot build the network namespace",
		"FILE:11:57: services.much.sandbox.read[0]: cannot open /none: no such file",
		"FILE:11:70: services.much.sandbox.read[2]: cannot open /nowhere: no such file",
		"FILE:11:95: services.much.sandbox.capabilities: cannot set the capabilities: EPERM (superd itself does not have chown)",
		"FILE:15:13: services.missing.chroot: cannot open /none: no such file",
		"FILE:16:14: services.missing.sandbox.network: cannot build the network namespace",
	}
	for _, verb := range []string{"check", "run"} {
		code, out, complaints := ordinary(t, yaml, verb)
		var said []string
		cgroup := false // what is missing depends on the machine, and check does not know what run may
		for line := range strings.Lines(complaints) {
			if strings.HasPrefix(line, "FILE:10:") {
				cgroup = strings.Contains(line, ": services.much.cgroup")
			} else if strings.HasPrefix(line, "FILE:") {
				said = append(said, line)
			}
		}
		if code != 1 || out != "" || !slices.EqualFunc(said, want, strings.HasPrefix) || verb == "run" && !cgroup {
			t.Errorf("%s: %d, %q\n%s", verb, code, out, complaints)
		}
	}
}

// TestCheckLooksInsideTheRoot: symbolic links lead where the program would
// find them.
func TestCheckLooksInsideTheRoot(t *testing.T) {
	needRoot(t)
	t.Parallel()
	dir := publicDir(t)
	inImage(t, dir)
	for name, target := range map[string]string{
		"inside": "/greet", "up": "../../../greet", "cat": "/bin/cat", "dir": "/", "tmp": "/etc",
	} {
		if err := unix.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for keys, want := range map[string][]string{
		"run: /greet":                  nil,
		"run: /inside":                 nil,
		"run: /up":                     nil,
		"run: /cat":                    {"run: the program /cat does not exist"}, // it does outside
		"run: " + dir + "/greet":       {"run: the program " + dir + "/greet does not exist"},
		"run: /dir":                    {"run: /dir is a directory"},
		"run: /greet, dir: /dir":       nil,
		"run: /greet, dir: /tmp":       {"dir: the directory /tmp does not exist"},
		"run: /greet, dir: /greet":     {"dir: /greet is not a directory"},
		"run: /none, dir: /none":       {"run: the program /none does not exist", "dir: the directory /none does not exist"},
		"builtin: echo, dir: /none":    {"dir: the directory /none does not exist"},
		"builtin: echo, chroot: /none": {"chroot: cannot open /none: no such file or directory"},
	} {
		if !strings.Contains(keys, "chroot") {
			keys += ", chroot: " + dir
		}
		file := writeFile(t, publicDir(t), "superd.yaml", one("x", keys), 0o644)
		code, _, complaints := finished(t, superd("check", "-c", file))
		if said := saidOf("services.x", complaints); code != ifAny(want) || !slices.Equal(said, want) {
			t.Errorf("%s: %d, %q, not %q", keys, code, said, want)
		}
	}
}
