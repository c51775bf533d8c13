package admit

// A Reason is why a connection was refused, or what it waits for. The list is
// closed: the same words stand in the log, in the metrics, in explain and in
// the manual. Some of them are found by others; they are here so that the list
// is whole.
type Reason uint8

// The reasons, in the order in which the manual lists them.
const (
	ReasonAddress Reason = iota
	ReasonHours
	ReasonBanned
	ReasonTotalLimit
	ReasonLimit
	ReasonSourceLimit
	ReasonRate
	ReasonSourceRate
	ReasonLoad
	ReasonProxy
	ReasonQueueFull
	ReasonQueueTimeout
	ReasonFailing
	ReasonSpawn
	ReasonDraining

	NumReasons = iota // how many there are
)

var reasonWords = [NumReasons]string{
	ReasonAddress:      "address",
	ReasonHours:        "hours",
	ReasonBanned:       "banned",
	ReasonTotalLimit:   "total-limit",
	ReasonLimit:        "limit",
	ReasonSourceLimit:  "source-limit",
	ReasonRate:         "rate",
	ReasonSourceRate:   "source-rate",
	ReasonLoad:         "load",
	ReasonProxy:        "proxy",
	ReasonQueueFull:    "queue-full",
	ReasonQueueTimeout: "queue-timeout",
	ReasonFailing:      "failing",
	ReasonSpawn:        "spawn",
	ReasonDraining:     "draining",
}

// String is the reason's word.
func (r Reason) String() string {
	if r >= NumReasons {
		return "unknown"
	}
	return reasonWords[r]
}

// blames tells the refusals that a client brings upon itself: they count
// towards a ban. Nobody is banned because others fill the room.
func (r Reason) blames() bool {
	switch r {
	case ReasonAddress, ReasonSourceLimit, ReasonSourceRate, ReasonProxy:
		return true
	}
	return false
}
