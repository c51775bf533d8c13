package main

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/control"
	"superd/superd/internal/event"
)

// What superd measures, under the names that superd(8) lists. Labels are
// services, reasons and other closed lists: never anything that a client can
// choose.

// Healthy implements control.Pages.
func (o *operator) Healthy() error { return o.health(healthTime) }

// healthTime is how long a thread that does its work may take to say so.
const healthTime = 2 * time.Second

// Ready implements control.Pages.
func (o *operator) Ready() error {
	if now := o.phase.Load(); now != phaseServing {
		return errors.New(phaseWords[now])
	}
	return nil
}

// Metrics implements control.Pages.
func (o *operator) Metrics(m *control.Metrics) {
	p := o.daemon.present()
	o.ownMetrics(m, &p)
	o.processMetrics(m)
	list := make([]measured, len(p.services))
	for i, s := range p.services {
		list[i] = measured{o.statusOf(s, p.local[s]), s.conn.Events.Counts(), s.conn.Events.Usage()}
	}
	connectionMetrics(m, list)
	timeMetrics(m, list)
	usageMetrics(m, list)
}

// measured is what is known of one service.
type measured struct {
	status control.Service
	counts event.Counts
	usage  event.Usage
}

// single adds a family of one number.
func single(m *control.Metrics, name, kind, help string, n float64) {
	m.Family(name, kind, help)
	m.Number(n)
}

func (o *operator) ownMetrics(m *control.Metrics, p *present) {
	m.Family("superd_build_info", control.Gauge, "Always 1; the version that runs.")
	m.Number(1, "version", version, "goversion", runtime.Version())
	single(m, "superd_ready", control.Gauge, "1 while superd takes connections, 0 while it drains or stops.", truth(o.phase.Load() == phaseServing))
	single(m, "superd_config_generation", control.Gauge, "How many times a file has come into force.", float64(p.generation))
	single(m, "superd_config_last_reload_successful", control.Gauge, "1 where the file that was read last is in force.", truth(!p.stale))
	single(m, "superd_config_last_reload_success_timestamp_seconds", control.Gauge, "When the file in force was read.", seconds(p.loaded))
	single(m, "superd_connections_limit", control.Gauge, "Connections that may live at a time over all services.", float64(p.room))
	single(m, "superd_blocks", control.Gauge, "Sources that are kept out, of all services or of one.", float64(len(o.Blocks())))
	single(m, "superd_log_lines_dropped_total", control.Counter, "Lines that never reached the log.", float64(o.daemon.log.Dropped()))
	single(m, "superd_orphans_reaped_total", control.Counter, "Processes of others that superd has reaped as process 1.", float64(adopted.reaped.Load()))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// processMetrics are of superd's own process, under the names that they have
// everywhere.
func (o *operator) processMetrics(m *control.Metrics) {
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) == nil {
		single(m, "process_cpu_seconds_total", control.Counter, "Processor time that superd itself has used.",
			(time.Duration(used.Utime.Nano()) + time.Duration(used.Stime.Nano())).Seconds())
	}
	single(m, "process_resident_memory_bytes", control.Gauge, "Memory that superd itself has resident.", resident())
	single(m, "process_open_fds", control.Gauge, "Descriptors that superd itself has open.", openDescriptors())
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		single(m, "process_max_fds", control.Gauge, "Descriptors that superd may have open.", float64(limit.Cur))
	}
	single(m, "process_start_time_seconds", control.Gauge, "When superd was started.", seconds(o.daemon.began))
	single(m, "go_goroutines", control.Gauge, "Goroutines of superd.", float64(runtime.NumGoroutine()))
}

// openDescriptors asks the kernel for the number, and counts where it does not
// know it (before Linux 6.2).
func openDescriptors() float64 {
	const path = "/proc/self/fd"
	var table unix.Stat_t
	if unix.Stat(path, &table) == nil && table.Size > 0 {
		return float64(table.Size)
	}
	names, _ := os.ReadDir(path)
	return float64(len(names))
}

// resident reads the second number of statm, which is of pages (proc(5)).
func resident() float64 {
	statm, err := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(statm))
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize())
}

// each adds a family with one number for each service.
func each(m *control.Metrics, list []measured, name, kind, help string, of func(*measured) float64) {
	m.Family(name, kind, help)
	for i := range list {
		m.Number(of(&list[i]), "service", list[i].status.Name)
	}
}

// stateWords are all that a service's state can be.
var stateWords = []string{"ready", "failing", "trying", "draining", "disabled"}

