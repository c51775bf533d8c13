// Bench measures superd against the other superservers of the machine: the
// same tiny static program, the same client, one after another and round by
// round, so that a machine that changes its speed changes it for all.
//
// Usage: bench [-n CONNECTIONS] [-c AT-ONCE] [-rounds ROUNDS] [-only NAME] SUPERD
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

func main() {
	n := flag.Int("n", 10_000, "connections in a round")
	c := flag.Int("c", 50, "connections at once")
	rounds := flag.Int("rounds", 3, "rounds")
	only := flag.String("only", "", "measure only this `server`")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := measure(flag.Arg(0), *only, *n, *c, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(superd, only string, n, c, rounds int) error {
	b, err := newBench(superd)
	if err != nil {
		return err
	}
	defer b.close()
	results := map[string][]result{}
	list := b.peers()
	for range rounds {
		for _, p := range list {
			if only != "" && p.name != only || !p.installed() {
				continue
			}
			r, err := b.round(p, n, c)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			results[p.name] = append(results[p.name], r)
		}
	}
	print(list, results, n, c)
	return nil
}

func print(list []peer, results map[string][]result, n, c int) {
	fmt.Printf("%d connections, %d at once; medians of the rounds\n", n, c)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "connections/s\tmedian\t99 of 100\twrong\t\tserver")
	for _, p := range list {
		r := results[p.name]
		if len(r) == 0 {
			fmt.Fprintf(w, "-\t-\t-\t-\t\t%s (not measured)\n", p.name)
			continue
		}
		slices.SortFunc(r, func(a, b result) int { return int(a.perSecond - b.perSecond) })
		m := r[len(r)/2]
		fmt.Fprintf(w, "%.0f\t%s\t%s\t%d\t\t%s\n", m.perSecond, m.median.Round(time.Microsecond), m.tail.Round(time.Microsecond), m.wrong, p.name)
	}
	w.Flush()
}

// summary turns what was measured in elapsed into a result.
func (l *load) summary(elapsed time.Duration) result {
	if len(l.waits) == 0 {
		return result{wrong: l.wrong}
	}
	slices.Sort(l.waits)
	return result{
		perSecond: float64(l.done) / elapsed.Seconds(),
		median:    l.waits[len(l.waits)/2],
		tail:      l.waits[len(l.waits)*99/100],
		wrong:     l.wrong,
	}
}
