package tollgate_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// maskedHello is a client's text frame (RFC 6455 section 5.2) with a mask of zeros, and
// hello the server's.
const (
	maskedHello = "\x81\x85\x00\x00\x00\x00hello"
	hello       = "\x81\x05hello"
)

// webSocketOver is a WebSocket that shares its connection with other requests.
type webSocketOver interface {
	// status waits for the head of the answer.
	status() string
	// echo sends a message, and reports whether it comes back.
	echo() bool
	// cut waits for the end of the stream, and reports whether it was reset.
	cut() bool
}

// webSocketProtocols open a WebSocket over HTTP/2 or HTTP/3.
var webSocketProtocols = map[string]func(s *protocolSite, path, cookie string, headers ...string) webSocketOver{
	"HTTP/2": func(s *protocolSite, path, cookie string, headers ...string) webSocketOver {
		fields := append(extendedConnect("websocket", "https", s.secure, path, cookie), [2]string{"sec-websocket-version", "13"})
		for _, header := range headers {
			fields = append(fields, [2]string{"origin", header})
		}
		return &http2WebSocket{s.openHTTP2(true, frames{header: fields})}
	},
	"HTTP/3": func(s *protocolSite, path, cookie string, headers ...string) webSocketOver {
		req := s.connectRequest("websocket", path, "Cookie: "+cookie, "Sec-WebSocket-Version: 13")
		for _, header := range headers {
			req.Header.Add("Origin", header)
		}
		return &http3WebSocket{stream: s.openHTTP3(req)}
	},
}

type http2WebSocket struct{ *http2Stream }

func (ws *http2WebSocket) status() string {
	ws.read(func() bool { return ws.http2Stream.status != "" })
	return ws.http2Stream.status
}

func (ws *http2WebSocket) echo() bool {
	ws.data.Reset()
	ws.send([]byte(maskedHello), false)
	ws.read(func() bool { return ws.data.Len() >= len(hello) })
	return ws.data.String() == hello
}

func (ws *http2WebSocket) cut() bool {
	ws.read(func() bool { return false })
	return ws.reset != nil
}

type http3WebSocket struct {
	stream *http3.RequestStream
	res    *http.Response
}

func (ws *http3WebSocket) status() string {
	res, err := ws.stream.ReadResponse()
	if err != nil {
		return err.Error()
	}
	ws.res = res
	return res.Status[:3]
}

func (ws *http3WebSocket) echo() bool {
	if _, err := io.WriteString(ws.stream, maskedHello); err != nil {
		return false
	}
	read := make([]byte, len(hello))
	_, err := io.ReadFull(ws.stream, read)
	return err == nil && string(read) == hello
}

func (ws *http3WebSocket) cut() bool {
	_, err := io.Copy(io.Discard, ws.stream)
	return err != nil
}

// TestWebSocketsWorkOverHTTP2AndHTTP3 opens WebSockets with the only CONNECT that passes. They carry
// the identity, and end with their session.
func TestWebSocketsWorkOverHTTP2AndHTTP3(t *testing.T) {
	t.Parallel()
	s := newProtocolSite(t, protocolOptions{})
	for protocol, open := range webSocketProtocols {
		t.Run(protocol, func(t *testing.T) {
			if got := open(s, "/stream/ws", "").status(); got != "401" {
				t.Errorf("without a session: got %s, want 401", got)
			}
			b := s.newBrowser()
			b.Follow("/")
			ws := open(s, "/stream/ws", cookieHeader(b))
			if got := ws.status(); got != "200" {
				t.Fatalf("got %s, want 200", got)
			}
			if seen := s.Upstream.Last.Load(); seen.Method != http.MethodGet || seen.Header.Get("X-User-Id") != gatewaytest.UserID {
				t.Errorf("the upstream saw %+v", seen)
			}
			if !ws.echo() {
				t.Fatal("with a session the WebSocket does not echo")
			}
			b.Send(http.MethodPost, "/oauth/logout", nil, "Origin: "+s.URL)
			if !ws.cut() {
				t.Error("the stream was not reset when its session ended")
			}
		})
	}
}
