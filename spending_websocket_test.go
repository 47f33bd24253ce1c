package tollgate_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// overHTTP3 serves a site over HTTP/3 as well. Each request that the gateway has handled is
// written to handled.
func overHTTP3(t *testing.T, s *gatewaytest.Site) (dial func() *http3.ClientConn, url string, handled chan struct{}) {
	t.Helper()
	handled = make(chan struct{}, 10)
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	certificate.Close()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http3.Server{
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: certificate.TLS.Certificates}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { handled <- struct{}{} }()
			s.Server.ServeHTTP(w, r)
		}),
	}
	go server.Serve(conn) // ends with Close
	t.Cleanup(func() { server.Close(); conn.Close() })
	dial = func() *http3.ClientConn {
		t.Helper()
		client, err := quic.DialAddr(t.Context(), conn.LocalAddr().String(), http3.ConfigureTLSConfig(&tls.Config{InsecureSkipVerify: true}), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.CloseWithError(0, "") })
		return (&http3.Transport{}).NewClientConn(client)
	}
	return dial, "https://" + conn.LocalAddr().String(), handled
}

// TestLeavingAWebSocketKeepsItsHold: the upstream may still work on the last message. A
// WebSocket over HTTP/3 has the status 200.
func TestLeavingAWebSocketKeepsItsHold(t *testing.T) {
	m := &meter{end: make(chan string)}
	s, b := newPaidSite(t, gatewaytest.Options{Handler: m.ServeHTTP}, nil)
	t.Cleanup(func() { close(m.end) })
	dial, url, handled := overHTTP3(t, s)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, s.URL+"/paid/ws", &websocket.DialOptions{HTTPClient: b.Client})
	if err != nil {
		t.Fatal(err)
	}
	conn.CloseNow()
	wantMoney(t, b, "9.00", "1.00")

	stream, err := dial().OpenRequestStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	req := paidRequest(ctx, b, http.MethodConnect, url+"/paid/ws")
	req.Proto = "websocket"
	req.Header.Set("Sec-WebSocket-Version", "13")
	if err := stream.SendRequestHeader(req); err != nil {
		t.Fatal(err)
	}
	if res, err := stream.ReadResponse(); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("got %+v, %v, want an open WebSocket", res, err)
	}
	stream.CancelRead(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	stream.CancelWrite(quic.StreamErrorCode(http3.ErrCodeRequestCanceled))
	<-handled
	wantMoney(t, b, "8.00", "2.00")
}
