package config

import (
	"fmt"
	"slices"
	"strings"
)

// Key describes one key of the file. The table of all keys is what the decoder
// walks by; the manual page superd.yaml(5) lists the same keys in the same words.
type Key struct {
	Path     string   // services.*.timeout.idle; * stands for a name of the user's choice
	Kind     Kind     // what its value is
	Of       Kind     // what the values of a Limit are
	Default  string   // as it would be written; "" for none
	Words    []string // what a Word, an item of a List, a form of a Mixed or a key of its mapping may be; of a Limit, what else
	Min, Max int      // of Integer, Decimal, Seconds and Percent; Min of Size; Min 1 of Duration: not 0
	Forms    string   // what is accepted, where the kind does not say it all
	Doc      string   // one line
	Common   Common   // of a service's keys: whether defaults may have it
}

// Kind is the form of a value.
type Kind string

// The kinds of values.
const (
	Mapping  Kind = "mapping"  // keys of this table
	Entries  Kind = "entries"  // keys of the user's choice
	List     Kind = "list"     // of what Forms says
	Mixed    Kind = "mixed"    // one of several forms, see Forms
	Text     Kind = "text"     // any text
	Path     Kind = "path"     // an absolute path
	Account  Kind = "account"  // name or number of a user or group
	Word     Kind = "word"     // one of Words
	Boolean  Kind = "boolean"  // true or false
	Integer  Kind = "integer"  // decimal, from Min to Max
	Decimal  Kind = "decimal"  // with at most two decimals, from Min to Max: 2.5
	Duration Kind = "duration" // number and unit: 10s
	Seconds  Kind = "seconds"  // a duration of whole seconds, from Min to Max
	Size     Kind = "size"     // number and unit: 64K
	Percent  Kind = "percent"  // whole percentage, from Min to Max: 50%
	Limit    Kind = "limit"    // one value for soft and hard, or a mapping of both
	PerTime  Kind = "rate"     // number per unit of time: 5/s
	Mode     Kind = "mode"     // octal, in quotes
)

// Common tells what defaults may do with a key of a service.
type Common int

// What becomes of a key in defaults. What is inside another key is as that, where
// it is Guards itself.
const (
	Guards Common = iota // holds, or is an error at a service where it cannot: without it more would be open than the file says
	Yields               // is left out of a service where it has no meaning
	Own                  // is not for defaults: it is what makes a service this one
)

// The kernel's own limit on the number of processes (PID_MAX_LIMIT), so the
// most that any limit on live programs can mean.
const mostProcesses = 1 << 22

// The most processors that a Linux of amd64 or arm64 is built for (NR_CPUS).
const mostProcessors = 8192

// mostCounted is the highest number of refusals or failures that are counted:
// each is remembered.
const mostCounted = 1000

// highestLoad is beyond any load that a machine still answers at.
const highestLoad = 100_000

// reasons are why a connection is refused, in the order of superd(8).
var reasons = []string{
	"address", "hours", "banned", "total-limit", "limit", "source-limit", "rate", "source-rate", "load", "proxy",
	"queue-full", "queue-timeout", "failing", "spawn", "draining",
}

// longestCPU is 68 years, in seconds.
const longestCPU = 1<<31 - 1

// What stands in a list of rules.
const (
	ruleForms  = "an address, a network, uid:USER, gid:GROUP or @/path/to/a/file of them"
	rulesForms = "a list of addresses, networks, uid:USER, gid:GROUP, @/path/to/a/file of them, and mappings"
)

// orUnlimited is RLIM_INFINITY in the file.
var orUnlimited = []string{"unlimited"}

// Keys returns the table of all keys, in the order of the manual page.
func Keys() []Key { return slices.Clone(table) }

