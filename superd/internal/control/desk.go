package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A desk answers the requests to the administrative socket.
type desk struct {
	server  *Server
	daemon  Daemon
	listing sync.Mutex // one at a time asks the kernel about all connections
}

// routes is all that can be asked and told. What is posted gives an order.
var routes = []route{
	{http.MethodGet, "status", (*desk).status},
	{http.MethodGet, "connections", (*desk).connections},
	{http.MethodGet, "blocks", (*desk).blocks},
	{http.MethodGet, "explain", (*desk).explain},
	{http.MethodPost, "reload", (*desk).reload},
	{http.MethodPost, "drain", (*desk).drain},
	{http.MethodPost, "upgrade", (*desk).upgrade},
	{http.MethodPost, "stop", (*desk).stop},
	{http.MethodPost, "kill", (*desk).kill},
	{http.MethodPost, "block", (*desk).block},
	{http.MethodPost, "unblock", (*desk).unblock},
}

type route struct {
	method, name string
	do           func(*desk, *asking) (answer any, err error)
}

// root is what all paths begin with: the version of what is said here.
const root = "/v1/"

// An asking is one request.
type asking struct {
	http *http.Request
	from Peer
	verb string
}

// ServeHTTP implements http.Handler.
func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := d.answer(w, r)
	status := http.StatusOK
	if err != nil {
		status, answer = statusOf(err), problemOf(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if rows, long := answer.([]Connection); long {
		writeRows(w, rows)
	} else {
		json.NewEncoder(w).Encode(answer) // a client who has gone needs no answer
	}
}

// writeRows writes a list that can be long, in parts: who does not read it has
// cost no more than what was written.
func writeRows(w io.Writer, rows []Connection) error {
	before := "["
	for i := range rows {
		row, err := json.Marshal(&rows[i])
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%s", before, row); err != nil {
			return err
		}
		before = ",\n"
	}
	end := "]\n"
	if len(rows) == 0 {
		end = "[]\n"
	}
	_, err := io.WriteString(w, end)
	return err
}

// problem is the answer to what could not be done.
type problem struct {
	Error    string   `json:"error"`
	Problems []string `json:"problems,omitempty"` // where there can be several
}

func problemOf(err error) problem {
	p := problem{Error: err.Error()}
	if f := new(Faulty); errors.As(err, &f) {
		p.Problems = f.Problems
	}
	return p
}

// A fault is a mistake of the client's, with its HTTP status.
type fault struct {
	status int
	text   string
}

func (f fault) Error() string { return f.text }

func faultf(status int, format string, args ...any) error {
	return fault{status, fmt.Sprintf(format, args...)}
}

func statusOf(err error) int {
	switch e := err.(type) {
	case fault:
		return e.status
	case Unknown:
		return http.StatusNotFound
	case Unsupported:
		return http.StatusNotImplemented
	}
	return http.StatusConflict
}

func (d *desk) answer(w http.ResponseWriter, r *http.Request) (any, error) {
	route, err := find(r)
	if err != nil {
		return nil, err
	}
	a := asking{http: r, verb: route.name}
	a.from = a.connection().peer
	if r.Method == http.MethodGet {
		return route.do(d, &a)
	}
	switch {
	case !d.server.mayOrder(a.from):
		return nil, faultf(http.StatusForbidden, "%s is for root and for user %d, not for user %d", a.verb, d.server.uid, a.from.UID)
	case a.from.confined(d.server.filters):
		return nil, faultf(http.StatusForbidden, "%s is not for programs that superd confines", a.verb)
	}
	r.Body = http.MaxBytesReader(w, r.Body, largestBody)
	c := http.NewResponseController(w)
	c.SetWriteDeadline(time.Time{}) // an order takes its time; its clients are trusted with that
	defer func() { c.SetWriteDeadline(time.Now().Add(longestAnswer)) }()
	return route.do(d, &a)
}

func (a *asking) connection() *connection {
	return a.http.Context().Value(connectionKey{}).(*connection)
}

func find(r *http.Request) (*route, error) {
	name, ours := strings.CutPrefix(r.URL.Path, root)
	i := slices.IndexFunc(routes, func(r route) bool { return r.name == name })
	switch {
	case !ours || i < 0:
		return nil, faultf(http.StatusNotFound, "there is no %s here; superd(8) lists what there is", r.URL.Path)
	case routes[i].method != r.Method:
		return nil, faultf(http.StatusMethodNotAllowed, "%s is asked for with %s", r.URL.Path, routes[i].method)
	}
	return &routes[i], nil
}

func (d *desk) status(*asking) (any, error) { return d.daemon.Status(), nil }

func (d *desk) blocks(*asking) (any, error) { return d.daemon.Blocks(), nil }

