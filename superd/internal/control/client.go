package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

// A Client asks the superd whose administrative socket is at Path.
type Client struct {
	Path    string
	Timeout time.Duration // for one question and its answer; 0 is for ever
}

// ErrNobody is wrapped by errors that say that no superd answers.
var ErrNobody = errors.New("no superd answers")

// errBroken says that an answer did not come whole.
var errBroken = errors.New("the conversation broke off")

// tries is how often a question is asked whose answer broke off: superd may
// have become another superd just then, and who only asks can ask again.
const tries = 3

// Ask gets what there is to know about a thing, such as "status", as JSON.
// With fills in what of it is wanted.
func (c *Client) Ask(thing string, with url.Values) ([]byte, error) {
	path := root + thing
	if len(with) > 0 {
		path += "?" + with.Encode()
	}
	for try := 1; ; try++ {
		answer, err := c.do(http.MethodGet, path, nil)
		if try == tries || !errors.Is(err, errBroken) && !errors.Is(err, syscall.ECONNRESET) {
			return answer, err
		}
	}
}

// Order has something done, such as "drain"; how is made JSON of. The answer
// is JSON as well.
func (c *Client) Order(verb string, how any) ([]byte, error) {
	body, err := json.Marshal(how)
	if err != nil {
		return nil, err
	}
	return c.do(http.MethodPost, root+verb, body)
}

func (c *Client) do(method, path string, body []byte) ([]byte, error) {
	r, err := http.NewRequest(method, "http://superd"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	transport := http.Transport{DialContext: c.dial, DisableKeepAlives: true}
	client := http.Client{Transport: &transport, Timeout: c.Timeout}
	answer, err := client.Do(r)
	if err != nil {
		return nil, c.explain(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, c.explain(err)
	}
	if answer.StatusCode == http.StatusOK {
		return text, nil
	}
	return nil, c.refusal(answer.Status, text)
}

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.Path)
}

// explain tells a superd that does not run from one that cannot be asked.
func (c *Client) explain(err error) error {
	var errno syscall.Errno
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &errno) && errno == syscall.EACCES:
		return fmt.Errorf("cannot ask superd at %s: %w", c.Path, errno)
	case errors.As(err, &errno):
		return fmt.Errorf("%w at %s: %w", ErrNobody, c.Path, errno)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w at %s within %v", ErrNobody, c.Path, c.Timeout)
	}
	return fmt.Errorf("%w at %s: %w", ErrNobody, c.Path, errBroken)
}

// refusal is what superd says about what it has not done.
func (c *Client) refusal(status string, text []byte) error {
	var p problem
	if json.Unmarshal(text, &p) != nil || p.Error == "" {
		return fmt.Errorf("cannot understand what answers at %s: %s", c.Path, status)
	}
	return &Refusal{p.Error, text}
}

// A Refusal is what superd says about what it has not done.
type Refusal struct {
	Text   string
	Answer []byte // as it came, in JSON
}

func (r *Refusal) Error() string { return r.Text }
