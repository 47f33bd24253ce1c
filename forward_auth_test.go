package tollgate

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/records"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/simulator"
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

// asked are more lines for a site that another proxy asks. The tests' own address is a
// trusted one, unless trusted says otherwise.
func asked(trusted string, more ...string) siteOptions {
	return siteOptions{inTollgate: "session {\nstore storage\n}\nforward_auth {\ntrusted_proxies " + trusted + "\n}\n" + strings.Join(more, "\n")}
}

const anyPeer, noPeer = "127.0.0.1 ::1", "192.0.2.1"

// wantAuth checks an answer of the auth endpoint, down to what every one of them has.
func (a *answer) wantAuth(t *testing.T, what string, status int, reason, userID string) {
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
	if a.Header.Get("Cache-Control") != "no-store" || a.text != "" || len(a.Header.Values("Set-Cookie")) > 1 || header.Size(a.Header) > MaxAuthHeaders {
		t.Errorf("%s: %q, body %q, headers of %d bytes", what, a.Header, a.text, header.Size(a.Header))
	}
}

func TestAuthAnswersWhoItIsAndNothingElse(t *testing.T) {
	s := newSite(t, asked(noPeer))
	b := s.newBrowser()
	b.Get("/oauth/auth").wantAuth(t, "nobody", 401, "unauthenticated", "")
	b.signIn()
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "get"} {
		for _, path := range []string{"/oauth/auth", "/oauth/auth/", "/oauth/auth/any/path?x=1&y", "/oauth/auth/start", "/oauth/auth?rd=//evil.example&%zz", "/oauth/auth/files/a%2Fb%20c"} {
			b.do(method, path, strings.NewReader("a body"), navigation...).wantAuth(t, method+" "+path, 200, "", testUserID)
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
		res := rawRequest(t, s, "GET "+path+" HTTP/1.1", "Host: gateway", b.cookieLine(), "", "")
		(&answer{Response: res}).wantAuth(t, path, 401, "unauthenticated", "")
	}
	began := time.Now()
	res := rawRequest(t, s, "POST /oauth/auth HTTP/1.1", "Host: gateway", b.cookieLine(), "Content-Length: 10", "", "")
	(&answer{Response: res}).wantAuth(t, "a body that never comes", 200, "", testUserID)
	if took := time.Since(began); took > 200*time.Millisecond {
		t.Errorf("the body that never comes was waited for: %v", took)
	}
	for _, cookie := range []string{"tollgate=", "tollgate=1.x", "tollgate=1.%zz; tollgate=2", "tollgate-2=x", strings.Repeat("x=1; ", 1000), "=;;=,\"tollgate"} {
		s.newBrowser().Get("/oauth/auth", "Cookie: "+cookie).wantAuth(t, cookie, 401, "unauthenticated", "")
	}
	before := s.upstream.requests.Load()
	if s.newBrowser().Get("/oauth/authority"); s.upstream.requests.Load() != before {
		t.Error("what is not below auth has reached the upstream without a session")
	}
	b.do("POST", "/oauth/logout", nil)
	b.Get("/oauth/auth").wantAuth(t, "after the logout", 401, "unauthenticated", "")
}

