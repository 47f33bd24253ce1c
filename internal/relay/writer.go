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

// Writer stands between the upstream's answer and the client. At the moment
// the header goes out, and not before, it takes out what an upstream may not say
// and adds the session cookie where that has to be renewed: a header that was set
// earlier would be joined by the upstream's, Cache-Control included, and would
// ride on a 103, too.
type Writer struct {
	*caddyhttp.ResponseWriterWrapper
	Cookies *browser.Jar
	// Owner is nil where the request is anonymous.
	Owner  Owner
	spends bool // the header has said that the upstream spends the user's money
	// Streaming is told what kind of a stream the answer turns into.
	Streaming   Watch
	trailers    trailers
	wroteHeader bool
	// upgraded: the answer is 101, and the connection becomes a WebSocket's.
	upgraded bool
	// BalanceIsLow adds the header that tells the page so.
	BalanceIsLow bool
	// status is the status code of the response, or 0 before its header is sent.
	status int
	costs  []string
}

// Owner is the signed-in user's request that an answer is for.
type Owner interface {
	// NewCookies gives the Set-Cookie values for this answer. It is asked once.
	NewCookies() []string
	// BalanceChanged is called when the upstream says that it spent money, and once more
	// when that answer ends: it may have spent while it ran.
	BalanceChanged()
	// Stream is called when the answer turns into a stream, with what ends it. closed
	// is to be called when the stream is over.
	OpenStream(end func(End)) (closed func())
}

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

// Hijack implements http.Hijacker. The connection that it gives can be ended together
// with the session.
func (w *Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil || !w.upgraded || w.Streaming.owner == nil {
		return conn, buffered, err
	}
	if err := buffered.Flush(); err != nil { // the header: what follows are frames
		_ = conn.Close()
		return nil, nil, err
	}
	sent, _ := buffered.Peek(buffered.Reader.Buffered()) // by a client that did not wait for the header
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

// FlushError sends what is there. http.ResponseController would find the writer
// below, and its flush sends the header behind our back.
func (w *Writer) FlushError() error {
	if !w.wroteHeader {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Finish makes the header ready to be sent: also when nothing was written, or the
// error that a handler returned is about to be.
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

// headerBalance is how an upstream says that it spent the user's money, and headerCost how
// much. headerLow tells a page that the balance is low.
const (
	headerBalance = "Tollgate-Balance"
	headerCost    = "Tollgate-Cost"
	headerLow     = "Tollgate-Balance-Low"
)

// clean takes out the upstream's cookies under our names, and what it says to us.
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

// takeBalance takes out what the upstream says of the balance under a name, and reports
// whether that has changed.
func (w *Writer) takeBalance(name string) bool {
	header := w.Header()
	said, ok := header[name]
	if !ok {
		return false
	}
	delete(header, name)
	return len(said) > 0 && said[0] == "changed"
}

// takeCosts takes out what the upstream says that the request cost, under a name.
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

// End is called when the answer is over, and its trailers, announced or not, are about
// to be sent.
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

// without gives the Set-Cookie lines that are not ours; the first of ours is known.
func (w *Writer) without(lines []string, first int) []string {
	kept := append([]string(nil), lines[:first]...)
	for _, line := range lines[first+1:] {
		if !w.Cookies.IsOwnSetCookie(line) {
			kept = append(kept, line)
		}
	}
	return kept
}

// forbidCaching keeps shared caches from storing an answer that carries a session
// cookie, whatever the upstream said of it.
func forbidCaching(header http.Header) {
	policy := "private, no-store"
	if said := header["Cache-Control"]; len(said) == 1 && said[0] == "no-store" {
		policy = said[0] // as our own answers have it
	}
	for name := range header {
		if steersCaches(name) {
			delete(header, name)
		}
	}
	header["Cache-Control"] = []string{policy}
}

// steersCaches reports whether a header of an answer can have some cache store it, though
// Cache-Control forbids that: targeted fields (RFC 9213) end in "-Cache-Control", one for
// each CDN, and the others are older than that.
func steersCaches(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "cache-control", "expires", "surrogate-control", "edge-control", "x-accel-expires":
		return true
	}
	return strings.HasSuffix(name, "-cache-control")
}
