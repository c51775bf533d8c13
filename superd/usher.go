package main

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// call implements the house's wake.
func (d *daemon) call() {
	select {
	case d.called <- struct{}{}:
	default: // it has been called already
	}
}

// usher has the guests whose turn it is, or whose time is over, told so by the
// threads that they belong to. It returns once quit is closed and everybody has
// been told.
func (d *daemon) usher(quit <-chan struct{}) {
	clock := time.NewTimer(0)
	defer clock.Stop()
	for {
		select {
		case <-d.called:
		case <-clock.C:
		case <-quit:
			d.tellAll()
			return
		}
		d.tellAll()
		if due, some := d.house.Due(); some {
			clock.Reset(due - d.now().Since)
		}
	}
}

func (d *daemon) tellAll() {
	for {
		w, decision, some := d.house.Next(d.now())
		if !some {
			return
		}
		g := w.Host.(*guest)
		g.hall.set.Order(func() { g.settled(decision) })
	}
}

// betweenLoads is how often the kernel computes the load average anew.
const betweenLoads = 5 * time.Second

// watchLoad tells the house the load average from time to time, until quit is
// closed.
func (d *daemon) watchLoad(quit <-chan struct{}) {
	ticker := time.NewTicker(betweenLoads)
	defer ticker.Stop()
	for {
		d.house.SetLoad(loadAverage())
		select {
		case <-ticker.C:
		case <-quit:
			return
		}
	}
}

// loadAverage is that of the last minute (sysinfo(2)); 0 where it is not told.
func loadAverage() float64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return float64(info.Loads[0]) / (1 << 16)
}

// limitsLoad tells whether anybody is kept out by the load average.
func (d *daemon) limitsLoad() bool {
	limited := func(s *service) bool { return s.config.MaxLoad > 0 }
	return d.config.Limits.MaxLoad > 0 || slices.ContainsFunc(d.services, limited)
}
