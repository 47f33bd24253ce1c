package relay

import (
	"net/http"

	"github.com/caddy-tollgate/tollgate/internal/browser"
)

// AfterError returns a Writer for the response of an error route, after the Writer of the
// request was finished without a response. What that one has put into the header stays.
//
// The request was settled already: what an error route says of costs is taken out, and does
// not count.
func AfterError(w http.ResponseWriter, cookies *browser.Jar) *Writer {
	header := w.Header()
	rw := &Writer{ResponseWriterWrapper: Wrap(w), Cookies: cookies, BalanceIsLow: header[headerLow] != nil}
	var kept []string
	var other []string
	for _, line := range header["Set-Cookie"] {
		if cookies.IsOwnSetCookie(line) {
			kept = append(kept, line)
		} else {
			other = append(other, line)
		}
	}
	if kept != nil {
		rw.Owner = leftCookies(kept)
		delete(header, "Set-Cookie")
		if other != nil {
			header["Set-Cookie"] = other
		}
	}
	return rw
}

// leftCookies are the Set-Cookie lines of a request whose response has failed.
type leftCookies []string

// NewCookies implements Owner.
func (l leftCookies) NewCookies() []string { return l }

// BalanceChanged implements Owner. The balance is read again when the request was settled.
func (leftCookies) BalanceChanged() {}

// OpenStream implements Owner. An error route opens no stream of a user.
func (leftCookies) OpenStream(func(End)) (closed func()) { return func() {} }

// Interface guard.
var _ Owner = leftCookies(nil)