func TestAuthSetsEveryHeaderOfEveryPreset(t *testing.T) {
	s := newSite(t, asked(noPeer, "identity webauth remote auth_request {\nheader X-Who {http.auth.user.id}-{http.request.method}\n}"))
	want := map[string]string{
		"X-Webauth-User": "user123", "X-Webauth-Name": "user123", "X-Webauth-Email": "user@example.com", "Remote-User": "user123", "Remote-Name": "user123",
		"Remote-Email": "user@example.com", "X-Auth-Request-User": testUserID, "X-Auth-Request-Email": "user@example.com",
		"X-Auth-Request-Preferred-Username": "user123", "X-Who": testUserID + "-GET",
	}
	b := s.newBrowser()
	for _, signedIn := range []bool{false, true} {
		if signedIn {
			b.follow("/")
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
	s := newSite(t, asked(anyPeer, rules))
	signedIn, nobody := s.newBrowser().signIn(), s.newBrowser()
	const pass, login = 200, 401
	for _, c := range []struct {
		headers      []string
		below        string
		nobody, user int
		identity     bool
	}{
		{[]string{"X-Forwarded-Uri: /public/a"}, "", pass, pass, false},
		{[]string{"X-Forwarded-Uri: /public/a?x=/admin"}, "", pass, pass, false},
		{[]string{"X-Original-URL: " + s.url + "/public/a?b"}, "", pass, pass, false},
		{[]string{"X-Original-URL: https://other.example/public/a"}, "", pass, pass, false},
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
		for b, want := range map[*visitor]int{nobody: c.nobody, signedIn: c.user} {
			userID, reason := "", ""
			if b == signedIn && c.identity {
				userID = testUserID
			}
			if want == login {
				reason = "unauthenticated"
			}
			b.Get("/oauth/auth"+c.below, c.headers...).wantAuth(t, what, want, reason, userID)
		}
	}

	other := newSite(t, asked(noPeer, rules))
	nobody, signedIn = other.newBrowser(), other.newBrowser().signIn()
	for _, header := range []string{"X-Forwarded-Uri: /public/a", "X-Original-URL: http://h/public/a", "X-Auth-Request-Redirect: /public/a", "X-Forwarded-Uri: %zz"} {
		nobody.Get("/oauth/auth", header, "X-Forwarded-For: 192.0.2.1").wantAuth(t, "from another peer: "+header, 401, "unauthenticated", "")
		signedIn.Get("/oauth/auth", header).wantAuth(t, "from another peer: "+header, 200, "", testUserID)
	}
	nobody.Get("/oauth/auth/public/a").wantAuth(t, "from another peer, appended", 401, "unauthenticated", "")
}

func TestTrustedProxiesAreTheTCPPeers(t *testing.T) {
	resolve := func(words ...string) policy.TrustedProxies {
		var all policy.TrustedProxies
		for _, word := range words {
			proxies, err := parseProxies(word)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, proxies...)
		}
		return all
	}
	for _, c := range []struct {
		proxies policy.TrustedProxies
		peer    string
		want    bool
	}{
		{resolve("10.0.0.0/8"), "10.1.2.3:80", true},
		{resolve("10.1.2.3/8"), "10.9.9.9:80", true},
		{resolve("10.0.0.0/8"), "[::ffff:10.1.2.3]:80", true},
		{resolve("10.0.0.0/8"), "11.1.2.3:80", false},
		{resolve("192.0.2.7", "2001:db8::1"), "192.0.2.7:1", true},
		{resolve("192.0.2.7", "2001:db8::1"), "192.0.2.8:1", false},
		{resolve("192.0.2.7", "2001:db8::1"), "[2001:db8::1]:1", true},
		{resolve("fe80::/10"), "[fe80::1%eth0]:1", true},
		{resolve("private_ranges"), "172.16.5.5:1", true},
		{resolve("private_ranges"), "[::1]:1", true},
		{resolve("private_ranges"), "8.8.8.8:1", false},
		{resolve("0.0.0.0/0"), "@", false},
		{resolve("0.0.0.0/0"), "", false},
		{nil, "127.0.0.1:1", false},
	} {
		if got := c.proxies.Trust(c.peer); got != c.want {
			t.Errorf("%v, %s: got %v", c.proxies, c.peer, got)
		}
	}
}

func TestStartReturnsToThePageForwardedByTheProxy(t *testing.T) {
	s := newSite(t, asked(anyPeer))
	for header, want := range map[string]string{
		"X-Forwarded-Uri: /page?a=1&b=2&c=/x":                      "/page?a=1&b=2&c=/x",
		"X-Original-URL: " + s.url + "/page?a=1&b=2":               "/page?a=1&b=2",
		"X-Original-URL: https" + s.url[len("http"):] + "/page":    "/page", // TLS ends elsewhere
		"X-Auth-Request-Redirect: /page":                           "/page",
		"X-Original-URL: https://evil.example/page":                "/",
		"X-Original-URL: " + s.url + ".evil.example/page":          "/",
		"X-Forwarded-Uri: //evil.example/page":                     "/",
		"X-Forwarded-Uri: /\\evil.example":                         "/",
		"X-Forwarded-Uri: /.//evil.example":                        "/evil.example",
		"X-Forwarded-Uri: /oauth/start":                            "/",
		"X-Forwarded-Uri: %zz":                                     "/",
		"X-Forwarded-Uri: /" + strings.Repeat("a", origin.MaxPath): "/",
	} {
		b := s.newBrowser()
		a := b.visit("/oauth/start", header)
		for a.StatusCode == http.StatusFound {
			a = b.visit(a.location())
		}
		if got := a.location(); a.StatusCode != http.StatusSeeOther || got != want {
			t.Errorf("%s: the sign-in ends with %d at %q", header, a.StatusCode, got)
		}
	}
	b := s.newBrowser()
	a := b.visit(b.visit(b.visit("/oauth/start?return_to=/mine", "X-Forwarded-Uri: /page").location()).location())
	if a.location() != "/mine" {
		t.Errorf("return_to is forgotten: %q", a.location())
	}
	// A proxy passes on whatever it got.
	for _, method := range []string{"POST", "HEAD", "PUT"} {
		if a := s.newBrowser().do(method, "/oauth/start", nil, append([]string{"X-Forwarded-Uri: /page"}, navigation...)...); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: got %d", method, a.StatusCode)
		}
		if a := s.newBrowser().do(method, "/oauth/start", nil, navigation...); a.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s, for itself: got %d", method, a.StatusCode)
		}
	}
	if a := s.newBrowser().Get("/oauth/start", "X-Forwarded-Uri: /api", "Referer: "+s.url+"/page"); a.StatusCode != 401 || a.json(t)["login_url"] != "/oauth/start?return_to=%2Fpage" {
		t.Errorf("a script: %d %s", a.StatusCode, a.text)
	}
	other := newSite(t, asked(noPeer))
	b = other.newBrowser()
	if a := b.visit(b.visit(b.visit("/oauth/start", "X-Forwarded-Uri: /page").location()).location()); a.location() != "/" {
		t.Errorf("another peer says where to go: %q", a.location())
	}
}

