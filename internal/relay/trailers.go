package relay

import (
	"net/http"
	"strings"
)

// trailers keeps out of an answer's trailers what must not be there: cookies, ours
// included, and what steers caches (RFC 9110 section 6.5.1). net/http sends a trailer
// where its name is announced in Trailer, or has http.TrailerPrefix.
//
// The values of an announced trailer are added to the header of that name once the header
// has been sent. Without this, our own Set-Cookie would be sent a second time.
type trailers struct {
	// sent holds the header's lines under the names that were announced and refused.
	sent map[string][]string
}

// refuse takes out of Trailer the names of trailers that are not sent.
func (t *trailers) refuse(header http.Header) {
	lists, ok := header["Trailer"]
	if !ok {
		return
	}
	var kept []string
	for _, list := range lists {
		for name := range strings.SplitSeq(list, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			switch {
			case name == "" || name == headerBalance || name == headerCost || name == headerLow:
			case !isRefusedTrailer(name):
				kept = append(kept, name)
			case t.sent == nil:
				t.sent = map[string][]string{name: nil}
			default:
				t.sent[name] = nil
			}
		}
	}
	if len(kept) == 0 {
		delete(header, "Trailer")
		return
	}
	header["Trailer"] = []string{strings.Join(kept, ", ")}
}

// note remembers the header that has been sent, under the names that were refused.
func (t *trailers) note(header http.Header) {
	for name := range t.sent {
		t.sent[name] = append([]string{}, header[name]...) // not nil: it has been sent
	}
}

// remove takes out the trailers that must not be sent. A handler around tollgate that
// keeps the header to send it later, and the access log, find the header as it was sent.
func (t *trailers) remove(header http.Header) {
	for name := range header {
		if trailer, ok := strings.CutPrefix(name, http.TrailerPrefix); ok && isRefusedTrailer(trailer) {
			delete(header, name)
		}
	}
	for name, lines := range t.sent {
		switch {
		case lines == nil: // the header has yet to be sent
		case len(lines) == 0:
			delete(header, name)
		default:
			header[name] = lines
		}
	}
}

func isRefusedTrailer(name string) bool {
	return strings.EqualFold(name, "Set-Cookie") || steersCaches(name)
}
