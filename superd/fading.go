package main

import (
	"slices"

	"superd/superd/internal/config"
	"superd/superd/internal/listen"
)

// A socket of datagrams whose time is over is open as long as somebody is
// answered from it: it fades. A reload that wants its address again takes it as
// it is.

// fade notes that a socket fades. The hall's thread calls it.
func (d *daemon) fade(s *site) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fading = append(d.fading, s)
}

// gone closes a socket that fades, once nobody is answered from it, unless a
// reload is about to take it. It fades up to its end: nobody comes in by it any
// more.
func (h *hall) gone(k *listen.Socket) {
	if h.fading[k] && h.wards[k] == nil && h.daemon.faded(k) {
		h.set.Finish(k)
		delete(h.fading, k)
	}
}

// faded takes a socket from those that fade; false where it is none of them.
func (d *daemon) faded(k *listen.Socket) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.fading, func(s *site) bool { return s.socket == k })
	if i >= 0 {
		d.fading = slices.Delete(d.fading, i, i+1)
	}
	return i >= 0
}

// takeFading takes all sockets that fade, for a generation that may have a use
// for them. None is closed until leaveFading.
func (d *daemon) takeFading() (list []*site) {
	d.mu.Lock()
	defer d.mu.Unlock()
	list, d.fading = d.fading, nil
	return list
}

// leaveFading gives those back that the generation has no use for.
func (d *daemon) leaveFading(list []*site) {
	for _, s := range list {
		d.fade(s)
		h := s.service.hall
		h.set.Order(func() { h.gone(s.socket) })
	}
}

// reachable tells whether peers could send to a socket that fades as before:
// the file of a unix socket is gone.
func reachable(l *config.Listener) bool { return l.Family != config.Unix || l.Name[0] == '@' }
