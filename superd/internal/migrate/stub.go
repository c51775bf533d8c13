package migrate

func (im *importer) tcpserver(files []file)              {}
func literal(argv []string) []string                     { return argv }
func (im *importer) commandLine(argv []string, at Place) {}
