package tollgate

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// failsEarly are directives that raise an error before tollgate runs.
var failsEarly = map[string]string{
	"try_files":  "root * /nowhere\ntry_files {path} =404\n",
	"basic_auth": "basic_auth {\nbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}\n",
}

// withErrorRoute gives a site in which every request fails before tollgate, and the
// error route leads to the upstream.
func withErrorRoute(t *testing.T, before, status, block string) *site {
	t.Helper()
	s := newSite(t, siteOptions{})
	route := fmt.Sprintf("handle_errors %s {\nreverse_proxy %s\n}\n", status, s.upstream.URL)
	s.caddyfile = strings.Replace(s.caddyfile, "\ttollgate {", route+before+block+"\n\ttollgate {", 1)
	if block != "" {
		s.caddyfile = strings.TrimRight(s.caddyfile, "\n") + "\n}\n"
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
				requests := s.upstream.requests.Load()
				res := rawRequest(t, s, "GET /page HTTP/1.1", "Host: gateway", "Cookie: tollgate=1.sealed; a=b", "X-User-Id: 1", "X_User_Id: 1",
					"X-Original-Url: /admin", "X-HTTP-Method-Override: DELETE", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", "", "")
				if res.StatusCode != http.StatusOK || s.upstream.requests.Load() != requests+1 {
					t.Errorf("%s: got %d, want the upstream's 200", where, res.StatusCode)
					continue
				}
				seen := s.upstream.last.Load().Header
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
				if n := s.upstream.requests.Load(); n != requests+1 {
					t.Errorf("%s: %d requests too many reached the upstream", where, n-requests-1)
				}
			}
		}
	}
}

// TestAnErrorBehindTollgateKeepsTheIdentity: the guard leaves alone what tollgate set.
func TestAnErrorBehindTollgateKeepsTheIdentity(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.caddyfile = strings.Replace(s.caddyfile, "\treverse_proxy", "\terror /broken 500\nhandle_errors {\nreverse_proxy "+s.upstream.URL+"\n}\n\treverse_proxy", 1)
	s.Load()
	b := s.newBrowser().signIn()
	if a := b.Get("/broken"); a.seen(t).Header.Get("X-User-Id") != testUserID {
		t.Errorf("the error route sees the user %q, want %q", a.seen(t).Header.Get("X-User-Id"), testUserID)
	}
}

// TestErrorsOfOtherSitesAreLeftAlone: they may use these header names for their own.
func TestErrorsOfOtherSitesAreLeftAlone(t *testing.T) {
	s := newSite(t, siteOptions{})
	other := fmt.Sprintf("http://other.example {\nerror 500\nhandle_errors {\nreverse_proxy %s\n}\n}\n", s.upstream.URL)
	s.caddyfile = strings.Replace(s.caddyfile, "http:// {", other+"http://gateway {\nhandle_errors {\nreverse_proxy "+s.upstream.URL+"\n}\n"+failsEarly["try_files"], 1)
	s.Load()
	for host, want := range map[string][]string{"other.example": {"1"}, "gateway": nil} {
		rawRequest(t, s, "GET /page HTTP/1.1", "Host: "+host, "X-User-Id: 1", "", "")
		if got := s.upstream.last.Load().Header["X-User-Id"]; !slices.Equal(got, want) {
			t.Errorf("%s: the upstream sees X-User-Id %q, want %q", host, got, want)
		}
	}
}
