package control

import (
	"bytes"
	"strconv"
	"strings"
)

// Metrics is numbers in the text form of Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/). It is these
// lines and not the client library: that would bring 60 packages, and 2.5 MB of
// the binary and of memory, to hold counters that are there already.
type Metrics struct {
	text   bytes.Buffer
	family string
}

// The kinds of a family.
const (
	Counter   = "counter"
	Gauge     = "gauge"
	histogram = "histogram"
)

// Family begins the numbers of one name. Help is one line.
func (m *Metrics) Family(name, kind, help string) {
	m.family = name
	m.write("# HELP ", name, " ", helpText.Replace(help), "\n# TYPE ", name, " ", kind, "\n")
}

var (
	helpText  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelText = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// Number adds one number of the family. Labels are names and values in turn.
func (m *Metrics) Number(n float64, labels ...string) { m.sample("", n, labels) }

// Histogram begins a family of histograms, of seconds.
func (m *Metrics) Histogram(name, help string) { m.Family(name, histogram, help) }

// Buckets adds one histogram of the family: counts up to each bound, the
// shorter ones included, and the last one of all.
func (m *Metrics) Buckets(bounds []float64, counts []uint64, sum float64, labels ...string) {
	for i, n := range counts {
		bound := "+Inf"
		if i < len(bounds) {
			bound = number(bounds[i])
		}
		m.sample("_bucket", float64(n), append(labels[:len(labels):len(labels)], "le", bound))
	}
	m.sample("_sum", sum, labels)
	m.sample("_count", float64(counts[len(counts)-1]), labels)
}

func (m *Metrics) sample(suffix string, n float64, labels []string) {
	m.write(m.family, suffix)
	before := "{"
	for i := 0; i+1 < len(labels); i += 2 {
		m.write(before, labels[i], `="`, labelText.Replace(labels[i+1]), `"`)
		before = ","
	}
	if before != "{" {
		m.write("}")
	}
	m.write(" ", number(n), "\n")
}

func (m *Metrics) write(parts ...string) {
	for _, p := range parts {
		m.text.WriteString(p)
	}
}

// number is n as short as it can be told apart from others.
func number(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }
