package main

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/admit"
	"superd/superd/internal/config"
	"superd/superd/internal/conn"
	"superd/superd/internal/control"
	"superd/superd/internal/event"
	"superd/superd/internal/listen"
	"superd/superd/internal/lobby"
	"superd/superd/internal/peer"
)

// An estate is all that a superd leaves to the one that takes its place in the
// same process. It is plain data, and numbers of descriptors, which that
// process has by the same numbers. Times without a date are since Begin.
type estate struct {
	Version string        // of the superd that has left it
	At      time.Duration // on CLOCK_MONOTONIC, when it was made
	Age     time.Duration // how long ago Begin was then
	Begin   time.Time
	Asker   int // the connection of whom the heir has to answer; -1 for none

	File       config.Files      // to be taken up
	Before     []byte            // the text of the file in force
	Within     []config.Included // what that includes
	Generation int
	Loaded     time.Time
	Services   []standing // of that file
	Drained    []drainage
	Phase      int32

	Control *control.Carried // nil for none
	Web     []control.CarriedWeb
	Sites   []plot
	Handed  []listen.Handed // that are not in use
	Fading  []plot          // open for those who are answered from them, and for nobody else
	Log     event.Carried
	Orphans uint64 // that were reaped
	House   admit.Carried
	Table   conn.Carried
	Places  []place // of the table's connections, in their order
	Guests  []lodger
}

// before is the file in force, as it was read.
func (e *estate) before() *config.Files {
	return &config.Files{Path: e.File.Path, Text: e.Before, Included: e.Within, Followed: true}
}

// A plot is a socket that superd listens on.
type plot struct {
	Socket  listen.Carried
	Service string
}

// A standing is since when a service has been as it is.
type standing struct {
	Name       string
	Generation int
	Since      time.Time
}

// A drainage is a service that has no sockets by an order.
type drainage struct {
	Name string
	Left time.Duration // until its connections are ended
}

// A place is what a live connection has of its service.
type place struct {
	Service string
	Trial   bool  // its program is the one that a failing service tries again with
	Sockets []int // that its program has, by their places among Sites
	Wait    bool  // its program gets sockets
	Session *carriedSession
}

// A carriedSession is what there is of a session beside its program.
type carriedSession struct {
	Socket                        int // its place among Sites, and then Fading
	End                           int
	Sender                        listen.Sender
	Back                          listen.Return
	Idle, Moved                   time.Duration
	In, Out, Dropped              int64
	InputEnded, OutputEnded, Told bool
}

// A lodger is a guest who has no program yet, or will not have one.
type lodger struct {
	Service string
	FD      int
	Stage   string
	ID      string // "" where it was not greeted
	Peer    peer.Peer
	Taken   int
	Owed    bool
	Since   time.Duration
	Due     time.Duration
	Session *carriedSession
}

// The stages of lodgers, in the words of another superd.
var stageWords = map[progress]string{
	awaitsHeader: "header", awaitsByte: "byte", awaitsName: "name", awaitsPlace: "place", awaitsProcess: "place", dismissed: "dismissed",
}

// The form in which an estate is left: this header, and then gob.
const (
	estateMagic  = "superd estate\n"
	estateForm   = 1 // changes with the meaning of anything that is there already
	estateHeader = len(estateMagic) + 4 + 8 + 4
	largestState = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode puts an estate into its form.
func (e *estate) encode() ([]byte, error) {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(e); err != nil {
		return nil, err
	}
	out := make([]byte, 0, estateHeader+body.Len())
	out = append(out, estateMagic...)
	out = binary.BigEndian.AppendUint32(out, estateForm)
	out = binary.BigEndian.AppendUint64(out, uint64(body.Len()))
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(body.Bytes(), castagnoli))
	return append(out, body.Bytes()...), nil
}

