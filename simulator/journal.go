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
	// maxRecorded is the maximum number of recorded requests of an endpoint.
	maxRecorded = 1000

	// maxRecordedHeader is the maximum recorded size of a request's header. A
	// server accepts up to a megabyte. ServeHTTP limits the URL and the body.
	maxRecordedHeader = 16 << 10
)

// Request is a request as it arrived, with every secret readable, because tests
// of a client check exactly what was sent. Its maps are shared and must not be
// changed.
type Request struct {
	Time   time.Time
	Method string
	Path   string
	Query  url.Values
	Header http.Header

	// Form is the form in the body, without the query. It is nil if the body is
	// no form.
	Form url.Values

	// Body is the body if it is no form.
	Body string
}

// Counts is the number of requests by endpoint.
type Counts map[Endpoint]int

// journal counts and records the requests to the provider's endpoints,
// also those that failed because of a fault.
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

// boundedHeader copies fields in alphabetical order, up to maxRecordedHeader.
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

// Count returns how many requests an endpoint has had. Token counts all
// requests to the token endpoint.
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

// ResetCounts sets all counters to zero, DoubleSpends too, and deletes the
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
