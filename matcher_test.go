package tollgate_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// withMatcher gives a site whose directive has a matcher, and more lines before it.
func withMatcher(t *testing.T, matcher string, options gatewaytest.Options) *gatewaytest.Site {
	t.Helper()
	s := gatewaytest.New(t, options)
	s.Caddyfile = strings.Replace(s.Caddyfile, "tollgate {", "tollgate "+matcher+" {", 1)
	s.Load()
	return s
}

// inBlock gives a site whose directive stands in a block, together with the upstream.
func inBlock(t *testing.T, open string, options gatewaytest.Options) *gatewaytest.Site {
	t.Helper()
	s := gatewaytest.New(t, options)
	before, rest, found := strings.Cut(s.Caddyfile, "\ttollgate {")
	if !found {
		t.Fatalf("the Caddyfile has no tollgate directive:\n%s", s.Caddyfile)
	}
	s.Caddyfile = before + open + " {\n\ttollgate {" + strings.TrimRight(rest, "\n") + "\n}\n"
	s.Load()
	return s
}

func TestRequestsThatAMatcherDoesNotSelectArePublic(t *testing.T) {
	for matcher, before := range map[string]string{"/app/*": "", "@app": "@app path /app/*", "@any": "@any {\npath /app/*\nmethod GET POST\n}"} {
		s := withMatcher(t, matcher, gatewaytest.Options{Before: before})
		anonymous, signedIn := s.NewBrowser(), s.NewBrowser()
		signedIn.Follow("/app/")
		for _, target := range []string{"/other", "/", "/.well-known/x", "/app", "/a%20b/caf%C3%A9"} {
			for name, b := range map[string]*gatewaytest.Browser{"anonymous": anonymous, "signed in": signedIn} {
				a := b.Get(target, "X-User-Id: forged", "X_User_Id: forged")
				if a.StatusCode != http.StatusOK {
					t.Errorf("%s, %s, %s: got %d, want 200", matcher, target, name, a.StatusCode)
					continue
				}
				wantNoForgery(s, t, matcher+" at "+target)
				if seen := a.Seen(t); seen.Header.Get("X-User-Id") != "" || strings.Contains(seen.Header.Get("Cookie"), "tollgate") {
					t.Errorf("%s, %s, %s: the upstream sees %v", matcher, target, name, seen.Header)
				}
			}
		}
		if a := signedIn.Get("/app/x"); a.StatusCode != http.StatusOK || a.Seen(t).Header.Get("X-User-Id") != gatewaytest.UserID {
			t.Errorf("%s: signed in at /app/x: got %d", matcher, a.StatusCode)
		}
		if a := anonymous.Get("/app/x"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: anonymous at /app/x: got %d, want 401", matcher, a.StatusCode)
		}
		if a := anonymous.Get("/oauth/health"); a.StatusCode != http.StatusOK || a.Text != `{"status":"ok"}` {
			t.Errorf("%s: health: got %d: %s", matcher, a.StatusCode, a.Text)
		}
		res := rawRequest(t, s, "GET a:http://x/other HTTP/1.1", "Host: gateway", "", "")
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: a target without a path: got %d, want 400", matcher, res.StatusCode)
		}
	}
}

func TestMatcherForEverythingSelectsEveryRequest(t *testing.T) {
	s := withMatcher(t, "*", gatewaytest.Options{})
	if a := s.NewBrowser().Get("/other"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d, want 401", a.StatusCode)
	}
	if n := len(*s.Handlers[0].Internals().Matchers); n != 0 {
		t.Errorf("%d matcher sets", n)
	}
}

