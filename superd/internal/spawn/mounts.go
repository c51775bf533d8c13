package spawn

func (p *Plan) buildMounts() error  { return nil }
func (p *Plan) buildNetwork() error { return nil }
func (p *Plan) addPrivateTmp()      {}
