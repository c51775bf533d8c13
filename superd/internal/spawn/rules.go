package spawn

import (
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// rules is the Landlock wall of one plan: what its programs may open.
type rules struct {
	window   window
	attr     unix.LandlockRulesetAttr
	root     string // the program's root directory
	openings []opening
	fresh    bool // each program gets a set of its own, to which its /tmp is added

	mu      sync.Mutex
	made    []rule // guarded by mu; in the order of openings
	set     int    // the set made of them, above the window; guarded by mu
	edition uint64 // counts how often they were made; guarded by mu
}

// A rule is an opening that has been looked up.
type rule struct {
	at     place  // zero where it does not exist
	access uint64 // what of the opening's applies to it
	fd     int    // above the window; -1 where it does not exist, or is no longer needed
}

// Refresh makes p's Landlock rules anew where a path in them leads to another
// file by now: a rule is about a file and not about its name, and a package
// upgrade, useradd(8) or ldconfig(8) puts a new file in the place of an old
// one. Programs that run keep the old rules. Where a path no longer exists,
// an error says so and all stays as it was.
func (p *Plan) Refresh() error {
	if p.walls.rules == nil {
		return nil
	}
	return p.walls.rules.refresh()
}

func (r *rules) refresh() error {
	now, err := r.lookUp()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	same := func(a, b rule) bool { return a.at == b.at && a.access == b.access }
	if r.set >= 0 && slices.EqualFunc(now, r.made, same) {
		closeRules(now)
		return nil
	}
	set, err := newRuleSet(&r.attr, now)
	if err == nil {
		set, err = r.window.above(set)
	}
	if err != nil {
		closeRules(now)
		return err
	}
	r.drop()
	r.made, r.set = now, set
	r.edition++
	if !r.fresh {
		closeRules(r.made)
	}
	return nil
}

// lookUp follows the openings.
func (r *rules) lookUp() ([]rule, error) {
	t, err := openTree(r.root)
	if err != nil {
		return nil, err
	}
	defer t.close()
	list := make([]rule, 0, len(r.openings))
	for _, o := range r.openings {
		found, err := r.find(t, o)
		if err != nil {
			closeRules(list)
			return nil, err
		}
		list = append(list, found.unless(list))
	}
	return list, nil
}

// unless drops the file of r where one of list says the same: /lib is a link
// to /usr/lib nearly everywhere, and each rule costs each start 2 µs.
func (r rule) unless(list []rule) rule {
	covers := func(l rule) bool { return l.fd >= 0 && l.at == r.at && l.access&r.access == r.access }
	if r.fd >= 0 && slices.ContainsFunc(list, covers) {
		unix.Close(r.fd)
		r.fd = -1
	}
	return r
}

func (r *rules) find(t tree, o opening) (rule, error) {
	low, err := t.open(o.path, unix.O_PATH)
	if err != nil {
		if o.optional {
			err = nil
		}
		return rule{fd: -1}, err
	}
	fd, err := r.window.above(low)
	if err != nil {
		return rule{fd: -1}, err
	}
	at, directory, err := placeOf(fd)
	if err != nil {
		unix.Close(fd)
		return rule{fd: -1}, err
	}
	access := o.access & r.attr.Handled_access_fs
	if !directory {
		access &= onFiles
	}
	return rule{at, access, fd}, nil
}

// lend gives a child the set, or one of its own: a copy cannot be had, and
// costs as much as the first.
func (r *rules) lend() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fresh {
		return newRuleSet(&r.attr, r.made)
	}
	return dupFrom(r.set, 0)
}

// furnish makes the set of c, whose tmpfs is at path, by r as it is now.
func (r *rules) furnish(c *cell, path string) error {
	tmp, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(tmp)
	r.mu.Lock()
	set, err := newRuleSet(&r.attr, r.made)
	c.edition = r.edition
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if err := addRule(set, rule{fd: tmp, access: writing & r.attr.Handled_access_fs}); err != nil {
		unix.Close(set)
		return err
	}
	c.rules, err = r.window.above(set)
	return err
}

// current tells whether c was furnished by r as it is now. Where there are no
// rules, r is nil.
func (r *rules) current(c *cell) bool {
	if c.rules < 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.edition == r.edition
}

func (r *rules) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop()
}

// drop closes what r holds. The caller has the lock.
func (r *rules) drop() {
	closeRules(r.made)
	if r.set >= 0 {
		unix.Close(r.set)
	}
	r.set = -1
}

// closeRules closes the files of list; what was found stays.
func closeRules(list []rule) {
	for i := range list {
		if list[i].fd >= 0 {
			unix.Close(list[i].fd)
		}
		list[i].fd = -1
	}
}
