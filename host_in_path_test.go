package tollgate

import (
	"net/http"
	"testing"
)

// hostPaths are paths in which some servers read a host, and then /pay below it.
var hostPaths = []string{"//x/pay", "///x/pay", "//x/pay/", "//u@x:80/pay", "/%2Fx/pay", `/\x\pay`, "/%5Cx/pay", "/%252Fx/pay", "/;a/x/pay", "//x//pay"}

// controlPaths end in a character that regular expressions do not see, or C.
var controlPaths = []string{"/pay%0A", "/pay%250A", "/pay%00", "/pay/x%0D", "/page%7F", "/public/.%00./pay", "/public/a%0A"}

func TestAHostInThePathIsNoWayAroundARule(t *testing.T) {
	s := newSite(t, asked(anyPeer, "public /public/* */open/*\nrequire /pay /pay/ /pay/* {\nbalance 100000\n}"))
	b := s.newBrowser().signIn()
	before := s.upstream.requests.Load()
	for _, target := range append([]string{"//public/pay", "//open/pay", "//public/x", "//oauth/logout", "//x/oauth/logout", "/public/%c0%ae%c0%ae/pay", "/pay%c0%af"}, hostPaths...) {
		res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", b.cookieLine(), "", "")
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", target, res.StatusCode)
		}
	}
	for _, target := range hostPaths {
		b.Get("/oauth/auth", "X-Forwarded-Uri: "+target).wantAuth(t, target, 401, "unauthenticated", "")
	}
	if n := s.upstream.requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	for target, want := range map[string]int{"//x/free": 200, "/a//b": 200, "/public//a": 200, "/pay": 402} {
		res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", b.cookieLine(), "", "")
		if res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, res.StatusCode, want)
		}
	}
}

func TestAPathWithAControlCharacterIsRefused(t *testing.T) {
	for _, site := range []*site{
		newSite(t, asked(anyPeer)),
		newSite(t, asked(anyPeer, "public /public/*\nrequire /pay /pay/ {\nbalance 100000\n}")),
		withMatcher(t, "@pay", siteOptions{before: "@pay path /pay /pay/"}),
	} {
		b := site.newBrowser()
		b.follow("/pay")
		before := site.upstream.requests.Load()
		for _, target := range controlPaths {
			res := rawRequest(t, site, "GET "+target+" HTTP/1.1", "Host: gateway", b.cookieLine(), "", "")
			if res.StatusCode != http.StatusBadRequest {
				t.Errorf("%s: got %d, want 400", target, res.StatusCode)
			}
			if site.handlers[0].ForwardAuth != nil {
				b.Get("/oauth/auth", "X-Forwarded-Uri: "+target).wantAuth(t, target, 401, "unauthenticated", "")
				b.Get("/oauth/auth"+target).wantAuth(t, "behind auth "+target, 401, "unauthenticated", "")
			}
		}
		if n := site.upstream.requests.Load() - before; n != 0 {
			t.Errorf("%d requests reached the upstream", n)
		}
	}
}
