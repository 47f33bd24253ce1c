package tollgate_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// TestLeavingAWebSocketKeepsItsHold: the upstream may still work on the last message. A
// WebSocket over HTTP/3 has the status 200.
func TestLeavingAWebSocketKeepsItsHold(t *testing.T) {
	m := &meter{end: make(chan string)}
	s, b := newPaidSite(t, gatewaytest.Options{Handler: m.ServeHTTP}, nil)
	t.Cleanup(func() { close(m.end) })
	front := inHTTP3(t, s)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, s.URL+"/paid/ws", &websocket.DialOptions{HTTPClient: b.Client})
	if err != nil {
		t.Fatal(err)
	}
	conn.CloseNow()
	wantMoney(t, b, "9.00", "1.00")

	req := paidRequest(ctx, b, http.MethodConnect, "https://"+front.address+"/paid/ws")
	req.Proto = "websocket"
	req.Header.Set("Sec-WebSocket-Version", "13")
	stream := sendOverHTTP3(t, front.dial(nil), req)
	if res, err := stream.ReadResponse(); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("got %+v, %v, want an open WebSocket", res, err)
	}
	stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	<-front.handled
	wantMoney(t, b, "8.00", "2.00")
}
