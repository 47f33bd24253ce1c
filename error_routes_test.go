package tollgate_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
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

func TestErrorBeforeTollgateHasNoForgedIdentity(t *testing.T) {
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

// TestErrorAfterTollgateKeepsTheIdentity: the guard leaves alone what tollgate set.
func TestErrorAfterTollgateKeepsTheIdentity(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	s.Caddyfile = strings.Replace(s.Caddyfile, "\treverse_proxy", "\terror /broken 500\nhandle_errors {\nreverse_proxy "+s.Upstream.URL+"\n}\n\treverse_proxy", 1)
	s.Load()
	b := s.NewBrowser().SignIn()
	if a := b.Get("/broken"); a.Seen(t).Header.Get("X-User-Id") != gatewaytest.UserID {
		t.Errorf("the error route sees the user %q, want %q", a.Seen(t).Header.Get("X-User-Id"), gatewaytest.UserID)
	}
}

// TestErrorAfterAnotherTollgateHasNoForgedIdentity: two tollgates of a server have
// different presets, and the error route leads to the application of one of them.
func TestErrorAfterAnotherTollgateHasNoForgedIdentity(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	before, block, _ := strings.Cut(s.Caddyfile, "\ttollgate {")
	block, _, _ = strings.Cut(block, "\treverse_proxy")
	s.Caddyfile = before + "handle_errors {\nreverse_proxy " + s.Upstream.URL + "\n}\n" +
		"handle /remote/* {\ntollgate {\nidentity remote\n" + block + "error 500\n}\n" +
		"handle {\ntollgate {" + block + "error 500\n}\n}\n"
	s.Load()
	b := s.NewBrowser().SignIn()
	for path, c := range map[string]struct{ forged, kept string }{
		"/broken":        {forged: "Remote-User", kept: "X-User-Id"},
		"/remote/broken": {forged: "X-User-Id", kept: "Remote-User"},
	} {
		seen := b.Get(path, c.forged+": admin", c.kept+": admin").Seen(t).Header
		if got := seen.Get(c.forged); got != "" {
			t.Errorf("%s: the error route sees the forged %s %q", path, c.forged, got)
		}
		if got := seen.Get(c.kept); got == "" || got == "admin" {
			t.Errorf("%s: the error route sees %s %q, want the user's", path, c.kept, got)
		}
	}
}

// TestErrorsOfOtherSitesAreUnchanged: they may use these header names for their own.
func TestErrorsOfOtherSitesAreUnchanged(t *testing.T) {
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

// TestAnErrorBeforeTollgateOpensNoTunnelOverHTTP3: the smuggled request is in the data of a
// CONNECT, which Go's transport would pass on unframed.
func TestAnErrorBeforeTollgateOpensNoTunnelOverHTTP3(t *testing.T) {
	log := new(requestLog)
	upstream := httptest.NewServer(http.HandlerFunc(log.serve))
	t.Cleanup(upstream.Close)
	s := newProtocolSite(t, protocolOptions{before: fmt.Sprintf("%s\thandle_errors {\n\t\treverse_proxy %s\n\t}\n\t", failsEarly["basic_auth"], upstream.URL)})
	for _, name := range []string{"connect-udp over HTTP/3", "CONNECT over HTTP/3", "a protocol almost like websocket over HTTP/3", "connect-udp over HTTP/2"} {
		if res := tunnels[name](s, "/public/x", "a=b"); res.status != "405" {
			t.Errorf("%s: got %q, want 405", name, res.status)
		}
	}
	if got := log.seen(); len(got) != 0 {
		t.Errorf("the upstream got %q", got)
	}
	req, err := http.NewRequest(http.MethodGet, s.URL+"/public/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res := s.overHTTP3(req, ""); res.status != "200" || len(log.seen()) != 1 {
		t.Errorf("an ordinary request: got %q, and the upstream got %q", res.status, log.seen())
	}
}

func TestErrorInASubrouteHasNoForgedIdentity(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	proxy := `{"handler":"reverse_proxy","upstreams":[{"dial":"` + strings.TrimPrefix(s.Upstream.URL, "http://") + `"}]}`
	gateway := `{"handler":"tollgate","provider":{"client_id":"id","client_secret":"secret"},"redirect_uri":"https://app.example.com/oauth/callback"}`
	inner := `{"handler":"subroute","routes":[{"handle":[{"handler":"error","status_code":"500"}]},{"handle":[` + gateway + `]}],"errors":{"routes":[{"handle":[` + proxy + `]}]}}`
	text := `{"admin":{"disabled":true},"apps":{"http":{"servers":{"srv0":{"listen":["127.0.0.1:0"],"automatic_https":{"disable":true},"routes":[{"handle":[` + inner + `]}]}}}}}`
	server, handlers, err := gatewaytest.ProvisionJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handlers[0].Cleanup() })
	r := httptest.NewRequest(http.MethodGet, "/page", nil)
	r.Header.Set("X-User-Id", "1")
	r.Header.Set("Cookie", "tollgate=1.sealed; a=b")
	server.ServeHTTP(httptest.NewRecorder(), r)
	seen := s.Upstream.Last.Load()
	if seen == nil {
		t.Fatal("the request did not reach the upstream")
	}
	if got := seen.Header.Get("X-User-Id") + " " + seen.Header.Get("Cookie"); got != " a=b" {
		t.Errorf("the upstream sees the user and the cookies %q, want no user and a=b", got)
	}
}

func TestTollgateInANamedRouteWarnsOfErrorRoutes(t *testing.T) {
	for errors, want := range map[string]int{"handle_errors {\nreverse_proxy 127.0.0.1:1\n}": 1, "handle_errors {\nrespond x\n}": 0, "": 0} {
		for place, caddyfile := range map[string]string{
			"a named route": "&(gate) {\ntollgate {\n" + minimalBlock + "\n}\n}\nhttp:// {\ninvoke gate\n" + errors + "\n}\n",
			"the site":      "http:// {\ntollgate {\n" + minimalBlock + "\n}\n" + errors + "\n}\n",
		} {
			want := want
			if place == "the site" {
				want = 0
			}
			if log := startLog(t, "", caddyfile); strings.Count(log, "cannot guard the error routes") != want {
				t.Errorf("%s, %q: got the log %s, want %d warnings", place, errors, log, want)
			}
		}
	}
}
