package tollgate_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// smuggled is a request in the body of another one.
const smuggled = "POST /admin/x HTTP/1.1\r\nHost: app\r\nX-User-Id: 1\r\nContent-Length: 0\r\n\r\n"

// requestLog notes the requests of an upstream that refuses CONNECT, as most do, and
// keeps the connection open.
type requestLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *requestLog) serve(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	l.lines = append(l.lines, fmt.Sprintf("%s %s as %q", r.Method, r.RequestURI, r.Header.Get("X-User-Id")))
	l.mu.Unlock()
	if r.Method == http.MethodConnect {
		http.NotFound(w, r)
	}
}

func (l *requestLog) seen() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// tunnels are the ways to ask for a tunnel, with a request in its data.
var tunnels = map[string]func(s *protocolSite, path, cookie string) responseHead{
	"CONNECT over HTTP/2 with TLS": func(s *protocolSite, _, cookie string) responseHead {
		return s.overHTTP2(true, frames{plainConnect(s.secure, cookie), smuggled})
	},
	"CONNECT over HTTP/2 without TLS": func(s *protocolSite, _, cookie string) responseHead {
		return s.overHTTP2(false, frames{plainConnect(s.plain, cookie), smuggled})
	},
	"connect-udp over HTTP/2": func(s *protocolSite, path, cookie string) responseHead {
		return s.overHTTP2(true, frames{extendedConnect("connect-udp", "https", s.secure, path, cookie), smuggled})
	},
	"connect-udp over HTTP/2 without TLS": func(s *protocolSite, path, cookie string) responseHead {
		return s.overHTTP2(false, frames{extendedConnect("connect-udp", "http", s.plain, path, cookie), smuggled})
	},
	"CONNECT over HTTP/3": func(s *protocolSite, _, cookie string) responseHead {
		return s.overHTTP3(s.connectRequest("", "", "Cookie: "+cookie), smuggled)
	},
	"connect-udp over HTTP/3": func(s *protocolSite, path, cookie string) responseHead {
		return s.overHTTP3(s.connectRequest("connect-udp", path, "Cookie: "+cookie), smuggled)
	},
	"a protocol almost like websocket over HTTP/3": func(s *protocolSite, path, cookie string) responseHead {
		return s.overHTTP3(s.connectRequest("WebSocket", path, "Cookie: "+cookie), smuggled)
	},
}

func plainConnect(authority, cookie string) [][2]string {
	return [][2]string{{":method", "CONNECT"}, {":authority", authority}, {"cookie", cookie}}
}

func extendedConnect(protocol, scheme, authority, path, cookie string) [][2]string {
	return [][2]string{
		{":method", "CONNECT"},
		{":protocol", protocol},
		{":scheme", scheme},
		{":authority", authority},
		{":path", path},
		{"cookie", cookie},
	}
}

// TestNoTunnelReachesTheUpstream: Go's transport writes the data of a CONNECT to an
// HTTP/1.1 upstream as it is, and the upstream reads a request in it.
func TestNoTunnelReachesTheUpstream(t *testing.T) {
	t.Parallel()
	log := &requestLog{}
	s := newProtocolSite(t, protocolOptions{handler: log.serve})
	b := s.newBrowser()
	if a := b.Follow("/"); a.StatusCode != http.StatusOK {
		t.Fatalf("signing in: %d: %s", a.StatusCode, a.Text)
	}
	before := log.seen()
	for name, send := range tunnels {
		for _, path := range []string{"/public/a", "/page", "/oauth/health", "/oauth/callback"} {
			for _, cookie := range []string{"", cookieHeader(b)} {
				head := send(s, path, cookie)
				if head.status != "405" {
					t.Errorf("%s, %s, cookie %t: got %q, want 405", name, path, cookie != "", head.status)
					continue
				}
				if got := head.header.Get("Cache-Control"); got != "no-store" {
					t.Errorf("%s: Cache-Control is %q", name, got)
				}
				if got := head.header.Get("Allow"); got == "" {
					t.Errorf("%s: no Allow", name)
				}
			}
		}
	}
	if seen := log.seen(); len(seen) != len(before) {
		t.Errorf("the upstream saw %q", seen[len(before):])
	}
}

// TestCaddyAloneLetsTunnelsThrough shows that the attack of TestNoTunnelReachesTheUpstream
// is one, and what SECURITY.md says of sites without tollgate.
func TestCaddyAloneLetsTunnelsThrough(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"CONNECT over HTTP/2 with TLS", "CONNECT over HTTP/2 without TLS", "connect-udp over HTTP/3"} {
		log := &requestLog{}
		s := newProtocolSite(t, protocolOptions{handler: log.serve, bare: true})
		fooled := func() bool { return slices.Contains(log.seen(), `POST /admin/x as "1"`) }
		for range 50 {
			if tunnels[name](s, "/public/a", ""); fooled() {
				break
			}
		}
		gatewaytest.Eventually(t, name+" fools the upstream of a Caddy without tollgate", fooled)
	}
}

