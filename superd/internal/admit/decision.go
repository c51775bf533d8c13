package admit

import (
	"fmt"
	"time"
)

// A Verdict is what becomes of a connection.
type Verdict uint8

// The verdicts.
const (
	Refused Verdict = iota // close it
	Entered                // it has a place: its Ticket
	Waits                  // House.Next will tell, or Abandon ends it: its Waiter
)

// String is the verdict in a word.
func (v Verdict) String() string {
	return [...]string{"refused", "entered", "waits"}[min(v, Waits)]
}

// A Decision is a verdict, with what led to it.
type Decision struct {
	Verdict Verdict
	Reason  Reason // of one that is refused or waits
	Cause   Reason // of queue-full and queue-timeout: what it had to wait for
	Change  Change // in the state of a failing service
	Ticket  Ticket
	Waiter  Waiter
	Rule    *Rule         // that holds for the client, nil if none does; must not be changed
	Have    int           // how much there is of what Limit bounds
	Limit   int           //
	Left    time.Duration // until what keeps the client out may end by itself; 0 if unknown
}

// Why is a refusal's or a waiter's reason in words, with the rule or the
// numbers; "" for who entered.
func (d *Decision) Why() string {
	switch {
	case d.Verdict == Entered:
		return ""
	case d.Reason == ReasonAddress:
		return whichRule(d.Rule, false)
	case d.Reason == ReasonQueueFull:
		return fmt.Sprintf("%d of %d already wait (%s)", d.Have, d.Limit, d.Cause)
	case d.Reason == ReasonQueueTimeout:
		return fmt.Sprintf("waited %s (%s)", d.Left.Round(time.Millisecond), d.Cause)
	}
	return numbers(d.Reason, d.Have, d.Limit, d.Left)
}

// whichRule says what decided about an address.
func whichRule(r *Rule, allowed bool) string {
	switch {
	case r != nil:
		return r.String()
	case allowed:
		return "no rule is about this client"
	}
	return "no rule allows this client"
}

// numbers says how things stand with one rule.
func numbers(r Reason, have, limit int, left time.Duration) string {
	switch r {
	case ReasonHours:
		return "outside the hours"
	case ReasonBanned:
		return "banned" + forAnother(left)
	case ReasonTotalLimit, ReasonLimit, ReasonSourceLimit:
		return fmt.Sprintf("%d of %d places are taken", have, limit)
	case ReasonRate, ReasonSourceRate:
		return fmt.Sprintf("%d of %d tokens are left%s", have, limit, nextIn(left))
	case ReasonLoad:
		return fmt.Sprintf("the load is %.2f, the limit %.2f", float64(have)/100, float64(limit)/100)
	case ReasonFailing:
		return "the program keeps failing" + nextIn(left)
	case ReasonDraining:
		return "no more connections are accepted"
	}
	return r.String()
}

func forAnother(left time.Duration) string {
	if left <= 0 {
		return ""
	}
	return " for another " + roundUp(left)
}

func nextIn(left time.Duration) string {
	if left <= 0 {
		return ""
	}
	return ", the next try in " + roundUp(left)
}

// roundUp never shows a wait as none.
func roundUp(d time.Duration) string {
	unit := time.Millisecond
	if d > 10*time.Second {
		unit = time.Second
	}
	return ((d + unit - 1) / unit * unit).String()
}
