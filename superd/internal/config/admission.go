package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

func (s section) rate(name string) Rate {
	v := s.get(name)
	if v.node == nil {
		return Rate{}
	}
	if !hasText(v.node) {
		s.d.wrong(v, "")
		return Rate{}
	}
	r, err := ParseRate(v.node.Value)
	s.d.fault(v, err)
	return r
}

// decimals has no more places than the kernel's own load average.
var decimals = regexp.MustCompile(`^(0|[1-9][0-9]*)(\.[0-9]{1,2})?$`)

func (s section) decimal(name string) float64 {
	v := s.get(name)
	n, err := strconv.ParseFloat(v.node.Value, 64)
	if err != nil || !isPlain(v.node) || !decimals.MatchString(v.node.Value) || n > float64(v.key.Max) {
		s.d.wrong(v, decimalHint(v.node))
	}
	return n
}

func decimalHint(n *yaml.Node) string {
	switch {
	case strings.HasPrefix(n.Value, "-"):
		return "it cannot be negative"
	case decimals.MatchString(n.Value) && !isPlain(n):
		return "remove the quotes"
	}
	return ""
}

// hours reads the times at which a service is open.
func (s section) hours() (list []Hours) {
	items := s.items("hours", "leave it out, or say enabled: false")
	for i, item := range items {
		text, ok := s.d.item(item)
		if !ok {
			continue
		}
		h, err := ParseHours(text, time.Local)
		s.d.fault(item, err)
		if i > 0 && adjoins(items[i-1], item) {
			s.d.warn(item, mistakef("quote the whole, or put a blank after the comma", "the comma before %s begins hours of their own", quote(text)))
		}
		list = append(list, h)
	}
	return list
}

// adjoins tells items that stand together as a,b: between brackets, that is
// two items, even where one text with a comma was meant.
func adjoins(a, b value) bool {
	return isPlain(a.node) && isPlain(b.node) && a.at.Line == b.at.Line && a.at.Column+len(a.node.Value)+1 == b.at.Column
}

func (s section) ban() Ban {
	if !s.written("ban") {
		return Ban{}
	}
	return Ban{s.integer("ban.after"), s.duration("ban.within"), s.duration("ban.for")}
}

func (s section) proxy() Proxy {
	if !s.written("proxy_protocol") {
		return Proxy{}
	}
	v := s.get("proxy_protocol")
	if v.node.Kind == yaml.MappingNode && !s.written("proxy_protocol.from") {
		s.d.bad(v, "names no proxy", "add from: [10.0.0.1]")
	}
	return Proxy{s.proxies(), s.duration("proxy_protocol.timeout")}
}

// proxies reads the networks of proxy_protocol.from.
func (s section) proxies() (list []netip.Prefix) {
	for _, item := range s.items("proxy_protocol.from", "name the proxy, or leave proxy_protocol out") {
		text, ok := s.d.item(item)
		if !ok {
			continue
		}
		spec, canonical, err := ParseSpec(text)
		switch {
		case strings.HasPrefix(text, "@"):
			s.d.bad(item, "must be an address or a network, not "+quote(text), "files of rules are for allow and deny; name the proxies here")
		case err != nil:
			s.d.fault(item, err)
		case spec.Kind != NetworkSpec:
			s.d.bad(item, "must be an address or a network, not "+quote(text), "")
		case slices.Contains(list, spec.Network):
			s.d.bad(item, quote(text)+" is repeated", "")
		case canonical != "":
			s.d.warn(item, beyondNetwork(text, canonical))
		}
		list = append(list, spec.Network)
	}
	return list
}

// items are those of a list that must not be empty.
func (s section) items(name, hint string) []value {
	if !s.written(name) {
		return nil
	}
	v := s.get(name)
	items := s.d.list(v)
	if v.node.Kind == yaml.SequenceNode && len(v.node.Content) == 0 {
		s.d.bad(v, "is empty", hint)
	}
	return items
}

// failures reads when a service pauses. What its clients are told meanwhile is
// one of refuseText.
func (s section) failures() Failures {
	if !s.written("failures") {
		return Failures{}
	}
	return Failures{s.integer("failures.after"), s.duration("failures.within"), s.duration("failures.pause")}
}

// longestRefusal is what a socket takes at once, in bytes, as nobody waits for
// a client that is refused.
const longestRefusal = 4096

const failing = "failing" // the reason that failures.text is for

// refuseText reads what refused clients are told, by reason.
func (s section) refuseText() map[string]string {
	if !s.written("refuse_text") && !s.written("failures.text") {
		return nil
	}
	texts := map[string]string{}
	switch v := s.get("refuse_text"); {
	case !s.written("refuse_text"):
	case v.node.Kind == yaml.MappingNode:
		s.textsByReason(v, texts)
	case hasText(v.node):
		text := s.d.refusal(v)
		for _, reason := range v.key.Words {
			texts[reason] = text
		}
	default:
		s.d.wrong(v, "")
	}
	if s.written("failures.text") && !s.saysFailing() {
		texts[failing] = s.d.refusal(s.get("failures.text"))
	}
	return texts
}

// saysFailing tells whether the service itself has a text for which defaults have
// another.
func (s section) saysFailing() bool {
	if !s.d.lent["failures.text"] || !s.written("refuse_text") || s.d.lent["refuse_text"] {
		return false
	}
	n := s.get("refuse_text").node
	_, named := placesOf(n)[failing]
	return n.Kind != yaml.MappingNode || named && !s.d.lent["refuse_text.failing"]
}

func (s section) textsByReason(v value, texts map[string]string) {
	for _, e := range s.d.entries(v) {
		item := s.d.value(e.node, e.path, &refusalKey)
		switch {
		case !slices.Contains(v.key.Words, e.name):
			s.d.report(e.at, e.path, "no such reason", cmpHint(didYouMean(nearest(e.name, v.key.Words)), "the reasons are "+strings.Join(v.key.Words, ", ")))
		case e.name == failing && s.written("failures.text") && !s.saysFailing():
			s.d.bad(item, "failures.text "+s.get("failures.text").at.from(item.at)+" says it already", "keep one of them")
		}
		texts[e.name] = s.d.refusal(item)
	}
}

// refusalKey is what the text of a reason is checked as.
var refusalKey = Key{Kind: Text}

func (d *decoder) refusal(v value) string {
	text := d.text(v)
	switch {
	case hasText(v.node) && text == "":
		d.bad(v, "is empty", "leave it out")
	case len(text) > longestRefusal:
		d.bad(v, fmt.Sprintf("has %d bytes, a refusal has at most %d", len(text), longestRefusal), "")
	}
	return text
}
