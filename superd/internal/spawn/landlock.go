package spawn

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// What the words of the file mean in rights. To create a device is nobody's.
const (
	reading   = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	executing = reading | unix.LANDLOCK_ACCESS_FS_EXECUTE
	writing   = reading | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE |
		unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR |
		unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	// onFiles are the rights that a rule for something other than a directory
	// may have (landlock(7)).
	onFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// landlockKey is the key of the file that asks for rules.
func (p *Plan) landlockKey() string {
	if p.spec.Sandbox.Confined {
		return "sandbox"
	}
	return "sandbox.network"
}

// withoutLandlock says what is open where there are no rules.
func (p *Plan) withoutLandlock() string {
	switch {
	case !p.spec.Sandbox.Confined && p.walls.network != nil:
		return "a program that dissolves its connection can connect or bind the socket anew, in the network of the machine"
	case !p.spec.Sandbox.Confined:
		return "TCP is open too"
	case p.walls.readOnly:
		return "what the user may read is open for reading"
	}
	return "the file system is open as far as the user's permissions go"
}

// buildLandlock makes the set of rules of a service that is confined, or that
// has neither a network nor a namespace without one.
func (p *Plan) buildLandlock() error {
	d := p.demand()
	if d == (demand{}) {
		return nil
	}
	if !p.mayRestrictItself() {
		return errors.New("a program that is not root needs no_new_privs for it")
	}
	abi, err := p.engine.landlockABI()
	if err != nil {
		return err
	}
	attr, lacking := enforceable(d, abi)
	p.walls.unguarded = unguarded(d, abi)
	for _, l := range lacking {
		p.lack(Fault{Key: p.landlockKey(), What: l}, "")
	}
	if attr == (unix.LandlockRulesetAttr{}) {
		return nil
	}
	return p.buildRules(attr)
}

// demand is what p's service asks of Landlock.
func (p *Plan) demand() demand {
	s := &p.spec.Sandbox
	if s.Preset == "" {
		return demand{}
	}
	alone := !s.Network && p.walls.network == nil && s.BestEffort // else its absence has been told
	return demand{
		files:    s.Confined,
		truncate: s.Confined && !p.walls.readOnly && p.spec.Image == nil,
		tcp:      !s.Network && (alone || p.mayRestrictItself()), // the connection itself belongs to superd's network
		tcpAlone: alone,
	}
}

// mayRestrictItself tells whether landlock_restrict_self(2) will be allowed.
func (p *Plan) mayRestrictItself() bool {
	s := &p.spec.Sandbox
	return s.NoNewPrivs || p.spec.runsAsRoot() && !p.spec.losesCapabilities() || slices.Contains(s.Capabilities, "sys_admin")
}

// buildRules makes the set that children get.
func (p *Plan) buildRules(attr unix.LandlockRulesetAttr) error {
	r := &rules{window: p.engine.window, attr: attr, root: p.spec.Chroot, set: -1}
	r.fresh = len(p.walls.tmps) > 0 && attr.Handled_access_fs != 0
	if p.spec.Sandbox.Confined {
		r.openings = p.openings()
	}
	if err := p.checkListed(r.openings); err != nil {
		return err
	}
	p.walls.rules = r
	if err := r.refresh(); err != nil {
		return err
	}
	p.walls.landlock = p.borrowEach("the Landlock rules", func(in *instance) (int, error) {
		if in.cell != nil && in.cell.rules >= 0 {
			return in.cell.lendRules()
		}
		return r.lend()
	})
	return nil
}

// checkListed tells of the paths that the file lists and that do not exist.
// They become optional, since that has been told.
func (p *Plan) checkListed(list []opening) error {
	t, err := openTree(p.spec.Chroot)
	if err != nil {
		return err
	}
	defer t.close()
	for i, o := range list {
		if o.optional {
			continue
		}
		fd, err := t.open(o.path, unix.O_PATH)
		if err == nil {
			unix.Close(fd)
			continue
		}
		p.lack(Fault{Key: o.key, What: err.Error()}, "")
		list[i].optional = true
	}
	return nil
}
