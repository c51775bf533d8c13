package spawn

import (
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What becomes of a call that is not made follows one rule. It kills the
// program where no ordinary program calls it without meaning it: whoever comes
// there was taken over, or is in the wrong place, and the log names the call.
// It fails where programs and libraries only ask and have another way: with
// the error of a kernel that was built without the call, or of one that lets
// only root make it, both of which they know.

// A family is system calls that share a reason. Those that an architecture
// does not have are left out there.
type family struct {
	purpose   string
	calls     string // names
	verdict   verdict
	condition *condition // instead of verdict
}

// A policy is what one value of the file's system_calls means: what becomes
// of the calls of its families, and what of the others. A call that is newer
// than superd fails with ENOSYS, as on the kernel before it: nobody has judged
// it yet, and a program must be ready for its absence.
type policy struct {
	families []family
	others   verdict
}

// dangerous are calls that change the machine and not a program's own work, or
// look into another program.
var dangerous = []family{
	{purpose: "kernel modules", verdict: kill, calls: "init_module finit_module delete_module"},
	{purpose: "another kernel, or none", verdict: kill, calls: "kexec_load kexec_file_load reboot"},
	{purpose: "swap and process accounting", verdict: kill, calls: "swapon swapoff acct"},
	{purpose: "mounts", verdict: kill, calls: `mount umount2 pivot_root move_mount open_tree open_tree_attr
		fsopen fsconfig fsmount fspick mount_setattr`},
	{purpose: "other programs' memory and descriptors", verdict: kill,
		calls: "ptrace process_vm_readv process_vm_writev pidfd_getfd"},
	{purpose: "code in the kernel", verdict: kill, calls: "bpf"},
	{purpose: "setting the clock", verdict: kill, calls: "settimeofday clock_settime"},
	{purpose: "I/O ports", verdict: kill, calls: "iopl ioperm"},
}

// probed are calls that ordinary programs try, and can do without.
var probed = []family{
	// The flags of clone3 lie in memory, which no filter sees. The C libraries
	// fall back to clone, whose flags are looked at.
	{purpose: "processes, by flags in memory", verdict: fails(unix.ENOSYS), calls: "clone3"},
	// Where the rings are, files and sockets are used past every filter. Runtimes
	// fall back to epoll: kernels are built without, or have io_uring_disabled.
	{purpose: "io_uring", verdict: fails(unix.ENOSYS), calls: "io_uring_setup io_uring_enter io_uring_register"},
	// Kerberos and PAM go on without them, as where CONFIG_KEYS is off.
	{purpose: "the kernel's keyrings", verdict: fails(unix.ENOSYS), calls: "add_key request_key keyctl"},
	// What vm.unprivileged_userfaultfd and kernel.perf_event_paranoid answer.
	{purpose: "page faults and counters", verdict: fails(unix.EPERM), calls: "userfaultfd perf_event_open"},
	// What a user without privilege hears, as do browsers' and bubblewrap's sandboxes
	// where user namespaces are off.
	{purpose: "other namespaces", verdict: fails(unix.EPERM), calls: "setns"},
	// adjtimex also only tells how the clock runs, which its arguments do not show.
	{purpose: "tuning the clock", verdict: fails(unix.EPERM), calls: "adjtimex clock_adjtime"},
	// A handle leads out of a chroot; only root may use one, and libraries that try
	// know that.
	{purpose: "files by handle", verdict: fails(unix.EPERM), calls: "open_by_handle_at"},
	{purpose: "watching whole file systems", verdict: fails(unix.EPERM), calls: "fanotify_init"},
	// dmesg_restrict answers so.
	{purpose: "the kernel's log", verdict: fails(unix.EPERM), calls: "syslog"},
	{purpose: "the machine's name", verdict: fails(unix.EPERM), calls: "sethostname setdomainname"},
	{purpose: "comparing other programs", verdict: fails(unix.EPERM), calls: "kcmp"},
	// File servers ask for them; an option of the kernel.
	{purpose: "quotas", verdict: fails(unix.ENOSYS), calls: "quotactl quotactl_fd"},
	// What only 16-bit programs need; an option of the kernel.
	{purpose: "segments", verdict: fails(unix.ENOSYS), calls: "modify_ldt"},
	{purpose: "obsolete", verdict: fails(unix.ENOSYS), calls: `uselib ustat sysfs _sysctl nfsservctl lookup_dcookie
		create_module get_kernel_syms query_module getpmsg putpmsg afs_syscall tuxcall security vserver
		epoll_ctl_old epoll_wait_old set_thread_area get_thread_area`},
}

// namespaces are the CLONE_NEW* flags of clone. A user namespace would make
// its maker root over the rest; CLONE_NEWTIME is for unshare alone, since
// clone has the exit signal in those bits.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

var (
	// clone and unshare make no namespaces.
	sameNamespaces = family{purpose: "processes and threads", calls: "clone",
		condition: &condition{arg: 0, mask: namespaces, values: []uint32{0}, then: allow, otherwise: fails(unix.EPERM)}}
	noNewNamespaces = family{purpose: "leaving what threads share", calls: "unshare",
		condition: &condition{arg: 0, mask: namespaces | unix.CLONE_NEWTIME, values: []uint32{0}, then: allow, otherwise: fails(unix.EPERM)}}

	// personality only asks (0xffffffff) or returns to the ordinary; others
	// switch off address randomization, or make readable memory executable.
	ordinaryPersonality = family{purpose: "execution domain", calls: "personality",
		condition: &condition{arg: 0, mask: math.MaxUint32, values: []uint32{math.MaxUint32, 0}, then: allow, otherwise: fails(unix.EPERM)}}

	// TIOCSTI and TIOCLINUX type into the terminal of another (ioctl_tty(2)).
	noTyping = family{purpose: "devices", calls: "ioctl",
		condition: &condition{arg: 1, mask: math.MaxUint32, values: []uint32{unix.TIOCSTI, tioclinux}, then: fails(unix.EPERM), otherwise: allow}}

	// mknod makes pipes and sockets, but neither character (0x2000) nor block
	// devices (0x6000): the bit that they differ in is masked out.
	noDevices = []family{
		{purpose: "named pipes", calls: "mknod",
			condition: &condition{arg: 1, mask: unix.S_IFMT &^ 0x4000, values: []uint32{unix.S_IFCHR}, then: fails(unix.EPERM), otherwise: allow}},
		{purpose: "named pipes", calls: "mknodat",
			condition: &condition{arg: 2, mask: unix.S_IFMT &^ 0x4000, values: []uint32{unix.S_IFCHR}, then: fails(unix.EPERM), otherwise: allow}},
	}
)

// tioclinux is TIOCLINUX of asm-generic/ioctls.h.
const tioclinux = 0x541c

// socketsOf allows new sockets of these address families. For the others a
// kernel without them answers the same; most would load a module for it.
func socketsOf(domains ...uint32) family {
	return family{purpose: "new sockets", calls: "socket socketpair",
		condition: &condition{arg: 0, mask: math.MaxUint32, values: domains, then: allow, otherwise: fails(unix.EAFNOSUPPORT)}}
}

// defaultPolicy is everything but the dangerous: for any program, root's too.
func defaultPolicy() policy {
	p := policy{others: allow}
	p.add(dangerous...)
	p.add(probed...)
	p.add(sameNamespaces, noNewNamespaces, ordinaryPersonality, noTyping,
		socketsOf(unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET, unix.AF_VSOCK))
	return p
}

// offlinePolicy is the default one for a program without a network.
func offlinePolicy() policy {
	p := defaultPolicy()
	p.add(noOffers)
	return p
}

// noOffers: a program without a network has one socket of superd's network
// all the same, its connection. It can dissolve that with connect (AF_UNSPEC),
// and listen would then bind it to a port of the kernel's choice, which Landlock
// is not asked about.
var noOffers = family{purpose: "offering the connection's socket to others", verdict: fails(unix.EPERM), calls: "listen"}

// offers is what a program with a network may do instead.
var offers = family{purpose: "sockets of its own", calls: "listen"}

// useful is what ordinary programs work with.
var useful = []family{
	{purpose: "descriptors", calls: `read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek
		close close_range dup dup2 dup3 fcntl pipe pipe2 sendfile splice tee vmsplice copy_file_range
		eventfd eventfd2 memfd_create`},
	{purpose: "waiting", calls: `poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
		epoll_pwait2 inotify_init inotify_init1 inotify_add_watch inotify_rm_watch signalfd signalfd4`},
	{purpose: "files: finding and reading", calls: `open openat openat2 stat lstat fstat newfstatat statx access faccessat
		faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir statfs fstatfs flock fadvise64 readahead
		getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr flistxattr listxattrat cachestat`},
	{purpose: "files: writing", calls: `creat mkdir mkdirat rmdir rename renameat renameat2 link linkat symlink symlinkat
		unlink unlinkat chmod fchmod fchmodat fchmodat2 umask truncate ftruncate fallocate utime utimes futimesat utimensat
		setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
		sync syncfs fsync fdatasync sync_file_range`},
	{purpose: "memory", calls: `brk mmap munmap mremap mprotect madvise msync mincore mlock mlock2 munlock mlockall munlockall
		mseal membarrier pkey_alloc pkey_free pkey_mprotect map_shadow_stack`},
	{purpose: "signals", calls: `rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait
		rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack kill tkill tgkill pause restart_syscall
		pidfd_open pidfd_send_signal`},
	{purpose: "time", calls: `clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times alarm
		getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete
		timerfd_create timerfd_settime timerfd_gettime`},
	{purpose: "processes", calls: `execve execveat fork vfork exit exit_group wait4 waitid
		setpgid getpgid getpgrp setsid getsid prctl arch_prctl`},
	{purpose: "threads", calls: `futex futex_waitv futex_wait futex_wake futex_requeue set_tid_address gettid
		set_robust_list get_robust_list rseq rseq_slice_yield uretprobe uprobe`},
	{purpose: "scheduling and limits", calls: `sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam
		sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval
		sched_getattr sched_setattr getpriority setpriority ioprio_get ioprio_set
		getrlimit setrlimit prlimit64 getrusage getcpu`},
	{purpose: "who and where am I", calls: `getpid getppid getuid geteuid getgid getegid getresuid getresgid getgroups
		capget uname sysinfo getrandom`},
	{purpose: "the connection, and sockets", calls: `connect bind accept accept4 getsockname getpeername
		getsockopt setsockopt sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown`},
	{purpose: "giving up more", calls: "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"},
}

// spared are further calls that a strict sandbox does not make, but that
// ordinary programs try: busybox drops privileges that it does not have, cp
// and tar give files to their owner, Java and databases ask for memory nodes.
var spared = []family{
	{purpose: "becoming another user", verdict: fails(unix.EPERM), calls: `setuid setgid setreuid setregid setresuid setresgid
		setfsuid setfsgid setgroups capset chroot`},
	{purpose: "giving files away", verdict: fails(unix.EPERM), calls: "chown lchown fchown fchownat"},
	{purpose: "namespaces", verdict: fails(unix.EPERM), calls: "unshare"},
	{purpose: "hanging up terminals", verdict: fails(unix.EPERM), calls: "vhangup"},
	{purpose: "System V and POSIX message passing", verdict: fails(unix.ENOSYS), calls: `shmget shmat shmctl shmdt
		semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
		mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr`},
	{purpose: "memory nodes", verdict: fails(unix.ENOSYS), calls: `mbind get_mempolicy set_mempolicy
		set_mempolicy_home_node migrate_pages move_pages`},
	{purpose: "options of the kernel", verdict: fails(unix.ENOSYS), calls: `io_setup io_submit io_getevents io_pgetevents
		io_cancel io_destroy memfd_secret remap_file_pages process_madvise name_to_handle_at fanotify_mark statmount listmount
		listns lsm_get_self_attr lsm_set_self_attr lsm_list_modules file_getattr file_setattr`},
}

// tightPolicy is what an ordinary program needs that reads its input and
// writes its output. With a network it may make connections of its own.
func tightPolicy(network bool) policy {
	p := policy{others: kill}
	allowed := useful
	if network {
		allowed = append(slices.Clone(useful), offers)
	}
	for _, f := range allowed {
		f.verdict = allow
		p.add(f)
	}
	p.add(dangerous...)
	p.add(probed...)
	p.add(spared...)
	p.add(noDevices...)
	p.add(sameNamespaces, ordinaryPersonality, noTyping)
	if network {
		p.add(socketsOf(unix.AF_UNIX, unix.AF_INET, unix.AF_INET6))
	} else {
		p.add(socketsOf(unix.AF_UNIX), noOffers)
	}
	return p
}

func (p *policy) add(f ...family) { p.families = append(p.families, f...) }

// outcomes is what becomes of every call of a's table.
func (p *policy) outcomes(a *architecture) []outcome {
	list := make([]outcome, len(a.calls))
	for number, call := range a.calls {
		list[number].verdict = fails(unix.ENOSYS)
		if call != "" {
			list[number].verdict = p.others
		}
	}
	for _, f := range p.families {
		for _, call := range strings.Fields(f.calls) {
			if number := a.number(call); number >= 0 {
				list[number] = outcome{f.verdict, f.condition}
			}
		}
	}
	return list
}

// segments are p's outcomes with equal neighbours made one, and what follows
// the table.
func (p *policy) segments(a *architecture) (list []segment) {
	add := func(first int, o outcome) {
		if n := len(list); n == 0 || list[n-1].outcome != o {
			list = append(list, segment{uint32(first), o})
		}
	}
	outcomes := p.outcomes(a)
	for number, o := range outcomes {
		add(number, o)
	}
	add(len(outcomes), outcome{verdict: fails(unix.ENOSYS)})
	if a.foreign != (span{}) {
		add(int(a.foreign.first), outcome{verdict: kill})
		add(int(a.foreign.end), outcome{verdict: fails(unix.ENOSYS)})
	}
	return list
}
