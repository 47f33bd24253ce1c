package tollgate_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-tollgate/tollgate"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/respond"
	"github.com/caddy-tollgate/tollgate/simulator"
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

// asked are more lines for a site that another proxy asks. The tests' own address is a
// trusted one, unless trusted says otherwise.
func asked(trusted string, more ...string) gatewaytest.Options {
	return gatewaytest.Options{InTollgate: "session {\nstore storage\n}\nforward_auth {\ntrusted_proxies " + trusted + "\n}\n" + strings.Join(more, "\n")}
}

const anyPeer, noPeer = "127.0.0.1 ::1", "192.0.2.1"

// wantAuth checks an answer of the auth endpoint, down to what every one of them has.
func wantAuth(a *gatewaytest.Answer, t *testing.T, what string, status int, reason, userID string) {
	t.Helper()
	if a.StatusCode != status || a.Header.Get("Tollgate-Reason") != reason || a.Header.Get("X-User-Id") != userID {
		t.Errorf("%s: got %d, reason %q, user %q; want %d, %q, %q", what, a.StatusCode,
			a.Header.Get("Tollgate-Reason"), a.Header.Get("X-User-Id"), status, reason, userID)
	}
	for _, fields := range identity.Presets["default"] {
		if lines := a.Header.Values(fields.Name); len(lines) != 1 || (userID == "" && lines[0] != "") {
			t.Errorf("%s: %s is %q", what, fields.Name, lines)
		}
	}
	if a.Header.Get("Cache-Control") != "no-store" || a.Text != "" || len(a.Header.Values("Set-Cookie")) > 1 || header.Size(a.Header) > respond.MaxAuthHeaders {
		t.Errorf("%s: %q, body %q, headers of %d bytes", what, a.Header, a.Text, header.Size(a.Header))
	}
}

func TestAuthReturnsOnlyTheIdentity(t *testing.T) {
	s := gatewaytest.New(t, asked(noPeer))
	b := s.NewBrowser()
	wantAuth(b.Get("/oauth/auth"), t, "nobody", 401, "unauthenticated", "")
	b.SignIn()
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "get"} {
		for _, path := range []string{"/oauth/auth", "/oauth/auth/", "/oauth/auth/any/path?x=1&y", "/oauth/auth/start", "/oauth/auth?rd=//evil.example&%zz", "/oauth/auth/files/a%2Fb%20c"} {
			wantAuth(b.Send(method, path, strings.NewReader("a body"), gatewaytest.Navigation...), t, method+" "+path, 200, "", gatewaytest.UserID)
		}
	}
	a := b.Get("/oauth/auth")
	if a.Header.Get("X-User-Balance") == "" || a.Header.Get("X-User-Name") != "user123" || a.Header.Get("X-User-Balance-State") != "fresh" || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("the identity is %q", a.Header)
	}
	for _, path := range []string{
		"/oauth/auth/..%2fstart", "/oauth/auth/../../page", "/oauth/auth/%2e%2e/%2e%2e/page", "/oauth/auth//..//..//x", "/oauth/auth/..;/start",
		"/oauth/auth/..%5c..%5cx", "/oauth/auth/x%00/../../y", "/oauth/auth/%252e%252e%252fstart", "/oauth/auth/%" + strings.Repeat("25", 40) + "41",
		"//oauth/auth", "/x/../oauth/auth",
	} {
		res := rawRequest(t, s, "GET "+path+" HTTP/1.1", "Host: gateway", b.CookieLine(), "", "")
		wantAuth((&gatewaytest.Answer{Response: res}), t, path, 401, "unauthenticated", "")
	}
	res := rawRequest(t, s, "POST /oauth/auth HTTP/1.1", "Host: gateway", b.CookieLine(), "Content-Length: 10", "", "")
	wantAuth((&gatewaytest.Answer{Response: res}), t, "a body that never comes", 200, "", gatewaytest.UserID)
	for _, cookie := range []string{"tollgate=", "tollgate=1.x", "tollgate=1.%zz; tollgate=2", "tollgate-2=x", strings.Repeat("x=1; ", 1000), "=;;=,\"tollgate"} {
		wantAuth(s.NewBrowser().Get("/oauth/auth", "Cookie: "+cookie), t, cookie, 401, "unauthenticated", "")
	}
	before := s.Upstream.Requests.Load()
	if a := s.NewBrowser().Get("/oauth/authority"); s.Upstream.Requests.Load() != before {
		t.Errorf("/oauth/authority without a session has reached the upstream: status %d", a.StatusCode)
	}
	b.Send("POST", "/oauth/logout", nil)
	wantAuth(b.Get("/oauth/auth"), t, "after the logout", 401, "unauthenticated", "")
}

