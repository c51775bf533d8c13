package migrate

import (
	"cmp"
	"math"
	"path"
	"strconv"
	"strings"

	"superd/superd/internal/config"
)

// What systemd's settings are in superd's words. A setting without a function
// is read elsewhere, says what superd does anyway, or is about systemd alone.

var socketSettings = map[string]func(*activation, []setting){
	"ListenStream": nil, "ListenDatagram": nil, "ListenSequentialPacket": nil, "Accept": nil, "Service": nil,
	"SocketUser": nil, "SocketGroup": nil, "SocketMode": nil, "Backlog": nil, "BindIPv6Only": nil, "FreeBind": nil, "Transparent": nil,
	"NoDelay": nil, "KeepAlive": nil, "KeepAliveTimeSec": nil, "KeepAliveIntervalSec": nil, "KeepAliveProbes": nil, "ReceiveBuffer": nil,
	"SendBuffer": nil, "Mark": nil, "IPTOS": nil, "DeferAcceptSec": nil, "BindToDevice": nil, "FileDescriptorName": nil,
	"IPAddressAllow": nil, "IPAddressDeny": nil, "RemoveOnStop": nil, "FlushPending": nil, "TimeoutSec": nil, "Broadcast": nil, "Writable": nil,

	"SocketProtocol":          (*activation).protocol,
	"MaxConnections":          func(a *activation, l []setting) { a.forConnections("max", l) },
	"MaxConnectionsPerSource": func(a *activation, l []setting) { a.forConnections("max_per_source", l) },
	"TriggerLimitIntervalSec": trigger, "TriggerLimitBurst": trigger, "PollLimitIntervalSec": trigger, "PollLimitBurst": trigger,
	"DirectoryMode": func(a *activation, l []setting) { a.gone(l, "make the directory of the socket yourself") },
	"Symlinks":      func(a *activation, l []setting) { a.gone(l, "make the links yourself") },
	"ListenFIFO":    noSocket, "ListenSpecial": noSocket, "ListenNetlink": noSocket, "ListenMessageQueue": noSocket, "ListenUSBFunction": noSocket,
	"PassFileDescriptorsToExec": nil,
}

