package conn

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"superd/superd/internal/peer"
	"superd/superd/internal/spawn"
)

// watched has Watch run, and the programs end with the test.
func watched(t *testing.T, f *fixture) {
	t.Helper()
	f.service.Linger = 0
	go f.Watch() // ends with the order below
	t.Cleanup(func() {
		f.Stop("test", 0)
		<-f.Empty()
		f.order(func() { f.closed = true })
		<-f.done
	})
}

// begin starts a program that sends back what it gets, for a client who has
// an answer already.
func (f *fixture) begin(t *testing.T, s *Service, from string) net.Conn {
	t.Helper()
	client, server := connection(t)
	if err := unix.SetNonblock(server, false); err != nil {
		t.Fatal(err)
	}
	v := &Visitor{Peer: peer.Peer{Remote: netip.MustParseAddrPort(from), Local: netip.MustParseAddrPort("192.0.2.1:7")}}
	f.Welcome(s, v)
	f.Start(s, server, v, true)
	f.engine.Settle()
	client.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(client, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(client, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	return client
}

func cat(t *testing.T, f *fixture) {
	t.Helper()
	f.service.Plan = compile(t, f.engine, spawn.Spec{Path: "/bin/cat", Argv: []string{"cat"}, Stderr: spawn.StderrLog, Dir: "/"})
}

func TestList(t *testing.T) {
	f := newFixture(t)
	cat(t, f)
	unkept := f.service
	unkept.Keep = false
	watched(t, f)
	if list := f.List(Selection{}); len(list) != 0 {
		t.Errorf("a table without connections lists %v", list)
	}
	f.begin(t, &f.service, "10.0.0.1:1000")
	f.begin(t, &unkept, "[2001:db8::1]:1001")
	list := f.List(Selection{})
	if len(list) != 2 {
		t.Fatalf("two connections are listed as %+v", list)
	}
	kept, bare := list[0], list[1]
	if kept.BytesIn != 5 || kept.BytesOut != 5 || kept.Idle < 0 || kept.Idle > patience || kept.RoundTrip < 0 {
		t.Errorf("the kernel's numbers are %+v", kept)
	}
	if bare.BytesIn != -1 || bare.BytesOut != -1 || bare.Idle != -1 || bare.RoundTrip != -1 {
		t.Errorf("numbers of a connection that is not kept: %+v", bare)
	}
	for _, l := range list {
		if l.Service != "test" || l.State != "running" || l.PID <= 0 || l.Age <= 0 || l.Local != "192.0.2.1:7" {
			t.Errorf("it is listed as %+v", l)
		}
		if unix.Kill(l.PID, 0) != nil {
			t.Errorf("there is no process %d", l.PID)
		}
	}
	if kept.Peer != "10.0.0.1:1000" || bare.Peer != "[2001:db8::1]:1001" || kept.ID == bare.ID {
		t.Errorf("they are %+v", list)
	}
}

func TestSelection(t *testing.T) {
	f := newFixture(t)
	cat(t, f)
	watched(t, f)
	for _, from := range []string{"10.0.0.1:1", "10.1.0.1:2", "[2001:db8::1]:3", "[fe80::1%eth0]:4"} {
		f.begin(t, &f.service, from)
	}
	second := f.List(Selection{})[1].ID
	for _, c := range []struct {
		which Selection
		want  string
	}{
		{Selection{}, "[10.0.0.1:1 10.1.0.1:2 [2001:db8::1]:3 [fe80::1%eth0]:4]"},
		{Selection{Service: "test"}, "[10.0.0.1:1 10.1.0.1:2 [2001:db8::1]:3 [fe80::1%eth0]:4]"},
		{Selection{Service: "other"}, "[]"},
		{Selection{ID: second}, "[10.1.0.1:2]"},
		{Selection{ID: second, Source: netip.MustParsePrefix("10.0.0.0/16")}, "[]"},
		{Selection{Source: netip.MustParsePrefix("10.0.0.0/8")}, "[10.0.0.1:1 10.1.0.1:2]"},
		{Selection{Source: netip.MustParsePrefix("10.0.0.1/32")}, "[10.0.0.1:1]"},
		{Selection{Source: netip.MustParsePrefix("fe80::/10")}, "[[fe80::1%eth0]:4]"},
		{Selection{Source: netip.MustParsePrefix("::/0")}, "[[2001:db8::1]:3 [fe80::1%eth0]:4]"},
	} {
		var got []string
		for _, l := range f.List(c.which) {
			got = append(got, l.Peer)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%+v is %v, not %s", c.which, got, c.want)
		}
	}
}

// Each connection is listed once, however many batches it takes, while others
// come and go.
func TestListOfMany(t *testing.T) {
	f := newFixture(t)
	const many = 5*atATime/2 + 1
	var want []string
	for range many {
		r := f.take()
		v := &Visitor{}
		f.Welcome(&f.service, v)
		r.begin(&f.service, v)
		r.watched = true
		want = append(want, string(r.who.ID))
	}
	slots := slices.Clone(f.slots)
	for i := 1; i < many; i += 2 { // what one batch has of places that are free
		f.give(slots[i])
	}
	want = slices.DeleteFunc(want, func(id string) bool {
		return !slices.ContainsFunc(slots, func(r *record) bool { return r.watched && string(r.who.ID) == id })
	})
	go f.Watch()
	var got []string
	for _, l := range f.List(Selection{}) {
		got = append(got, l.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d are listed of %d", len(got), len(want))
	}
	f.order(func() { f.closed = true })
	<-f.done
	if list := f.List(Selection{}); len(list) != 0 {
		t.Errorf("a table that nobody watches lists %d", len(list))
	}
}

// What only drains is no longer live.
func TestListLeavesOutWhatLingers(t *testing.T) {
	f := newFixture(t)
	for s := range draining + 1 {
		r := f.take()
		r.begin(&f.service, &Visitor{})
		r.state, r.watched = s, true
	}
	go f.Watch()
	var got []string
	for _, l := range f.List(Selection{}) {
		got = append(got, l.State)
	}
	if want := []string{"running", "stopping", "stopping", "ended", "ended", "ended", "ended"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	f.order(func() { f.closed = true })
	<-f.done
}

func TestKill(t *testing.T) {
	f := newFixture(t)
	cat(t, f)
	watched(t, f)
	stays := f.begin(t, &f.service, "10.0.0.1:1")
	var go2 []net.Conn
	for range 3 {
		go2 = append(go2, f.begin(t, &f.service, "10.0.0.2:1"))
	}
	which := Selection{Source: netip.MustParsePrefix("10.0.0.2/32")}
	if n := f.Kill(which, "test"); n != 3 {
		t.Errorf("%d were killed, not 3", n)
	}
	for _, c := range go2 {
		if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
			t.Errorf("instead of the end came %q, %v", rest, err)
		}
	}
	io.WriteString(stays, "still")
	if _, err := io.ReadFull(stays, make([]byte, 5)); err != nil {
		t.Error(err)
	}
	if n := f.Kill(which, "test"); n != 0 {
		t.Errorf("%d were killed again", n)
	}
}

func TestWatchAnswers(t *testing.T) {
	f := newFixture(t)
	if f.Answers(time.Millisecond) {
		t.Error("a table that nobody watches answers")
	}
	watched(t, f)
	if !f.Answers(patience) {
		t.Error("a table that is watched does not answer")
	}
}
