package tollgate_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// TestRewriteDoesNotTakeARequestOutOfItsRules: Caddy runs rewrite, uri and try_files
// before tollgate, so the path that the client sent counts as well.
func TestRewriteDoesNotTakeARequestOutOfItsRules(t *testing.T) {
	for before, paths := range map[string][]string{
		"uri strip_prefix /api":                  {"/api/pay", "/API/pay", "/api/"},
		"uri strip_suffix /x":                    {"/api/x"},
		"uri replace /api/ /app/":                {"/api/pay"},
		"uri path_regexp ^/api(/.*)$ $1":         {"/api/pay"},
		"rewrite /api/* /open{uri}":              {"/api/pay", "/api/pay?x=1"},
		"rewrite * /index.php":                   {"/api/pay"},
		"uri strip_prefix /api\nrewrite /pay /x": {"/api/pay"},
	} {
		s := gatewaytest.New(t, gatewaytest.Options{Before: before, InTollgate: "require /api /api/* {\nbalance 800\n}\npublic /open/*"})
		b := s.NewBrowser()
		nobody := s.NewBrowser()
		b.Follow("/elsewhere")
		reached := s.Upstream.Requests.Load()
		for _, path := range paths {
			if a := nobody.Get(path); a.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: %s without a session: got %d, want 401", before, path, a.StatusCode)
			}
			if a := b.Get(path); a.StatusCode != http.StatusPaymentRequired {
				t.Errorf("%s: %s: got %d, want 402", before, path, a.StatusCode)
			}
		}
		if n := s.Upstream.Requests.Load() - reached; n != 0 {
			t.Errorf("%s: %d requests reached the upstream", before, n)
		}
	}
}

func TestTheStricterOfTwoPathsDecides(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{
		Before: strings.Join([]string{
			"rewrite /secret/* /public{uri}", "rewrite /public/out /secret", "rewrite /public/in /public/b",
			"rewrite /public/opt /optional/a", "rewrite /optional/pub /public/a", "rewrite /optional/out /page",
			"rewrite /a /paid/a", "rewrite /paid/b /restricted/b", "rewrite /public/paid/x /page2", "rewrite /optional/paid /optional/b",
			"rewrite /odd /public/..%2fsecret",
		}, "\n"),
		InTollgate: "public /public/*\noptional /optional/*\nrequire /paid/* /public/paid/* /optional/paid {\nbalance 800\n}\nrequire /restricted/* {\nuser 7\n}",
	})
	user, nobody := s.NewBrowser().SignIn(), s.NewBrowser()
	for path, want := range map[string]struct {
		nobody, user int
		identity     bool
	}{
		"/secret/a":      {401, 200, true},  // protected, public
		"/public/out":    {401, 200, true},  // public, protected
		"/public/in":     {200, 200, false}, // public, public
		"/public/opt":    {200, 200, true},  // public, optional
		"/optional/pub":  {200, 200, true},  // optional, public
		"/optional/out":  {401, 200, true},  // optional, protected
		"/a":             {401, 402, false}, // no rule, a balance
		"/paid/b":        {401, 403, false}, // a balance, a user: both apply
		"/public/paid/x": {401, 402, false}, // public with a rule, protected: the rule applies
		"/optional/paid": {200, 200, false}, // a balance, no rule: optional, so anonymous
		"/odd":           {400, 400, false}, // an ambiguous path after the rewrite
		"/public/a":      {200, 200, false},
		"/page":          {401, 200, true},
	} {
		for b, status := range map[*gatewaytest.Browser]int{nobody: want.nobody, user: want.user} {
			a := b.Get(path)
			if a.StatusCode != status {
				t.Errorf("%s, signed in %v: got %d, want %d", path, b == user, a.StatusCode, status)
				continue
			}
			identity := ""
			if b == user && want.identity {
				identity = gatewaytest.UserID
			}
			if status != http.StatusOK {
				continue
			}
			if got := a.Seen(t).Header.Get("X-User-Id"); got != identity {
				t.Errorf("%s, signed in %v: the upstream got the user %q, want %q", path, b == user, got, identity)
			}
		}
	}
}

func TestAmbiguousPathIsRefusedEvenAfterARewrite(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Before: "rewrite * /public/a", InTollgate: "public /public/*\nrequire /paid/* {\nbalance 800\n}"})
	for _, target := range []string{"/public/..%2fadmin", "/public/%252e%252e/admin", "//public/a"} {
		res := rawRequest(t, s, "GET "+target+" HTTP/1.1", "Host: gateway", "", "")
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", target, res.StatusCode)
		}
	}
}

// TestTryFilesDoesNotOpenAPage: the fallback page of a single-page application is
// public, and every path that is no file is rewritten to it.
func TestTryFilesDoesNotOpenAPage(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"index.html", "logo.png"} {
		writeFile(t, filepath.Join(folder, name), name)
	}
	s := gatewaytest.New(t, gatewaytest.Options{
		Before:     "root * " + folder + "\ntry_files {path} /index.html",
		InTollgate: "public /index.html /logo.png /about",
	})
	for path, want := range map[string]int{
		"/index.html": 200, "/logo.png": 200, "/about": 200, "/admin": 401, "/about/": 401,
	} {
		if a := s.NewBrowser().Get(path); a.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, a.StatusCode, want)
		}
	}
}

