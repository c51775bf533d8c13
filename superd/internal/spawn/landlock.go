package spawn

func (p *Plan) buildLandlock() error { return nil }
