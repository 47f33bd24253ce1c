package tollgate_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// TestAuthReturnsTheApplicationCookiesToOtherProxies runs tollgate with the Caddyfile of the page for
// Traefik and Envoy, which cannot remove single cookies by themselves.
func TestAuthReturnsTheApplicationCookiesToOtherProxies(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	manualtest.SetEnv(t)
	t.Setenv("OAUTH_CLIENT_ID", gatewaytest.ClientID)
	t.Setenv("OAUTH_CLIENT_SECRET", gatewaytest.ClientSecret)
	t.Setenv("OAUTH_REDIRECT_URI", s.URL+"/oauth/callback")
	page := manualtest.ReadFile(t, "examples/forward-auth-others/README.md")
	blocks := manualtest.FencedBlocks(page, "caddyfile")
	if len(blocks) != 1 {
		t.Fatalf("the page holds %d Caddyfiles, want 1", len(blocks))
	}
	s.Caddyfile = fmt.Sprintf("{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tstorage file_system %s\n}\n", t.TempDir()) +
		strings.NewReplacer(":9000 {", "http:// {", "tollgate {", "tollgate {\npublic /open/*", "provider aihubmix {", "provider aihubmix {\nbase_url "+s.ProviderURL).Replace(blocks[0])
	s.Load()

	b := s.NewBrowser()
	a := b.Visit(b.Visit(b.Visit("/oauth/start?return_to=" + url.QueryEscape(s.URL+"/page?a=1")).Location()).Location())
	if a.StatusCode != http.StatusSeeOther || a.Location() != "/page?a=1" {
		t.Fatalf("the sign-in ends with %d at %q, want 303 at the page", a.StatusCode, a.Location())
	}
	ticket := "tollgate=" + b.Cookies()["tollgate"]
	for what, c := range map[string]struct {
		path, uri, cookies string
		status             int
		want               []string
	}{
		"Traefik":                {"/oauth/auth", "/page", "a=1; " + ticket + "; b=2; tollgate-recent=1", 200, []string{"a=1; b=2"}},
		"Envoy":                  {"/oauth/auth/page", "", ticket + "; a=1", 200, []string{"a=1"}},
		"no other cookie":        {"/oauth/auth", "/page", ticket, 200, []string{""}},
		"a public path":          {"/oauth/auth", "/open/x", "tollgate-recent=1; a=1", 200, []string{"a=1"}},
		"nobody":                 {"/oauth/auth", "/page", "a=1; b=2", 401, nil},
		"an endpoint of its own": {"/oauth/userinfo", "", ticket + "; a=1", 200, nil},
	} {
		headers := []string{"Cookie: " + c.cookies}
		if c.uri != "" {
			headers = append(headers, "X-Forwarded-Uri: "+c.uri)
		}
		a := s.NewBrowser().Get(c.path, headers...)
		if got := a.Header.Values("Cookie"); a.StatusCode != c.status || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %d, Cookie %q, want %d, %q", what, a.StatusCode, got, c.status, c.want)
		}
	}
	for _, header := range append(slices.Clone(identity.Presets["default"]), identity.IdentityHeader{Name: "Cookie"}) {
		for _, format := range []string{"authResponseHeaders:", "headersToBackend:"} {
			_, list, _ := strings.Cut(page, format)
			list, _, _ = strings.Cut(list, "]")
			if !strings.Contains(strings.ToLower(list), strings.ToLower(header.Name)) {
				t.Errorf("%s on the page does not list %s", format, header.Name)
			}
		}
	}
}
