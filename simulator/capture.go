package simulator

import (
	"bytes"
	"maps"
	"net/http"
)

// answer is a response that has not been sent yet.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// capture does an endpoint's work and returns the response that it would have
// sent. Responses are small enough to be kept in memory.
func capture(work http.HandlerFunc, r *http.Request) answer {
	c := capturer{header: make(http.Header)}
	work(&c, r)
	if c.status == 0 {
		c.status = http.StatusOK
	}
	return answer{c.status, c.header, c.body.Bytes()}
}

func (a answer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}

// capturer is the ResponseWriter of capture.
type capturer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (c *capturer) Header() http.Header { return c.header }

func (c *capturer) WriteHeader(status int) {
	if c.status == 0 {
		c.status = status
	}
}

func (c *capturer) Write(b []byte) (int, error) {
	c.WriteHeader(http.StatusOK)
	return c.body.Write(b)
}

var _ http.ResponseWriter = (*capturer)(nil)