func TestAuthSetsEveryHeaderOfEveryPreset(t *testing.T) {
	s := gatewaytest.New(t, asked(noPeer, "identity webauth remote auth_request {\nheader X-Who {http.auth.user.id}-{http.request.method}\n}"))
	want := map[string]string{
		"X-Webauth-User": "user123", "X-Webauth-Name": "user123", "X-Webauth-Email": "user@example.com", "Remote-User": "user123", "Remote-Name": "user123",
		"Remote-Email": "user@example.com", "X-Auth-Request-User": gatewaytest.UserID, "X-Auth-Request-Email": "user@example.com",
		"X-Auth-Request-Preferred-Username": "user123", "X-Who": gatewaytest.UserID + "-GET",
	}
	b := s.NewBrowser()
	for _, signedIn := range []bool{false, true} {
		if signedIn {
			b.Follow("/")
		}
		a := b.Get("/oauth/auth")
		for name, value := range want {
			if !signedIn {
				value = ""
			}
			if lines := a.Header.Values(name); len(lines) != 1 || lines[0] != value {
				t.Errorf("signed in %v: %s is %q, want %q", signedIn, name, lines, value)
			}
		}
	}
}

func TestTheOriginalURLDecidesAsInTheProxyMode(t *testing.T) {
	rules := "public /public/* *.css\noptional /optional/*"
	s := gatewaytest.New(t, asked(anyPeer, rules))
	signedIn, nobody := s.NewBrowser().SignIn(), s.NewBrowser()
	const pass, login = 200, 401
	for _, c := range []struct {
		headers      []string
		below        string
		nobody, user int
		identity     bool
	}{
		{[]string{"X-Forwarded-Uri: /public/a"}, "", pass, pass, false},
		{[]string{"X-Forwarded-Uri: /public/a?x=/admin"}, "", pass, pass, false},
		{[]string{"X-Original-URL: " + s.URL + "/public/a?b", "X-Auth-Request-Redirect: /public/a?b"}, "", pass, pass, false},
		{[]string{"X-Original-URL: https://other.example/public/a", "X-Auth-Request-Redirect: /public/a"}, "", pass, pass, false},
		{[]string{"X-Original-URL: /public/a?b"}, "", pass, pass, false},
		{[]string{"X-Auth-Request-Redirect: /style.css"}, "", pass, pass, false},
		{[]string{"X-Forwarded-Uri: /optional/a"}, "", pass, pass, true},
		{[]string{"X-Forwarded-Uri: /page"}, "", login, pass, true},
		{[]string{"X-Forwarded-Uri: /page?x=/public/a"}, "", login, pass, true},
		{[]string{"X-Forwarded-Uri: /publicity"}, "", login, pass, true},
		{nil, "", login, pass, true},
		{nil, "/public/a", pass, pass, false}, // as Envoy asks
		{nil, "/page", login, pass, true},
		{[]string{"X-Forwarded-Uri: /public/a"}, "/public/a", pass, pass, false},
		{[]string{"X-Forwarded-Uri: /a", "X-Original-URL: http://h/a", "X-Auth-Request-Redirect: /a"}, "", login, pass, true},

		// What can be read in two ways, or not at all.
		{[]string{"X-Forwarded-Uri: /public/../admin"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: /public/..%2fadmin"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: //public/a"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: /admin#.css"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: /admin;.css"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: /public/%zz"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: "}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: public/a"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: *"}, "", login, login, false},
		{[]string{"X-Original-URL: javascript:/public/a"}, "", login, login, false},
		{[]string{"X-Original-URL: https:/public/a"}, "", login, login, false},
		{[]string{"X-Original-URL: https://user@h/public/a"}, "", login, login, false},
		{[]string{"X-Original-URL: " + s.URL + "/public/a"}, "", login, login, false},
		{[]string{"X-Original-URL: " + s.URL + "/public/a?/admin"}, "", login, login, false},
		{[]string{"X-Original-URL: " + s.URL + "?x=/public/a", "X-Auth-Request-Redirect: /?x=/public/a"}, "", login, login, false},
		{nil, "/public/..%2fadmin", login, login, false},

		// What disagrees.
		{[]string{"X-Forwarded-Uri: /public/a", "X-Forwarded-Uri: /public/a"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: /public/a", "X-Original-URL: http://h/admin"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: /public/a", "X-Auth-Request-Redirect: /public/b"}, "", login, login, false},
		{[]string{"X-Original-URL: http://h/public/a", "X-Auth-Request-Redirect: http://other/public/a"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: /public/a?x", "X-Original-URL: http://h/public/a?y"}, "", login, login, false},
		{[]string{"X-Forwarded-Uri: /public/a"}, "/admin", login, login, false},
		{[]string{"X-Forwarded-Uri: /admin"}, "/public/a", login, login, false},
	} {
		what := fmt.Sprintf("%q %s", c.headers, c.below)
		for b, want := range map[*gatewaytest.Browser]int{nobody: c.nobody, signedIn: c.user} {
			userID, reason := "", ""
			if b == signedIn && c.identity {
				userID = gatewaytest.UserID
			}
			if want == login {
				reason = "unauthenticated"
			}
			wantAuth(b.Get("/oauth/auth"+c.below, c.headers...), t, what, want, reason, userID)
		}
	}

	other := gatewaytest.New(t, asked(noPeer, rules))
	nobody, signedIn = other.NewBrowser(), other.NewBrowser().SignIn()
	for _, header := range []string{"X-Forwarded-Uri: /public/a", "X-Original-URL: http://h/public/a", "X-Auth-Request-Redirect: /public/a", "X-Forwarded-Uri: %zz"} {
		wantAuth(nobody.Get("/oauth/auth", header, "X-Forwarded-For: 192.0.2.1"), t, "from another peer: "+header, 401, "unauthenticated", "")
		wantAuth(signedIn.Get("/oauth/auth", header), t, "from another peer: "+header, 200, "", gatewaytest.UserID)
	}
	wantAuth(nobody.Get("/oauth/auth/public/a"), t, "from another peer, appended", 401, "unauthenticated", "")
}

func TestStartReturnsToThePageForwardedByTheProxy(t *testing.T) {
	s := gatewaytest.New(t, asked(anyPeer))
	for header, want := range map[string]string{
		"X-Forwarded-Uri: /page?a=1&b=2&c=/x":                   "/page?a=1&b=2&c=/x",
		"X-Original-URL: /page?a=1&b=2":                         "/page?a=1&b=2",
		"X-Original-URL: " + s.URL + "/page":                    "/", // a full URL does not count unless another header has the same path alone
		"X-Auth-Request-Redirect: /page":                        "/page",
		"X-Original-URL: https://evil.example/page":             "/",
		"X-Original-URL: " + s.URL + ".evil.example/page":       "/",
		"X-Forwarded-Uri: //evil.example/page":                  "/",
		"X-Forwarded-Uri: /\\evil.example":                      "/",
		"X-Forwarded-Uri: /.//evil.example":                     "/evil.example",
		"X-Forwarded-Uri: /oauth/start":                         "/",
		"X-Forwarded-Uri: %zz":                                  "/",
		"X-Forwarded-Uri: /" + strings.Repeat("a", longestPath): "/",
	} {
		b := s.NewBrowser()
		a := b.Visit("/oauth/start", header)
		for a.StatusCode == http.StatusFound {
			a = b.Visit(a.Location())
		}
		if got := a.Location(); a.StatusCode != http.StatusSeeOther || got != want {
			t.Errorf("%s: the sign-in ends with %d at %q", header, a.StatusCode, got)
		}
	}
	for original, want := range map[string]string{
		s.URL + "/page?a=1&b=2":                         "/page?a=1&b=2",
		"https" + s.URL[len("http"):] + "/page?a=1&b=2": "/page?a=1&b=2", // TLS ends elsewhere
		"https://evil.example/page?a=1&b=2":             "/",
	} {
		b := s.NewBrowser()
		a := b.Visit(b.Visit(b.Visit("/oauth/start", "X-Original-URL: "+original, "X-Auth-Request-Redirect: /page?a=1&b=2").Location()).Location())
		if a.Location() != want {
			t.Errorf("%s with its path: the sign-in ends at %q, want %q", original, a.Location(), want)
		}
	}
	b := s.NewBrowser()
	a := b.Visit(b.Visit(b.Visit("/oauth/start?return_to=/mine", "X-Forwarded-Uri: /page").Location()).Location())
	if a.Location() != "/mine" {
		t.Errorf("return_to is forgotten: %q", a.Location())
	}
	// A proxy passes on whatever it got.
	for _, method := range []string{"POST", "HEAD", "PUT"} {
		if a := s.NewBrowser().Send(method, "/oauth/start", nil, append([]string{"X-Forwarded-Uri: /page"}, gatewaytest.Navigation...)...); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: got %d", method, a.StatusCode)
		}
		if a := s.NewBrowser().Send(method, "/oauth/start", nil, gatewaytest.Navigation...); a.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s, for itself: got %d", method, a.StatusCode)
		}
	}
	if a := s.NewBrowser().Get("/oauth/start", "X-Forwarded-Uri: /api", "Referer: "+s.URL+"/page"); a.StatusCode != 401 || a.JSON(t)["login_url"] != "/oauth/start?return_to=%2Fpage" {
		t.Errorf("a script: %d %s", a.StatusCode, a.Text)
	}
	other := gatewaytest.New(t, asked(noPeer))
	b = other.NewBrowser()
	if a := b.Visit(b.Visit(b.Visit("/oauth/start", "X-Forwarded-Uri: /page").Location()).Location()); a.Location() != "/" {
		t.Errorf("another peer says where to go: %q", a.Location())
	}
}

func TestAuthPathIsConfigurableAndOffByDefault(t *testing.T) {
	s := gatewaytest.New(t, asked(noPeer, "endpoints {\nauth /who\n}"))
	b := s.NewBrowser().SignIn()
	for _, path := range []string{"/who", "/who/is/it"} {
		wantAuth(b.Get(path), t, path, 200, "", gatewaytest.UserID)
	}
	if a := b.Get("/oauth/auth"); a.Seen(t).URI != "/oauth/auth" {
		t.Errorf("the default path is still ours: %d", a.StatusCode)
	}
	if a := gatewaytest.New(t, gatewaytest.Options{}).NewBrowser().SignIn().Get("/oauth/auth/x"); a.Seen(t).URI != "/oauth/auth/x" {
		t.Errorf("auth is there without forward_auth: %d", a.StatusCode)
	}
}

func TestAuthRespondsInTimeAndTheRefreshContinues(t *testing.T) {
	s := gatewaytest.New(t, patientOptions(asked(noPeer)))
	b := s.NewBrowser().SignIn()
	s.Clock.AuthTimeout = gatewaytest.AsShipped
	s.Load()
	s.Clock.Advance(3 * time.Hour)
	release := s.HoldBack(simulator.Refresh, simulator.Fault{})
	a := b.Get("/oauth/auth")
	wantAuth(a, t, "while the refresh is under way", 403, "unavailable", "")
	if got := a.Header.Get("Set-Cookie"); got != "" {
		t.Errorf("while the refresh is under way: got Set-Cookie %q, want none", got)
	}
	release()
	gatewaytest.Eventually(t, "the next question succeeds", func() bool { return b.Get("/oauth/auth").StatusCode == 200 })
	if n := s.Provider.Count(simulator.Refresh); n != 1 || s.Provider.DoubleSpends() != 0 {
		t.Errorf("%d refreshes, %d double spends", n, s.Provider.DoubleSpends())
	}
	// The same of user information that is too old to be used.
	s.Clock.AuthTimeout = readTimeout / 2
	s.Load()
	s.Clock.Advance(20 * time.Minute)
	s.HoldBack(simulator.UserInfo, simulator.Fault{})
	wantAuth(b.Get("/oauth/auth"), t, "old information", 200, "", gatewaytest.UserID)
}

// TestAuthRespondsWithinTheTimeoutOfEnvoy, which is 200 ms. The tests of auth checks hold back
// what a check waits for until it has responded. A slow machine would fail a measurement.
func TestAuthRespondsWithinTheTimeoutOfEnvoy(t *testing.T) {
	if limit := tollgate.DefaultAuthTimeout; limit > 150*time.Millisecond {
		t.Errorf("an auth check may wait for %v, want at most 150ms", limit)
	}
}

// patientOptions lets the gateway wait for the provider for longer than a busy machine takes.
func patientOptions(options gatewaytest.Options) gatewaytest.Options {
	options.InProvider += "\ntimeout 1m"
	return options
}

func TestParallelAuthChecksShareOneRefresh(t *testing.T) {
	s := gatewaytest.New(t, asked(noPeer))
	b := s.NewBrowser().SignIn()
	for _, later := range []time.Duration{2*time.Hour - time.Minute, 3 * time.Hour} {
		s.Provider.ResetCounts()
		s.Clock.Advance(later)
		var questions sync.WaitGroup
		for range 30 {
			questions.Go(func() { wantAuth(b.Get("/oauth/auth"), t, "one of many", 200, "", gatewaytest.UserID) })
		}
		questions.Wait()
		gatewaytest.Eventually(t, "a refresh", func() bool { return s.Provider.Count(simulator.Refresh) == 1 })
	}
	if n := s.Provider.DoubleSpends(); n != 0 {
		t.Errorf("%d tokens were spent twice", n)
	}
}

func TestFailingOrHangingStoreDoesNotDemandASignIn(t *testing.T) {
	s, kind, _ := newStoredSite(t, asked(anyPeer, "public /public/*\noptional /optional/*"))
	defer close(kind.Hang)
	b := s.NewBrowser().SignIn()
	s.Clock.AuthTimeout = gatewaytest.AsShipped
	s.Load()
	// The one that hangs comes last: its reads outlive their questions.
	for _, what := range []string{"broken", "hanging"} {
		kind.Broken.Store(what == "broken")
		kind.Hangs.Store(what == "hanging")
		s.Handlers[0].Internals().Store.(*records.Tickets).Records.(*storage.Records).Read.InvalidateAll()
		a := b.Get("/oauth/auth", "X-Forwarded-Uri: /page")
		wantAuth(a, t, what, 403, "unavailable", "")
		if a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: a cookie is touched", what)
		}
		wantAuth(s.NewBrowser().Get("/oauth/auth"), t, what+", without a cookie", 401, "unauthenticated", "")
		wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: /public/a"), t, what+", public", 200, "", "")
		wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: /optional/a"), t, what+", optional", 200, "", "")
	}
}

func TestAuthRefusesAnInactiveUserAndAuditsItOnce(t *testing.T) {
	s := gatewaytest.New(t, asked(noPeer))
	b := s.NewBrowser().SignIn()
	logs := observe(s)
	s.NewBrowser().Get("/oauth/auth")
	if n := logs.Len(); n != 0 {
		t.Errorf("a question of nobody's writes %d lines: %v", n, logs.All())
	}
	s.Provider.UpdateUser(12345, func(u *simulator.User) { u.Status = 2 })
	s.Clock.Advance(20 * time.Minute)
	wantAuth(b.Get("/oauth/auth"), t, "a refused user", 403, "refused", "")
	if n := logs.FilterMessage("denied").FilterField(zap.String("user_id", gatewaytest.UserID)).Len(); n != 1 {
		t.Errorf("%d audit events: %v", n, logs.All())
	}
}

// observe gives what the site's handlers log from now on.
func observe(s *gatewaytest.Site) *observer.ObservedLogs {
	core, logs := observer.New(zapcore.InfoLevel)
	for _, h := range s.Handlers {
		h.SetLogger(zap.New(core))
	}
	return logs
}

func TestIdentityThatIsTooLargeIsANamedError(t *testing.T) {
	options := asked(noPeer, "identity default webauth remote forwarded")
	options.Provider.Users = []simulator.User{{ID: 12345, Username: "user123", Email: strings.Repeat("é", 200) + "@example.com", Status: simulator.StatusEnabled}}
	s := gatewaytest.New(t, options)
	b := s.NewBrowser().SignIn()
	logs := observe(s)
	for range 3 { // one line a minute
		wantAuth(b.Get("/oauth/auth"), t, "an overlong identity", 403, "unavailable", "")
	}
	if found := logs.FilterLevelExact(zapcore.ErrorLevel).FilterFieldKey("largest").All(); len(found) != 1 ||
		!strings.Contains(found[0].Message, "`identity`") || found[0].ContextMap()["largest"] != "X-User-Email" {
		t.Errorf("logged: %v", logs.All())
	}
}

func TestAuthChecksOverTheirTimeLimitAreOneLineAMinute(t *testing.T) {
	s := gatewaytest.New(t, patientOptions(asked(noPeer)))
	b := s.NewBrowser().SignIn()
	s.Clock.AuthTimeout = gatewaytest.AsShipped
	s.Load()
	logs := observe(s)
	s.HoldBack(simulator.Refresh, simulator.Fault{})
	s.Clock.Advance(over)
	for range 2 {
		wantAuth(b.Get("/oauth/auth"), t, "during a refresh that hangs", 403, "unavailable", "")
	}
	if n := logs.FilterMessage("the auth check exceeded its time limit").Len(); n != 1 {
		t.Errorf("got %d lines, want 1", n)
	}
}

func TestTicketOfThePreviousSecretIsResealed(t *testing.T) {
	s := gatewaytest.New(t, asked(noPeer))
	b := s.NewBrowser().SignIn()
	b.SetCookie("tollgate-2", "left over")
	s.Caddyfile = strings.Replace(s.Caddyfile, "secret "+gatewaytest.Secret, "secret "+keys.NewSecret()+" "+gatewaytest.Secret, 1)
	s.Load()
	a := b.Get("/oauth/auth")
	wantAuth(a, t, "the previous ticket", 200, "", gatewaytest.UserID)
	if lines := a.Header.Values("Set-Cookie"); len(lines) != 1 || !strings.HasPrefix(lines[0], "tollgate=1.") {
		t.Errorf("Set-Cookie: %q", lines)
	}
	a = b.Get("/oauth/auth")
	wantAuth(a, t, "the new ticket", 200, "", gatewaytest.UserID)
	if lines := a.Header.Values("Set-Cookie"); len(lines) != 0 {
		t.Errorf("written again: %q", lines)
	}
}

func TestTrustingEveryAddressIsAWarning(t *testing.T) {
	for proxies, want := range map[string]bool{"10.0.0.0/8": false, "0.0.0.0/0": true, "10.0.0.1 ::/0": true} {
		file := filepath.Join(t.TempDir(), "log")
		_, handlers, err := gatewaytest.Provision("{\nadmin off\nauto_https off\nlog {\noutput file " + file + "\n}\n}\nhttp:// {\ntollgate {\n" + minimalBlock +
			"session {\nstore storage\n}\nforward_auth {\ntrusted_proxies " + proxies + "\n}\n}\n}\n")
		if err != nil {
			t.Fatal(err)
		}
		handlers[0].Cleanup()
		text, _ := os.ReadFile(file)
		if got := strings.Contains(string(text), "forward_auth.trusted_proxies trusts every address"); got != want {
			t.Errorf("%s: warned %v: %s", proxies, got, text)
		}
	}
}

func TestProxyThatSendsOnlyFullURLsIsAWarning(t *testing.T) {
	s := gatewaytest.New(t, asked(anyPeer))
	logs := observe(s)
	b := s.NewBrowser()
	for range 3 {
		wantAuth(b.Get("/oauth/auth", "X-Original-URL: "+s.URL+"/page"), t, "a full URL", 401, "unauthenticated", "")
	}
	b.Get("/oauth/auth", "X-Forwarded-Uri: /page")
	const message = "the proxy in front sends the original URL only as a full URL, so `auth` answers 401: make it set X-Forwarded-Uri to the path with the query"
	if n := logs.FilterMessage(message).Len(); n != 1 || logs.Len() != 1 {
		t.Errorf("got the warning %d times among %d lines, want once: %v", n, logs.Len(), logs.All())
	}
	s.Clock.Advance(time.Minute)
	b.Get("/oauth/auth", "X-Original-URL: "+s.URL+"/page")
	if all := logs.FilterMessage(message).All(); len(all) != 2 || all[1].ContextMap()["requests"] != int64(3) {
		t.Errorf("a minute later: got %v, want one more line about 3 requests", all)
	}
}
