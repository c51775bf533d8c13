// Package config is the vocabulary of superd's YAML file: it turns the file
// into plain data in final types, or into the list of everything that is wrong
// with it. It opens no socket, looks up no user and starts nothing; it is the
// only package that knows YAML.
package config

import (
	"math"
	"net/netip"
	"strings"
	"time"
)

// Config is one whole file in final types, with what it includes. It is never changed after Load;
// connections keep the one they were accepted under.
type Config struct {
	Path     string // as named on the command line; "(built-in)" for the embedded default
	Files    *Files // all that was read
	Log      Log
	Control  Control
	HTTP     HTTP
	Limits   Limits
	Drain    time.Duration // how long live connections may finish once superd was told to stop
	Services []*Service    // in the order of the files
	Warnings []Problem     // what is allowed but deserves a word

	where   map[string]Position // of every value of the file beside services, by its path
	written written             // what the file says beside services
}

// Log says what is written, how and where.
type Log struct {
	Level   string // debug, info, warn, error
	Format  string // auto, json, console
	Output  string // stderr, syslog, journald or an absolute path
	Address string // full, prefix, hash, none
}

// Limits hold over all services.
type Limits struct {
	Max     int     // live programs; 0 is off
	MaxLoad float64 // of the last minute; at that load nobody comes in; 0 is off
}

// Service is one entry of the services mapping.
type Service struct {
	Name        string
	Description string
	Enabled     bool

	// what to listen on; nothing where clients come by the name alone
	Listen []Listener

	// what to run: either Run or Builtin
	Run     []string // program (an absolute path) and arguments
	Builtin string
	Text    string // of greeting and qotd; "" for their own
	Amplify bool   // a built-in may answer a datagram with more than that has
	Argv0   string // "" for Run[0]
	Wait    string // stdin, listen-fds: the program gets the listening sockets themselves; "" for connections
	Mux     string // clients of BuiltinMux reach it by its name: MuxAnswered, MuxPlain; "" for not

	Stderr   string        // log, client, null
	LogLevel string        // debug, info, warn, error; "" for the log's own
	Dir      string        // the program's working directory
	Umask    int           // 0 to 0777
	Nice     int           // -20 to 19
	OOMScore *int          // oom_score_adj, -1000 to 1000; nil when the file names none
	Env      []EnvVar      // in the order of the file
	EnvPass  []string      // names taken over from superd's own environment
	EnvStyle []string      // ucspi, systemd, xinetd, ncat, cgi
	Keep     bool          // keep a duplicate of the connection (superd-program(7))
	Linger   time.Duration // how long unread input is drained after the program's end
	Leftover string        // kill, leave

	// as whom
	User      string // "" when the file names none
	Group     string // "" for the user's own
	Groups    []string
	GroupsSet bool // tells `groups: []` from no groups key

	// inside which walls
	Chroot  string   // the program's root directory; "" for superd's own
	Rlimits []Rlimit // those that the file names, in the order of their numbers
	Sandbox Sandbox
	Cgroup  Cgroup

	// who may come in, and how many; a zero is no limit of its own
	Restricted    bool   // an allow list is there, if an empty one
	Rules         []Rule // of allow and then of deny
	Hours         []Hours
	Max           int // live programs
	MaxPerSource  int
	Rate          Rate
	RatePerSource Rate
	MaxLoad       float64
	SourcePrefix  Prefixes
	OnLimit       string // queue, refuse
	Queue         Queue
	RefuseText    map[string]string // by reason; a text for all stands under each
	Ban           Ban
	Proxy         Proxy
	Failures      Failures

	Timeout Timeouts

	where    map[string]Position // of every value of the service, by its path
	written  written             // what the file says of it, defaults included
	lent     map[string]bool     // keys that it has from defaults
	override *Override           // applied to this copy; nil for none
}

// EnvVar is one variable of `env`.
type EnvVar struct{ Name, Value string }

// Timeouts of one service; zero is off.
type Timeouts struct {
	Session   time.Duration // whole life of a program
	Idle      time.Duration // time without a byte in either direction
	FirstByte time.Duration // until the client has sent something; no program before that
	Datagrams time.Duration // as Idle, for the program of a peer that sends datagrams
	Stop      time.Duration // from TERM to KILL
}

// Prefixes are how much of an address makes a source, in bits.
type Prefixes struct{ IPv4, IPv6 int }

// Queue bounds those who wait for a place.
type Queue struct {
	Length  int
	Timeout time.Duration
	Named   bool // by the file: it then holds where the kernel's queue would do as well
}

// Ban is what a source has to expect that is refused too often; zero is none.
type Ban struct {
	After       int
	Within, For time.Duration
}

// Proxy says who is believed to name clients in a PROXY header; zero is nobody.
type Proxy struct {
	From    []netip.Prefix // masked; of no v4-mapped addresses
	Timeout time.Duration  // until the header has come
}

// Failures say when a service pauses whose programs fail; zero is never.
type Failures struct {
	After         int
	Within, Pause time.Duration
}

