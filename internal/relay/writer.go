// Package relay stands between the upstream's response and the client: it filters the
// response header, keeps request bodies so that they can be sent again, and ends
// WebSockets and event streams.
//
// It does not decide when a stream ends or when a request is repeated; its callers do.
// Begin with Writer.
package relay

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/browser"
)

// Writer passes the upstream's response to the client. When the header is sent, it
// removes the fields that an upstream may not set, and adds the session cookie if it has
// to be renewed. It does not do so earlier: the upstream's fields would be added to ours,
// Cache-Control included, and a 103 response would carry our cookie, too.
type Writer struct {
	*caddyhttp.ResponseWriterWrapper
	Cookies *browser.Jar
	// Owner is nil if the request is anonymous.
	Owner Owner
	// spends is true if the header said that the upstream spends the user's money.
	spends bool
	// Streaming watches the response if it is a stream.
	Streaming   Watch
	trailers    trailers
	wroteHeader bool
	// upgraded is true if the status is 101: the connection becomes a WebSocket.
	upgraded bool
	// BalanceIsLow adds the header that tells the page of a low balance.
	BalanceIsLow bool
	// status is the status code of the response, or 0 before its header is sent.
	status int
	costs  []string // the values of Tollgate-Cost
}

// Owner is the request of a signed-in user.
type Owner interface {
	// NewCookies returns the Set-Cookie values for the response. It is called once.
	NewCookies() []string
	// BalanceChanged is called when the upstream says that it spent money, and again when
	// that response ends: the upstream may have spent more while it ran.
	BalanceChanged()
	// OpenStream is called when the response is a stream. end ends the stream. The caller
	// calls closed when the stream is over.
	OpenStream(end func(End)) (closed func())
}

// Wrap returns w in the type that Writer and Gate embed.
func Wrap(w http.ResponseWriter) *caddyhttp.ResponseWriterWrapper {
	return &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}
}

// WriteHeader implements http.ResponseWriter.
func (w *Writer) WriteHeader(status int) {
	if w.wroteHeader {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		w.clean()
		delete(w.Header(), headerCost) // only the final response says what the request cost
	} else {
		w.Finish()
		w.status = status
		w.upgraded = status == http.StatusSwitchingProtocols
		w.Streaming.sawHeader(w.Header())
	}
	w.ResponseWriterWrapper.WriteHeader(status)
	w.trailers.note(w.Header())
}

// Hijack implements http.Hijacker. The connection that it returns can be ended together
// with the session.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil || !w.upgraded || w.Streaming.owner == nil {
		return conn, buffered, err
	}
	if err := buffered.Flush(); err != nil { // sends the header, so that only frames follow
		_ = conn.Close()
		return nil, nil, err
	}
	// A client may have sent frames before it received the header.
	sent, _ := buffered.Peek(buffered.Reader.Buffered())
	watched := w.Streaming.sawWebSocket(conn, sent)
	buffered.Writer.Reset(watched)
	return watched, buffered, nil
}

// Write implements http.ResponseWriter.
func (w *Writer) Write(p []byte) (int, error) {
	if !w.wroteHeader {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	if !w.wroteHeader {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError sends what has been written. Without this method http.ResponseController
// would flush the writer below, which would send the header before Finish has changed it.
func (w *Writer) FlushError() error {
	if !w.wroteHeader {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Finish makes the header ready to be sent. Call it also if nothing was written, and
// before the error of a handler is written.
func (w *Writer) Finish() {
	if w.wroteHeader {
		return
	}
	w.wroteHeader = true
	w.clean()
	w.takeCosts(headerCost)
	delete(w.Header(), headerLow)
	if w.BalanceIsLow {
		w.Header()[headerLow] = []string{"1"}
	}
	if w.Owner == nil {
		return
	}
	if cookies := w.Owner.NewCookies(); len(cookies) > 0 {
		header := w.Header()
		header["Set-Cookie"] = append(header["Set-Cookie"], cookies...)
		forbidCaching(header)
	}
}

const (
	// headerBalance is set by an upstream that spent the user's money.
	headerBalance = "Tollgate-Balance"
	// headerCost is set by an upstream, and says how much the request cost.
	headerCost = "Tollgate-Cost"
	// headerLow tells a page that the balance is low.
	headerLow = "Tollgate-Balance-Low"
)

// clean removes the upstream's cookies that have our names, and the fields that are for
// tollgate only.
func (w *Writer) clean() {
	header := w.Header()
	if w.takeBalance(headerBalance) {
		w.spends = true
		w.sayChanged()
	}
	w.trailers.refuse(header)
	lines := header["Set-Cookie"]
	for i, line := range lines {
		if w.Cookies.IsOwnSetCookie(line) {
			header["Set-Cookie"] = w.without(lines, i)
			break
		}
	}
}

// takeBalance removes the header field with the given name, and reports whether it says
// that the balance has changed.
func (w *Writer) takeBalance(name string) bool {
	header := w.Header()
	said, ok := header[name]
	if !ok {
		return false
	}
	delete(header, name)
	return len(said) > 0 && said[0] == "changed"
}

// takeCosts removes the header field with the given name, and keeps the costs in it.
func (w *Writer) takeCosts(name string) {
	header := w.Header()
	if said, ok := header[name]; ok {
		delete(header, name)
		w.costs = append(w.costs, said...)
	}
}

// Cost returns the values of Tollgate-Cost in the header and the trailers, and the status of
// the response. The status is 0 if there was no response. Call it after End.
func (w *Writer) Cost() (values []string, status int) { return w.costs, w.status }

// IsWebSocket reports whether the response has opened a WebSocket. Over HTTP/2 and HTTP/3 the
// status of such a response is 200.
func (w *Writer) IsWebSocket() bool {
	return w.upgraded || w.Streaming.connect && w.status == http.StatusOK
}

// End reads and removes the trailers that are for tollgate, announced or not. Call it when
// the response is over, before its trailers are sent.
func (w *Writer) End() {
	announced, other := w.takeBalance(headerBalance), w.takeBalance(http.TrailerPrefix+headerBalance)
	if announced || other || w.spends {
		w.sayChanged()
	}
	if w.wroteHeader {
		w.takeCosts(headerCost)
		w.takeCosts(http.TrailerPrefix + headerCost)
	}
	w.trailers.remove(w.Header())
}

func (w *Writer) sayChanged() {
	if w.Owner != nil {
		w.Owner.BalanceChanged()
	}
}

// without returns the Set-Cookie lines that are not ours. first is the index of our first.
func (w *Writer) without(lines []string, first int) []string {
	kept := append([]string(nil), lines[:first]...)
	for _, line := range lines[first+1:] {
		if !w.Cookies.IsOwnSetCookie(line) {
			kept = append(kept, line)
		}
	}
	return kept
}

// forbidCaching forbids shared caches to store a response with a session cookie. The
// upstream's own fields for caches are removed.
func forbidCaching(header http.Header) {
	policy := "private, no-store"
	if said := header["Cache-Control"]; len(said) == 1 && said[0] == "no-store" {
		policy = said[0] // as in our own responses
	}
	for name := range header {
		if steersCaches(name) {
			delete(header, name)
		}
	}
	header["Cache-Control"] = []string{policy}
}

// steersCaches reports whether a response header field can make a cache store the response
// although Cache-Control forbids it. Targeted fields (RFC 9213) end in "-Cache-Control";
// each CDN has one. The other names are older than RFC 9213.
func steersCaches(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "cache-control", "expires", "surrogate-control", "edge-control", "x-accel-expires":
		return true
	}
	return strings.HasSuffix(name, "-cache-control")
}
