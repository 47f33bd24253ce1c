package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// streamPages open five WebSockets and an event stream.
var streamPages = map[string]string{
	"/account": document(`<script src="/page-streams.js"></script>`, "Streams"),
	"/page-streams.js": `window.opened = 0; window.ends = [];
		window.connect = path => {
			const socket = new WebSocket("ws://" + location.host + path);
			socket.onopen = () => { opened++; socket.send("hello") };
			socket.onclose = event => ends.push([event.code, event.reason, event.wasClean].join());
		};
		for (let i = 0; i < 5; i++) connect("/stream/echo");
		window.stream = new EventSource("/stream/events");
		stream.onmessage = () => opened++;`,
}

// serveStreams is the application's side of them. /stream/done is closed by the
// application after a message.
func serveStreams(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case "/stream/events":
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: hello\n\n")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case "/stream/echo", "/stream/done":
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return true
		}
		defer conn.CloseNow()
		for {
			kind, message, err := conn.Read(r.Context())
			if err != nil {
				return true
			}
			if r.URL.Path == "/stream/done" {
				conn.Close(4000, "done")
				return true
			}
			conn.Write(r.Context(), kind, message)
		}
	default:
		return false
	}
	return true
}

func TestStreamsOfAPageEndCleanlyWithTheSession(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{
			browser: in, pages: streamPages, other: serveStreams,
			policy: "default-src 'none'; script-src 'self'; connect-src 'self' ws:; img-src data:",
		})
		p := s.newPerson()
		p.tolerate("401 (Unauthorized)") // when the event stream is opened anew
		p.tolerate("ERR_")               // when it is cut
		p.tolerate("request to another origin: ws://")
		w := p.open("/account")
		w.signIn(gatewaytest.UserID)
		w.eventually("window.opened === 6")

		evaluate[any](w, `(connect("/stream/done"), null)`)
		w.eventually("ends.length")
		if got := evaluate[string](w, "ends.pop()"); got != "4000,done,true" {
			t.Errorf("the application's own end reads %s, want 4000,done,true", got)
		}

		evaluate[any](w, `fetch("/oauth/logout", { method: "POST", headers: { Accept: "application/json" } }).then(() => null)`)
		w.eventually("ends.length === 5 && stream.readyState === EventSource.CLOSED")
		for _, got := range evaluate[[]string](w, "ends") {
			if want := "4401,session ended,true"; got != want {
				t.Errorf("a WebSocket ends with %s, want %s", got, want)
			}
		}
	})
}