// TestMatcherSelectsAmbiguousPaths: an upstream may read it as one below /app.
func TestMatcherSelectsAmbiguousPaths(t *testing.T) {
	s := withMatcher(t, "/app/*", gatewaytest.Options{})
	for _, target := range []string{
		"/other/..%2fapp/x", "/other/../app/x", "//app/x", "/other/..;/app/x", "/app;a/x", "/%2561pp/x", "/%2561pp/%25", "/other/%25/%252e%252e/%252e%252e/app/x", "/other/..%5capp/x", "/app/../other", "/app%2fx",
		"/./other", "/other//x", "/APP/x", "/app/%2e%2e/other",
	} {
		if res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", "", ""); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", target, res.StatusCode)
		}
	}
	if n := s.Upstream.Requests.Load(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// TestAMatcherSelectsByEitherPath: the one that the client sent, and the one that stands
// at the directive.
func TestAMatcherSelectsByEitherPath(t *testing.T) {
	for before, target := range map[string]string{
		"rewrite /app/x /other": "/app/x",
		"rewrite /other /app/x": "/other",
		"uri strip_prefix /app": "/app/x",
		"method /app/x OPTIONS": "/app/x",
	} {
		for _, matcher := range []string{"@app path /app/*", "@app expression path('/app/*')", "@app expression {path}.startsWith('/app/')", "@app not method OPTIONS"} {
			if strings.Contains(before, "method") != strings.Contains(matcher, "method") {
				continue
			}
			s := withMatcher(t, "@app", gatewaytest.Options{Before: before + "\n" + matcher})
			if a := s.NewBrowser().Get(target); a.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s, %s: got %d, want 401", before, matcher, a.StatusCode)
			}
			if strings.Contains(matcher, "method") {
				continue
			}
			if a := s.NewBrowser().Get("/nothing"); a.StatusCode != http.StatusOK {
				t.Errorf("%s, %s: /nothing: got %d, want 200", before, matcher, a.StatusCode)
			}
		}
	}
}

func TestTheDirectiveWorksInsideBlocks(t *testing.T) {
	for block, paths := range map[string][2]string{ // of the endpoints, and of a page
		"handle":             {"/oauth", "/page"},
		"route":              {"/oauth", "/page"},
		"handle /app/*":      {"/app/oauth", "/app/page"},
		"route /app/*":       {"/app/oauth", "/app/page"},
		"handle_path /app/*": {"/app/oauth", "/app/page"},
	} {
		s := inBlock(t, block, gatewaytest.Options{InTollgate: "path_prefix " + paths[0]})
		s.Caddyfile = strings.Replace(s.Caddyfile, "/oauth/callback", paths[0]+"/callback", 1)
		s.Provider.SetClient(simulator.Client{ID: gatewaytest.ClientID, Secret: gatewaytest.ClientSecret, RedirectURIs: []string{s.URL + paths[0] + "/callback"}})
		s.Load()
		logs := observe(s)
		b := s.NewBrowser()
		if a := b.Follow(paths[1]); a.StatusCode != http.StatusOK || a.Seen(t).Header.Get("X-User-Id") != gatewaytest.UserID {
			t.Errorf("%s: got %d at %s", block, a.StatusCode, a.Request.URL)
		}
		if a := b.Get(paths[0] + "/userinfo"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: userinfo: got %d", block, a.StatusCode)
		}
		if n := logs.FilterMessageSnippet("nobody can sign in").Len(); n != 0 {
			t.Errorf("%s: %d warnings", block, n)
		}
	}
}

func TestEndpointsOutsideOfABlockAreAWarning(t *testing.T) {
	for block, want := range map[string]int{
		"handle_path /app/*": 2, "handle /app/*": 2, "route /app/*": 2,
		"handle": 0, "handle_path /*": 0,
	} {
		s := inBlock(t, block, gatewaytest.Options{})
		logs := observe(s)
		for range 3 {
			s.NewBrowser().Get("/app/page")
		}
		if n := logs.FilterMessageSnippet("nobody can sign in").Len(); n != want {
			t.Errorf("%s: %d warnings, want %d", block, n, want)
		}
	}
}

