package spawn

type cgroup struct{}

func (p *Plan) buildCgroup() error          { return nil }
func (c *cgroup) close()                    {}
func (p *Plan) enterCgroup(args *cloneArgs) {}
