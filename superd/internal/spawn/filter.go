package spawn

func (p *Plan) buildFilter() error { return nil }