func TestAuthPathIsConfigurableAndOffByDefault(t *testing.T) {
	s := newSite(t, asked(noPeer, "endpoints {\nauth /who\n}"))
	b := s.newBrowser().signIn()
	for _, path := range []string{"/who", "/who/is/it"} {
		b.Get(path).wantAuth(t, path, 200, "", testUserID)
	}
	if a := b.Get("/oauth/auth"); a.seen(t).URI != "/oauth/auth" {
		t.Errorf("the default path is still ours: %d", a.StatusCode)
	}
	if a := newSite(t, siteOptions{}).newBrowser().signIn().Get("/oauth/auth/x"); a.seen(t).URI != "/oauth/auth/x" {
		t.Errorf("auth is there without forward_auth: %d", a.StatusCode)
	}
}

func TestAuthIsAnsweredInTimeAndARefreshGoesOn(t *testing.T) {
	s := newSite(t, asked(noPeer))
	b := s.newBrowser().signIn()
	s.clock.advance(3 * time.Hour)
	s.provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 1500 * time.Millisecond})
	a := b.promptly("/oauth/auth")
	a.wantAuth(t, "while the refresh is under way", 403, "unavailable", "")
	if a.Header.Get("Set-Cookie") != "" {
		t.Error("a cookie is touched")
	}
	eventually(t, "the next question succeeds", func() bool { return b.Get("/oauth/auth").StatusCode == 200 })
	if n := s.provider.Count(simulator.Refresh); n != 1 || s.provider.DoubleSpends() != 0 {
		t.Errorf("%d refreshes, %d double spends", n, s.provider.DoubleSpends())
	}
	// The same of user information that is too old to be used.
	s.clock.advance(20 * time.Minute)
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Delay: 1500 * time.Millisecond})
	began := time.Now()
	b.Get("/oauth/auth").wantAuth(t, "old information", 200, "", testUserID)
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

// promptly asks a few times, as the machine has other work, too: the fastest answer,
// the last one of which is given, has to come within Envoy's 200 ms.
func (b *visitor) promptly(target string, headers ...string) (a *answer) {
	b.t.Helper()
	fastest := time.Hour
	for range 4 {
		began := time.Now()
		a = b.Get(target, headers...)
		fastest = min(fastest, time.Since(began))
	}
	if fastest > 200*time.Millisecond {
		b.t.Errorf("%s: the fastest answer took %v", target, fastest)
	}
	return a
}

func TestParallelAuthChecksShareOneRefresh(t *testing.T) {
	s := newSite(t, asked(noPeer))
	s.clock.authTimeout = time.Minute // all questions wait for one refresh, on a busy machine, too
	s.Load()
	b := s.newBrowser().signIn()
	for _, later := range []time.Duration{2*time.Hour - time.Minute, 3 * time.Hour} {
		s.provider.ResetCounts()
		s.clock.advance(later)
		var questions sync.WaitGroup
		for range 30 {
			questions.Go(func() { b.Get("/oauth/auth").wantAuth(t, "one of many", 200, "", testUserID) })
		}
		questions.Wait()
		eventually(t, "a refresh", func() bool { return s.provider.Count(simulator.Refresh) == 1 })
	}
	if n := s.provider.DoubleSpends(); n != 0 {
		t.Errorf("%d tokens were spent twice", n)
	}
}

