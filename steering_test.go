package tollgate_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

func TestHeadersThatNameAnotherURLNeverReachTheUpstream(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*\noptional /optional/*"})
	b := s.NewBrowser().SignIn()
	for _, path := range []string{"/public/a", "/optional/a", "/page"} {
		for _, name := range []string{"X-Original-URL", "X-Rewrite-URL", "x-original--url", "X-Original~URL", "X!Rewrite*Url", "X-Rewrite-Url"} {
			rawRequest(t, s, "GET "+path+" HTTP/1.1", "Host: gateway", b.CookieLine(), name+": /forged", "")
			wantNoForgery(s, t, path+" with "+name)
		}
		if seen := s.Upstream.Last.Load(); seen.URI != path {
			t.Errorf("the upstream saw %q, want %q", seen.URI, path)
		}
	}
}

func TestAMethodOverridePassesWithoutAMatcher(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	a := s.NewBrowser().SignIn().Send(http.MethodPost, "/page", nil, "X-HTTP-Method-Override: DELETE")
	if got := a.Seen(t).Header.Get("X-Http-Method-Override"); got != "DELETE" {
		t.Errorf("the upstream saw %q", got)
	}
}

func TestAWebSocketOfAnotherOriginGetsNoIdentity(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "optional /optional/*\npublic /public/*"})
	b := s.NewBrowser().SignIn()
	host := strings.TrimPrefix(s.URL, "http://")
	open := func(path string, headers ...string) *http.Response {
		lines := append([]string{"GET " + path + " HTTP/1.1", "Host: " + host, b.CookieLine()}, headers...)
		return rawRequest(t, s, append(lines, "")...)
	}
	upgrade := []string{"Connection: Upgrade", "Upgrade: WebSocket"}
	for origin, foreign := range map[string]bool{
		"": false, s.URL: false,
		"https://" + host: true, "null": true, "http://sibling.example": true, s.URL + ".evil.example": true, "http://x." + host: true, "http://localhost": true,
	} {
		headers := upgrade
		if origin != "" {
			headers = append([]string{"Origin: " + origin}, upgrade...)
		}
		before := s.Upstream.Requests.Load()
		res := open("/page", headers...)
		if refused := res.StatusCode == http.StatusForbidden; refused != foreign || refused != (s.Upstream.Requests.Load() == before) {
			t.Errorf("%q: got %d", origin, res.StatusCode)
		}
		for path, wantID := range map[string]bool{"/optional/a": !foreign, "/public/a": false} {
			if res := open(path, headers...); res.StatusCode != http.StatusOK {
				t.Errorf("%q at %s: got %d", origin, path, res.StatusCode)
			}
			if got := s.Upstream.Last.Load().Header.Get("X-User-Id") != ""; got != wantID {
				t.Errorf("%q at %s: an identity: %t, want %t", origin, path, got, wantID)
			}
		}
	}
	if res := open("/page", append([]string{"Origin: " + s.URL, "Origin: " + s.URL}, upgrade...)...); res.StatusCode != http.StatusForbidden {
		t.Errorf("two origins: got %d, want 403", res.StatusCode)
	}
	if res := open("/page", "Origin: http://sibling.example"); res.StatusCode != http.StatusOK {
		t.Errorf("no WebSocket: got %d, want 200", res.StatusCode)
	}
}

// TestWebSocketOfTheSameHostPasses: a site may serve several hosts, with
// cookie_domain.
func TestWebSocketOfTheSameHostPasses(t *testing.T) {
	for from, foreign := range map[string]bool{
		"https://a.example.org": false, "https://b.example.org": false,
		"https://c.example.org": true, "http://b.example.org": true, "https://b.example.org:8443": true,
	} {
		r := &http.Request{Host: "B.example.org", Header: http.Header{"Upgrade": {"websocket"}, "Origin": {from}}}
		if got := policy.IsForeignWebSocket(r, "https://a.example.org"); got != foreign {
			t.Errorf("%s: got %t, want %t", from, got, foreign)
		}
	}
}

func TestCrossOriginWebSocketsAreRefusedOverHTTP2AndHTTP3(t *testing.T) {
	t.Parallel()
	s := newProtocolSite(t, protocolOptions{})
	b := s.newBrowser()
	b.Follow("/")
	for protocol, open := range webSocketProtocols {
		if got := open(s, "/stream/ws", cookieHeader(b), "https://sibling.example").status(); got != "403" {
			t.Errorf("%s: got %s, want 403", protocol, got)
		}
		if got := open(s, "/stream/ws", cookieHeader(b), s.URL).status(); got != "200" {
			t.Errorf("%s, of this origin: got %s, want 200", protocol, got)
		}
	}
}