func TestAPreflightReachesTheApplicationStripped(t *testing.T) {
	s := withMatcher(t, "@auth", gatewaytest.Options{Before: "@auth not method OPTIONS"})
	b := s.NewBrowser()
	a := b.Send(http.MethodOptions, "/api/x", nil, "Origin: https://other.example", "Access-Control-Request-Method: POST", "X-User-Id: forged",
		"X-HTTP-Method-Override: DELETE", "X-Http_method-override: DELETE", "X-Method-Override: DELETE", "X-HTTP-Method: DELETE")
	if a.StatusCode != http.StatusOK {
		t.Fatalf("got %d, want 200", a.StatusCode)
	}
	wantNoForgery(s, t, "a preflight")
	seen := a.Seen(t)
	for name := range seen.Header {
		if strings.Contains(header.Fold(name), "method-override") || name == "X-Http-Method" {
			t.Errorf("%s reaches the upstream", name)
		}
	}
	if seen.Header.Get("Access-Control-Request-Method") != "POST" {
		t.Errorf("the upstream sees %v", seen.Header)
	}
	if a := b.Get("/api/x", "X-HTTP-Method-Override: OPTIONS"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("GET: got %d, want 401", a.StatusCode)
	}
}

// failingMatcher fails like an expression about something that is not there.
type failingMatcher struct{}

func (failingMatcher) MatchWithError(*http.Request) (bool, error) {
	return false, errors.New("cannot tell")
}

func TestFailingMatcherSelectsEveryRequest(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	*s.Handlers[0].Internals().Matchers = caddyhttp.MatcherSets{{failingMatcher{}}}
	logs := observe(s)
	for range 3 {
		if a := s.NewBrowser().Get("/page"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("got %d, want 401", a.StatusCode)
		}
	}
	if n := logs.FilterMessageSnippet("cannot evaluate the matcher of tollgate").Len(); n != 1 {
		t.Errorf("%d warnings, want 1", n)
	}
}

// TestMatcherSelectsAuthRequestsOfAProxy: the matcher is about requests that come through
// here.
func TestMatcherSelectsAuthRequestsOfAProxy(t *testing.T) {
	s := withMatcher(t, "/app/*", gatewaytest.Options{InTollgate: "session {\nstore storage\n}\nforward_auth {\ntrusted_proxies 127.0.0.1\n}"})
	if a := s.NewBrowser().Get("/oauth/auth", "X-Forwarded-Uri: /other"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d, want 401", a.StatusCode)
	}
}

func TestTheMatcherIsASettingOfTheHandler(t *testing.T) {
	config, err := gatewaytest.Adapt("http://x {\n@app path /app/*\ntollgate @app {\nprovider aihubmix {\nclient_id a\nclient_secret b\n}\nredirect_uri https://x.example/oauth/callback\n}\n}")
	if err != nil {
		t.Fatal(err)
	}
	if text := string(config); !strings.Contains(text, `"handler":"tollgate","match":[{"path":["/app/*"]}]`) {
		t.Errorf("got %s", text)
	}
}

// TestAMatcherSelectsLettersThatAreEqualInUpperCase: a server that compares paths in upper
// case reads the dotless i as an i, and the long s as an s.
func TestAMatcherSelectsLettersThatAreEqualInUpperCase(t *testing.T) {
	s := withMatcher(t, "/admin/*", gatewaytest.Options{})
	for target, want := range map[string]int{
		"/adm%C4%B1n/x": 401, "/adm%25C4%25B1n/x": 401, "/other%E2%80%A8": 400, "/other%E2%80%A9": 400, "/other%C2%85": 400, "/%C4%B1%C5%BF%C4%B1k": 200,
	} {
		if res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", "", ""); res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", target, res.StatusCode, want)
		}
	}
}

func TestFirstRequestPassesAMatcherOfTheLocalAddress(t *testing.T) {
	const block = "@local vars {http.request.local.host} 127.0.0.1\nhandle @local"
	s := inBlock(t, block, gatewaytest.Options{InTollgate: "public /page"})
	if a := s.NewBrowser().Get("/page"); a.StatusCode != http.StatusOK {
		t.Errorf("got %d, want 200", a.StatusCode)
	}
}