func TestAStoreThatFailsOrHangsIsNotASignIn(t *testing.T) {
	s, kind, _ := newStoredSite(t, asked(anyPeer, "public /public/*\noptional /optional/*"))
	defer close(kind.Hang)
	b := s.newBrowser().signIn()
	// The one that hangs comes last: its reads outlive their questions.
	for _, what := range []string{"broken", "hanging"} {
		kind.Broken.Store(what == "broken")
		kind.Hangs.Store(what == "hanging")
		s.handlers[0].Internals().Store.(*records.Tickets).Records.(*storage.Records).Read.InvalidateAll()
		a := b.promptly("/oauth/auth", "X-Forwarded-Uri: /page")
		a.wantAuth(t, what, 403, "unavailable", "")
		if a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: a cookie is touched", what)
		}
		s.newBrowser().Get("/oauth/auth").wantAuth(t, what+", without a cookie", 401, "unauthenticated", "")
		b.Get("/oauth/auth", "X-Forwarded-Uri: /public/a").wantAuth(t, what+", public", 200, "", "")
		b.Get("/oauth/auth", "X-Forwarded-Uri: /optional/a").wantAuth(t, what+", optional", 200, "", "")
	}
}

func TestAuthRefusesAnInactiveUserAndAuditsItOnce(t *testing.T) {
	s := newSite(t, asked(noPeer))
	b := s.newBrowser().signIn()
	logs := s.observe()
	s.newBrowser().Get("/oauth/auth")
	if n := logs.Len(); n != 0 {
		t.Errorf("a question of nobody's writes %d lines: %v", n, logs.All())
	}
	s.provider.UpdateUser(12345, func(u *simulator.User) { u.Status = 2 })
	s.clock.advance(20 * time.Minute)
	b.Get("/oauth/auth").wantAuth(t, "a refused user", 403, "refused", "")
	if n := logs.FilterMessage("denied").FilterField(zap.String("user_id", testUserID)).Len(); n != 1 {
		t.Errorf("%d audit events: %v", n, logs.All())
	}
}

// observe gives what the site's handlers log from now on.
func (s *site) observe() *observer.ObservedLogs {
	core, logs := observer.New(zapcore.InfoLevel)
	for _, h := range s.handlers {
		h.SetLogger(zap.New(core))
	}
	return logs
}

func TestAnIdentityThatDoesNotFitIsAnErrorThatNamesIt(t *testing.T) {
	options := asked(noPeer, "identity default webauth remote forwarded")
	options.provider.Users = []simulator.User{{ID: 12345, Username: "user123", Email: strings.Repeat("é", 200) + "@example.com", Status: simulator.StatusEnabled}}
	s := newSite(t, options)
	b := s.newBrowser().signIn()
	logs := s.observe()
	b.Get("/oauth/auth").wantAuth(t, "an overlong identity", 403, "unavailable", "")
	if found := logs.FilterLevelExact(zapcore.ErrorLevel).FilterFieldKey("largest").All(); len(found) != 1 ||
		!strings.Contains(found[0].Message, "`identity`") || found[0].ContextMap()["largest"] != "X-User-Email" {
		t.Errorf("logged: %v", logs.All())
	}
}

func TestTicketOfThePreviousSecretIsResealed(t *testing.T) {
	s := newSite(t, asked(noPeer))
	b := s.newBrowser().signIn()
	b.setCookie("tollgate-2", "left over")
	s.caddyfile = strings.Replace(s.caddyfile, "secret "+testSecret, "secret "+keys.NewSecret()+" "+testSecret, 1)
	s.Load()
	a := b.Get("/oauth/auth")
	a.wantAuth(t, "a ticket of before", 200, "", testUserID)
	if lines := a.Header.Values("Set-Cookie"); len(lines) != 1 || !strings.HasPrefix(lines[0], "tollgate=1.") {
		t.Errorf("Set-Cookie: %q", lines)
	}
	a = b.Get("/oauth/auth")
	a.wantAuth(t, "the new ticket", 200, "", testUserID)
	if lines := a.Header.Values("Set-Cookie"); len(lines) != 0 {
		t.Errorf("written again: %q", lines)
	}
}

func TestTrustingEverybodyIsWarnedOf(t *testing.T) {
	for proxies, want := range map[string]bool{"10.0.0.0/8": false, "0.0.0.0/0": true, "10.0.0.1 ::/0": true} {
		file := filepath.Join(t.TempDir(), "log")
		_, handlers, err := provision("{\nadmin off\nauto_https off\nlog {\noutput file " + file + "\n}\n}\nhttp:// {\ntollgate {\n" + minimalBlock +
			"session {\nstore storage\n}\nforward_auth {\ntrusted_proxies " + proxies + "\n}\n}\n}\n")
		if err != nil {
			t.Fatal(err)
		}
		handlers[0].Cleanup()
		text, _ := os.ReadFile(file)
		if got := strings.Contains(string(text), "forward_auth.trusted_proxies trusts everybody"); got != want {
			t.Errorf("%s: warned %v: %s", proxies, got, text)
		}
	}
}
