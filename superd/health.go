package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/event"
)

// How superd knows, and tells, that it does its work.

// health asks each thread that superd's work depends on whether it goes on,
// all within a time. Once superd is about to end, nobody accepts any more.
func (o *operator) health(within time.Duration) error {
	end := time.Now().Add(within)
	if o.phase.Load() < phaseLeaving {
		for _, set := range o.daemon.sets {
			if !set.Answers(time.Until(end)) && o.phase.Load() < phaseLeaving {
				return errors.New("connections are not accepted")
			}
		}
	}
	if !o.daemon.table.Answers(time.Until(end)) {
		return errors.New("programs are not watched")
	}
	return nil
}

// tell tells the service manager; that it cannot be told is said once.
func (o *operator) tell(assignments ...string) {
	err := o.notify.tell(assignments...)
	if err != nil && !o.mute.Swap(true) {
		o.daemon.log.Warn("cannot tell the service manager how superd is", event.F("error", err.Error()))
	}
}

// summary is how things stand, in one line for people.
func (o *operator) summary() string {
	return fmt.Sprintf("STATUS=%s: %s, %s", phaseWords[o.phase.Load()],
		plural(len(o.daemon.present().services), "service", "services"), plural(o.daemon.house.Live(), "live connection", "live connections"))
}

// feed gives the watchdog its signs of life, and only while superd is well: it
// returns with close. Without them, the service manager starts superd anew.
func (o *operator) feed() {
	interval := o.notify.watchdog / 2
	if interval == 0 {
		return
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for well := true; ; {
		err := o.health(interval)
		if err == nil {
			o.tell("WATCHDOG=1", o.summary())
		} else if well {
			o.daemon.log.Error("the watchdog is not told that superd is well", event.F("error", err.Error()))
		}
		well = err == nil
		select {
		case <-ticker.C:
		case <-o.quit:
			return
		}
	}
}

// announceReload tells the service manager that the file is being read again,
// and when that began; READY=1 says that it is over (sd_notify(3)).
func (o *operator) announceReload() {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	o.tell("RELOADING=1", assign("MONOTONIC_USEC", now.Nano()/int64(time.Microsecond)))
}

// lastWords is how much longer than its drain superd may take to end.
const lastWords = 15 * time.Second

// announceEnd tells the service manager to be patient: it kills what takes
// longer to end than it was told, and a drain can take long.
func (o *operator) announceEnd() {
	p := o.daemon.present()
	patience := p.config.Drain + lastWords
	for _, s := range p.services {
		patience = max(patience, p.config.Drain+s.config.Timeout.Stop+lastWords)
	}
	o.tell("STOPPING=1", assign("EXTEND_TIMEOUT_USEC", patience.Microseconds()), o.summary())
}
