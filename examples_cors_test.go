package tollgate_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// useExample serves an example's Caddyfile, with this site's provider, upstream and
// address.
func useExample(s *gatewaytest.Site, file, address string) {
	s.T.Helper()
	manualtest.SetEnv(s.T)
	s.T.Setenv("OAUTH_CLIENT_ID", gatewaytest.ClientID)
	s.T.Setenv("OAUTH_CLIENT_SECRET", gatewaytest.ClientSecret)
	s.T.Setenv("OAUTH_REDIRECT_URI", s.URL+"/oauth/callback")
	text := manualtest.ReadFile(s.T, file)
	for from, to := range map[string]string{
		address + " {":             "http:// {",
		"provider aihubmix {":      "provider aihubmix {\nbase_url " + s.ProviderURL,
		"localhost:3000":           s.Upstream.URL,
		"{env.OAUTH_REDIRECT_URI}": "{env.OAUTH_REDIRECT_URI}\nsecret " + gatewaytest.Secret,
	} {
		if !strings.Contains(text, from) {
			s.T.Fatalf("%s has no %q", file, from)
		}
		text = strings.Replace(text, from, to, 1)
	}
	options, _, found := strings.Cut(s.Caddyfile, "http:// {")
	if !found {
		s.T.Fatal("no global options")
	}
	s.Caddyfile = options + text
	s.Load()
}

func TestExampleCORSLetsPreflightsThrough(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	useExample(s, "examples/cors/Caddyfile", "api.example.com")
	b := s.NewBrowser()
	preflight := []string{"Origin: https://www.example.com", "Access-Control-Request-Method: POST"}
	if a := b.Send(http.MethodOptions, "/api/x", nil, append(preflight, "X-User-Id: forged")...); a.StatusCode != http.StatusOK {
		t.Errorf("a preflight: got %d, want 200", a.StatusCode)
	}
	wantNoForgery(s, t, "a preflight")
	for _, missing := range preflight {
		name, _, _ := strings.Cut(missing, ":")
		var lines []string
		for _, line := range preflight {
			if line != missing {
				lines = append(lines, line)
			}
		}
		if a := b.Send(http.MethodOptions, "/api/x", nil, lines...); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("OPTIONS without %s: got %d, want 401", name, a.StatusCode)
		}
	}
	if a := b.Send(http.MethodPost, "/api/x", nil, preflight...); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a call without a session: got %d, want 401", a.StatusCode)
	}
	b.SignIn()
	a := b.Send(http.MethodPost, "/api/x", nil, "Origin: https://www.example.com")
	if a.StatusCode != http.StatusOK || a.Seen(t).Header.Get("X-User-Id") != gatewaytest.UserID {
		t.Errorf("a call with a session: got %d", a.StatusCode)
	}
}
