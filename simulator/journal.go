package simulator

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

const (
	// maxRecorded bounds the requests kept for each endpoint.
	maxRecorded = 1000

	// maxRecordedHeader bounds what is kept of a request's header, which a
	// server lets grow to a megabyte. URL and body are bounded by ServeHTTP.
	maxRecordedHeader = 16 << 10
)

// Request is a request as it arrived, with every secret readable: what was
// sent exactly is what a test of a client wants to know. Its maps are shared
// and must not be changed.
type Request struct {
	Time   time.Time
	Method string
	Path   string
	Query  url.Values
	Header http.Header

	// Form is the body as a form, nil when it is none. It is never mixed
	// with the query.
	Form url.Values

	// Body is the body when it is no form.
	Body string
}

// Counts is the number of requests by endpoint.
type Counts map[Endpoint]int

// journal counts and remembers the requests to the provider's endpoints,
// also those that a fault answered.
type journal struct {
	mu       sync.Mutex // guards both maps
	counts   Counts
	requests map[Endpoint][]Request // the last maxRecorded, the oldest first
}

func newJournal() *journal {
	return &journal{counts: make(Counts), requests: make(map[Endpoint][]Request)}
}

func (j *journal) record(r *http.Request, now time.Time, endpoints []Endpoint) {
	request := describeRequest(r, now)
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, endpoint := range endpoints {
		j.counts[endpoint]++
		kept := append(j.requests[endpoint], request)
		if len(kept) > maxRecorded {
			kept = kept[1:]
		}
		j.requests[endpoint] = kept
	}
}

func describeRequest(r *http.Request, now time.Time) Request {
	request := Request{
		Time:   now,
		Method: r.Method,
		Path:   r.URL.Path,
		Query:  r.URL.Query(),
		Header: boundedHeader(r.Header),
	}
	form, err := readForm(r)
	if err == nil {
		request.Form = form
	} else if body, err := readBody(r); err == nil {
		request.Body = string(body)
	}
	return request
}

// boundedHeader copies fields in alphabetical order while they fit.
func boundedHeader(header http.Header) http.Header {
	kept := make(http.Header, len(header))
	left := maxRecordedHeader
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			left -= len(name) + len(value)
			if left < 0 {
				return kept
			}
			kept[name] = append(kept[name], value)
		}
	}
	return kept
}

// Count returns how many requests an endpoint has had. Token counts both
// grants and whatever else arrived at the token endpoint.
func (p *Provider) Count(endpoint Endpoint) int {
	p.journal.mu.Lock()
	defer p.journal.mu.Unlock()
	return p.journal.counts[endpoint]
}

// Counts returns the counters of all endpoints that had requests.
func (p *Provider) Counts() Counts {
	p.journal.mu.Lock()
	defer p.journal.mu.Unlock()
	return maps.Clone(p.journal.counts)
}

// Requests returns the last requests of an endpoint, at most 1000, the
// oldest first.
func (p *Provider) Requests(endpoint Endpoint) []Request {
	p.journal.mu.Lock()
	defer p.journal.mu.Unlock()
	return slices.Clone(p.journal.requests[endpoint])
}

// ResetCounts sets all counters to zero, DoubleSpends too, and forgets the
// recorded requests.
func (p *Provider) ResetCounts() {
	p.journal.mu.Lock()
	clear(p.journal.counts)
	clear(p.journal.requests)
	p.journal.mu.Unlock()

	p.grants.mu.Lock()
	p.grants.doubleSpends = 0
	p.grants.mu.Unlock()
}
