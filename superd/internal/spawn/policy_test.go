package spawn

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// policies are the filters there are.
var policies = map[string]policy{
	"default": defaultPolicy(), "offline": offlinePolicy(), "tight": tightPolicy(false), "tight with a network": tightPolicy(true),
}

const (
	sigchld         = uint64(unix.SIGCHLD)
	addrNoRandomize = 0x40000 // of linux/personality.h
)

func TestPoliciesNameCallsOnce(t *testing.T) {
	for name, p := range policies {
		seen := map[string]bool{}
		for _, f := range p.families {
			for _, call := range strings.Fields(f.calls) {
				if seen[call] {
					t.Errorf("%s: %s is in two families", name, call)
				}
				seen[call] = true
				if architectures["amd64"].number(call) < 0 && architectures["arm64"].number(call) < 0 {
					t.Errorf("%s: no architecture has a call %q", name, call)
				}
			}
		}
	}
}

// TestTightJudgesEveryCall: a call of the tables that tight does not name is
// killed, as few are as can be for that alone.
func TestTightJudgesEveryCall(t *testing.T) {
	p := tightPolicy(false)
	var named []string
	for _, f := range p.families {
		named = append(named, strings.Fields(f.calls)...)
	}
	for name, a := range architectures {
		for _, call := range a.calls {
			if call != "" && !slices.Contains(named, call) && call != "process_mrelease" {
				t.Errorf("%s: nothing is said of %s", name, call)
			}
		}
	}
}

// TestFiltersFollowThePolicies runs both architectures' filters for every
// number, with arguments that conditions look at.
func TestFiltersFollowThePolicies(t *testing.T) {
	for archName, a := range architectures {
		for name, p := range policies {
			segments := p.segments(a)
			filter := a.assemble(segments)
			outcomes := p.outcomes(a)
			longest := 0
			check := func(c call, want verdict) {
				t.Helper()
				got, steps := run(filter, c)
				longest = max(longest, steps)
				if got != want {
					t.Errorf("%s %s: %s of %#x with %#x gets %#x, want %#x", archName, name, a.name(int(c.number)), c.arch, c.args, got, want)
				}
			}
			for number := range uint32(600) {
				o := outcome{verdict: fails(unix.ENOSYS)}
				if int(number) < len(outcomes) {
					o = outcomes[number]
				}
				for _, arg := range []uint64{0, 1, 2, 8, 16, 17, 38, 40, 0xffffffff, 1 << 32, unix.CLONE_NEWUSER, unix.CLONE_NEWTIME,
					unix.CLONE_NEWNET, sigchld, unix.TIOCSTI, unix.TIOCSTI | 1<<40, unix.TCGETS, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO} {
					c := call{a.audit, number, [6]uint64{arg, arg, arg, arg, arg, arg}}
					check(c, o.of(c))
				}
				for _, foreign := range []uint32{0, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, a.audit ^ 1} {
					check(call{arch: foreign, number: number}, kill)
				}
			}
			x32 := fails(unix.ENOSYS)
			if archName == "amd64" {
				x32 = kill
			}
			for _, number := range []uint32{0, 1, 59, 512, 546} {
				check(call{arch: a.audit, number: x32Bit + number}, x32)
			}
			for _, number := range []uint32{1 << 31, 0xffffffff, 1000, x32Bit - 1} {
				check(call{arch: a.audit, number: number}, fails(unix.ENOSYS))
			}
			t.Logf("%s %s: %d segments, %d instructions, at most %d for a call", archName, name, len(segments), len(filter), longest)
		}
	}
}