// TestStreamEndsByTheRulesOfItsOriginalPath: a new configuration decides about open
// streams by both of their paths, too.
func TestStreamEndsByTheRulesOfItsOriginalPath(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Before: "uri strip_prefix /api", InTollgate: oftenRechecked})
	s.Caddyfile = strings.Replace(s.Caddyfile, "reverse_proxy "+s.Upstream.URL, "reverse_proxy "+s.Upstream.URL+" {\nstream_close_delay 1h\n}", 1)
	s.Load()
	b := s.NewBrowser().SignIn()
	bySent, byCurrent, passing := webSocket(b, s.URL+"/api/stream/ws"), webSocket(b, s.URL+"/api/stream/dear"), webSocket(b, s.URL+"/stream/ws")
	s.Caddyfile = strings.Replace(s.Caddyfile, "stream_recheck 1s", "stream_recheck 1s\nrequire /api/stream/ws /stream/dear {\nuser 7\n}", 1)
	s.Load()
	wantClosed(t, bySent, 4403, "refused")
	wantClosed(t, byCurrent, 4403, "refused")
	wantEcho(t, passing)
}

func TestAuthAppliesRulesToTheForwardedURLAlone(t *testing.T) {
	s := gatewaytest.New(t, asked(anyPeer, "public /public/* /oauth/*\nrequire /oauth/* {\nuser 7\n}\nrequire /paid/* {\nbalance 800\n}"))
	b := s.NewBrowser().SignIn()
	wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: /page"), t, "a page", 200, "", gatewaytest.UserID)
	wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: /public/a"), t, "a public page", 200, "", "")
	wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: /paid/a"), t, "a paid page", 403, "insufficient_balance", "")
	wantAuth(s.NewBrowser().Get("/oauth/auth", "X-Forwarded-Uri: /page"), t, "a page, nobody", 401, "unauthenticated", "")
}

// loadExample serves an example's Caddyfile on a site, with the test's provider.
func loadExample(s *gatewaytest.Site, t *testing.T, example string, oldnew ...string) {
	t.Helper()
	manualtest.SetEnv(t)
	t.Setenv("OAUTH_CLIENT_ID", gatewaytest.ClientID)
	t.Setenv("OAUTH_CLIENT_SECRET", gatewaytest.ClientSecret)
	t.Setenv("OAUTH_REDIRECT_URI", s.URL+"/oauth/callback")
	oldnew = append(oldnew, "app.example.com {", "http:// {", "provider aihubmix {", "provider aihubmix {\n base_url "+s.ProviderURL)
	s.Caddyfile = fmt.Sprintf("{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tstorage file_system %s\n}\n", t.TempDir()) +
		render(t, filepath.Join("examples", example, "Caddyfile"), oldnew...)
	s.Load()
}

func TestExampleRewrittenPathsGoesByBothPaths(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	upstream := strings.TrimPrefix(s.Upstream.URL, "http://")
	loadExample(s, t, "rewritten-paths", "localhost:3000", upstream, "localhost:4000", upstream)
	user, nobody := s.NewBrowser().SignIn(), s.NewBrowser()
	userSays(s, `"balance_formatted":"0.49","email":"user@other.example"`)
	for path, want := range map[string]struct {
		nobody, user int
		uri          string // as the application sees it
	}{
		"/pricing": {200, 200, "/pages/pricing.html"}, "/pages/pricing.html": {200, 200, "/pages/pricing.html"},
		"/api/pay": {401, 402, ""}, "/api": {401, 402, ""}, "/pay": {401, 402, ""}, "/pay/x": {401, 402, ""},
		"/files/a.txt": {401, 403, ""}, "/files": {401, 403, ""}, "/": {401, 200, "/"}, "/api/../files/a": {400, 400, ""},
	} {
		if a := nobody.Get(path); a.StatusCode != want.nobody {
			t.Errorf("%s without a session: got %d, want %d", path, a.StatusCode, want.nobody)
		}
		a := user.Get(path)
		if a.StatusCode != want.user || (want.uri != "" && a.Seen(t).URI != want.uri) {
			t.Errorf("%s: got %d %s, want %d %s", path, a.StatusCode, a.Text, want.user, want.uri)
		}
	}
	userSays(s, `"balance_formatted":"0.50","email":"user@example.com"`)
	for path, uri := range map[string]string{"/api/pay": "/pay", "/pay": "/pay", "/files/a.txt": "/a.txt"} {
		if a := user.Get(path); a.StatusCode != http.StatusOK || a.Seen(t).URI != uri {
			t.Errorf("%s with enough money: got %d %s, want %s", path, a.StatusCode, a.Text, uri)
		}
	}
}
