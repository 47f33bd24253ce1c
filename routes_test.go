package tollgate

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/policy"
)

func TestAPathThatCanBeReadInTwoWaysIsRefused(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "public /public/* /exact *.css\noptional /optional/*"})
	const pass, login, refused = http.StatusOK, http.StatusUnauthorized, http.StatusBadRequest
	for target, want := range map[string]int{
		"/public/a":                pass,
		"/public/":                 pass,
		"/PUBLIC/a":                pass, // as Caddy's path matcher has it
		"/exact":                   pass,
		"/style.css":               pass,
		"/deep/style.css":          pass,
		"/optional/a":              pass,
		"/public/caf%C3%A9":        pass,
		"/public/a%20b":            pass,
		"/public/a?x=/../admin":    pass,
		"/public":                  login,
		"/publicity/a":             login,
		"/exact/more":              login,
		"/admin":                   login,
		"/admin?x=/public/a":       login,
		"/admin?.css":              login,
		"/public/../admin":         refused,
		"/public/%2e%2e/admin":     refused,
		"/public/..%2fadmin":       refused,
		"/public%2f..%2fadmin":     refused,
		"/public/..%5cadmin":       refused,
		"/public/..;/admin":        refused,
		"/public/%252e%252e/admin": refused,
		"/public/..%252fadmin":     refused,
		"/admin/..%2fpublic/a":     refused,
		"/admin%23.css":            refused,
		"/admin%3f.css":            refused,
		"/admin%00.css":            refused,
		"/admin;.css":              refused,
		"//public/a":               refused,
		"/public/;;%255c%5c/./%25252f/..%252fadmin":           refused, // more readings than are looked at
		"/public/;x%5c%23%252f;/./%253b/%25252e%25252e/admin": refused,
		"/./public/a": refused,
	} {
		res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", "", "")
		if res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, res.StatusCode, want)
		}
	}
}

func TestOddMethodsAndTargetsNeitherCrashNorPass(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "public /public/*"})
	for _, line := range []string{
		"CONNECT example.com:443 HTTP/1.1", "OPTIONS * HTTP/1.1", "GET http://other.example/page HTTP/1.1", "get /page HTTP/1.1",
		"FOO /page HTTP/1.1", "GET /page?%zz HTTP/1.1", "GET ?x HTTP/1.1", "TRACE /page HTTP/1.1", "GET /page HTTP/1.0",
	} {
		res := rawRequest(t, s, line, "Host: gateway", "", "")
		if res.StatusCode < 400 && line != "OPTIONS * HTTP/1.1" { // which net/http answers by itself
			t.Errorf("%s: got %d", line, res.StatusCode)
		}
	}
	if n := s.upstream.requests.Load(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestEndpointsGoByTheOriginalPathAndRulesByBoth(t *testing.T) {
	s := newSite(t, siteOptions{before: "uri strip_prefix /app", inTollgate: "public /public/* /app/public/*"})
	if a := s.newBrowser().Get("/app/public/a"); a.StatusCode != http.StatusOK || a.seen(t).URI != "/public/a" {
		t.Errorf("got %d", a.StatusCode)
	}
	if a := s.newBrowser().visit("/app/page"); a.location() != "/oauth/start?return_to=%2Fapp%2Fpage" {
		t.Errorf("the way back is %q", a.location())
	}
	if a := s.newBrowser().Get("/oauth/health"); a.StatusCode != http.StatusOK {
		t.Errorf("health: %d", a.StatusCode)
	}
}

// accessAt decides about one path, without an endpoint's say.
func accessAt(t *testing.T, rt *policy.Routes, target string) (policy.Access, bool) {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.URL = u
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, &caddyhttp.Server{})
	d, ok := rt.Demand(originalURL(r), r)
	return d.Access, ok
}

// TestAccessAloneRefusesWhatCanBeReadInTwoWays: a rewrite may have made the path
// after the endpoints were compared.
func TestAccessAloneRefusesWhatCanBeReadInTwoWays(t *testing.T) {
	rt, err := newRoutes(caddy.Context{}, nil, []string{"/public/*"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]bool{
		"/public/a": true, "/admin": true, "/public/caf%C3%A9": true, "/admin/x%2Fy": true,
		"/public/..%2fadmin": false, "//public/a": false,
		"/public/%" + strings.Repeat("25", 40) + "41": false, // more readings than are looked at
	} {
		if a, ok := accessAt(t, rt, target); ok != want {
			t.Errorf("%s: got %v, %v", target, a, ok)
		}
	}
}

// TestTheLiteralMatcherIsCaddysOnOrdinaryPaths: the two are compared on odd paths, so
// they must not differ on any other.
func TestTheLiteralMatcherIsCaddysOnOrdinaryPaths(t *testing.T) {
	paths := []string{"/", "/a", "/A", "/a/", "/a/b", "/a/x/b", "/a/x/y/b", "/ab", "/axb", "/x.css", "/d/x.css", "/d/xcssy", "/a/b.css/c"}
	for _, pattern := range []string{"*", "/*", "/a", "/a*", "/a/*", "*.css", "*css*", "/a/*/b", "/a*b", "/a*b*", "*a*b", "/A/B"} {
		rt, err := newRoutes(caddy.Context{}, nil, []string{pattern}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			cleaned, _ := accessAt(t, rt, path)
			if literal := rt.LiteralAccess(path); literal != cleaned {
				t.Errorf("%s at %s: literally %v, cleaned %v", pattern, path, literal, cleaned)
			}
		}
	}
}