// decodeEstate reads what encode has made.
func decodeEstate(data []byte) (*estate, error) {
	if len(data) < estateHeader || string(data[:len(estateMagic)]) != estateMagic {
		return nil, errors.New("it is not the state of a superd")
	}
	header, body := data[len(estateMagic):estateHeader], data[estateHeader:]
	if form := binary.BigEndian.Uint32(header); form != estateForm {
		return nil, fmt.Errorf("its form is %d, and superd %s understands form %d", form, version, estateForm)
	}
	if length := binary.BigEndian.Uint64(header[4:]); length != uint64(len(body)) {
		return nil, fmt.Errorf("it has %d bytes of %d", len(body), length)
	}
	if binary.BigEndian.Uint32(header[12:]) != crc32.Checksum(body, castagnoli) {
		return nil, errors.New("it is damaged")
	}
	e := new(estate)
	if err := gob.NewDecoder(bytes.NewReader(body)).Decode(e); err != nil {
		return nil, err
	}
	if len(e.Places) != len(e.Table.Connections) {
		return nil, fmt.Errorf("it has %d connections and %d places", len(e.Table.Connections), len(e.Places))
	}
	for i := range e.Table.Connections {
		if t := e.Table.Connections[i].Terms; t < 0 || t >= len(e.Table.Terms) {
			return nil, fmt.Errorf("a connection has the terms %d of %d", t, len(e.Table.Terms))
		}
		for _, k := range e.Places[i].Sockets {
			if k < 0 || k >= len(e.Sites) {
				return nil, fmt.Errorf("a program has the socket %d of %d", k, len(e.Sites))
			}
		}
	}
	return e, nil
}

const estateSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// deposit puts an estate where nobody can change it. The descriptor is the
// caller's.
func deposit(e *estate) (fd int, err error) {
	data, err := e.encode()
	if err != nil {
		return -1, err
	}
	if fd, err = unix.MemfdCreate("superd:state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	for rest := data; err == nil && len(rest) > 0; {
		var n int
		if n, err = unix.Write(fd, rest); err == nil {
			rest = rest[n:]
		}
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, estateSeals)
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("memfd", err)
	}
	return fd, nil
}

// withdrawEstate reads what deposit has made. The descriptor stays the
// caller's.
func withdrawEstate(fd int) (*estate, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err == nil && seals&estateSeals != estateSeals {
		err = errors.New("it is not sealed")
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.NewSectionReader(reader(fd), 0, largestState))
	if err != nil {
		return nil, err
	}
	return decodeEstate(data)
}

// A reader reads a descriptor that is somebody else's.
type reader int

func (r reader) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		k, err := unix.Pread(int(r), p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return n, err
		case k == 0:
			return n, io.EOF
		}
		n += k
	}
	return n, nil
}

// sinceBoot is CLOCK_MONOTONIC, which Go's own monotonic clock is but for its
// beginning.
func sinceBoot() time.Duration {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return time.Duration(now.Nano())
}

// descriptors are all that go along.
func (e *estate) descriptors() (list []int) {
	for _, p := range e.plots() {
		list = append(list, p.Socket.FD)
	}
	for i := range e.Handed {
		list = append(list, e.Handed[i].FD)
	}
	for i := range e.Table.Connections {
		c := &e.Table.Connections[i]
		list = append(list, c.Child.PIDFD, c.Kept, c.Stderr)
		if c.Over() {
			list[len(list)-3] = -1
		}
	}
	for i := range e.Guests {
		list = append(list, e.Guests[i].FD)
	}
	for _, t := range e.sessions() {
		list = append(list, t.End)
	}
	if e.Control != nil {
		list = append(list, e.Control.FD)
	}
	for i := range e.Web {
		list = append(list, e.Web[i].FD)
	}
	list = append(list, e.Asker)
	return slices.DeleteFunc(list, func(fd int) bool { return fd < 0 })
}

// plots are all sockets, by their numbers in sessions.
func (e *estate) plots() (list []*plot) {
	for i := range e.Sites {
		list = append(list, &e.Sites[i])
	}
	for i := range e.Fading {
		list = append(list, &e.Fading[i])
	}
	return list
}

