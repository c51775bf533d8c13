package spawn

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"superd/superd/internal/config"
)

// hint says what it means that a step failed with errno; "" where the error's
// own words say it all.
func (p *Plan) hint(step int, errno unix.Errno) string {
	key := p.keys[step]
	name, isLimit := strings.CutPrefix(key, "rlimits.")
	switch {
	case step == p.exec:
		return p.execHints()[errno]
	case isLimit && errno == unix.EPERM:
		return p.limitHint(name)
	case key == "sandbox.capabilities" && errno == unix.EPERM:
		return p.capabilityHint()
	}
	return stepHints[key][errno]
}

// stepHints are the errors that superd's own privileges, or their absence, are
// behind, by the key that the step serves.
var stepHints = map[string]map[unix.Errno]string{
	"nice":          {unix.EACCES: "less than superd's own takes root: CAP_SYS_NICE"},
	"oom_score_adj": {unix.EACCES: "less than superd was started with takes root: CAP_SYS_RESOURCE"},
	"chroot":        {unix.EPERM: "it takes root: CAP_SYS_CHROOT"},
	"user":          {unix.EPERM: "it takes root: CAP_SETUID", unix.EINVAL: unmapped},
	"group":         {unix.EPERM: "it takes root: CAP_SETGID", unix.EINVAL: unmapped},
	"groups":        {unix.EPERM: "it takes root: CAP_SETGID", unix.EINVAL: unmapped},
}

const unmapped = "the number does not exist in superd's user namespace"

// limitHint says why a limit cannot be set: it is more than superd's own, or
// than the system's.
func (p *Plan) limitHint(name string) string {
	i := slices.IndexFunc(p.spec.Rlimits, func(l config.Rlimit) bool { return l.Name == name })
	var own unix.Rlimit
	if i < 0 || unix.Getrlimit(p.spec.Rlimits[i].Resource, &own) != nil {
		return ""
	}
	if p.spec.Rlimits[i].Hard > own.Max {
		return fmt.Sprintf("superd's own hard limit is %s, and more takes root: CAP_SYS_RESOURCE", describeLimit(own.Max))
	}
	most, err := os.ReadFile("/proc/sys/fs/nr_open")
	if p.spec.Rlimits[i].Resource != unix.RLIMIT_NOFILE || err != nil {
		return ""
	}
	return "the sysctl fs.nr_open allows " + strings.TrimSpace(string(most))
}

// capabilityHint names what superd would have to have itself.
func (p *Plan) capabilityHint() string {
	header := unix.CapUserHeader{Version: capabilityVersion}
	var own [2]unix.CapUserData
	if unix.Capget(&header, &own[0]) != nil {
		return ""
	}
	missing := p.capabilitySet() &^ (uint64(own[1].Permitted)<<32 | uint64(own[0].Permitted))
	if missing == 0 {
		return "to take capabilities away takes CAP_SETPCAP"
	}
	return "superd itself does not have " + strings.Join(namesOf(missing), ", ")
}
