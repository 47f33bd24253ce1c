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

// CutMode says where a connection breaks.
type CutMode int

const (
	// CutNone does not break the connection.
	CutNone CutMode = iota

	// CutBeforeAnswer closes the connection without a byte. Note that Go's
	// client sends a GET again, unasked, when this happens on a connection
	// it had used before.
	CutBeforeAnswer

	// CutHalf does the real work, promises the whole answer in
	// Content-Length, sends half of it and closes the connection.
	CutHalf
)

// Fault is a way in which an endpoint misbehaves. The zero value answers
// properly; each field takes away from that. The order of events is: Delay,
// the endpoint's work (if the real answer is sent, or with AfterWork), the
// delay if it is DelayAfterWork, and then the first of Hang, Cut, Endless and
// the answer.
type Fault struct {
	// Status is sent instead of the real answer, 200 to 599. With Body and
	// no Status it is 200.
	Status int

	// Body is sent instead of the real answer. With Status and no Body it is
	// the status as text.
	Body string

	// ContentType of the answer, real or not. A Body of ours is otherwise
	// recognised as JSON, HTML or text by its first byte.
	ContentType string

	// Header is added to the answer, real or not, in place of fields with
	// the same name.
	Header http.Header

	// Delay makes the client wait. A client that leaves ends the wait, and
	// the work is done nevertheless, as by a server that never notices.
	Delay time.Duration

	// DelayAfterWork does the work first and waits then: a client that gives up
	// has lost tokens that were really issued.
	DelayAfterWork bool

	// Cut breaks the connection.
	Cut CutMode

	// Endless sends a body that never ends, until the client leaves. It
	// begins with Body, or like a JSON object.
	Endless bool

	// Hang accepts the request and never answers; the client has to leave.
	Hang bool

	// AfterWork does the endpoint's work for real, for example rotates a
	// refresh token, and fails afterwards.
	AfterWork bool

	// Times is how many requests are hit before the fault is gone. Zero
	// means until it is cleared.
	Times int

	// Probability is the chance of a request to be hit. Zero means all are.
	Probability float64
}

// SetFault makes an endpoint misbehave, in place of an earlier fault there.
// A fault of Exchange or Refresh goes before one of Token.
func (p *Provider) SetFault(endpoint Endpoint, fault Fault) {
	p.faults.set(endpoint, fault)
}

// ClearFaults makes every endpoint well again. Requests that already hang or
// wait go on doing so.
func (p *Provider) ClearFaults() {
	p.faults.clear()
}

// faultTable knows which endpoint is broken, and for how much longer.
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

// take returns the fault this request is hit by, and counts it as used.
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

// serve answers a request the way the fault says.
func (f Fault) serve(w http.ResponseWriter, r *http.Request, work http.HandlerFunc) {
	if !f.DelayAfterWork {
		wait(r.Context(), f.Delay)
	}
	var real answer
	if f.AfterWork || f.sendsRealAnswer() {
		real = capture(work, r)
	}
	if f.DelayAfterWork {
		wait(r.Context(), f.Delay)
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

// wait returns after the delay, or when the client leaves.
func wait(ctx context.Context, delay time.Duration) {
	if delay <= 0 {
		return
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// cut closes the connection. Over HTTP/1 as over HTTP/2 the server takes
// this panic for the wish to do so, and logs nothing.
func cut() { panic(http.ErrAbortHandler) }

// falseAnswer is what is sent in place of the real one.
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

// guessContentType goes by what a test means with such a body; the standard
// library's sniffing takes JSON for plain text.
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

// send writes an answer, or half of it.
func (f Fault) send(w http.ResponseWriter, a answer) {
	f.decorate(a.header)
	if f.Cut != CutHalf {
		a.send(w)
		return
	}
	half := len(a.body) / 2
	if half == 0 || !bodyAllowed(a.status) {
		cut() // too short to be half of anything
	}
	a.header.Set("Content-Length", strconv.Itoa(len(a.body)))
	a.body = a.body[:half]
	a.send(w)
	// Without the flush the half would die in the server's buffer.
	_ = http.NewResponseController(w).Flush()
	cut()
}

// decorate sets the fields the fault brings along.
func (f Fault) decorate(header http.Header) {
	for name, values := range f.Header {
		header[http.CanonicalHeaderKey(name)] = values
	}
	if f.ContentType != "" {
		header.Set("Content-Type", f.ContentType)
	}
}

// endlessChunk is large enough to reach any sane limit quickly.
const endlessChunk = 32 << 10

// sendEndless writes until the client leaves. The default body is one JSON
// string without end, so that a streaming decoder finds nothing wrong.
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
