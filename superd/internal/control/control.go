// Package control is how a running superd is asked and told: over the
// administrative socket, a unix socket on which HTTP carries JSON. It has the
// words of that conversation, its server and its client. What an answer says
// and what an order does is the [Daemon]'s; this package decides only who may
// ask, and that nobody who does can do harm by being slow, many or wrong.
package control

import (
	"fmt"
	"net/netip"
	"time"
)

// A Daemon is what stands behind the administrative socket. Its methods are
// called from several goroutines. An error's text is what the client is told;
// its type decides the status: [Unknown], [Unsupported], and else a conflict
// with how things are.
type Daemon interface {
	Status() Status
	Connections(Selection) []Connection
	Blocks() []Block
	Explain(service string, who Applicant) (Explanation, error)

	// Ordered is called before each of the following.
	Ordered(Order)
	Reload() (Report, error)
	Upgrade(*Asker) (Upgraded, error)                            // where it succeeds, another superd answers the asker
	Drain(service string, limit *time.Duration) (Drained, error) // "" is all services; no limit is the file's
	Stop(now bool)
	Kill(Selection) (Killed, error)
	Block(whom Source, length time.Duration) error // 0 is until it is unblocked
	Unblock(whom Source) (Unblocked, error)
}

// Unknown is the error that what an order is about does not exist.
type Unknown string

func (u Unknown) Error() string { return string(u) }

// Faulty is the error that something could not be done for several reasons.
type Faulty struct {
	Text     string   // all that there is to say, a line each
	Problems []string // of that, what is wrong
}

func (f *Faulty) Error() string { return f.Text }

// Unsupported is the error that this superd cannot do what it is told.
type Unsupported string

func (u Unsupported) Error() string { return string(u) }

// An Order is what somebody who may has told superd to do.
type Order struct {
	Verb string
	What string // in words; "" where the verb says it all
	From Peer
}

// A Selection is some of the connections: those that have all that is given.
type Selection struct {
	ID      string
	Service string
	Source  Source // the zero value is everywhere
}

// A Source is where clients come from: a network, or of unix sockets a user.
type Source struct {
	Network netip.Prefix
	User    bool // it is UID
	UID     uint32
}

// String is the source as it is asked for, with the length of its network.
func (s Source) String() string {
	if s.User {
		return fmt.Sprintf("uid:%d", s.UID)
	}
	return s.Network.String()
}

// Status is how things stand with superd.
type Status struct {
	Version    string    `json:"version"`
	PID        int       `json:"pid"`
	State      string    `json:"state"`   // serving, draining, stopping
	Started    time.Time `json:"started"` // since when totals count
	UptimeMS   int64     `json:"uptime_ms"`
	File       string    `json:"file"`
	Generation int       `json:"generation"` // of the file; 1 is the first that was read
	Loaded     time.Time `json:"loaded"`     // when this generation was
	Live       int       `json:"live"`
	Max        int       `json:"max"`         // limits.max, or what the limit of open files leaves of it
	LogDropped uint64    `json:"log_dropped"` // lines that never reached the log
	Orphans    uint64    `json:"orphans"`     // processes reaped that were not superd's, as process 1
	Services   []Service `json:"services"`
	Blocks     []Block   `json:"blocks"`
}

// Service is how things stand with one service.
type Service struct {
	Name        string            `json:"name"`
	State       string            `json:"state"`   // ready, failing, trying, draining, disabled
	Live        uint64            `json:"live"`    // connections
	Total       uint64            `json:"total"`   // accepted since superd's start
	Refused     uint64            `json:"refused"` // of those
	RefusedBy   map[string]uint64 `json:"refused_by"`
	Exited      uint64            `json:"exited"`
	Failed      uint64            `json:"failed"` // of those: with a status other than 0, or by a signal
	Max         int               `json:"max"`    // 0 is no limit of its own
	Waiting     int               `json:"waiting"`
	Bans        int               `json:"bans"`
	PausedMS    int64             `json:"paused_ms,omitempty"`   // that a failing service still pauses
	FailingFor  string            `json:"failing_for,omitempty"` // the one source that it fails for
	Listen      []string          `json:"listen"`
	Generation  int               `json:"generation"` // of the file that its entry is of
	Since       time.Time         `json:"since"`      // when that entry came into force
	Description string            `json:"description,omitempty"`
}

