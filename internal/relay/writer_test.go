package relay

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/browser"
)

// A handler around tollgate may keep the header and send it after us. By then, the trailers
// are in the same map.
func TestTrailersDoNotJoinAHeaderThatIsSentLater(t *testing.T) {
	recorder := httptest.NewRecorder()
	w := &Writer{ResponseWriterWrapper: Wrap(recorder), Cookies: &browser.Jar{Name: "tollgate"}}
	header := w.Header()
	header["Trailer"] = []string{"Set-Cookie, Expires, X-Good"}
	header["Set-Cookie"] = []string{"a=1"}
	w.WriteHeader(http.StatusOK)
	header.Add("Set-Cookie", "tollgate=evil")
	header.Add("Expires", "0")
	header.Add("X-Good", "good")
	w.End()
	if got := header["Set-Cookie"]; !slices.Equal(got, []string{"a=1"}) {
		t.Errorf("got Set-Cookie %q, want a=1", got)
	}
	if got := header["Expires"]; len(got) != 0 || header.Get("X-Good") != "good" {
		t.Errorf("got Expires %q, X-Good %q, want none and good", got, header.Get("X-Good"))
	}
}

func TestEventStreamsAreRecognisedByEachContentType(t *testing.T) {
	for _, c := range []struct {
		kinds []string
		want  bool
	}{
		{[]string{"text/event-stream"}, true},
		{[]string{" Text/Event-Stream ; charset=utf-8"}, true},
		{[]string{"text/event-stream; charset"}, true},
		{[]string{"text/event-stream;;"}, true},
		{[]string{"text/event-stream; a=1; a=2"}, true},
		{[]string{"text/plain", "text/event-stream"}, true},
		{[]string{"text/plain, text/event-stream"}, true},
		{[]string{"text/event-streams"}, false},
		{[]string{"text/plain; x=text/event-stream"}, false},
		{[]string{""}, false},
		{nil, false},
	} {
		if got := isEventStream(http.Header{"Content-Type": c.kinds}); got != c.want {
			t.Errorf("%q: got %v, want %v", c.kinds, got, c.want)
		}
	}
}
