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
	d.calm.Lock()
	defer d.calm.Unlock()
	for {
		w, decision, some := d.house.Next(d.now())
		if !some {
			return
		}
		g := w.Host.(*guest)
		g.hall.set.Order(func() { g.settled(decision) })
	}
}

// lookAtLoad tells the house the load average, if anybody is kept out by it.
func (d *daemon) lookAtLoad() {
	d.mu.Lock()
	limited := d.config.Limits.MaxLoad > 0 || slices.ContainsFunc(d.services, func(s *service) bool { return s.config.MaxLoad > 0 })
	d.mu.Unlock()
	var info unix.Sysinfo_t
	if limited && unix.Sysinfo(&info) == nil {
		d.house.SetLoad(float64(info.Loads[0]) / (1 << 16)) // sysinfo(2): a fixed-point number
	}
}
