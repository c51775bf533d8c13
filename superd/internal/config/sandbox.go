package config

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// presetNames are the presets in the order of the manual page.
var presetNames = []string{"none", "basic", "strict", "offline"}

// presets is what a sandbox is where the file makes no choice of its own.
var presets = map[string]Sandbox{
	"none":    {Preset: "none", SystemCalls: "all", Network: true},
	"basic":   {Preset: "basic", SystemCalls: "default", Network: true, NoNewPrivs: true},
	"strict":  {Preset: "strict", SystemCalls: "tight", NoNewPrivs: true, Confined: true, PrivateTmp: true},
	"offline": {Preset: "offline", SystemCalls: "default", NoNewPrivs: true},
}

// capabilityNames is capabilities(7), by number.
var capabilityNames = []string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
}

// sandbox reads the name of a preset, or a mapping.
func (s section) sandbox() Sandbox {
	v := s.get("sandbox")
	if v.node.Kind != yaml.MappingNode {
		return presets[s.d.word(v)]
	}
	before := len(s.d.problems)
	in := s.d.section(v, "services.*.sandbox")
	w := in.walls()
	if len(s.d.problems) == before && !w.NoNewPrivs {
		in.checkPrivileged(w)
	}
	return w
}

// walls reads the keys of a mapping over those of its preset.
func (s section) walls() Sandbox {
	w := presets[s.word("preset")]
	s.override("network", &w.Network)
	s.override("private_tmp", &w.PrivateTmp)
	s.override("no_new_privs", &w.NoNewPrivs)
	if s.written("system_calls") {
		w.SystemCalls = s.word("system_calls")
	}
	w.Confined = w.Confined || s.namesPaths()
	w.Read = s.names("read", checkPath)
	w.Write = s.names("write", checkPath)
	w.Exec = s.names("exec", checkPath)
	w.Capabilities = s.namesIn("capabilities", capability)
	w.CapsSet = s.written("capabilities")
	w.BestEffort = s.boolean("best_effort")
	return w
}

func (s section) override(name string, choice *bool) {
	if s.written(name) {
		*choice = s.boolean(name)
	}
}

// namesPaths tells whether the file opens parts of the file system, be it
// none, and so closes the rest.
func (s section) namesPaths() bool {
	return s.written("read") || s.written("write") || s.written("exec")
}

// checkPrivileged looks at a sandbox without no_new_privs: the kernel then
// lets only a privileged process filter its system calls or close the file
// system (seccomp(2), landlock_restrict_self(2)).
func (s section) checkPrivileged(w Sandbox) {
	v := s.get("no_new_privs")
	if w.SystemCalls != "all" {
		s.d.bad(v, "must be true with system_calls: "+w.SystemCalls,
			"an ordinary user may not set a filter otherwise; system_calls: all is without one")
	}
	if w.Confined {
		s.d.bad(v, "must be true with "+s.confinement(w), "an ordinary user may not close the file system otherwise")
	}
}

// confinement is what closes the file system, in the words of the file.
func (s section) confinement(w Sandbox) string {
	if s.namesPaths() {
		return "read, write or exec"
	}
	return "the preset " + w.Preset
}

func checkPath(text string) error {
	switch clean := path.Clean(text); {
	case !strings.HasPrefix(text, "/"):
		return mistakef("begin it with /", "must be an absolute path, not %s", quote(text))
	case clean != text:
		return mistakef("write "+clean, "%s is not the plain form of a path", quote(text))
	}
	return nil
}

// capability drops what is a matter of taste in a capability's name.
func capability(text string) (string, error) {
	name := strings.TrimPrefix(strings.ToLower(text), "cap_")
	if slices.Contains(capabilityNames, name) {
		return name, nil
	}
	hint := didYouMean(cmp.Or(nearest(name, capabilityNames), onlyWith(name, capabilityNames)))
	if hint == "" {
		hint = "capabilities(7) lists them"
	}
	return text, mistakef(hint, "%s is not a capability", quote(text))
}