// Rlimit is one resource limit of a program, setrlimit(2).
type Rlimit struct {
	Name       string // as in the file: nofile
	Resource   int    // RLIMIT_NOFILE
	Soft, Hard uint64 // Unlimited; bytes, seconds, or a count, as the kernel has it
}

// Unlimited is RLIM_INFINITY.
const Unlimited = math.MaxUint64

// Sandbox is what a program may not do, with the preset's choices filled in
// where the file makes none.
type Sandbox struct {
	Preset       string   // none, basic, strict, offline
	NoNewPrivs   bool     // execve gives no privilege: no set-user-ID, no file capabilities
	Capabilities []string // names that the program keeps, without CAP_, lower case: net_bind_service
	CapsSet      bool     // tells `capabilities: []` and the presets' none from the user's own
	SystemCalls  string   // all, default, tight
	Confined     bool     // the file system is closed but for what Read, Write and Exec open, and what the program needs to start
	Read         []string // absolute paths that may be read
	Write        []string // ... and written
	Exec         []string // ... and executed
	Network      bool     // false: an empty network namespace
	PrivateTmp   bool     // a /tmp and /var/tmp of its own that vanish with the program
	BestEffort   bool     // walls that the kernel cannot build are left out, said, and no error
}

// Cgroup is what a service's programs may use together, or each where
// PerConnection; zero fields are no limit (cgroups(7), version 2).
type Cgroup struct {
	On            bool
	Memory        uint64 // bytes, memory.max
	Tasks         uint64 // pids.max
	CPU           int    // hundredths of one processor, cpu.max
	PerConnection bool
}

// Family is what kind of address a Listener has.
type Family uint8

// The families of addresses.
const (
	TCP       Family = iota // Addr
	Unix                    // Name
	VSock                   // CID and Port
	Inherited               // Name
	UDP                     // Addr
)

// AnyCID is every address that this machine has as a virtual one, or as the host
// of such (VMADDR_CID_ANY).
const AnyCID = 1<<32 - 1

// Listener is one socket to open. An address that stands for several sockets
// (a bare port, a name with several addresses) has become several Listeners.
type Listener struct {
	Spec   string // as written in the file, for messages
	Family Family
	Addr   netip.AddrPort // of TCP and UDP; an unspecified address for a bare port
	Name   string         // of Unix: an absolute path, or @ and an abstract name; of Inherited: as LISTEN_FDNAMES has it
	CID    uint32         // of VSock; AnyCID for all of this machine's
	Port   uint32         // of VSock; 0 for one that the kernel chooses
	Type   string         // of Unix: stream, seqpacket, datagram; of VSock: stream, seqpacket
	Label  string         // what a program that gets the socket is told that it is called; "" for the service's name

	Backlog int // connections the kernel queues; 0 for the system's maximum
	// Optional marks the IPv6 half of a bare port: it is left out, not
	// reported, on a machine without IPv6.
	Optional bool

	// Of TCP; of Inherited too but for the first five.
	MPTCP          bool   // accept connections of several paths (RFC 8684) as well
	Dual           bool   // v6only: false; one IPv6 socket serves both families
	Device         string // the only network interface that is listened on; "" for all
	FreeBind       bool   // the address need not be one of the machine's
	Transparent    bool   // the same, and connections to others' addresses are taken
	NoDelay        bool   // TCP_NODELAY
	KeepAlive      KeepAlive
	RcvBuf, SndBuf int           // bytes; 0 for the system's
	Mark           uint32        // firewall mark of the packets sent
	TOS            int           // type of service of the packets sent, 0 to 252
	DeferAccept    time.Duration // whole seconds until which a client has to send something; 0 is off

	// Of a unix socket with a path.
	Mode         int    // its permissions, 0 to 0777
	Owner, Group string // account names or numbers; "" for superd's own

	At   Position
	Path string // services.NAME.listen[0]

	keys places // of the mapping that the address stands in
}

// KeepAlive is the TCP keepalive of accepted connections; zero fields are the
// system's values (tcp(7)).
type KeepAlive struct {
	On             bool
	Idle, Interval time.Duration // whole seconds
	Count          int
}

// places are where the keys of a mapping were written.
type places struct {
	path  string // of the mapping
	where map[string]Position
}

// Position is a place in a file; lines and columns count from 1.
type Position struct {
	File         string
	Line, Column int
}

// Where is the position of the value of a service's key, such as "user" or
// "timeout.idle", or else of the nearest thing around it that was written.
func (s *Service) Where(key string) Position {
	return nearestPosition(s.where, s.path(key))
}

// nearestPosition is the position of a path, or else of the nearest thing around it.
func nearestPosition(where map[string]Position, path string) Position {
	for {
		if at, is := where[path]; is || path == "" {
			return at
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}

// Problem is one mistake in the file, or one warning about it.
type Problem struct {
	At   Position
	Path string // services.echo.listen[0]; "" for the file as a whole
	What string // what is wrong
	Hint string // what to do about it; may be ""
}
