package tollgate

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/policy"
)

func TestHeadersThatNameAnotherURLNeverReachTheUpstream(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "public /public/*\noptional /optional/*"})
	b := s.newBrowser().signIn()
	for _, path := range []string{"/public/a", "/optional/a", "/page"} {
		for _, name := range []string{"X-Original-URL", "X-Rewrite-URL", "x-original--url", "X-Original~URL", "X!Rewrite*Url", "X-Rewrite-Url"} {
			rawRequest(t, s, "GET "+path+" HTTP/1.1", "Host: gateway", b.cookieLine(), name+": /forged", "")
			s.wantNoForgery(t, path+" with "+name)
		}
		if seen := s.upstream.last.Load(); seen.URI != path {
			t.Errorf("the upstream saw %q, want %q", seen.URI, path)
		}
	}
}

func TestAMethodOverridePassesWithoutAMatcher(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := s.newBrowser().signIn().do(http.MethodPost, "/page", nil, "X-HTTP-Method-Override: DELETE")
	if got := a.seen(t).Header.Get("X-Http-Method-Override"); got != "DELETE" {
		t.Errorf("the upstream saw %q", got)
	}
}

func TestAWebSocketOfAnotherOriginGetsNoIdentity(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "optional /optional/*\npublic /public/*"})
	b := s.newBrowser().signIn()
	host := strings.TrimPrefix(s.url, "http://")
	open := func(path string, headers ...string) *http.Response {
		lines := append([]string{"GET " + path + " HTTP/1.1", "Host: " + host, b.cookieLine()}, headers...)
		return rawRequest(t, s, append(lines, "")...)
	}
	upgrade := []string{"Connection: Upgrade", "Upgrade: WebSocket"}
	for origin, foreign := range map[string]bool{
		"": false, s.url: false,
		"https://" + host: true, "null": true, "http://sibling.example": true, s.url + ".evil.example": true, "http://x." + host: true, "http://localhost": true,
	} {
		headers := upgrade
		if origin != "" {
			headers = append([]string{"Origin: " + origin}, upgrade...)
		}
		before := s.upstream.requests.Load()
		res := open("/page", headers...)
		if refused := res.StatusCode == http.StatusForbidden; refused != foreign || refused != (s.upstream.requests.Load() == before) {
			t.Errorf("%q: got %d", origin, res.StatusCode)
		}
		for path, wantID := range map[string]bool{"/optional/a": !foreign, "/public/a": false} {
			if res := open(path, headers...); res.StatusCode != http.StatusOK {
				t.Errorf("%q at %s: got %d", origin, path, res.StatusCode)
			}
			if got := s.upstream.last.Load().Header.Get("X-User-Id") != ""; got != wantID {
				t.Errorf("%q at %s: an identity: %t, want %t", origin, path, got, wantID)
			}
		}
	}
	if res := open("/page", append([]string{"Origin: " + s.url, "Origin: " + s.url}, upgrade...)...); res.StatusCode != http.StatusForbidden {
		t.Errorf("two origins: got %d, want 403", res.StatusCode)
	}
	if res := open("/page", "Origin: http://sibling.example"); res.StatusCode != http.StatusOK {
		t.Errorf("no WebSocket: got %d, want 200", res.StatusCode)
	}
}

// TestAWebSocketMayComeFromTheHostThatItIsFor: a site may serve several hosts, with
// cookie_domain.
func TestAWebSocketMayComeFromTheHostThatItIsFor(t *testing.T) {
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
	b.follow("/")
	for protocol, open := range webSocketProtocols {
		if got := open(s, "/stream/ws", b.cookieHeader(), "https://sibling.example").status(); got != "403" {
			t.Errorf("%s: got %s, want 403", protocol, got)
		}
		if got := open(s, "/stream/ws", b.cookieHeader(), s.url).status(); got != "200" {
			t.Errorf("%s, of this origin: got %s, want 200", protocol, got)
		}
	}
}

