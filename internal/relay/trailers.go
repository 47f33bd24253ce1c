package relay

import (
	"net/http"
	"strings"
)

// trailers removes trailers of a response that must not be sent: cookies, ours included,
// and fields for caches (RFC 9110 section 6.5.1). net/http sends a trailer if its name is
// announced in Trailer, or begins with http.TrailerPrefix.
//
// The values of an announced trailer are added to the header of that name once the header
// has been sent. Without this, our own Set-Cookie would be sent a second time.
type trailers struct {
	// sent holds the lines of the header under the names that were announced and refused.
	// The lines of a name are nil until the header has been sent.
	sent map[string][]string
}

// refuse removes the names of refused trailers from Trailer.
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

// remove removes the trailers that must not be sent. The header then is as it was sent, for
// the access log and for a handler around tollgate that sends it later.
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
