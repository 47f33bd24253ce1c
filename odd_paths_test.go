package tollgate_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

// TestAnOddPathIsReadUpToALimit: each reading costs time by its length, before anybody
// is signed in. Ordinary paths have one reading and no limit.
func TestAnOddPathIsReadUpToALimit(t *testing.T) {
	s := gatewaytest.New(t, asked(anyPeer, "public /public/*\nrequire /paid /paid/* {\nuser 7\n}"))
	const unit = "/a%2Fb"
	within := "/public" + strings.Repeat(unit, (maxOddPath-len("/public"))/len(unit))
	beyond := within + unit
	for target, want := range map[string]int{
		within: 200, beyond: 400, beyond + "?x": 400, within + "?" + strings.Repeat("%2F", maxOddPath): 200,
		"/public/" + strings.Repeat("a//%2561;b/", 1300): 400, "/public/" + strings.Repeat("a", 4*maxOddPath): 200,
		"/page/" + strings.Repeat("a", 4*maxOddPath): 401,
	} {
		res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", "", "")
		if res.StatusCode != want {
			t.Errorf("%.40s… of %d bytes: got %d, want %d", target, len(target), res.StatusCode, want)
		}
	}
	b := s.NewBrowser().SignIn()
	wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: "+beyond), t, "a long odd path", 401, "unauthenticated", "")
	wantAuth(b.Get("/oauth/auth"+beyond), t, "a long odd path behind auth", 401, "unauthenticated", "")

	u, err := url.ParseRequestURI(beyond)
	if err != nil {
		t.Fatal(err)
	}
	if forms, complete := policy.Readings(u); complete || len(forms) != 1 {
		t.Errorf("beyond the limit: got %d readings, complete %v, want the plain one alone", len(forms), complete)
	}
}

// TestTrailingDotsAndSpacesDoNotBypassRules: servers on Windows do not see them.
func TestTrailingDotsAndSpacesDoNotBypassRules(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*\nrequire /paid /paid/* {\nbalance 800\n}"})
	b := s.NewBrowser().SignIn()
	for target, want := range map[string]int{
		"/paid./x": 400, "/paid../x": 400, "/paid%20/x": 400, "/paid.%20./x": 400, "/paid.": 400, "/paid%20": 400, "/PAID./x": 400, "/paid.%2fx": 400,
		"/paid/x.": 402, "/paid/x%20/": 402, "/free./x": 200, "/free%20": 200, "/public/a.": 200, "/public/a%20/b": 200, "/public./a": 400,
		"/v1.2/a.b": 200, "/.well-known/x": 200, "/a...b": 200, "/.../x": 200,
	} {
		res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", b.CookieLine(), "", "")
		if res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, res.StatusCode, want)
		}
	}
}

// BenchmarkOddPath compares requests without a session: a plain path, and paths that
// are read in as many ways as we look at. See MaxOddPath.
func BenchmarkOddPath(b *testing.B) {
	server, handlers, err := gatewaytest.Provision("{\nadmin off\nauto_https off\nstorage file_system " + b.TempDir() + "\n}\nhttp:// {\ntollgate {\n" + minimalBlock +
		"public /public/* /assets/* *.css\nrequire /paid /paid/* {\nbalance 1\n}\n}\nrespond ok\n}\n")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { handlers[0].Cleanup() })
	odd := func(size int) string { return "/" + strings.Repeat("a//%2561;b/", size/len("a//%2561;b/")) }
	for _, c := range []struct{ name, target string }{
		{"plain", "/page/of/an/application"}, {"odd100", odd(100)}, {"odd512", odd(512)}, {"odd1k", odd(1 << 10)}, {"odd2k", odd(2 << 10)}, {"odd4k", odd(4 << 10)}, {"odd14k", odd(14 << 10)},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				r := httptest.NewRequest(http.MethodGet, c.target, nil)
				w := httptest.NewRecorder()
				server.ServeHTTP(w, r)
				if w.Code != http.StatusUnauthorized && w.Code != http.StatusBadRequest {
					b.Fatalf("got %d", w.Code)
				}
			}
		})
	}
}
