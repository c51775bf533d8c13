package event

// A Reason is why a connection was refused. The list is closed: the same words stand in the log, in the
// metrics, in explain and in the manual.
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

// Reasons are all of them, in their order.
func Reasons() []Reason {
	all := make([]Reason, NumReasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}