var serviceSettings = map[string]func(*activation, []setting){
	"ExecStart": nil, "Environment": nil, "StandardInput": nil, "IPAddressAllow": nil, "IPAddressDeny": nil,
	"Restart": nil, "RestartSec": nil, "RemainAfterExit": nil, "SuccessExitStatus": nil, "RestartPreventExitStatus": nil, "PIDFile": nil, "NotifyAccess": nil, "WatchdogSec": nil,
	"SyslogIdentifier": nil, "SyslogFacility": nil, "SyslogLevel": nil, "Slice": nil, "Delegate": nil, "IgnoreSIGPIPE": nil, "TimeoutStartSec": nil,
	"GuessMainPID": nil, "SendSIGKILL": nil, "CPUAccounting": nil, "MemoryAccounting": nil, "TasksAccounting": nil, "IOAccounting": nil, "IPAccounting": nil,
	"NonBlocking": nil, "SyslogLevelPrefix": nil, "Sockets": nil,
	// What the preset basic does: capabilities and system calls are not there.
	"NoNewPrivileges": nil, "LockPersonality": nil, "RestrictNamespaces": nil, "ProtectClock": nil, "ProtectHostname": nil, "ProtectKernelModules": nil,
	"ProtectKernelLogs": nil, "SystemCallArchitectures": nil, "SystemCallErrorNumber": nil, "RestrictRealtime": nil, "KeyringMode": nil,
	// Of walls.
	"PrivateTmp": nil, "PrivateNetwork": nil, "ProtectSystem": nil, "ReadWritePaths": nil, "CapabilityBoundingSet": nil, "AmbientCapabilities": nil,
	"RuntimeDirectoryMode": nil, "StateDirectoryMode": nil, "CacheDirectoryMode": nil, "LogsDirectoryMode": nil, "ConfigurationDirectoryMode": nil,

	"Type":           (*activation).kind,
	"StandardOutput": (*activation).output,
	"StandardError":  (*activation).errors,

	"User":                func(a *activation, l []setting) { a.account("user", l) },
	"Group":               func(a *activation, l []setting) { a.account("group", l) },
	"SupplementaryGroups": (*activation).groups,
	"DynamicUser":         (*activation).dynamic,
	"WorkingDirectory":    (*activation).directory,
	"RootDirectory":       (*activation).root,
	"UMask":               func(a *activation, l []setting) { a.set("umask", last(l).at, octal(last(l).value)) },
	"Nice":                func(a *activation, l []setting) { a.number("nice", l) },
	"OOMScoreAdjust":      func(a *activation, l []setting) { a.number("oom_score_adj", l) },
	"PassEnvironment":     (*activation).pass,
	"EnvironmentFile":     func(a *activation, l []setting) { a.gone(l, "write its variables in env") },
	"UnsetEnvironment":    func(a *activation, l []setting) { a.gone(l, "superd's environment is built from nothing") },

	"RuntimeMaxSec":  func(a *activation, l []setting) { a.time("timeout.session", l) },
	"TimeoutStopSec": func(a *activation, l []setting) { a.time("timeout.stop", l) },
	"TimeoutSec":     func(a *activation, l []setting) { a.time("timeout.stop", l) },
	"KillMode":       (*activation).killMode,

	"MemoryMax": (*activation).memory, "MemoryLimit": (*activation).memory,
	"TasksMax": (*activation).tasks,
	"CPUQuota": (*activation).quota,

	"LimitCPU": limitTime("cpu"), "LimitRTTIME": limitTime("rttime"),
	"LimitAS": limitSize("memory"), "LimitDATA": limitSize("data"), "LimitSTACK": limitSize("stack"), "LimitFSIZE": limitSize("fsize"), "LimitCORE": limitSize("core"),
	"LimitRSS": limitSize("rss"), "LimitMEMLOCK": limitSize("memlock"), "LimitMSGQUEUE": limitSize("msgqueue"),
	"LimitNOFILE": limitNumber("nofile"), "LimitNPROC": limitNumber("nproc"), "LimitLOCKS": limitNumber("locks"), "LimitSIGPENDING": limitNumber("sigpending"),
	"LimitRTPRIO": limitNumber("rtprio"), "LimitNICE": limitNice,

	"RuntimeDirectory":       directories("/run"),
	"StateDirectory":         directories("/var/lib"),
	"CacheDirectory":         directories("/var/cache"),
	"LogsDirectory":          directories("/var/log"),
	"ConfigurationDirectory": directories("/etc"),

	"SystemCallFilter":        func(a *activation, l []setting) { a.gone(l, "superd's own filter holds, see sandbox.system_calls") },
	"RestrictAddressFamilies": func(a *activation, l []setting) { a.gone(l, "see sandbox.network and sandbox.system_calls") },
	"ReadOnlyPaths":           fenced, "InaccessiblePaths": fenced, "ExecPaths": fenced, "NoExecPaths": fenced, "ProtectHome": fenced, "TemporaryFileSystem": fenced,
	"BindPaths": fenced, "BindReadOnlyPaths": fenced, "PrivateDevices": fenced, "ProtectKernelTunables": fenced, "ProtectControlGroups": fenced, "ProtectProc": fenced,
}

func last(list []setting) setting { return list[len(list)-1] }

// gone notes what superd does not have, and what to do instead.
func (a *activation) gone(list []setting, instead string) {
	a.note(list[0].at, "%s is not carried over: %s", list[0].name, instead)
}

func trigger(a *activation, list []setting) {
	a.gone(list, "superd never closes a socket because of load; rate and rate_per_source bound who comes")
}

func noSocket(a *activation, list []setting) { a.gone(list, "superd listens on nothing of the kind") }

func fenced(a *activation, list []setting) {
	if !isNo(last(list).value) {
		a.gone(list, "see sandbox.read, write and exec")
	}
}

func (a *activation) protocol(list []setting) {
	if p := last(list); p.value != "mptcp" {
		a.note(p.at, "SocketProtocol=%s is not carried over: superd has TCP, UDP and Multipath TCP", p.value)
	}
}

// forConnections sets a limit on connections. Where the program accepts, systemd
// does not look at it either.
func (a *activation) forConnections(key string, list []setting) {
	if a.accepts {
		a.number(key, list)
	}
}

func (a *activation) number(key string, list []setting) {
	s := last(list)
	n, err := strconv.Atoi(s.value)
	if err != nil {
		a.note(s.at, "%s is not carried over: %s is no number", s.name, quote(s.value))
		return
	}
	a.set(key, s.at, n)
}

func (a *activation) kind(list []setting) {
	if s := last(list); s.value == "forking" || s.value == "dbus" {
		a.note(s.at, "Type=%s is not carried over: have the program stay in the foreground, superd takes it for ended otherwise", s.value)
	}
}

