package spawn

import "golang.org/x/sys/unix"

// A cell is what one program with a /tmp of its own is put into: a mount
// namespace that no other has been in and, where the program is confined, the
// set of Landlock rules that opens its /tmp. It is used once.
type cell struct {
	namespace int    // above the window, like rules
	rules     int    // -1 where there is none, or a child has it
	edition   uint64 // of the rules that the set was made of
}

// newCell makes a cell for a program of p. It leaves the calling thread in the
// new namespace. Own is the thread's directory of namespaces, since /proc may
// not be there.
func (p *Plan) newCell(own int) (*cell, error) {
	if err := unix.Setns(p.walls.template, unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return nil, err
	}
	if err := mountTmp(p.walls.tmps); err != nil {
		return nil, err
	}
	low, err := unix.Openat(own, "mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &cell{rules: -1}
	if c.namespace, err = p.engine.Above(low); err != nil {
		return nil, err
	}
	if p.needsTmpRule() {
		if err := p.walls.rules.furnish(c, p.walls.tmps[0]); err != nil {
			unix.Close(c.namespace)
			return nil, err
		}
	}
	return c, nil
}

// mountTmp does to the calling thread's namespace what the steps of
// addPrivateTmp do to a child's.
func mountTmp(list []string) error {
	if err := unix.Mount("tmpfs", list[0], "tmpfs", tmpfsFlags, tmpfsOptions); err != nil {
		return err
	}
	for _, other := range list[1:] {
		if err := unix.Mount(list[0], other, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

// lendRules moves the set into the window, for the child that gets c.
func (c *cell) lendRules() (int, error) {
	low, err := dupFrom(c.rules, 0)
	unix.Close(c.rules)
	c.rules = -1
	return low, err
}

// useCell has the child of in get a cell and walk past the steps that would
// make one, or, where none is ready, walk through them.
func (in *instance) useCell() {
	in.cell = in.plan.engine.keeper.take(in.plan.walls.stock)
	if passes := in.cell != nil; passes != in.passes {
		in.passes = passes
		for _, i := range in.plan.walls.furnishing {
			in.steps[i].number = in.plan.steps[i].number
			if passes {
				in.steps[i].number = unix.SYS_GETPID // which does nothing
			}
		}
	}
}
