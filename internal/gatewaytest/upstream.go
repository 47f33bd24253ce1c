package gatewaytest

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/coder/websocket"
)

// Upstream answers every request with what it received, as JSON, unless the path begins
// with /stream/; see ServeStream.
type Upstream struct {
	*httptest.Server
	// Requests counts the requests that came, and Streams the streams that are open.
	Requests, Streams atomic.Int64
	// Last is the last request.
	Last atomic.Pointer[Received]
	own  atomic.Pointer[http.HandlerFunc]
}

// Answer lets a handler answer from now on, or the Upstream itself if own is nil.
func (u *Upstream) Answer(own http.HandlerFunc) { u.own.Store(&own) }

// Received is a request as the upstream saw it.
type Received struct {
	Method  string
	URI     string
	Header  http.Header
	Trailer http.Header
	Body    string
}

// NewUpstream starts an upstream that ends with the test. own, if not nil, answers.
func NewUpstream(t *testing.T, own http.HandlerFunc) *Upstream {
	u := &Upstream{}
	u.Answer(own)
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.Requests.Add(1)
		body, _ := io.ReadAll(r.Body)
		seen := &Received{r.Method, r.RequestURI, r.Header.Clone(), r.Trailer.Clone(), string(body)}
		u.Last.Store(seen)
		if own := *u.own.Load(); own != nil {
			own(w, r)
			return
		}
		if u.ServeStream(w, r) {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(seen)
	}))
	t.Cleanup(u.Close)
	return u
}

// ServeStream serves the streams of the upstream, and reports whether the request was for
// one. /stream/ws and /stream/dear are WebSockets that echo, /stream/flood sends large
// messages in small fragments without end, and /stream/events sends one event.
func (u *Upstream) ServeStream(w http.ResponseWriter, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, "/stream/") {
		return false
	}
	u.Streams.Add(1)
	defer u.Streams.Add(-1)
	switch r.URL.Path {
	case "/stream/ws", "/stream/dear":
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return true
		}
		defer conn.CloseNow()
		for {
			kind, message, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), kind, message) != nil {
				return true
			}
		}
	case "/stream/flood":
		flood(w)
	case "/stream/events":
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano())
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	return true
}

// flood sends messages of three fragments, each of a length of another kind, in pieces
// that end anywhere. A fragment's bytes are all the last byte of its length.
func flood(w http.ResponseWriter) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if rw.Flush() != nil {
		return
	}
	var message []byte
	for i, length := range []int{100, 3000, 70001} {
		first := []byte{0x02, 0x00, 0x80}[i]
		switch {
		case length < 126:
			message = append(message, first, byte(length))
		case length < 1<<16:
			message = binary.BigEndian.AppendUint16(append(message, first, 126), uint16(length))
		default:
			message = binary.BigEndian.AppendUint64(append(message, first, 127), uint64(length))
		}
		for range length {
			message = append(message, byte(length))
		}
	}
	for {
		for rest := message; len(rest) > 0; rest = rest[min(977, len(rest)):] {
			if _, err := conn.Write(rest[:min(977, len(rest))]); err != nil {
				return
			}
		}
	}
}
