package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// benchCase is one kind of request to one site.
type benchCase struct {
	site     string // its name in the report
	sessions string
	address  string
	// requests are sent in turn. answers are the expected bodies of the responses.
	requests [][]byte
	answers  [][]byte
	// workers are the connections, kept from one turn to the next.
	workers []*worker
}

func (c *benchCase) String() string { return c.site + ", " + c.sessions }

// The names of the cases in the report.
const (
	sitePlain      = "plain Caddy"
	sitePlainAgain = sitePlain + " once more"
	siteGated      = "tollgate, 8 identity headers"
	siteGatedNone  = "tollgate, `identity none`"

	oneHot   = "one, hot"
	noCookie = "none, no session cookie"
)

// newCases returns the cases in the order of the first pass. The first one is plain Caddy
// without the session cookie. Then plain Caddy comes before the cases that are compared with
// it. A second case of plain Caddy, compared with the first, shows the noise.
func newCases(o options, s *site, sessions []benchSession) []*benchCase {
	cases := []*benchCase{newCase(o, sitePlain, noCookie, s.plain, []benchSession{{userID: nobody}}, expectNobody)}
	rotating := fmt.Sprintf("%d, rotating", len(sessions))
	for _, mode := range []struct {
		name     string
		sessions []benchSession
	}{{oneHot, sessions[:1]}, {rotating, sessions}} {
		cases = append(cases,
			newCase(o, sitePlain, mode.name, s.plain, mode.sessions, expectCookie),
			newCase(o, siteGated, mode.name, s.gated, mode.sessions, expectUser),
			newCase(o, siteGatedNone, mode.name, s.gatedNone, mode.sessions, expectNobody),
		)
	}
	again := newCase(o, sitePlainAgain, oneHot, s.plain, sessions[:1], expectCookie)
	return slices.Insert(cases, 2, again)
}

func expectCookie(benchSession) string { return expectedAnswer(nobody, true) }
func expectUser(s benchSession) string { return expectedAnswer(s.userID, false) }
func expectNobody(benchSession) string { return expectedAnswer(nobody, false) }

func newCase(o options, site, mode, address string, sessions []benchSession, expect func(benchSession) string) *benchCase {
	c := &benchCase{site: site, sessions: mode, address: address}
	for _, s := range sessions {
		c.requests = append(c.requests, requestFor(o, address, s))
		c.answers = append(c.answers, []byte(expect(s)))
	}
	for i := range o.connections {
		// Each connection begins with another request, so that they do not run in step.
		c.workers = append(c.workers, &worker{next: i * len(sessions) / o.connections})
	}
	return c
}

// browserHeader is the header of a browser's request from a script.
const browserHeader = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
	"Accept: */*\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Referer: http://127.0.0.1/chat\r\n" +
	"Sec-Fetch-Site: same-origin\r\n" +
	"Sec-Fetch-Mode: cors\r\n" +
	"Sec-Fetch-Dest: empty\r\n"