// FuzzTarget: no request reaches the upstream that the rules did not see. What a client
// sends is passed on in net/http's own words, and read by net/http as an upstream reads
// it: it must be one request, under no stricter rules than those that were applied.
func FuzzTarget(f *testing.F) {
	for _, target := range []string{"/admin/x", "a:http://x/admin/x", "*", "http://host", "http://host/admin/x", "x:y", "//admin/x", "host:443", "a:?x", "http:admin", "/public/a"} {
		for _, method := range []string{"GET", "CONNECT", "TRACE", "OPTIONS", "connect"} {
			f.Add(method, target, "websocket", 1, smuggled)
			f.Add(method, target, "connect-udp", 3, smuggled)
			f.Add(method, target, "", 2, smuggled)
		}
	}
	rt, err := newRoutes(caddy.Context{}, map[string]string{"start": "/oauth/start"}, []string{"/public/*", "*.css"}, []string{"/optional/*"},
		[]string{"/admin", "/admin/*"})
	if err != nil {
		f.Fatal(err)
	}
	h := &Handler{routes: rt}
	f.Fuzz(func(t *testing.T, method, target, protocol string, major int, body string) {
		r, ok := arriving(method, target, protocol, major, body)
		if !ok {
			return
		}
		if h.checkTarget(r) != policy.TargetOK {
			return
		}
		if name, ok := rt.Endpoint(originalURL(r)); !ok || name != "" {
			return
		}
		applied, ok := rt.Demand(originalURL(r), r)
		if !ok {
			return
		}
		wire, ok := onTheWire(r)
		if !ok {
			return
		}
		sent := wire.String()
		upstream := bufio.NewReader(wire)
		seen, err := http.ReadRequest(upstream)
		if err != nil {
			return // the upstream refuses it
		}
		if _, err := io.Copy(io.Discard, seen.Body); err != nil {
			return
		}
		if rest, _ := io.ReadAll(upstream); len(rest) > 0 {
			t.Fatalf("%s %q: after one request the upstream reads on in %q, of %q", method, target, rest, sent)
		}
		if policy.IsConnect(seen.Method) || policy.IsTrace(seen.Method) {
			t.Fatalf("%s %q arrives as %s", method, target, seen.Method)
		}
		read := caddyhttp.PrepareRequest(seen, caddy.NewReplacer(), nil, &caddyhttp.Server{})
		if !policy.HasPath(read.URL) {
			t.Fatalf("%s %q arrives without a path: %q", method, target, sent)
		}
		policy.FillPath(read.URL)
		due, ok := rt.Demand(originalURL(read), read)
		if ok && (applied.Access > due.Access || due.Access != policy.AccessPublic && applied.Blocks&due.Blocks != due.Blocks) {
			t.Fatalf("%s %q passed under %+v; the upstream reads %q, which asks %+v", method, target, applied, seen.RequestURI, due)
		}
	})
}

// arriving is a request as net/http and quic-go hand it to Caddy.
func arriving(method, target, protocol string, major int, body string) (*http.Request, bool) {
	prepare := func(r *http.Request) *http.Request {
		return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, &caddyhttp.Server{})
	}
	if major != 2 && major != 3 {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(
			method + " " + target + " HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")))
		if err != nil {
			return nil, false
		}
		return prepare(r), true
	}
	r, err := http.NewRequest(method, "http://gateway/", strings.NewReader(body))
	if err != nil {
		return nil, false
	}
	r.ProtoMajor, r.Proto, r.ContentLength = major, "HTTP/3.0", -1
	switch {
	case method == http.MethodConnect && protocol == "":
		r.URL = &url.URL{Host: target}
	default:
		if r.URL, err = url.ParseRequestURI(target); err != nil {
			return nil, false
		}
	}
	if method == http.MethodConnect && protocol != "" {
		r.Header[":protocol"], r.Proto = []string{protocol}, protocol
	}
	return prepare(r), true
}

// onTheWire writes a request as Caddy's reverse_proxy passes it on.
func onTheWire(r *http.Request) (*bytes.Buffer, bool) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host = "http", "upstream"
	if policy.IsWebSocketConnect(r) {
		out.Method, out.Body, out.ContentLength = http.MethodGet, http.NoBody, 0
	}
	out.Header.Del(":protocol")
	var wire bytes.Buffer
	if err := out.Write(&wire); err != nil {
		return nil, false
	}
	return &wire, true
}
