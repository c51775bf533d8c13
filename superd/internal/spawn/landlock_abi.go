package spawn

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A demand is what a service asks of Landlock.
type demand struct {
	files    bool // what is not opened is closed
	truncate bool // and nothing else than Landlock keeps files from being truncated
	tcp      bool // no TCP, beside a namespace that has no network
	tcpAlone bool // no TCP, and nothing else than Landlock sees to it
}

// fileRights are the rights that each version of Landlock's ABI has brought,
// from landlock(7). What an older kernel does not know it does not restrict;
// renaming into another directory, which ABI 1 always denies, is the exception.
var fileRights = []struct {
	abi    int
	rights uint64
}{
	{1, unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR | // Linux 5.13
		unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM},
	{2, unix.LANDLOCK_ACCESS_FS_REFER},    // Linux 5.19
	{3, unix.LANDLOCK_ACCESS_FS_TRUNCATE}, // Linux 6.2
	{abiDevices, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV},
}

// Versions of the ABI that brought what is not about files, or is a second wall.
const (
	abiNetwork = 4 // Linux 6.7
	abiDevices = 5 // Linux 6.10
	abiScopes  = 6 // Linux 6.12
)

// enforceable is what of d a kernel with that ABI enforces, and, in words, what
// it does not although nothing else does. Abstract unix sockets and signals of
// others are closed to a confined program where the kernel can do it: a second
// wall, that nobody asked for.
func enforceable(d demand, abi int) (attr unix.LandlockRulesetAttr, lacking []string) {
	if d.files {
		for _, r := range fileRights {
			if abi >= r.abi {
				attr.Handled_access_fs |= r.rights
			}
		}
		if abi >= abiScopes {
			attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		}
	}
	if (d.tcp || d.tcpAlone) && abi >= abiNetwork {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if d.files && abi < 1 {
		lacking = append(lacking, tooOld(abi, 1, "file rules"))
	}
	if d.truncate && attr.Handled_access_fs&unix.LANDLOCK_ACCESS_FS_TRUNCATE == 0 {
		lacking = append(lacking, tooOld(abi, 3, "keeping files from being truncated"))
	}
	if d.tcpAlone && attr.Handled_access_net == 0 {
		lacking = append(lacking, tooOld(abi, abiNetwork, "network rules"))
	}
	return attr, lacking
}

// unguarded says what of a closed file system a kernel with that ABI leaves open,
// though a newer one would guard it and nobody asked for it; "" for nothing.
func unguarded(d demand, abi int) string {
	var open string
	switch {
	case !d.files || abi < 1 || abi >= abiScopes:
		return ""
	case abi >= abiDevices:
		open = "signals to others and their abstract unix sockets"
	default:
		open = "ioctl on devices, signals to others and their abstract unix sockets"
	}
	return fmt.Sprintf("Landlock ABI %d: does not guard %s", abi, open)
}

func tooOld(has, needed int, what string) string {
	return fmt.Sprintf("the kernel offers Landlock ABI %d, ABI %d is needed for %s", has, needed, what)
}

// landlockABI is what landlock_create_ruleset(2) says of this kernel.
func landlockABI() (int, error) {
	abi, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return int(abi), unavailable(errno)
}

// unavailable says why there is no Landlock.
func unavailable(errno unix.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.EOPNOTSUPP:
		return errors.New("the kernel's boot parameter lsm= leaves Landlock out")
	case unix.ENOSYS:
		return fmt.Errorf("this kernel (%s) was built without Landlock", release())
	}
	return fmt.Errorf("the kernel refuses Landlock: %w (%s)", errno, unix.ErrnoName(errno))
}

// newRuleSet makes a set of rules. Its number is the lowest that is free.
func newRuleSet(attr *unix.LandlockRulesetAttr, list []rule) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr), 0)
	if errno != 0 {
		return -1, fmt.Errorf("cannot make a set of rules: %w", errno)
	}
	set := int(n)
	for _, r := range list {
		if r.fd < 0 || r.access == 0 {
			continue
		}
		if err := addRule(set, r); err != nil {
			unix.Close(set)
			return -1, err
		}
	}
	return set, nil
}

func addRule(set int, r rule) error {
	beneath := unix.LandlockPathBeneathAttr{Allowed_access: r.access, Parent_fd: int32(r.fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&beneath)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("cannot add a rule: %w", errno)
	}
	return nil
}
