package tollgate_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// failsEarly are directives that raise an error before tollgate runs.
var failsEarly = map[string]string{
	"try_files":  "root * /nowhere\ntry_files {path} =404\n",
	"basic_auth": "basic_auth {\nbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n",
}

// withErrorRoute gives a site in which every request fails before tollgate, and the
// error route leads to the upstream.
func withErrorRoute(t *testing.T, before, status, block string) *gatewaytest.Site {
	t.Helper()
	s := gatewaytest.New(t, gatewaytest.Options{})
	route := fmt.Sprintf("handle_errors %s {\nreverse_proxy %s\n}\n", status, s.Upstream.URL)
	s.Caddyfile = strings.Replace(s.Caddyfile, "\ttollgate {", route+before+block+"\n\ttollgate {", 1)
	if block != "" {
		s.Caddyfile = strings.TrimRight(s.Caddyfile, "\n") + "\n}\n"
	}
	s.Load()
	return s
}

func TestAnErrorBeforeTollgateCarriesNoIdentityOfTheClient(t *testing.T) {
	for name, before := range failsEarly {
		for _, status := range []string{"", "404 401"} {
			for _, block := range []string{"", "handle {", "route {"} {
				s := withErrorRoute(t, before, status, block)
				where := fmt.Sprintf("%s, handle_errors %s, %s", name, status, block)
				requests := s.Upstream.Requests.Load()
				res := rawRequest(t, s, "GET /page HTTP/1.1", "Host: gateway", "Cookie: tollgate=1.sealed; a=b", "X-User-Id: 1", "X_User_Id: 1",
					"X-Original-Url: /admin", "X-HTTP-Method-Override: DELETE", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "", "")
				if res.StatusCode != http.StatusOK || s.Upstream.Requests.Load() != requests+1 {
					t.Errorf("%s: got %d, want the upstream's 200", where, res.StatusCode)
					continue
				}
				seen := s.Upstream.Last.Load().Header
				for _, field := range []string{"X-User-Id", "X_user_id", "X-Original-Url", "X-Http-Method-Override", "Upgrade", "Http2-Settings"} {
					if _, sent := seen[field]; sent {
						t.Errorf("%s: the upstream sees %s", where, field)
					}
				}
				if got := seen.Get("Cookie"); got != "a=b" {
					t.Errorf("%s: the upstream sees the cookies %q, want a=b", where, got)
				}
				for _, line := range []string{"TRACE /page", "CONNECT /page", "GET a:http://x/page"} {
					res := rawRequest(t, s, line+" HTTP/1.1", "Host: gateway", "", "")
					if res.StatusCode != http.StatusMethodNotAllowed && res.StatusCode != http.StatusBadRequest {
						t.Errorf("%s, %s: got %d, want 405 or 400", where, line, res.StatusCode)
					}
				}
				if n := s.Upstream.Requests.Load(); n != requests+1 {
					t.Errorf("%s: %d requests too many reached the upstream", where, n-requests-1)
				}
			}
		}
	}
}

// TestAnErrorBehindTollgateKeepsTheIdentity: the guard leaves alone what tollgate set.
func TestAnErrorBehindTollgateKeepsTheIdentity(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	s.Caddyfile = strings.Replace(s.Caddyfile, "\treverse_proxy", "\terror /broken 500\nhandle_errors {\nreverse_proxy "+s.Upstream.URL+"\n}\n\treverse_proxy", 1)
	s.Load()
	b := s.NewBrowser().SignIn()
	if a := b.Get("/broken"); a.Seen(t).Header.Get("X-User-Id") != gatewaytest.UserID {
		t.Errorf("the error route sees the user %q, want %q", a.Seen(t).Header.Get("X-User-Id"), gatewaytest.UserID)
	}
}

// TestErrorsOfOtherSitesAreLeftAlone: they may use these header names for their own.
func TestErrorsOfOtherSitesAreLeftAlone(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	other := fmt.Sprintf("http://other.example {\nerror 500\nhandle_errors {\nreverse_proxy %s\n}\n}\n", s.Upstream.URL)
	s.Caddyfile = strings.Replace(s.Caddyfile, "http:// {", other+"http://gateway {\nhandle_errors {\nreverse_proxy "+s.Upstream.URL+"\n}\n"+failsEarly["try_files"], 1)
	s.Load()
	for host, want := range map[string][]string{"other.example": {"1"}, "gateway": nil} {
		rawRequest(t, s, "GET /page HTTP/1.1", "Host: "+host, "X-User-Id: 1", "", "")
		if got := s.Upstream.Last.Load().Header["X-User-Id"]; !slices.Equal(got, want) {
			t.Errorf("%s: the upstream sees X-User-Id %q, want %q", host, got, want)
		}
	}
}
