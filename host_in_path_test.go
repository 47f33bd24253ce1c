package tollgate_test

import (
	"net/http"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// hostPaths are paths in which some servers read a host, and then /pay below it.
var hostPaths = []string{"//x/pay", "///x/pay", "//x/pay/", "//u@x:80/pay", "/%2Fx/pay", `/\x\pay`, "/%5Cx/pay", "/%252Fx/pay", "/;a/x/pay", "//x//pay"}

// controlPaths end in a character that regular expressions do not see, or C.
var controlPaths = []string{"/pay%0A", "/pay%250A", "/pay%00", "/pay/x%0D", "/page%7F", "/public/.%00./pay", "/public/a%0A"}

func TestHostInThePathDoesNotBypassARule(t *testing.T) {
	s := gatewaytest.New(t, asked(anyPeer, "public /public/* */open/*\nrequire /pay /pay/ /pay/* {\nbalance 100000\n}"))
	b := s.NewBrowser().SignIn()
	before := s.Upstream.Requests.Load()
	for _, target := range append([]string{"//public/pay", "//open/pay", "//public/x", "//oauth/logout", "//x/oauth/logout", "/public/%c0%ae%c0%ae/pay", "/pay%c0%af"}, hostPaths...) {
		res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", b.CookieLine(), "", "")
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", target, res.StatusCode)
		}
	}
	for _, target := range hostPaths {
		wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: "+target), t, target, 401, "unauthenticated", "")
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	for target, want := range map[string]int{"//x/free": 200, "/a//b": 200, "/public//a": 200, "/pay": 402} {
		res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", b.CookieLine(), "", "")
		if res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, res.StatusCode, want)
		}
	}
}

func TestAPathWithAControlCharacterIsRefused(t *testing.T) {
	for _, site := range []*gatewaytest.Site{
		gatewaytest.New(t, asked(anyPeer)),
		gatewaytest.New(t, asked(anyPeer, "public /public/*\nrequire /pay /pay/ {\nbalance 100000\n}")),
		withMatcher(t, "@pay", gatewaytest.Options{Before: "@pay path /pay /pay/"}),
	} {
		b := site.NewBrowser()
		b.Follow("/pay")
		before := site.Upstream.Requests.Load()
		for _, target := range controlPaths {
			res := rawRequest(t, site, "GET "+target+" HTTP/1.1", "Host: gateway", b.CookieLine(), "", "")
			if res.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: got %d, want 400", target, res.StatusCode)
			}
			if site.Handlers[0].ForwardAuth != nil {
				wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: "+target), t, target, 401, "unauthenticated", "")
				wantAuth(b.Get("/oauth/auth"+target), t, "behind auth "+target, 401, "unauthenticated", "")
			}
		}
		if n := site.Upstream.Requests.Load() - before; n != 0 {
			t.Errorf("%d requests reached the upstream", n)
		}
	}
}
