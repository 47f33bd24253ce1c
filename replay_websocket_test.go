package tollgate_test

import (
	"net/http"
	"testing"
)

// TestWebSocketIsRetriedWithANewTokenOverHTTP2AndHTTP3: an upstream's 401 to a CONNECT
// is answered as one to a GET.
func TestWebSocketIsRetriedWithANewTokenOverHTTP2AndHTTP3(t *testing.T) {
	t.Parallel()
	for protocol, open := range webSocketProtocols {
		t.Run(protocol, func(t *testing.T) {
			refused := make(chan string, 10)
			var s *protocolSite
			s = newProtocolSite(t, protocolOptions{inTollgate: "pass_access_token", handler: func(w http.ResponseWriter, r *http.Request) {
				token := r.Header.Get("Authorization")
				if first, ok := s.firstToken.Load().(string); ok && token == first {
					refused <- token
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				s.firstToken.CompareAndSwap(nil, token)
				s.Upstream.ServeStream(w, r)
			}})
			b := s.newBrowser()
			b.Follow("/")
			ws := open(s, "/stream/ws", cookieHeader(b))
			if got := ws.status(); got != "200" {
				t.Fatalf("got %s, want 200", got)
			}
			if len(refused) != 1 {
				t.Errorf("the upstream refused %d tokens, want 1", len(refused))
			}
			if !ws.echo() {
				t.Error("after the retry the WebSocket does not echo")
			}
		})
	}
}
