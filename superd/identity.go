package main

import (
	"errors"
	"fmt"
	"os"

	"superd/superd/internal/config"
	"superd/superd/internal/listen"
	"superd/superd/internal/spawn"
)

// unprivileged is who a service without a user runs as when superd is root.
const unprivileged = "nobody"

// identities finds out as whom services run. It asks the system's databases
// once for each user.
type identities struct {
	databases spawn.Databases
	root      bool
	self      uint32
	group     uint32
	known     map[string]*spawn.Identity
}

func newIdentities(d spawn.Databases) *identities {
	return &identities{
		databases: d,
		root:      os.Geteuid() == 0,
		self:      uint32(os.Geteuid()),
		group:     uint32(os.Getegid()),
		known:     map[string]*spawn.Identity{},
	}
}

// of returns the identity that the programs of c take on, nil where that is
// superd's own, and the user that their environment speaks of.
func (i *identities) of(c *config.Service) (id, who *spawn.Identity, problems config.Problems) {
	who, problem := i.user(c)
	if problem != nil {
		return nil, nil, config.Problems{*problem}
	}
	if problem := i.applyGroups(c, who); problem != nil {
		return nil, nil, config.Problems{*problem}
	}
	if i.root {
		return who, who, nil
	}
	return nil, who, i.beyondSelf(c, who)
}

// user looks c's user up, or the one that stands for none.
func (i *identities) user(c *config.Service) (*spawn.Identity, *config.Problem) {
	name := c.User
	switch {
	case name == "" && i.root:
		name = unprivileged
	case name == "":
		name = fmt.Sprint(i.self)
	}
	found, err := i.lookUp(name)
	if err == nil {
		copied := *found
		return &copied, nil
	}
	p := c.Problem("user", err.Error(), missing(err))
	return nil, &p
}

// missing says what to do about an account that does not exist.
func missing(err error) string {
	switch {
	case errors.Is(err, spawn.ErrNoUser):
		return "create the user, or name another one"
	case errors.Is(err, spawn.ErrNoGroup):
		return "create the group, or name another one"
	}
	return ""
}

func (i *identities) lookUp(name string) (*spawn.Identity, error) {
	if id, ok := i.known[name]; ok {
		return id, nil
	}
	id, err := i.databases.User(name)
	if err == nil {
		i.known[name] = id
	}
	return id, err
}

// applyGroups replaces the user's own groups by those that c names.
func (i *identities) applyGroups(c *config.Service, id *spawn.Identity) *config.Problem {
	if c.Group != "" {
		gid, name, err := i.databases.GroupID(c.Group)
		if err != nil {
			p := c.Problem("group", err.Error(), missing(err))
			return &p
		}
		id.GID, id.Group = gid, name
	}
	if !c.GroupsSet {
		return nil
	}
	id.Groups = []uint32{}
	for n, g := range c.Groups {
		gid, _, err := i.databases.GroupID(g)
		if err != nil {
			p := c.Problem(fmt.Sprintf("groups[%d]", n), err.Error(), missing(err))
			return &p
		}
		id.Groups = append(id.Groups, gid)
	}
	return nil
}

// owners looks up the accounts that c's unix sockets are given to.
func (i *identities) owners(c *config.Service) (o listen.Owners, problems config.Problems) {
	o = listen.Owners{Users: map[string]uint32{}, Groups: map[string]uint32{}}
	for _, l := range c.Listen {
		if l.Owner != "" {
			id, err := i.lookUp(l.Owner)
			if err == nil {
				o.Users[l.Owner] = id.UID
			} else {
				problems = append(problems, l.Problem("owner", err.Error(), missing(err)))
			}
		}
		if l.Group != "" {
			gid, _, err := i.databases.GroupID(l.Group)
			if err == nil {
				o.Groups[l.Group] = gid
			} else {
				problems = append(problems, l.Problem("group", err.Error(), missing(err)))
			}
		}
	}
	return o, problems
}

// beyondSelf lists what c asks for and only root could give.
func (i *identities) beyondSelf(c *config.Service, id *spawn.Identity) (list config.Problems) {
	const hint = "start superd as root, or leave it out"
	if id.UID != i.self {
		list = append(list, c.Problem("user", fmt.Sprintf("superd runs as user %d and cannot become %s", i.self, id.UserName()), hint))
	}
	if c.Group != "" && id.GID != i.group {
		list = append(list, c.Problem("group", fmt.Sprintf("superd runs as group %d and cannot become %s", i.group, id.GroupName()), hint))
	}
	if c.GroupsSet {
		list = append(list, c.Problem("groups", "only root can set supplementary groups", hint))
	}
	return list
}

// rootWarning is due for a service that the file itself gives to root.
func (i *identities) rootWarning(c *config.Service, id *spawn.Identity) (config.Problem, bool) {
	if !i.root || id == nil || id.UID != 0 {
		return config.Problem{}, false
	}
	return c.Problem("user", "this program runs as root: whoever breaks it owns the machine", "name a user of its own if it can do its work as one"), true
}