func (a *activation) output(list []setting) {
	if s := last(list); a.accepts && s.value != "socket" && s.value != "inherit" {
		a.note(s.at, "StandardOutput=%s is not carried over: the program's output goes to its client", s.value)
	}
}

func (a *activation) errors(list []setting) {
	s := last(list)
	switch word, _, _ := strings.Cut(s.value, ":"); word {
	case "socket":
		if a.accepts {
			a.set("stderr", s.at, "client")
		}
	case "null":
		a.set("stderr", s.at, "null")
	case "file", "append", "truncate", "tty", "fd":
		a.note(s.at, "StandardError=%s is not carried over: it goes to superd's log", s.value)
	}
}

func (a *activation) account(key string, list []setting) {
	s := last(list)
	name, ok := a.expand(s.value)
	if !ok {
		a.note(s.at, "%s is not carried over: %s has a specifier that is not known here", s.name, quote(s.value))
		return
	}
	a.set(key, s.at, name)
}

func (a *activation) groups(list []setting) {
	var names []string
	for _, s := range list {
		names = append(names, strings.Fields(s.value)...)
	}
	a.set("groups", last(list).at, distinct(names))
	a.note(last(list).at, "SupplementaryGroups came on top of the user's own groups: add these to groups where they are needed")
}

func (a *activation) dynamic(list []setting) {
	if s := last(list); isYes(s.value) {
		a.note(s.at, "DynamicUser is not carried over: make a user of its own for the service")
	}
}

func (a *activation) directory(list []setting) {
	if name := a.file(last(list), last(list).value); name != "" {
		a.set("dir", last(list).at, name)
	}
}

func (a *activation) root(list []setting) {
	s := last(list)
	name := a.file(s, s.value)
	if name == "" {
		a.off(s.at, "the program would not be in its root directory")
		return
	}
	a.set("chroot", s.at, name)
}

func (a *activation) pass(list []setting) {
	var names []string
	for _, s := range list {
		for name := range strings.FieldsSeq(s.value) {
			if isVariable(name) {
				names = append(names, name)
			} else {
				a.note(s.at, "the variable %s is not carried over: superd cannot have its name", quote(name))
			}
		}
	}
	a.set("env_pass", last(list).at, distinct(names))
}

// time sets a timeout; infinity is none.
func (a *activation) time(key string, list []setting) {
	s := last(list)
	d, ok := parseSpan(s.value)
	switch {
	case s.value == "infinity" && key == "timeout.stop":
		a.note(s.at, "%s=infinity is not carried over: superd has 5s there, see timeout.stop", s.name)
	case s.value == "infinity" || d == 0 && ok:
	case !ok:
		a.note(s.at, "%s is not carried over: %s is no time", s.name, quote(s.value))
	default:
		a.set(key, s.at, duration(d))
	}
}

func (a *activation) killMode(list []setting) {
	if s := last(list); s.value == "process" || s.value == "none" {
		a.set("leftovers", s.at, "leave")
	}
}

// bounded has a limit of control groups hold for each connection, as it held for
// each instance of the unit.
func (a *activation) bounded(key string, s setting, v any) {
	a.set("cgroup."+key, s.at, v)
	if a.accepts {
		a.set("cgroup.per_connection", s.at, true)
	}
}

func (a *activation) memory(list []setting) {
	s := last(list)
	n, err := parseBytes(s.value)
	switch {
	case s.value == "infinity":
	case err != nil || n < 1<<20:
		a.note(s.at, "%s is not carried over: %s is no number of bytes that cgroup.memory takes", s.name, quote(s.value))
	default:
		a.bounded("memory", s, size(n))
	}
}

func (a *activation) tasks(list []setting) {
	s := last(list)
	n, err := strconv.Atoi(s.value)
	switch {
	case s.value == "infinity":
	case err != nil || n < 1 || n > 1<<22:
		a.note(s.at, "TasksMax is not carried over: %s is no number that cgroup.tasks takes", quote(s.value))
	default:
		a.bounded("tasks", s, n)
	}
}

func (a *activation) quota(list []setting) {
	s := last(list)
	n, err := strconv.ParseFloat(strings.TrimSuffix(s.value, "%"), 64)
	if err != nil || !(n > 0 && n <= 819200) || !strings.HasSuffix(s.value, "%") {
		a.note(s.at, "CPUQuota is not carried over: %s is no percentage that cgroup.cpu takes", quote(s.value))
		return
	}
	a.bounded("cpu", s, strconv.Itoa(int(math.Ceil(n)))+"%")
}

