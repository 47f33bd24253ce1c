package tollgate_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"testing"

	"github.com/quic-go/quic-go"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// ticketCache says when the server's session ticket has arrived.
type ticketCache struct {
	tls.ClientSessionCache
	arrived chan struct{}
}

func newTicketCache() *ticketCache {
	return &ticketCache{tls.NewLRUClientSessionCache(1), make(chan struct{}, 10)}
}

func (c *ticketCache) Put(name string, state *tls.ClientSessionState) {
	c.ClientSessionCache.Put(name, state)
	if state != nil {
		c.arrived <- struct{}{}
	}
}

// replayTo gives an address that passes a client's datagrams on to a server, and none of the
// server's. So the server sees what it would see of a replay: the handshake does not complete.
func replayTo(t *testing.T, server string) (address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with conn
		datagram := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(datagram)
			if err != nil {
				return
			}
			if from.String() != server {
				_, _ = conn.WriteTo(datagram[:n], to)
			}
		}
	}()
	return conn.LocalAddr().String()
}

// TestReplayedEarlyDataDoesNotReachTheUpstream: anyone on the network path can send a copy of
// what a client has sent before the TLS handshake was complete.
func TestReplayedEarlyDataDoesNotReachTheUpstream(t *testing.T) {
	log := &requestLog{}
	s := gatewaytest.New(t, gatewaytest.Options{
		InTollgate: "public /public/*\nrequire /paid/* {\nbalance 1.00\n}\nrequire /held/* {\nbalance 1.00\nreserve\n}", Handler: log.serve,
	})
	b := s.NewBrowser()
	b.Follow("/")
	front := inHTTP3(t, s)
	for _, c := range []struct {
		method, path string
		want         []string // what the upstream gets
	}{
		{http.MethodPost, "/page", nil},
		{http.MethodPut, "/page", nil},
		{http.MethodGet, "/paid/answer", nil},
		{http.MethodHead, "/held/answer", nil},
		{http.MethodGet, "/page", []string{`GET /page as "12345"`}},
		{http.MethodPost, "/public/form", []string{`POST /public/form as ""`}},
	} {
		cache := newTicketCache()
		front.dial(cache)
		<-cache.arrived
		early, err := quic.DialAddrEarly(t.Context(), replayTo(t, front.address), http3Client(cache), nil)
		if err != nil {
			t.Fatal(err)
		}
		before := len(log.seen())
		sendOverHTTP3(t, early, paidRequest(t.Context(), b, c.method, "https://"+front.address+c.path)).Close()
		if handled := <-front.handled; handled != c.path {
			t.Fatalf("the gateway handled %s, want %s", handled, c.path)
		}
		if got := log.seen()[before:]; !slices.Equal(got, c.want) {
			t.Errorf("%s %s: the upstream got %q, want %q", c.method, c.path, got, c.want)
		}
		early.CloseWithError(0, "")
	}
}

// TestEarlyDataOfAProxyInFrontGets425: such a proxy says it with a header.
func TestEarlyDataOfAProxyInFrontGets425(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	if a := b.Get("/", "Early-Data: 1"); a.StatusCode != http.StatusOK {
		t.Errorf("GET: got %d, want 200", a.StatusCode)
	}
	if a := b.Send(http.MethodPost, "/", nil, "Early-Data: 1"); a.StatusCode != http.StatusTooEarly || a.JSON(t)["error"] != "too_early" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("POST: got %d %v %s, want 425", a.StatusCode, a.Header, a.Text)
	}
}