// connections are listed by one client at a time. The list is complete before
// a byte of it is sent, so that a slow client does not hold up the next.
func (d *desk) connections(a *asking) (any, error) {
	q := a.http.URL.Query()
	which, err := selection(q.Get("id"), q.Get("service"), q.Get("source"))
	if err != nil {
		return nil, err
	}
	d.listing.Lock()
	defer d.listing.Unlock()
	return d.daemon.Connections(which), nil
}

func selection(id, service, source string) (s Selection, err error) {
	s = Selection{ID: id, Service: service}
	if source != "" {
		s.Source, err = ParseSource(source)
	}
	return s, err
}

// ParseSource reads an address, a network, or a user by number.
func ParseSource(text string) (Source, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return Source{Network: netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())}, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return Source{Network: p.Masked()}, nil
	}
	if number, is := strings.CutPrefix(text, "uid:"); is {
		if uid, err := strconv.ParseUint(number, 10, 32); err == nil {
			return Source{User: true, UID: uint32(uid)}, nil
		}
	}
	return Source{}, faultf(http.StatusBadRequest, "%q is neither an address, nor a network such as 10.0.0.0/8, nor a user such as uid:1000", text)
}

// read fills what is wanted from the request's body. An empty one leaves all
// as it is.
func (a *asking) read(wanted any) error {
	in := json.NewDecoder(a.http.Body)
	in.DisallowUnknownFields()
	err := in.Decode(wanted)
	switch {
	case err == io.EOF:
		return nil
	case err == nil && in.More():
		err = errors.New("there is more than one value")
	}
	if err == nil {
		return nil
	}
	status := http.StatusBadRequest
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	return faultf(status, "%s is not asked for like that: %v", a.verb, err)
}

// order tells the daemon what is about to be done.
func (d *desk) order(a *asking, what string) {
	d.daemon.Ordered(Order{Verb: a.verb, What: what, From: a.from})
}

func (d *desk) reload(a *asking) (any, error) {
	d.order(a, "")
	return d.daemon.Reload()
}

func (d *desk) upgrade(a *asking) (any, error) {
	d.order(a, "")
	return d.daemon.Upgrade(&Asker{a.connection()})
}

func (d *desk) drain(a *asking) (any, error) {
	var order struct{ Service, Limit string }
	if err := a.read(&order); err != nil {
		return nil, err
	}
	var limit *time.Duration
	if order.Limit != "" {
		length, err := duration("limit", order.Limit)
		if err != nil {
			return nil, err
		}
		limit = &length
	}
	d.order(a, order.Service)
	return d.daemon.Drain(order.Service, limit)
}

func duration(name, text string) (time.Duration, error) {
	length, err := time.ParseDuration(text)
	if err != nil || length < 0 {
		return 0, faultf(http.StatusBadRequest, "%s is %q, and must be a duration such as 30s or 1h", name, text)
	}
	return length, nil
}

func (d *desk) stop(a *asking) (any, error) {
	var order struct{ Now bool }
	if err := a.read(&order); err != nil {
		return nil, err
	}
	if order.Now {
		d.order(a, "now")
	} else {
		d.order(a, "")
	}
	d.daemon.Stop(order.Now)
	return struct{}{}, nil
}

func (d *desk) kill(a *asking) (any, error) {
	var order struct{ ID, Service, Source string }
	if err := a.read(&order); err != nil {
		return nil, err
	}
	which, err := selection(order.ID, order.Service, order.Source)
	if err != nil {
		return nil, err
	}
	if which == (Selection{}) {
		return nil, faultf(http.StatusBadRequest, "kill needs an id, a service or a source")
	}
	d.order(a, which.String())
	return d.daemon.Kill(which)
}

// String is the selection in words.
func (s Selection) String() string {
	var words []string
	if s.ID != "" {
		words = append(words, "connection "+s.ID)
	}
	if s.Service != "" {
		words = append(words, "service "+s.Service)
	}
	if s.Source != (Source{}) {
		words = append(words, "source "+s.Source.String())
	}
	return strings.Join(words, ", ")
}

func (d *desk) block(a *asking) (any, error) {
	var order struct{ Network, For string }
	if err := a.read(&order); err != nil {
		return nil, err
	}
	whom, err := ParseSource(order.Network)
	if err != nil {
		return nil, err
	}
	what, length := whom.String(), time.Duration(0)
	if order.For != "" {
		if length, err = duration("for", order.For); err != nil {
			return nil, err
		}
		what += " for " + order.For
	}
	d.order(a, what)
	return struct{}{}, d.daemon.Block(whom, length)
}

func (d *desk) unblock(a *asking) (any, error) {
	var order struct{ Network string }
	if err := a.read(&order); err != nil {
		return nil, err
	}
	whom, err := ParseSource(order.Network)
	if err != nil {
		return nil, err
	}
	d.order(a, whom.String())
	return d.daemon.Unblock(whom)
}
