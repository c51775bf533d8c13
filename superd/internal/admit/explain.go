package admit

import (
	"fmt"
	"strings"
)

// A Step is one check of a decision.
type Step struct {
	Check  Reason // what a refusal by it is called
	Passes bool
	Text   string // the rule, or the numbers
}

// An Explanation is what a gate would decide about a client, with every check
// in its order, also those that come after the one that decides.
type Explanation struct {
	Verdict Verdict
	Reason  Reason // of the first check that does not pass
	Cause   Reason // of queue-full: what the client would have to wait for
	Source  Source // whom the client is counted by
	Rule    *Rule  // that holds for the client, nil if none does
	Rules   []*Rule
	Live    int // connections of the client's own address, or user (Gate.Count)
	Steps   []Step
}

// Explain is the decision that Ask, or Enter and Seat, would make now, and
// changes nothing. Rules are all that are about the client.
//
// To find them all takes a look at every rule of the service, which holds up
// nobody.
func (g *Gate) Explain(c Client, now Moment) Explanation {
	x := g.explain(c, now)
	x.Rules = x.a.policy.access.matches(&x.a.client)
	return x.Explanation
}

func (g *Gate) explain(c Client, now Moment) *explainer {
	g.house.mu.Lock()
	defer g.house.mu.Unlock()
	a := asking{client: c.plain()}
	g.policy.Load().lookUp(&a, now.Wall)
	a.source = g.sources[a.key]
	now.Since = max(now.Since, g.house.clock)
	x := &explainer{Explanation{Verdict: Entered, Source: a.key, Rule: a.rule(), Live: g.counts[single.of(&a.client)]}, g, &a, now}
	x.door()
	x.trouble()
	x.room()
	x.queue()
	return x
}

type explainer struct {
	Explanation
	g   *Gate
	a   *asking
	now Moment
}

// step adds a check; the first that does not pass makes the verdict.
func (x *explainer) step(r Reason, passes bool, otherwise Verdict, text string) {
	x.Steps = append(x.Steps, Step{r, passes, text})
	if !passes && x.Verdict == Entered {
		x.Verdict, x.Reason = otherwise, r
	}
}

// door has the checks that look at nothing that changes.
func (x *explainer) door() {
	draining := x.g.draining || x.g.house.draining
	x.step(ReasonDraining, !draining, Refused, choose(draining, "no more connections are accepted", "not draining"))
	x.step(ReasonAddress, x.a.allowed, Refused, whichRule(x.Rule, x.a.allowed))
	x.step(ReasonHours, x.a.open, Refused, x.hours(x.a.open))
}

func choose(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

func (x *explainer) hours(open bool) string {
	list := x.a.policy.hours
	if len(list) == 0 {
		return "at any time"
	}
	var texts []string
	for _, h := range list {
		texts = append(texts, h.text)
	}
	text := strings.Join(texts, "; ")
	if open {
		return "inside " + text
	}
	text = "outside " + text
	if next, found := nextOpening(list, x.now.Wall); found {
		text += ", open from " + next.Format("Mon 2006-01-02 15:04 MST")
	}
	return text
}

// trouble has the checks that remember what happened before.
func (x *explainer) trouble() {
	b := x.g.bannedBy(&x.a.client, x.a.exempt)
	switch {
	case b != nil && b.until > x.now.Since:
		x.step(ReasonBanned, false, Refused, b.whom.String()+" is banned"+forAnother(timeLeft(b.until, x.now.Since)))
	case x.a.exempt:
		x.step(ReasonBanned, true, Refused, "a trusted proxy, never banned")
	default:
		x.step(ReasonBanned, true, Refused, "not banned")
	}
	f := &x.g.failing
	ok, trial := f.admits(x.a.key, x.now.Since)
	x.a.trial = trial
	switch {
	case trial:
		x.step(ReasonFailing, true, Refused, "it was failing, this would be the trial")
	default:
		x.step(ReasonFailing, ok, Refused, choose(ok, "not failing", numbers(ReasonFailing, 0, 0, timeLeft(f.until, x.now.Since))))
	}
}

// room has the checks that a client may wait for.
func (x *explainer) room() {
	before := x.Verdict
	for _, r := range roomReasons {
		have, limit, left := x.g.numbers(r, x.a, x.now.Since)
		text := "no limit"
		if limit > 0 {
			text = numbers(r, have, limit, left)
		}
		x.step(r, x.g.allowsBy(r, x.a, x.now.Since), x.otherwise(), text)
	}
	if s := x.a.source; s != nil && s.line.len > 0 && x.Verdict == Entered {
		x.Verdict, x.Reason = x.otherwise(), s.line.first.cause
	}
	if x.a.trial && x.Verdict != before { // as who waits would only hold up the trial
		x.Verdict, x.Reason = Refused, ReasonFailing
	}
}

func (x *explainer) otherwise() Verdict {
	if x.a.policy.rules.Refuse {
		return Refused
	}
	return Waits
}

// queue looks at the room for those who wait.
func (x *explainer) queue() {
	p := x.a.policy
	if p.direct || p.rules.Refuse || x.Verdict == Refused {
		return
	}
	length := p.rules.Queue.Length
	room := x.g.queued < length || x.g.displaces(x.a.source)
	x.Steps = append(x.Steps, Step{ReasonQueueFull, room, fmt.Sprintf("%d of %d wait", x.g.queued, length)})
	if x.Verdict == Waits && !room {
		x.Verdict, x.Reason, x.Cause = Refused, ReasonQueueFull, x.Reason
	}
}