func connectionMetrics(m *control.Metrics, list []measured) {
	m.Family("superd_service_state", control.Gauge, "1 for the state that the service is in, 0 for the others.")
	for _, s := range list {
		for _, word := range stateWords {
			m.Number(truth(s.status.State == word), "service", s.status.Name, "state", word)
		}
	}
	each(m, list, "superd_connections_live", control.Gauge, "Connections that are accepted and have not ended.",
		func(s *measured) float64 { return float64(s.counts.Live) })
	each(m, list, "superd_connections_max", control.Gauge, "Connections of the service that may live at a time; 0 for no limit of its own.",
		func(s *measured) float64 { return float64(s.status.Max) })
	each(m, list, "superd_connections_waiting", control.Gauge, "Connections that are accepted and wait for a place.",
		func(s *measured) float64 { return float64(s.status.Waiting) })
	each(m, list, "superd_connections_accepted_total", control.Counter, "Connections that were accepted.",
		func(s *measured) float64 { return float64(s.counts.Accepted) })
	m.Family("superd_connections_total", control.Counter, "Connections that are over, by what became of them: the program ended with status 0, or otherwise, or the connection was refused.")
	for _, s := range list {
		m.Number(float64(s.counts.Exited-s.counts.Failed), "service", s.status.Name, "result", "ok")
		m.Number(float64(s.counts.Failed), "service", s.status.Name, "result", "failed")
		m.Number(float64(s.counts.RefusedTotal()), "service", s.status.Name, "result", "refused")
	}
	m.Family("superd_connections_refused_total", control.Counter, "Connections that were refused, by the reason.")
	for _, s := range list {
		for _, reason := range event.Reasons() {
			m.Number(float64(s.counts.Refused[reason]), "service", s.status.Name, "reason", reason.String())
		}
	}
	each(m, list, "superd_bans", control.Gauge, "Sources that the service has banned.",
		func(s *measured) float64 { return float64(s.status.Bans) })
}

func timeMetrics(m *control.Metrics, list []measured) {
	for _, h := range []struct {
		name, help string
		of         func(*event.Usage) event.Histogram
	}{
		{"superd_queue_wait_seconds", "From accept until the connection had its place, of those that waited.",
			func(u *event.Usage) event.Histogram { return u.Queued }},
		{"superd_spawn_seconds", "From when the connection had its place until the process for its program existed.",
			func(u *event.Usage) event.Histogram { return u.Spawned }},
		{"superd_session_seconds", "From accept until the program had ended.",
			func(u *event.Usage) event.Histogram { return u.Lasted }},
	} {
		m.Histogram(h.name, h.help)
		for i := range list {
			times := h.of(&list[i].usage)
			bounds := make([]float64, len(times.Bounds))
			for k, b := range times.Bounds {
				bounds[k] = b.Seconds()
			}
			m.Buckets(bounds, times.Counts, times.Sum.Seconds(), "service", list[i].status.Name)
		}
	}
}

func usageMetrics(m *control.Metrics, list []measured) {
	each(m, list, "superd_received_bytes_total", control.Counter, "Bytes that clients have sent, of connections that have ended.",
		func(s *measured) float64 { return float64(s.usage.BytesIn) })
	each(m, list, "superd_sent_bytes_total", control.Counter, "Bytes that programs have written to clients, of connections that have ended.",
		func(s *measured) float64 { return float64(s.usage.BytesOut) })
	m.Family("superd_datagrams_dropped_total", control.Counter, "Datagrams that were dropped: in, that a program was to get, and out, that a peer was to get.")
	for _, s := range list {
		for way, n := range s.counts.Undelivered {
			m.Number(float64(n), "service", s.status.Name, "direction", event.Way(way).String())
		}
	}
	m.Family("superd_cpu_seconds_total", control.Counter, "Processor time of programs that have ended.")
	for _, s := range list {
		m.Number(s.usage.User.Seconds(), "service", s.status.Name, "mode", "user")
		m.Number(s.usage.System.Seconds(), "service", s.status.Name, "mode", "system")
	}
	each(m, list, "superd_stderr_lines_total", control.Counter, "Lines that programs have written to their standard error output.",
		func(s *measured) float64 { return float64(s.usage.StderrLines) })
	each(m, list, "superd_stderr_lines_dropped_total", control.Counter, "Lines of their standard error output that never reached the log.",
		func(s *measured) float64 { return float64(s.counts.LostStderr) })
}

var _ control.Pages = (*operator)(nil)