// Accepts says in words what may be written.
func (k Key) Accepts() string {
	if k.Forms != "" {
		return k.Forms
	}
	switch {
	case k.Kind == Word:
		return either(k.Words)
	case k.Kind == Integer:
		return fmt.Sprintf("a whole number from %d to %d", k.Min, k.Max)
	case k.Kind == Decimal:
		return fmt.Sprintf("a number from %d to %d, such as 4 or 2.5", k.Min, k.Max)
	case k.Kind == Seconds:
		return fmt.Sprintf("whole seconds from %ds to %ds", k.Min, k.Max)
	case k.Kind == Percent:
		return fmt.Sprintf("a percentage from %d%% to %d%%", k.Min, k.Max)
	case k.Kind == Size && k.Min > 0:
		return "a size of at least " + sizeText(uint64(k.Min)) + ", such as 64M"
	case k.Kind == Duration && k.Min > 0:
		return "a duration of more than 0, such as 10s"
	case k.Kind == Mode:
		return "an octal mode in quotes such as " + k.Default
	case k.Kind == Limit:
		return k.limitForms("a mapping of soft and hard")
	}
	return kindAccepts[k.Kind]
}

// limitForms says what each of a Limit's two values may be, or else the value
// of the key itself. The longest form, which has commas of its own, comes last.
func (k Key) limitForms(others ...string) string {
	k.Kind = k.Of
	return either(slices.Concat(k.Words, others, []string{k.Accepts()}))
}

var kindAccepts = map[Kind]string{
	Mapping:  "a mapping",
	Entries:  "a mapping",
	List:     "a list",
	Text:     "a text",
	Path:     "an absolute path",
	Account:  "a name or a number",
	Boolean:  "true or false",
	Duration: "a duration such as 10s, 500ms or 1h30m",
	Size:     "a size such as 64K, 64M or 1G",
	PerTime:  "a rate such as 5/s, 30/m or 10/s burst 50",
}

// either joins words as a sentence does: a, b or c.
func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

