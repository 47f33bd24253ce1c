package simulator

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// CutMode says when a connection breaks.
type CutMode int

const (
	// CutNone does not break the connection.
	CutNone CutMode = iota

	// CutBeforeAnswer closes the connection without sending a byte. Note
	// that Go's client repeats a GET by itself if this happens on a connection
	// that it has used before.
	CutBeforeAnswer

	// CutHalf does the real work, announces the length of the whole response
	// in Content-Length, sends half of it and closes the connection.
	CutHalf
)

// Fault is a way in which an endpoint misbehaves. With the zero value the
// endpoint works normally. The order of events is: Delay, the endpoint's work
// (if the real response is sent, or with AfterWork), Delay if DelayAfterWork
// is set, and then the first of Hang, Cut, Endless and the response.
type Fault struct {
	// Status replaces the real response, with a status from 200 to 599. With
	// Body and without Status it is 200.
	Status int

	// Body replaces the real response. With Status and without Body it is
	// the status as text.
	Body string

	// ContentType is the media type of the response, real or not. Without it,
	// the first byte of Body decides between JSON, HTML and text.
	ContentType string

	// Header is added to the response, real or not. It replaces fields with
	// the same name.
	Header http.Header

	// Delay makes the client wait. If the client leaves, the wait ends and
	// the work is done all the same, as by a server that does not notice.
	Delay time.Duration

	// Until makes the client wait until the channel is closed, like Delay.
	Until <-chan struct{}

	// DelayAfterWork does the work first and waits then: a client that gives up
	// has lost tokens that were really issued.
	DelayAfterWork bool

	// Cut breaks the connection.
	Cut CutMode

	// Endless sends a body that never ends, until the client leaves. It
	// begins with Body, or like a JSON object.
	Endless bool

	// Hang accepts the request and sends no response until the client leaves.
	Hang bool

	// AfterWork first does the endpoint's work, for example rotates a refresh
	// token, and then fails.
	AfterWork bool

	// Times is the number of requests after which the fault ends. Zero means
	// that it does not end by itself.
	Times int

	// Probability is the probability that a request fails. Zero means that
	// all fail.
	Probability float64
}

// SetFault sets the fault of an endpoint, and replaces an earlier one.
// A fault of Exchange or Refresh comes before one of Token.
func (p *Provider) SetFault(endpoint Endpoint, fault Fault) {
	p.faults.set(endpoint, fault)
}

// ClearFaults removes all faults. It does not end requests that already hang
// or wait.
func (p *Provider) ClearFaults() {
	p.faults.clear()
}

// faultTable holds the faults of the endpoints.
type faultTable struct {
	mu    sync.Mutex // guards armed and rand
	armed map[Endpoint]Fault
	rand  *rand.Rand
}

func newFaultTable(random *rand.Rand) *faultTable {
	return &faultTable{armed: make(map[Endpoint]Fault), rand: random}
}

func (t *faultTable) set(endpoint Endpoint, fault Fault) {
	fault.Header = fault.Header.Clone()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed[endpoint] = fault
}

func (t *faultTable) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.armed)
}

// take returns the fault that applies to this request, and counts it as used.
func (t *faultTable) take(endpoints []Endpoint) (Fault, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, endpoint := range endpoints {
		fault, ok := t.armed[endpoint]
		if !ok || (fault.Probability > 0 && t.rand.Float64() >= fault.Probability) {
			continue
		}
		switch {
		case fault.Times == 1:
			delete(t.armed, endpoint)
		case fault.Times > 1:
			left := fault
			left.Times--
			t.armed[endpoint] = left
		}
		return fault, true
	}
	return Fault{}, false
}

// serve serves a request as the fault describes.
func (f Fault) serve(w http.ResponseWriter, r *http.Request, work http.HandlerFunc) {
	if !f.DelayAfterWork {
		f.wait(r.Context())
	}
	var real answer
	if f.AfterWork || f.sendsRealAnswer() {
		real = capture(work, r)
	}
	if f.DelayAfterWork {
		f.wait(r.Context())
	}

	switch {
	case f.Hang:
		<-r.Context().Done()
		cut()
	case f.Cut == CutBeforeAnswer:
		cut()
	case f.Endless:
		f.sendEndless(w, r.Context())
	case f.sendsRealAnswer():
		f.send(w, real)
	default:
		f.send(w, f.falseAnswer())
	}
}

func (f Fault) sendsRealAnswer() bool {
	return f.Status == 0 && f.Body == "" && !f.Hang && !f.Endless && f.Cut != CutBeforeAnswer
}

// wait returns after Delay and Until, or when the client leaves.
func (f Fault) wait(ctx context.Context) {
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if f.Until != nil {
		select {
		case <-f.Until:
		case <-ctx.Done():
		}
	}
}

// cut closes the connection. With this panic the server does so over HTTP/1
// and HTTP/2, and logs nothing.
func cut() { panic(http.ErrAbortHandler) }

// falseAnswer returns the response that replaces the real one.
func (f Fault) falseAnswer() answer {
	a := answer{status: f.Status, header: make(http.Header), body: []byte(f.Body)}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if f.Body == "" && bodyAllowed(a.status) {
		a.body = []byte(strconv.Itoa(a.status) + " " + http.StatusText(a.status) + "\n")
	}
	a.header.Set("Content-Type", guessContentType(a.body))
	return a
}

// guessContentType returns the type that a test means with such a body. The
// standard library would detect JSON as plain text.
func guessContentType(body []byte) string {
	trimmed := bytes.TrimSpace(body)
	switch {
	case bytes.HasPrefix(trimmed, []byte("{")), bytes.HasPrefix(trimmed, []byte("[")):
		return "application/json; charset=utf-8"
	case bytes.HasPrefix(trimmed, []byte("<")):
		return "text/html; charset=utf-8"
	default:
		return "text/plain; charset=utf-8"
	}
}

func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}

// send writes a response, or half of it.
func (f Fault) send(w http.ResponseWriter, a answer) {
	f.decorate(a.header)
	if f.Cut != CutHalf {
		a.send(w)
		return
	}
	half := len(a.body) / 2
	if half == 0 || !bodyAllowed(a.status) {
		cut() // the response is too short for a half
	}
	a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
	a.body = a.body[:half]
	a.send(w)
	// Without the flush, the half would be lost in the server's buffer.
	_ = http.NewResponseController(w).Flush()
	cut()
}

// decorate sets the header fields of the fault.
func (f Fault) decorate(header http.Header) {
	for name, values := range f.Header {
		header[http.CanonicalHeaderKey(name)] = values
	}
	if f.ContentType != "" {
		header.Set("Content-Type", f.ContentType)
	}
}

// endlessChunk is large enough to reach a client's limit quickly.
const endlessChunk = 32 << 10

// sendEndless writes until the client leaves. The default body is one JSON
// string without end, in which a streaming decoder finds no error.
func (f Fault) sendEndless(w http.ResponseWriter, ctx context.Context) {
	begin := f.Body
	if begin == "" {
		begin = `{"message":"`
	}
	header := w.Header()
	header.Set("Content-Type", guessContentType([]byte(begin)))
	f.decorate(header)
	if f.Status != 0 {
		w.WriteHeader(f.Status)
	}
	_, err := w.Write([]byte(begin))
	chunk := []byte(strings.Repeat("a", endlessChunk))
	for err == nil && ctx.Err() == nil {
		_, err = w.Write(chunk)
	}
	cut()
}
