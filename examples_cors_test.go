package tollgate

import (
	"net/http"
	"strings"
	"testing"
)

// useExample serves an example's Caddyfile, with this site's provider, upstream and
// address.
func (s *site) useExample(file, address string) {
	s.t.Helper()
	setExampleEnv(s.t)
	s.t.Setenv("OAUTH_CLIENT_ID", testClientID)
	s.t.Setenv("OAUTH_CLIENT_SECRET", testClientSecret)
	s.t.Setenv("OAUTH_REDIRECT_URI", s.url+"/oauth/callback")
	text := readFile(s.t, file)
	for from, to := range map[string]string{
		address + " {":             "http:// {",
		"provider aihubmix {":      "provider aihubmix {\nbase_url " + s.providerURL,
		"localhost:3000":           s.upstream.URL,
		"{env.OAUTH_REDIRECT_URI}": "{env.OAUTH_REDIRECT_URI}\nsecret " + testSecret,
	} {
		if !strings.Contains(text, from) {
			s.t.Fatalf("%s has no %q", file, from)
		}
		text = strings.Replace(text, from, to, 1)
	}
	options, _, found := strings.Cut(s.caddyfile, "http:// {")
	if !found {
		s.t.Fatal("no global options")
	}
	s.caddyfile = options + text
	s.Load()
}

func TestExampleCORSLetsPreflightsThrough(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.useExample("examples/cors/Caddyfile", "api.example.com")
	b := s.newBrowser()
	preflight := []string{"Origin: https://www.example.com", "Access-Control-Request-Method: POST"}
	if a := b.do(http.MethodOptions, "/api/x", nil, append(preflight, "X-User-Id: forged")...); a.StatusCode != http.StatusOK {
		t.Errorf("a preflight: got %d, want 200", a.StatusCode)
	}
	s.wantNoForgery(t, "a preflight")
	for _, missing := range preflight {
		name, _, _ := strings.Cut(missing, ":")
		var lines []string
		for _, line := range preflight {
			if line != missing {
				lines = append(lines, line)
			}
		}
		if a := b.do(http.MethodOptions, "/api/x", nil, lines...); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("OPTIONS without %s: got %d, want 401", name, a.StatusCode)
		}
	}
	if a := b.do(http.MethodPost, "/api/x", nil, preflight...); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a call without a session: got %d, want 401", a.StatusCode)
	}
	b.signIn()
	a := b.do(http.MethodPost, "/api/x", nil, "Origin: https://www.example.com")
	if a.StatusCode != http.StatusOK || a.seen(t).Header.Get("X-User-Id") != testUserID {
		t.Errorf("a call with a session: got %d", a.StatusCode)
	}
}