// limit sets one of rlimits, of which soft and hard can be apart.
func limit(key string, read func(string) (any, bool)) func(*activation, []setting) {
	return func(a *activation, list []setting) {
		s := last(list)
		first, second, both := strings.Cut(s.value, ":")
		soft, ok1 := orUnlimited(first, read)
		hard, ok2 := orUnlimited(cmp.Or(second, first), read)
		switch {
		case !ok1 || !ok2:
			a.note(s.at, "%s is not carried over: superd does not understand %s", s.name, quote(s.value))
		case both && soft != hard:
			a.set("rlimits."+key, s.at, config.Draft{{Key: "soft", Value: soft}, {Key: "hard", Value: hard}})
		default:
			a.set("rlimits."+key, s.at, soft)
		}
	}
}

func orUnlimited(text string, read func(string) (any, bool)) (any, bool) {
	if text == "infinity" {
		return "unlimited", true
	}
	return read(text)
}

func limitSize(key string) func(*activation, []setting) { return limit(key, asSize) }

func limitNumber(key string) func(*activation, []setting) { return limit(key, asNumber) }

// limitTime: a number alone is of seconds, or for rttime of microseconds.
func limitTime(key string) func(*activation, []setting) {
	if key == "cpu" {
		return limit(key, asSeconds)
	}
	return limit(key, func(text string) (any, bool) {
		if _, err := strconv.Atoi(text); err == nil {
			text += "us"
		}
		d, ok := parseSpan(text)
		return duration(d), ok
	})
}

var limitNice = limit("nice", func(text string) (any, bool) {
	n, err := strconv.Atoi(text)
	if strings.HasPrefix(text, "+") || strings.HasPrefix(text, "-") {
		n = 20 - n // a nice value, and not how the kernel counts them
	}
	return n, err == nil
})

// directories are those that systemd makes for a service.
func directories(parent string) func(*activation, []setting) {
	return func(a *activation, list []setting) {
		a.gone(list, "make it yourself, below "+parent+", for the service's user")
	}
}

// made are the settings of directories that a service can write to, and where
// they are.
var made = []struct{ name, parent string }{{"RuntimeDirectory", "/run"}, {"StateDirectory", "/var/lib"}, {"CacheDirectory", "/var/cache"}, {"LogsDirectory", "/var/log"}}

// walls reads what the program is kept from.
func (a *activation) walls() {
	if s := a.unit.last("Service", "PrivateTmp"); isYes(s.value) || s.value == "disconnected" {
		a.set("sandbox.private_tmp", s.at, true)
	}
	if s := a.unit.last("Service", "PrivateNetwork"); isYes(s.value) {
		a.set("sandbox.network", s.at, false)
	}
	switch s := a.unit.last("Service", "ProtectSystem"); {
	case s.value == "strict":
		a.set("sandbox.read", s.at, []string{"/"})
		a.set("sandbox.exec", s.at, []string{"/"})
		a.set("sandbox.write", s.at, a.writable())
	case s.value != "" && !isNo(s.value):
		a.note(s.at, "ProtectSystem=%s is not carried over: see sandbox.read, write and exec", s.value)
	}
	a.capabilities()
}

func (a *activation) writable() []string {
	list := a.files(a.unit.each("Service", "ReadWritePaths"))
	for _, m := range made {
		for _, s := range a.unit.each("Service", m.name) {
			for name := range strings.FieldsSeq(s.value) {
				name, _, _ = strings.Cut(name, ":")
				if text, ok := a.expand(name); ok {
					list = append(list, path.Join(m.parent, path.Clean("/"+text)))
				}
			}
		}
	}
	return distinct(list)
}

// capabilities are for a program of root's those that bound it, and for others'
// those that it has by itself; none for these is what superd has.
func (a *activation) capabilities() {
	name := "AmbientCapabilities"
	if a.keys["user"].is == "root" || a.keys["user"].is == "0" {
		name = "CapabilityBoundingSet"
	}
	names := []string{}
	is := false
	var at Place
	for _, s := range a.unit.settings {
		if s.section != "Service" || s.name != name {
			continue
		}
		is, at = true, s.at
		if strings.HasPrefix(s.value, "~") {
			a.note(s.at, "%s=~... is not carried over: write in sandbox.capabilities what is left", name)
			return
		}
		if s.value == "" {
			names = names[:0]
		}
		for c := range strings.FieldsSeq(s.value) {
			names = append(names, strings.TrimPrefix(strings.ToLower(c), "cap_"))
		}
	}
	if is && (len(names) > 0 || name == "CapabilityBoundingSet") {
		a.set("sandbox.capabilities", at, distinct(names))
	}
}