// TestVerdicts says for some calls what the policies mean, apart from how
// their tables say it.
func TestVerdicts(t *testing.T) {
	eperm, enosys, eafnosupport := fails(unix.EPERM), fails(unix.ENOSYS), fails(unix.EAFNOSUPPORT)
	type args = [6]uint64
	for _, c := range []struct {
		call                    string
		args                    args
		common, tight, tightNet verdict
	}{
		{"read", args{}, allow, allow, allow},
		{"execve", args{}, allow, allow, allow},
		{"execveat", args{}, allow, allow, allow},
		{"rt_sigprocmask", args{}, allow, allow, allow},
		{"rt_sigaction", args{}, allow, allow, allow},
		{"prctl", args{}, allow, allow, allow},
		{"recvfrom", args{}, allow, allow, allow},
		{"exit_group", args{}, allow, allow, allow},
		{"mount", args{}, kill, kill, kill},
		{"ptrace", args{}, kill, kill, kill},
		{"bpf", args{}, kill, kill, kill},
		{"init_module", args{}, kill, kill, kill},
		{"chroot", args{}, allow, eperm, eperm},
		{"setuid", args{}, allow, eperm, eperm},
		{"fchownat", args{}, allow, eperm, eperm},
		{"clone3", args{}, enosys, enosys, enosys},
		{"io_uring_setup", args{}, enosys, enosys, enosys},
		{"setns", args{}, eperm, eperm, eperm},
		{"clone", args{sigchld}, allow, allow, allow},
		{"clone", args{unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND}, allow, allow, allow},
		{"clone", args{unix.CLONE_NEWUSER | sigchld}, eperm, eperm, eperm},
		{"clone", args{unix.CLONE_NEWCGROUP}, eperm, eperm, eperm},
		{"unshare", args{unix.CLONE_FILES}, allow, eperm, eperm},
		{"unshare", args{unix.CLONE_NEWUSER}, eperm, eperm, eperm},
		{"unshare", args{unix.CLONE_NEWTIME}, eperm, eperm, eperm},
		{"personality", args{0xffffffff}, allow, allow, allow},
		{"personality", args{0}, allow, allow, allow},
		{"personality", args{addrNoRandomize}, eperm, eperm, eperm},
		{"ioctl", args{0, unix.TCGETS}, allow, allow, allow},
		{"ioctl", args{0, unix.TIOCSTI}, eperm, eperm, eperm},
		{"ioctl", args{0, 1<<32 | unix.TIOCSTI}, eperm, eperm, eperm},
		{"ioctl", args{0, 0x541c}, eperm, eperm, eperm},
		{"socket", args{unix.AF_UNIX}, allow, allow, allow},
		{"socket", args{unix.AF_INET}, allow, eafnosupport, allow},
		{"socket", args{unix.AF_INET6}, allow, eafnosupport, allow},
		{"socket", args{1<<32 | unix.AF_INET6}, allow, eafnosupport, allow},
		{"socket", args{unix.AF_NETLINK}, allow, eafnosupport, eafnosupport},
		{"socket", args{unix.AF_ALG}, eafnosupport, eafnosupport, eafnosupport},
		{"socket", args{unix.AF_RDS}, eafnosupport, eafnosupport, eafnosupport},
		{"mknodat", args{0, 0, unix.S_IFIFO | 0o666}, allow, allow, allow},
		{"mknodat", args{0, 0, unix.S_IFSOCK}, allow, allow, allow},
		{"mknodat", args{0, 0, 0o666}, allow, allow, allow},
		{"mknodat", args{0, 0, unix.S_IFCHR}, allow, eperm, eperm},
		{"mknodat", args{0, 0, unix.S_IFBLK | 0o666}, allow, eperm, eperm},
		{"shmget", args{}, allow, enosys, enosys},
		{"mbind", args{}, allow, enosys, enosys},
	} {
		for archName, a := range architectures {
			for name, want := range map[string]verdict{"default": c.common, "tight": c.tight, "tight with a network": c.tightNet} {
				p := policies[name]
				got, _ := run(a.assemble(p.segments(a)), call{a.audit, uint32(a.number(c.call)), c.args})
				if got != want {
					t.Errorf("%s %s: %s(%#x) gets %#x, want %#x", archName, name, c.call, c.args, got, want)
				}
			}
		}
	}
}