// sessions are those of programs, and then those that wait for theirs.
func (e *estate) sessions() (list []*carriedSession) {
	for i := range e.Places {
		if t := e.Places[i].Session; t != nil {
			list = append(list, t)
		}
	}
	for i := range e.Guests {
		if t := e.Guests[i].Session; t != nil {
			list = append(list, t)
		}
	}
	return list
}

// survey draws up the estate. All that could change it must pause, but for the
// house, which is held until release is called.
func (d *daemon) survey() (e *estate, release func()) {
	e = &estate{Version: version, Asker: -1, Generation: d.generation, Loaded: d.loaded, Begin: d.began,
		File: *d.config.Files, Before: d.config.Files.Text, Within: d.config.Files.Included, Phase: d.operator.phase.Load()}
	for _, s := range d.sites {
		e.Sites = append(e.Sites, plot{s.socket.Carry(), s.service.config.Name})
	}
	e.Handed = d.inheritance.Carry()
	for _, s := range d.fading {
		e.Fading = append(e.Fading, plot{s.socket.Carry(), s.service.config.Name})
	}
	for _, s := range d.services {
		e.Services = append(e.Services, standing{s.config.Name, s.generation, s.since})
	}
	e.Drained = d.operator.drained()
	for _, h := range d.halls {
		e.Guests = append(e.Guests, h.lodgers()...)
	}
	slices.SortStableFunc(e.Guests, func(a, b lodger) int { return int(a.Since - b.Since) })
	e.Table = d.table.Carry()
	for i := range e.Table.Connections {
		var p place
		if v := e.Table.Connections[i].Visitor(); v != nil {
			p = v.Host.(occupant).place(d)
		}
		e.Places = append(e.Places, p)
	}
	if s := d.operator.server; s != nil {
		c := s.Carry()
		e.Control = &c
	}
	for _, w := range d.operator.web {
		e.Web = append(e.Web, w.Carry())
	}
	e.Log = d.log.Carry()
	e.Orphans = adopted.reaped.Load()
	e.House, release = d.house.Hold()
	e.At, e.Age = sinceBoot(), time.Since(d.begin)
	return e, release
}

// place implements occupant.
func (g *guest) place(*daemon) place {
	return place{Service: g.service.config.Name, Trial: g.ticket.Trial(), Session: g.session.carry()}
}

// place implements occupant. A socket that superd has closed since is the
// program's alone.
func (t *tenant) place(d *daemon) place {
	p := place{Service: t.lender.config.Name, Trial: t.ticket.Trial(), Wait: true}
	for i, s := range d.sites {
		if slices.Contains(t.lent, s.socket) {
			p.Sockets = append(p.Sockets, i)
		}
	}
	return p
}

// lodgers are all guests of a hall, whose thread must pause, that have no
// program.
func (h *hall) lodgers() (list []lodger) {
	h.lobby.Each(func(host lobby.Host, due time.Duration) {
		g, is := host.(*guest)
		if !is {
			return // a tenant that rests, whose clients are the kernel's, or a session
		}
		word, known := stageWords[g.stage]
		if !known {
			return
		}
		l := lodger{Service: g.service.config.Name, FD: g.fd, Stage: word, Peer: g.visitor.Peer, Taken: g.visitor.Taken, Owed: g.owed, Since: g.since, Due: due,
			Session: g.session.carry()}
		l.Peer.Extra = slices.Clone(g.visitor.Peer.Extra)
		if g.welcome {
			l.ID = string(g.visitor.Who().ID)
		}
		list = append(list, l)
	})
	return list
}

// carry tells all about a session, nil for none.
func (s *session) carry() *carriedSession {
	if s == nil {
		return nil
	}
	d := s.guest.service.daemon
	number := slices.IndexFunc(slices.Concat(d.sites, d.fading), func(x *site) bool { return x.socket == s.socket })
	return &carriedSession{Socket: number, End: s.end, Sender: s.sender, Back: s.back,
		Idle: s.idle, Moved: time.Duration(s.moved.Load()), In: s.in.Load(), Out: s.out.Load(), Dropped: s.dropped,
		InputEnded: s.inputEnded, OutputEnded: s.outputEnded, Told: s.told}
}
