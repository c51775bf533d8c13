package spawn

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capabilityNames is capabilities(7), by number.
var capabilityNames = []string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

// capabilityVersion is _LINUX_CAPABILITY_VERSION_3 (capget(2)).
const capabilityVersion = 0x20080522

// capabilitySet is the bits of the capabilities that the service keeps.
func (p *Plan) capabilitySet() (set uint64) {
	for _, kept := range p.spec.Sandbox.Capabilities {
		for number, name := range capabilityNames {
			if name == kept {
				set |= 1 << number
			}
		}
	}
	return set
}

// losesCapabilities tells whether the program is to have no more than the file
// lists. A program that the file runs as root keeps root's, unless the file
// has a list.
func (s *Spec) losesCapabilities() bool {
	if s.Sandbox.CapsSet {
		return true
	}
	return s.Sandbox.NoNewPrivs && !s.runsAsRoot()
}

func (s *Spec) runsAsRoot() bool {
	if s.Identity != nil {
		return s.Identity.UID == 0
	}
	return unix.Geteuid() == 0
}

// keepCapabilities lets the permitted set survive setresuid, so that what the
// service keeps can be taken from it (prctl(2), PR_SET_KEEPCAPS).
func (p *Plan) keepCapabilities() {
	p.serve("sandbox.capabilities")
	set := p.capabilitySet()
	if p.spec.Sandbox.CapsSet {
		p.dropForGood(^set)
	}
	if set != 0 {
		p.add("keep capabilities", unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
	}
	p.serve("")
}

// dropForGood takes capabilities from the bounding set, as far as they are in
// superd's. That takes CAP_SETPCAP; behind no_new_privs the set means nothing,
// since no program gains by execve.
func (p *Plan) dropForGood(set uint64) {
	for number, name := range capabilityNames {
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0); has != 1 || err != nil || set&(1<<number) == 0 {
			continue
		}
		i := p.add("drop the capability "+name+" for good", unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(number), 0, 0, 0)
		if p.spec.Sandbox.NoNewPrivs {
			p.ignore(i)
		}
	}
}

// addCapabilities leaves the program exactly those that the service keeps, as
// ambient ones, which survive execve without a file's help.
func (p *Plan) addCapabilities() {
	if !p.spec.losesCapabilities() {
		return
	}
	p.serve("sandbox.capabilities")
	defer p.serve("")
	set := p.capabilitySet()
	low, high := uint32(set), uint32(set>>32)
	header := &unix.CapUserHeader{Version: capabilityVersion}
	data := &[2]unix.CapUserData{
		{Effective: low, Permitted: low, Inheritable: low},
		{Effective: high, Permitted: high, Inheritable: high},
	}
	p.keep = append(p.keep, header, data)
	p.add("set the capabilities", unix.SYS_CAPSET, uintptr(unsafe.Pointer(header)), uintptr(unsafe.Pointer(data)))
	for number, name := range capabilityNames {
		if set&(1<<number) != 0 {
			p.add(fmt.Sprintf("keep the capability %s", name), unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(number), 0, 0)
		}
	}
}