// requestFor returns the bytes of a request. They are sent again and again.
func requestFor(o options, address string, s benchSession) []byte {
	var b strings.Builder
	b.WriteString("GET /api/models HTTP/1.1\r\nHost: " + address + "\r\n")
	if !o.bare {
		b.WriteString(browserHeader)
	}
	var cookies []string
	for i := range o.otherCookies {
		cookies = append(cookies, fmt.Sprintf("app_%d=0123456789abcdef", i))
	}
	if s.cookie != "" {
		cookies = append(cookies, s.cookie)
	}
	if len(cookies) > 0 {
		b.WriteString("Cookie: " + strings.Join(cookies, "; ") + "\r\n")
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}

// warmUpTime is long enough for connections, pools and heap to settle.
const warmUpTime = 500 * time.Millisecond

// warmUp sends every request of the case at least once.
func (c *benchCase) warmUp() error {
	for t := (turn{}); len(t.latencies) < 2*len(c.requests); {
		if err := c.load(warmUpTime, &t); err != nil {
			return err
		}
	}
	return nil
}

// load sends requests on all connections until the deadline, one after the other on each,
// and adds the measurements to a turn.
func (c *benchCase) load(duration time.Duration, t *turn) error {
	errs := make([]error, len(c.workers))
	var wg sync.WaitGroup
	deadline := time.Now().Add(duration)
	for i, w := range c.workers {
		wg.Go(func() { errs[i] = w.work(c, deadline) })
	}
	wg.Wait()
	if err := firstError(errs); err != nil {
		return err
	}
	for _, w := range c.workers {
		t.inTime += len(w.latencies) - 1 // the last one ended after the deadline
		t.latencies = append(t.latencies, w.latencies...)
	}
	t.elapsed += duration
	return nil
}

// firstError returns the first error. The others are usually the same.
func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// worker is one connection. It allocates nothing while it works, so that the measurements
// contain no garbage collection of the load generator.
type worker struct {
	conn      net.Conn
	next      int // the index of the next request
	buffer    []byte
	latencies []time.Duration // of the last slice
}

// responseTimeout is how long a response may take. After that the run has failed.
const responseTimeout = 30 * time.Second

// work sends requests until one ends after the deadline, and checks every response.
func (w *worker) work(c *benchCase, deadline time.Time) error {
	if w.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			return err
		}
		w.conn, w.buffer = conn, make([]byte, maxMessage)
	}
	w.latencies = w.latencies[:0]
	if err := w.conn.SetDeadline(deadline.Add(responseTimeout)); err != nil {
		return err
	}
	for {
		began := time.Now()
		if _, err := w.conn.Write(c.requests[w.next]); err != nil {
			return err
		}
		status, body, err := readAnswer(w.conn, w.buffer)
		if err != nil {
			return err
		}
		ended := time.Now()
		if !bytes.Equal(status, statusOK) || !bytes.Equal(body, c.answers[w.next]) {
			return fmt.Errorf("wrong response: got status %s and %q, want 200 and %q", status, body, c.answers[w.next])
		}
		w.latencies = append(w.latencies, ended.Sub(began))
		if w.next++; w.next == len(c.requests) {
			w.next = 0
		}
		if !ended.Before(deadline) {
			return nil
		}
	}
}

var (
	statusLine    = []byte("HTTP/1.1 ")
	statusOK      = []byte("200")
	contentLength = []byte("\r\nContent-Length: ")
)

// readAnswer reads one response with a Content-Length. It is an error if more or fewer bytes
// arrive.
func readAnswer(r io.Reader, buffer []byte) (status, body []byte, err error) {
	end, n, err := readHeader(r, buffer, 0)
	if err != nil {
		return nil, nil, err
	}
	header := buffer[:end]
	if !bytes.HasPrefix(header, statusLine) || end < len(statusLine)+3 {
		return nil, nil, fmt.Errorf("not an HTTP/1.1 response: %q", header)
	}
	i := bytes.Index(header, contentLength)
	if i < 0 {
		return nil, nil, fmt.Errorf("response without Content-Length: %q", header)
	}
	digits, _, _ := bytes.Cut(header[i+len(contentLength):], headerEnd[:2])
	length, err := strconv.Atoi(string(digits))
	if err != nil || length < 0 || end+length > len(buffer) {
		return nil, nil, fmt.Errorf("response with the invalid Content-Length %q", digits)
	}
	for n < end+length {
		more, err := r.Read(buffer[n:])
		n += more
		if err != nil && n < end+length {
			return nil, nil, fmt.Errorf("%w: %w", errNotFinished, err)
		}
	}
	if n > end+length {
		return nil, nil, fmt.Errorf("%d bytes after the end of the response", n-end-length)
	}
	return header[len(statusLine) : len(statusLine)+3], buffer[end : end+length], nil
}

func closeCases(cases []*benchCase) {
	for _, c := range cases {
		for _, w := range c.workers {
			if w.conn != nil {
				w.conn.Close()
			}
		}
	}
}

// profilePath returns the path of the profile of one slice, or "" without -profile.
func profilePath(o options, c *benchCase, n int) string {
	if o.profile == "" {
		return ""
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		case r == ' ':
			return '-'
		default:
			return -1
		}
	}, c.String())
	return filepath.Join(o.profile, fmt.Sprintf("%s-%d.prof", name, n+1))
}