var table = []Key{
	{Path: "include", Kind: List, Forms: "a list of file patterns",
		Doc: "further files of services, relative to this one"},

	{Path: "log", Kind: Mapping, Doc: "what is logged and how"},
	{Path: "log.level", Kind: Word, Words: []string{"debug", "info", "warn", "error"}, Default: "info",
		Doc: "the least important records that are written"},
	{Path: "log.format", Kind: Word, Words: []string{"auto", "json", "console"}, Default: "auto",
		Doc: "form of a record; auto is console on a terminal, else json"},
	{Path: "log.output", Kind: Text, Words: []string{"stderr", "syslog", "journald"}, Default: "stderr",
		Forms: "stderr, syslog, journald or an absolute path",
		Doc:   "where the log goes"},
	{Path: "log.address", Kind: Word, Words: []string{"full", "prefix", "hash", "none"}, Default: "full",
		Doc: "how a client's address is written in the log"},

	{Path: "control", Kind: Mapping, Doc: "the administrative socket, at which superd can be asked and told"},
	{Path: "control.path", Kind: Path, Default: "/run/superd/control.sock",
		Doc: "path of the administrative socket"},
	{Path: "control.mode", Kind: Mode, Default: `"0600"`,
		Doc: "permissions of the administrative socket; orders are root's and superd's own user's in any case"},
	{Path: "control.group", Kind: Account,
		Doc: "group of the administrative socket, for whom mode opens it; superd's own when absent"},

	{Path: "http", Kind: Mapping, Doc: "metrics and health over HTTP; off when absent"},
	{Path: "http.listen", Kind: Text, Forms: `HOST:PORT or "[IPV6]:PORT"`,
		Doc: "address of the HTTP listener"},

	{Path: "limits", Kind: Mapping, Doc: "limits over all services"},
	{Path: "limits.max", Kind: Integer, Max: mostProcesses, Default: "10000",
		Doc: "live programs of all services together; 0 is off"},
	{Path: "limits.max_load", Kind: Decimal, Max: highestLoad, Default: "0",
		Doc: "load average at which nobody comes in; 0 is off"},

	{Path: "drain", Kind: Duration, Default: "30s",
		Doc: "how long live connections may finish once superd was told to stop"},
	{Path: "defaults", Kind: Entries, Forms: "a mapping of service keys",
		Doc: "values for all services that do not say otherwise"},

	{Path: "services", Kind: Entries, Forms: "a mapping of service names",
		Doc: "the services by name"},
	{Path: "services.*", Kind: Mapping, Forms: "a mapping of service keys",
		Doc: "one service; a name has letters, digits, _, . and -, at most 64 in all"},

	{Path: "services.*.listen", Kind: Mixed, Forms: "a port, an address, a mapping or a list of these", Common: Own,
		Doc: "the sockets that the service listens on"},
	{Path: "services.*.listen.address", Kind: Text, Forms: `a port, HOST:PORT, "[IPV6]:PORT", udp: before any of these, unix:/PATH, unix:@NAME, vsock:PORT or fd:NAME`,
		Doc: "the address, in any of the forms that listen itself takes"},
	{Path: "services.*.listen.type", Kind: Word, Words: []string{"stream", "seqpacket", Datagram}, Default: "stream",
		Doc: "of a unix or a vsock socket: a stream of bytes, records that stay apart, or, of a unix socket, datagrams of whoever sends them"},
	{Path: "services.*.listen.name", Kind: Text,
		Doc: "what a program with wait: listen-fds is told that the socket is called; the service's name when absent"},
	{Path: "services.*.listen.backlog", Kind: Integer, Min: 1, Max: 65535,
		Doc: "connections that the kernel queues before they are accepted; the system's maximum when absent"},
	{Path: "services.*.listen.v6only", Kind: Boolean, Default: "true",
		Doc: "false makes one IPv6 socket serve IPv4 clients too"},
	{Path: "services.*.listen.mptcp", Kind: Boolean, Default: "false",
		Doc: "take connections of several paths too (Multipath TCP)"},
	{Path: "services.*.listen.device", Kind: Text, Forms: "the name of a network interface",
		Doc: "the only network interface that is listened on"},
	{Path: "services.*.listen.freebind", Kind: Boolean, Default: "false",
		Doc: "listen on an address that the machine does not have yet"},
	{Path: "services.*.listen.transparent", Kind: Boolean, Default: "false",
		Doc: "take connections to addresses of others that are routed here (IP_TRANSPARENT)"},
	{Path: "services.*.listen.nodelay", Kind: Boolean, Default: "true",
		Doc: "send small segments at once (TCP_NODELAY)"},
	{Path: "services.*.listen.keepalive", Kind: Mixed, Forms: "true, false or a mapping of idle, interval and count", Default: "false",
		Doc: "probe silent clients (SO_KEEPALIVE); what a mapping leaves out is the system's"},
	{Path: "services.*.listen.keepalive.idle", Kind: Seconds, Min: 1, Max: 32767,
		Doc: "silence before the first probe"},
	{Path: "services.*.listen.keepalive.interval", Kind: Seconds, Min: 1, Max: 32767,
		Doc: "time between two probes"},
	{Path: "services.*.listen.keepalive.count", Kind: Integer, Min: 1, Max: 127,
		Doc: "unanswered probes after which the connection is dropped"},
	{Path: "services.*.listen.rcvbuf", Kind: Size, Min: 4 << 10,
		Doc: "receive buffer of a connection"},
	{Path: "services.*.listen.sndbuf", Kind: Size, Min: 4 << 10,
		Doc: "send buffer of a connection"},
	{Path: "services.*.listen.mark", Kind: Integer, Max: 1<<32 - 1, Default: "0",
		Doc: "firewall mark of the packets sent"},
	{Path: "services.*.listen.tos", Kind: Integer, Max: 252, Default: "0",
		Doc: "type of service of the packets sent"},
	{Path: "services.*.listen.defer_accept", Kind: Seconds, Min: 1, Max: 32767,
		Doc: "accept a connection only when its first bytes are there"},
	{Path: "services.*.listen.mode", Kind: Mode, Default: `"0660"`,
		Doc: "permissions of a unix socket"},
	{Path: "services.*.listen.owner", Kind: Account,
		Doc: "owner of a unix socket"},
	{Path: "services.*.listen.group", Kind: Account,
		Doc: "group of a unix socket"},

	{Path: "services.*.run", Kind: Mixed, Forms: "a list of program and arguments, or one text", Common: Own,
		Doc: "the program, an absolute path, and its arguments; no shell is involved"},
	{Path: "services.*.builtin", Kind: Word,
		Words: []string{"echo", "greeting", "discard", "chargen", "daytime", "time", "qotd", BuiltinMux}, Common: Own,
		Doc: "one of superd-services(8) instead of a program"},
	{Path: "services.*.text", Kind: Text, Common: Own,
		Doc: "what greeting and qotd say; each has its own default"},
	{Path: "services.*.amplify", Kind: Boolean, Default: "false", Common: Own,
		Doc: "a built-in may answer a datagram with more bytes than that has"},
	{Path: "services.*.argv0", Kind: Text, Common: Own,
		Doc: "the name that the program is told as its own; its path when absent"},
	{Path: "services.*.wait", Kind: Word, Words: []string{"false", "true", "stdin", "listen-fds"}, Default: "false", Common: Own,
		Doc: "hand the listening sockets to a program instead of each connection to its own"},
	{Path: "services.*.tcpmux", Kind: Word, Words: []string{"false", MuxAnswered, MuxPlain}, Default: "false", Common: Own,
		Doc: "clients of builtin: tcpmux reach the service by its name; plain: the program itself tells them so"},
	{Path: "services.*.stderr", Kind: Word, Words: []string{"log", "client", "null"}, Default: "log", Common: Yields,
		Doc: "where the program's standard error goes"},
	{Path: "services.*.log_level", Kind: Word, Words: []string{"debug", "info", "warn", "error"}, Common: Yields,
		Doc: "the least important records of this service that are written; as log.level when absent"},
	{Path: "services.*.dir", Kind: Path, Default: "/",
		Doc: "the program's working directory, inside chroot"},
	{Path: "services.*.umask", Kind: Mode, Default: `"022"`,
		Doc: "permissions that files made by the program do not get"},
	{Path: "services.*.nice", Kind: Integer, Min: -20, Max: 19, Default: "0", Common: Yields,
		Doc: "scheduling priority; higher is more modest"},
	{Path: "services.*.oom_score_adj", Kind: Integer, Min: -1000, Max: 1000, Common: Yields,
		Doc: "how readily the kernel kills the program when memory runs out; as readily as superd when absent"},
	{Path: "services.*.env", Kind: Entries, Forms: "a mapping of variables", Common: Yields,
		Doc: "environment variables and their values"},
	{Path: "services.*.env_pass", Kind: List, Forms: "a list of names of environment variables", Common: Yields,
		Doc: "variables taken over from superd's own environment"},
	{Path: "services.*.env_style", Kind: List, Words: []string{"ucspi", "systemd", "xinetd", "ncat", "cgi", "none"}, Default: "[ucspi]",
		Forms: "a list of ucspi, systemd, xinetd, ncat and cgi, or [none]", Common: Yields,
		Doc: "whose names for the connection's variables the program gets"},
	{Path: "services.*.keep", Kind: Boolean, Default: "true", Common: Yields,
		Doc: "keep a duplicate of the connection, for byte counts, timeout.idle and linger"},
	{Path: "services.*.linger", Kind: Duration, Default: "2s", Common: Yields,
		Doc: "how long unread input is drained after the program's end; 0 is off"},
	{Path: "services.*.leftovers", Kind: Word, Words: []string{"kill", "leave"}, Default: "kill", Common: Yields,
		Doc: "what happens to processes that the program leaves behind"},
	{Path: "services.*.enabled", Kind: Boolean, Default: "true", Common: Own,
		Doc: "false leaves the service out, but checks it"},
	{Path: "services.*.description", Kind: Text, Common: Own,
		Doc: "a text for listings"},

	{Path: "services.*.user", Kind: Account,
		Doc: "the user that the program runs as"},
	{Path: "services.*.group", Kind: Account,
		Doc: "its group; the user's own when absent"},
	{Path: "services.*.groups", Kind: List, Forms: "a list of group names or numbers",
		Doc: "its further groups; the user's own when absent"},
	{Path: "services.*.chroot", Kind: Path,
		Doc: "the directory that is the program's root; run and dir are inside it"},

	{Path: "services.*.rlimits", Kind: Mapping, Doc: "limits of one program (setrlimit(2)); one that is absent is superd's own"},
	{Path: "services.*.rlimits.cpu", Kind: Limit, Of: Seconds, Min: 1, Max: longestCPU, Words: orUnlimited,
		Doc: "processor time (RLIMIT_CPU)"},
	{Path: "services.*.rlimits.memory", Kind: Limit, Of: Size, Min: 4 << 10, Words: orUnlimited,
		Doc: "address space (RLIMIT_AS)"},
	{Path: "services.*.rlimits.data", Kind: Limit, Of: Size, Min: 4 << 10, Words: orUnlimited,
		Doc: "private writable memory (RLIMIT_DATA)"},
	{Path: "services.*.rlimits.stack", Kind: Limit, Of: Size, Min: 4 << 10, Words: orUnlimited,
		Doc: "stack of the first thread; a quarter of it bounds arguments and environment (RLIMIT_STACK)"},
	{Path: "services.*.rlimits.nofile", Kind: Limit, Of: Integer, Min: 3, Max: 1 << 30,
		Doc: "descriptors, counting 0, 1 and 2; the kernel knows no unlimited here but sysctl fs.nr_open (RLIMIT_NOFILE)"},
	{Path: "services.*.rlimits.nproc", Kind: Limit, Of: Integer, Min: 1, Max: mostProcesses, Words: orUnlimited,
		Doc: "processes and threads of the user, in all services and elsewhere; not for root (RLIMIT_NPROC)"},
	{Path: "services.*.rlimits.fsize", Kind: Limit, Of: Size, Words: orUnlimited,
		Doc: "size of a file that is written (RLIMIT_FSIZE)"},
	{Path: "services.*.rlimits.core", Kind: Limit, Of: Size, Words: orUnlimited,
		Doc: "size of a core dump; 0 for none (RLIMIT_CORE)"},
	{Path: "services.*.rlimits.memlock", Kind: Limit, Of: Size, Words: orUnlimited,
		Doc: "memory locked into RAM (RLIMIT_MEMLOCK)"},
	{Path: "services.*.rlimits.msgqueue", Kind: Limit, Of: Size, Words: orUnlimited,
		Doc: "POSIX message queues of the user (RLIMIT_MSGQUEUE)"},
	{Path: "services.*.rlimits.sigpending", Kind: Limit, Of: Integer, Max: 1<<31 - 1, Words: orUnlimited,
		Doc: "signals queued for the user (RLIMIT_SIGPENDING)"},
	{Path: "services.*.rlimits.locks", Kind: Limit, Of: Integer, Max: 1<<31 - 1, Words: orUnlimited,
		Doc: "file locks; Linux ignores it (RLIMIT_LOCKS)"},
	{Path: "services.*.rlimits.rss", Kind: Limit, Of: Size, Words: orUnlimited,
		Doc: "resident memory; Linux ignores it, see cgroup.memory (RLIMIT_RSS)"},
	{Path: "services.*.rlimits.nice", Kind: Limit, Of: Integer, Min: 1, Max: 40, Words: orUnlimited,
		Doc: "how far the program may lower its nice value, as the kernel counts: to 20 less this, so 1 is nice 19 and 40 is -20 (RLIMIT_NICE)"},
	{Path: "services.*.rlimits.rtprio", Kind: Limit, Of: Integer, Max: 99, Words: orUnlimited,
		Doc: "highest real-time priority; 0 for none (RLIMIT_RTPRIO)"},
	{Path: "services.*.rlimits.rttime", Kind: Limit, Of: Duration, Min: 1, Words: orUnlimited,
		Doc: "processor time under real-time scheduling without a blocking call (RLIMIT_RTTIME)"},
	{Path: "services.*.rlimits.*", Kind: Mapping, Forms: "a mapping of soft and hard",
		Doc: "any of these limits with its two values apart; one value alone is both"},
	{Path: "services.*.rlimits.*.soft", Kind: Mixed, Forms: "one value of the limit",
		Doc: "what holds; the program may raise it up to hard"},
	{Path: "services.*.rlimits.*.hard", Kind: Mixed, Forms: "one value of the limit",
		Doc: "what soft may at most become; not less than soft"},

	{Path: "services.*.cgroup", Kind: Mapping, Doc: "limits of all programs of the service together (cgroups(7)); at least one of memory, tasks and cpu"},
	{Path: "services.*.cgroup.memory", Kind: Size, Min: 1 << 20,
		Doc: "memory, page cache included (memory.max)"},
	{Path: "services.*.cgroup.tasks", Kind: Integer, Min: 1, Max: mostProcesses,
		Doc: "processes and threads (pids.max)"},
	{Path: "services.*.cgroup.cpu", Kind: Percent, Min: 1, Max: 100 * mostProcessors,
		Doc: "processor time, as a percentage of one processor: 50% is half of one, 150% one and a half (cpu.max)"},
	{Path: "services.*.cgroup.per_connection", Kind: Boolean, Default: "false",
		Doc: "true gives each connection the limits for itself"},

	{Path: "services.*.sandbox", Kind: Mixed, Words: presetNames, Forms: "none, basic, strict, offline or a mapping", Default: "basic",
		Doc: "the walls around the program; a word is the preset alone"},
	{Path: "services.*.sandbox.preset", Kind: Word, Words: presetNames, Default: "basic",
		Doc: "what the other keys are when absent"},
	{Path: "services.*.sandbox.read", Kind: List, Forms: "a list of absolute paths",
		Doc: "what may be read; with read, write or exec all else of the file system is closed"},
	{Path: "services.*.sandbox.write", Kind: List, Forms: "a list of absolute paths",
		Doc: "what may be read and written"},
	{Path: "services.*.sandbox.exec", Kind: List, Forms: "a list of absolute paths",
		Doc: "what may be read and executed"},
	{Path: "services.*.sandbox.network", Kind: Boolean,
		Doc: "false leaves the program no network but its connection; false in strict and offline"},
	{Path: "services.*.sandbox.private_tmp", Kind: Boolean,
		Doc: "a /tmp and a /var/tmp of its own that vanish with the program; true in strict"},
	{Path: "services.*.sandbox.capabilities", Kind: List, Words: capabilityNames, Forms: "a list of names of capabilities(7)",
		Doc: "the only capabilities that the program has, with or without CAP_"},
	{Path: "services.*.sandbox.no_new_privs", Kind: Boolean,
		Doc: "set-user-ID programs and file capabilities give nothing; false in none"},
	{Path: "services.*.sandbox.system_calls", Kind: Word, Words: []string{"all", "default", "tight"},
		Doc: "the system calls that are let through; all in none, tight in strict, else default"},
	{Path: "services.*.sandbox.best_effort", Kind: Boolean, Default: "false",
		Doc: "true leaves out, with a warning, the walls that the kernel cannot build"},

	{Path: "services.*.allow", Kind: List, Forms: rulesForms,
		Doc: "who may come in; the most specific rule of allow and deny holds, and whom none allows is refused"},
	{Path: "services.*.allow.from", Kind: Text, Forms: ruleForms,
		Doc: "whom the rule is about, in any of the forms that an item itself takes"},
	{Path: "services.*.allow.max_per_source", Kind: Integer, Min: 1, Max: mostProcesses,
		Doc: "the service's max_per_source for these clients"},
	{Path: "services.*.allow.rate_per_source", Kind: PerTime,
		Doc: "the service's rate_per_source for these clients"},
	{Path: "services.*.allow.env", Kind: Entries, Forms: "a mapping of variables",
		Doc: "further environment variables for these clients"},
	{Path: "services.*.allow.run", Kind: Mixed, Forms: "a list of program and arguments, or one text",
		Doc: "another program for these clients"},
	{Path: "services.*.deny", Kind: List, Forms: rulesForms,
		Doc: "who may not come in"},
	{Path: "services.*.deny.from", Kind: Text, Forms: ruleForms,
		Doc: "whom the rule is about"},
	{Path: "services.*.hours", Kind: List, Forms: `a list of times such as "Mon-Fri 08:00-18:00"`,
		Doc: "when the service is open; always when absent"},
	{Path: "services.*.max", Kind: Integer, Min: 1, Max: mostProcesses,
		Doc: "live programs of the service"},
	{Path: "services.*.max_per_source", Kind: Integer, Min: 1, Max: mostProcesses,
		Doc: "live programs for one source"},
	{Path: "services.*.rate", Kind: PerTime, Doc: "new connections of the service"},
	{Path: "services.*.rate_per_source", Kind: PerTime, Doc: "new connections of one source"},
	{Path: "services.*.max_load", Kind: Decimal, Max: highestLoad, Default: "0",
		Doc: "load average at which nobody comes in; 0 is off"},
	{Path: "services.*.source_prefix", Kind: Mapping, Common: Yields, Doc: "how much of an address makes a source"},
	{Path: "services.*.source_prefix.ipv4", Kind: Integer, Min: 1, Max: 32, Default: "32", Doc: "bits of an IPv4 address"},
	{Path: "services.*.source_prefix.ipv6", Kind: Integer, Min: 1, Max: 128, Default: "64", Doc: "bits of an IPv6 address"},
	{Path: "services.*.on_limit", Kind: Word, Words: []string{"queue", "refuse"}, Default: "queue", Common: Yields,
		Doc: "whether a client that finds no room waits or is refused"},
	{Path: "services.*.queue", Kind: Mapping, Common: Yields, Doc: "clients that wait for room"},
	{Path: "services.*.queue.length", Kind: Integer, Min: 1, Max: 65535, Default: "100", Doc: "how many wait at most"},
	{Path: "services.*.queue.timeout", Kind: Duration, Min: 1, Default: "10s", Doc: "how long one waits at most"},
	{Path: "services.*.refuse_text", Kind: Mixed, Forms: "a text, or a mapping of reasons to texts", Words: reasons, Common: Yields,
		Doc: "what a refused client is told; nothing when absent"},
	{Path: "services.*.ban", Kind: Mapping, Doc: "shut out a source that misbehaves; off when absent"},
	{Path: "services.*.ban.after", Kind: Integer, Min: 1, Max: mostCounted, Default: "20",
		Doc: "refusals and failed programs that are too many"},
	{Path: "services.*.ban.within", Kind: Duration, Min: 1, Default: "1m", Doc: "the time in which they are counted"},
	{Path: "services.*.ban.for", Kind: Duration, Min: 1, Default: "10m", Doc: "how long the source is shut out"},
	{Path: "services.*.proxy_protocol", Kind: Mapping, Doc: "clients come through a proxy that names them; off when absent"},
	{Path: "services.*.proxy_protocol.from", Kind: List, Forms: "a list of addresses and networks",
		Doc: "proxies that are believed, and have to say whom they speak for"},
	{Path: "services.*.proxy_protocol.timeout", Kind: Duration, Min: 1, Default: "3s", Doc: "how long the header may take"},

	{Path: "services.*.timeout", Kind: Mapping, Doc: "how long things may take"},
	{Path: "services.*.timeout.session", Kind: Duration, Default: "0", Doc: "whole life of a program; 0 is off"},
	{Path: "services.*.timeout.idle", Kind: Duration, Default: "0", Doc: "time without a byte in either direction; 0 is off; of datagrams 10s when absent"},
	{Path: "services.*.timeout.first_byte", Kind: Duration, Default: "0", Common: Yields,
		Doc: "time until the client's first byte, before which no program is started; 0 is off"},
	{Path: "services.*.timeout.stop", Kind: Duration, Min: 1, Default: "5s",
		Doc: "time that a program has between TERM and KILL"},

	{Path: "services.*.failures", Kind: Mapping, Doc: "pause a service whose program keeps failing; off when absent"},
	{Path: "services.*.failures.after", Kind: Integer, Min: 1, Max: mostCounted, Default: "5",
		Doc: "failures in a row that are too many"},
	{Path: "services.*.failures.within", Kind: Duration, Min: 1, Default: "10s", Doc: "the time in which they are counted"},
	{Path: "services.*.failures.pause", Kind: Duration, Min: 1, Default: "30s", Doc: "how long no program is started then"},
	{Path: "services.*.failures.text", Kind: Text, Common: Yields, Doc: "what clients are told meanwhile"},
}