// Connection is one live connection. What is not known is left out: bytes,
// idleness and round-trip time where superd keeps no duplicate of it, and the peer
// where the program accepts itself.
type Connection struct {
	ID       string `json:"id"`
	Service  string `json:"service"`
	Peer     string `json:"peer,omitempty"`
	Local    string `json:"local"`
	PID      int    `json:"pid"`
	State    string `json:"state"` // running, stopping, ended
	AgeMS    int64  `json:"age_ms"`
	IdleMS   *int64 `json:"idle_ms,omitempty"`
	BytesIn  *int64 `json:"bytes_in,omitempty"`
	BytesOut *int64 `json:"bytes_out,omitempty"`
	RTTUS    *int64 `json:"rtt_us,omitempty"`
}

// Block is a source that is kept out.
type Block struct {
	Service string `json:"service,omitempty"` // "" is all of them, by an order
	Source  string `json:"source"`
	LeftMS  int64  `json:"left_ms,omitempty"` // until it ends; 0 is until it is lifted
}

// An Applicant is who might come to a service: from an address, or a process of
// this machine by a unix socket, or else from where there are no addresses.
type Applicant struct {
	Addr      netip.Addr
	Port      uint16 // 0 for any
	Unix      bool   // UID, GID and Groups say who it is
	UID, GID  uint32
	Groups    []uint32 // beside GID
	Datagrams bool     // it sends one, though there is another way to come
}

// Explanation is what would become of an applicant, and why.
type Explanation struct {
	PID        int       `json:"pid,omitempty"`   // of the superd that has said so; 0 is one that was only imagined
	UID        uint32    `json:"uid"`             // that it runs as
	File       string    `json:"file"`            // an absolute path
	Generation int       `json:"generation"`      // of the file
	Loaded     time.Time `json:"loaded,omitzero"` // when this generation was
	Service    string    `json:"service"`
	Client     string    `json:"client"`
	Verdict    string    `json:"verdict"`          // enters, waits, refused, disabled
	Reason     string    `json:"reason,omitempty"` // of who waits or is refused
	Cause      string    `json:"cause,omitempty"`  // of queue-full: what it would have to wait for
	Source     string    `json:"source"`           // whom the client is counted by
	Live       int       `json:"live"`             // connections of the client's own address or user
	Checks     []Step    `json:"checks"`           // in their order
	Rules      []Rule    `json:"rules"`            // that are about the client, in the order of the file
	Notes      []string  `json:"notes"`            // what else there is to know, in words
}

// A Step is one check of a decision.
type Step struct {
	Check  string `json:"check"` // what a refusal by it is called
	Passes bool   `json:"passes"`
	Why    string `json:"why"` // the rule, or the numbers
}

// A Rule is one of allow or deny.
type Rule struct {
	Rule  string `json:"rule"`
	At    string `json:"at"`    // FILE:LINE:COLUMN
	Holds bool   `json:"holds"` // it is the one that decides
}

// Report is what a reload has changed.
type Report struct {
	Generation int      `json:"generation"`
	Added      []string `json:"added"`
	Changed    []Change `json:"changed"`
	Removed    []string `json:"removed"`
	Resumed    []string `json:"resumed"`  // services that were drained by order, and take connections again
	Settings   []string `json:"settings"` // what the file says otherwise beside services: "log.level: info -> debug"
	Warnings   []string `json:"warnings"` // what is doubtful about the file
}

// A Change is what the file says otherwise of one service: "max: 10 -> 20".
type Change struct {
	Service string   `json:"service"`
	Keys    []string `json:"keys"`
}

// Upgraded is what has taken superd's place.
type Upgraded struct {
	Version     string `json:"version"`
	Before      string `json:"before"` // the version until now
	Generation  int    `json:"generation"`
	Connections int    `json:"connections"` // that it goes on with
	PausedMS    int64  `json:"paused_ms"`   // how long nobody was accepted

	// Why the file could not be taken up, a problem each: the one before stays in force. None where it could.
	Problems []string `json:"problems,omitempty"`
}

// Drained is what a drain has begun with.
type Drained struct {
	Services []string `json:"services"`
	Live     int      `json:"live"`     // connections that are left
	LimitMS  int64    `json:"limit_ms"` // how long they may go on
}

// Killed is how many connections an order has ended.
type Killed struct {
	Killed int `json:"killed"`
}

// Unblocked is how many blocks and bans an order has lifted.
type Unblocked struct {
	Lifted int `json:"lifted"`
}