func TestTraceAndConnectAreRefused(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*"})
	b := s.NewBrowser().SignIn()
	before := s.Upstream.Requests.Load()
	for _, line := range []string{"TRACE", "CONNECT", "trace", "Connect", "TRACK", "Track"} {
		for _, target := range []string{"/public/a", "/page", "/oauth/health", "/oauth/start", "http://gateway/public/a"} {
			res := rawRequest(t, s, line+" "+target+" HTTP/1.1", "Host: gateway", b.CookieLine(), "", "")
			if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s: got %d with %v", line, target, res.StatusCode, res.Header)
			}
			if closes := strings.EqualFold(line, "CONNECT"); res.Close != closes {
				t.Errorf("%s %s: the connection is closed: %t, want %t", line, target, res.Close, closes)
			}
		}
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// TestHTTP2RequestsThatNoUpstreamCanGetAreRefused: Go's HTTP/2 server accepts them. Caddy would
// answer 502, and count a failure of the upstream.
func TestHTTP2RequestsThatNoUpstreamCanGetAreRefused(t *testing.T) {
	t.Parallel()
	log := &requestLog{}
	s := newProtocolSite(t, protocolOptions{handler: log.serve})
	for _, c := range []struct {
		method string
		more   [][2]string
		want   string
	}{
		{"GET", nil, "200"},
		{"GET /admin", nil, "405"},
		{"POST ", nil, "405"},
		{`a"b`, nil, "405"},
		{"GET", [][2]string{{":protocol", "websocket"}}, "400"},
	} {
		header := append([][2]string{{":method", c.method}, {":scheme", "https"}, {":authority", s.secure}, {":path", "/public/a"}}, c.more...)
		before := len(log.seen())
		stream := s.openHTTP2(true, frames{header: header})
		stream.send(nil, true)
		stream.read(func() bool { return stream.status != "" })
		if reached := len(log.seen()) > before; stream.status != c.want || reached != (c.want == "200") {
			t.Errorf("%q %v: got %q, reached the upstream: %t, want %s", c.method, c.more, stream.status, reached, c.want)
		}
	}
}

func TestTargetsWithoutAPathAreRefused(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*\nrequire /api/* {\nuser 7\n}"})
	b := s.NewBrowser().SignIn()
	before := s.Upstream.Requests.Load()
	for _, target := range []string{"a:http://x/api/v1", "a:/%2e/api/v1", "*", "x:y", "a:?x", "http:api/v1", "a:http://x/oauth/health", "javascript://"} {
		res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", b.CookieLine(), "", "")
		if target == "a:/%2e/api/v1" { // has a path, which can be read in two ways
			if res.StatusCode != http.StatusBadRequest && res.StatusCode != http.StatusForbidden {
				t.Errorf("%s: got %d", target, res.StatusCode)
			}
			continue
		}
		if res.StatusCode != http.StatusBadRequest || res.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d with %v, want 400", target, res.StatusCode, res.Header)
		}
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// TestAnAbsoluteTargetWithoutAPathIsTheRoot: also for rules, and for the upstream.
func TestAnAbsoluteTargetWithoutAPathIsTheRoot(t *testing.T) {
	for rule, want := range map[string]int{"public /": http.StatusOK, "public /public/*": http.StatusUnauthorized, "": http.StatusUnauthorized} {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: rule})
		res := rawRequest(t, s, "GET http://gateway?a=1 HTTP/1.1", "Host: gateway", "", "")
		if res.StatusCode != want {
			t.Errorf("%q: got %d, want %d", rule, res.StatusCode, want)
		}
		if want == http.StatusOK {
			if seen := s.Upstream.Last.Load(); seen.URI != "/?a=1" {
				t.Errorf("the upstream sees %q", seen.URI)
			}
		}
	}
}

// TestPathStrippedToNothingIsTheRoot: `uri strip_prefix` leaves nothing of it.
func TestPathStrippedToNothingIsTheRoot(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Before: "uri strip_prefix /app"})
	b := s.NewBrowser().SignIn()
	if a := b.Get("/app"); a.StatusCode != http.StatusOK || a.Seen(t).URI != "/" {
		t.Errorf("got %d: %s", a.StatusCode, a.Text)
	}
}

func TestAuthRefusesForwardedTunnels(t *testing.T) {
	for _, trusted := range []string{"", "trusted_proxies 127.0.0.1"} {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*\nsession {\nstore storage\n}\nforward_auth {\n" + trusted + "\n}"})
		b := s.NewBrowser().SignIn()
		for _, line := range []string{"X-Forwarded-Method: CONNECT", "X-Original-Method: CONNECT", "X-Forwarded-Method: trace", "X-Forwarded-Method: TRACE ", "X-Forwarded-Method: TRACK"} {
			a := b.Get("/oauth/auth", line, "X-Forwarded-Uri: /public/a")
			if a.StatusCode != http.StatusForbidden || a.Header.Get("Tollgate-Reason") != "refused" || a.Header.Get("X-User-Id") != "" {
				t.Errorf("%s: got %d, %v", line, a.StatusCode, a.Header)
			}
		}
		if a := b.Get("/oauth/auth", "X-Forwarded-Method: POST", "X-Forwarded-Uri: /page"); a.StatusCode != http.StatusOK {
			t.Errorf("POST: got %d", a.StatusCode)
		}
	}
}
