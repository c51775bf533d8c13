package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"superd/superd/internal/control"
)

// How people are shown what superd answers. Nothing of it reaches a terminal
// but printable characters.

// table aligns rows of cells.
func table(rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// printable replaces what is not: a cell is one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func statusText(s control.Status) string {
	head := fmt.Sprintf("superd %s, process %d, %s for %s; %s, generation %d since %s; live %s",
		s.Version, s.PID, s.State, shortTime(s.UptimeMS), s.File, s.Generation, minute(s.Loaded), ofMost(s.Live, s.Max))
	rows := [][]string{{"SERVICE", "STATE", "LIVE", "WAITING", "TOTAL", "FAILED", "REFUSED", "SINCE", "LISTEN"}}
	for _, v := range s.Services {
		rows = append(rows, []string{v.Name, stateText(&v), ofMost(int(v.Live), v.Max), fmt.Sprint(v.Waiting), fmt.Sprint(v.Total),
			fmt.Sprint(v.Failed), refusedText(&v), minute(v.Since), strings.Join(v.Listen, " ")})
	}
	return printable(head) + "\n\n" + table(rows) + blocksText(s.Blocks)
}

// minute is a time of this machine's clock.
func minute(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// ofMost is a number and its limit.
func ofMost(n, most int) string {
	if most == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d/%d", n, most)
}

func stateText(v *control.Service) string {
	text := v.State
	if v.FailingFor != "" {
		text += " for " + v.FailingFor
	}
	if v.PausedMS > 0 {
		text += ", " + shortTime(v.PausedMS) + " more"
	}
	return text
}

// refusedText is the number of refusals, and of each reason.
func refusedText(v *control.Service) string {
	text := fmt.Sprint(v.Refused)
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(v.RefusedBy)) {
		parts = append(parts, fmt.Sprint(reason, " ", v.RefusedBy[reason]))
	}
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

func blocksText(list []control.Block) string {
	if len(list) == 0 {
		return ""
	}
	rows := [][]string{{"BLOCKED", "SERVICE", "LEFT"}}
	for _, b := range list {
		service, left := b.Service, "until it is unblocked"
		if service == "" {
			service = "all"
		}
		if b.LeftMS > 0 {
			left = shortTime(b.LeftMS)
		}
		rows = append(rows, []string{b.Source, service, left})
	}
	return "\n" + table(rows)
}

func connectionsText(list []control.Connection) string {
	rows := [][]string{{"ID", "SERVICE", "PEER", "PID", "STATE", "AGE", "IDLE", "IN", "OUT", "RTT"}}
	for _, c := range list {
		rows = append(rows, []string{c.ID, c.Service, cmp.Or(c.Peer, "-"), fmt.Sprint(c.PID), c.State, shortTime(c.AgeMS),
			orNothing(c.IdleMS, shortTime), orNothing(c.BytesIn, shortSize), orNothing(c.BytesOut, shortSize), orNothing(c.RTTUS, shortMicroseconds)})
	}
	return table(rows)
}

func orNothing(n *int64, form func(int64) string) string {
	if n == nil {
		return "-"
	}
	return form(*n)
}

// shortTime writes milliseconds in the two largest units that they have.
func shortTime(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", ms)
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
}

func shortMicroseconds(us int64) string {
	if us < 1000 {
		return fmt.Sprintf("%dus", us)
	}
	return fmt.Sprintf("%.1fms", float64(us)/1000)
}

// shortSize writes bytes in a unit of the file's, K, M, G or T.
func shortSize(n int64) string {
	if n < 1024 {
		return fmt.Sprint(n)
	}
	size, unit := float64(n)/1024, 0
	const units = "KMGT"
	for size >= 1024 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	return fmt.Sprintf("%.1f%c", size, units[unit])
}

func reportText(r control.Report) string {
	var b strings.Builder
	for _, name := range r.Added {
		fmt.Fprintf(&b, "added %s\n", printable(name))
	}
	for _, name := range r.Removed {
		fmt.Fprintf(&b, "removed %s\n", printable(name))
	}
	for _, name := range r.Resumed {
		fmt.Fprintf(&b, "resumed %s\n", printable(name))
	}
	for _, c := range r.Changed {
		fmt.Fprintf(&b, "changed %s\n", printable(c.Service))
		for _, key := range c.Keys {
			fmt.Fprintf(&b, "    %s\n", printable(key))
		}
	}
	if len(r.Settings) > 0 {
		fmt.Fprintf(&b, "changed beside services\n")
	}
	for _, key := range r.Settings {
		fmt.Fprintf(&b, "    %s\n", printable(key))
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", printable(w))
	}
	fmt.Fprintf(&b, "generation %d\n", r.Generation)
	return b.String()
}
