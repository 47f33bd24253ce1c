package tollgate_test

import (
	"net/http"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

func TestAmbiguousPathIsRefused(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/* /exact *.css\noptional /optional/*"})
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
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*"})
	for _, line := range []string{
		"CONNECT example.com:443 HTTP/1.1", "OPTIONS * HTTP/1.1", "GET http://other.example/page HTTP/1.1", "get /page HTTP/1.1",
		"FOO /page HTTP/1.1", "GET /page?%zz HTTP/1.1", "GET ?x HTTP/1.1", "TRACE /page HTTP/1.1", "GET /page HTTP/1.0",
	} {
		res := rawRequest(t, s, line, "Host: gateway", "", "")
		if res.StatusCode < 400 && line != "OPTIONS * HTTP/1.1" { // which net/http answers by itself
			t.Errorf("%s: got %d", line, res.StatusCode)
		}
	}
	if n := s.Upstream.Requests.Load(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestEndpointsUseTheOriginalPathAndRulesBothPaths(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Before: "uri strip_prefix /app", InTollgate: "public /public/* /app/public/*"})
	if a := s.NewBrowser().Get("/app/public/a"); a.StatusCode != http.StatusOK || a.Seen(t).URI != "/public/a" {
		t.Errorf("got %d", a.StatusCode)
	}
	if a := s.NewBrowser().Visit("/app/page"); a.Location() != "/oauth/start?return_to=%2Fapp%2Fpage" {
		t.Errorf("the way back is %q", a.Location())
	}
	if a := s.NewBrowser().Get("/oauth/health"); a.StatusCode != http.StatusOK {
		t.Errorf("health: %d", a.StatusCode)
	}
}
