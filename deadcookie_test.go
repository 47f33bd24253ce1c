package tollgate_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// deletes reports whether an answer deletes the session cookie.
func deletes(a *gatewaytest.Answer) bool {
	for _, line := range a.Header.Values("Set-Cookie") {
		if strings.HasPrefix(line, "tollgate=;") && strings.Contains(line, "Max-Age=0") {
			return true
		}
	}
	return false
}

func TestCookieOfADeadSessionIsDeletedByTheResponse(t *testing.T) {
	ends := map[string]func(*gatewaytest.Site, *gatewaytest.Browser){
		"the provider revokes it": func(s *gatewaytest.Site, _ *gatewaytest.Browser) {
			s.Provider.RevokeUser(12345)
			s.Clock.Advance(over)
		},
		"its lifetime ends": func(s *gatewaytest.Site, _ *gatewaytest.Browser) { s.Clock.Advance(session.MaxLifetime) },
	}
	asks := map[string]func(*gatewaytest.Browser) *gatewaytest.Answer{
		"a page":              func(b *gatewaytest.Browser) *gatewaytest.Answer { return b.Visit("/page") },
		"a script":            func(b *gatewaytest.Browser) *gatewaytest.Answer { return b.Get("/api") },
		"userinfo":            func(b *gatewaytest.Browser) *gatewaytest.Answer { return b.Get("/oauth/userinfo") },
		"optional userinfo":   func(b *gatewaytest.Browser) *gatewaytest.Answer { return b.Get("/oauth/userinfo?optional=1") },
		"refresh":             func(b *gatewaytest.Browser) *gatewaytest.Answer { return b.Send("POST", "/oauth/refresh", nil) },
		"an anonymous answer": func(b *gatewaytest.Browser) *gatewaytest.Answer { return b.Get("/open") },
	}
	for store, block := range map[string]string{"cookie": "session {\nstore cookie\n}", "storage": inStorage} {
		for end, work := range ends {
			for ask, request := range asks {
				s, _, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "optional /open\n" + block})
				b := s.NewBrowser().SignIn()
				work(s, b)
				if a := request(b); !deletes(a) || len(b.Cookies()) != 0 {
					t.Errorf("%s, %s, %s: got %d, %q", store, end, ask, a.StatusCode, a.Header.Values("Set-Cookie"))
				}
			}
		}
	}
}

func TestASessionEndedByAnOperatorLosesItsCookie(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	if ended, err := s.Handlers[0].EndNamed(httptest.NewRequest(http.MethodDelete, "/", nil), sessionOf(s, b).ID.Hash(), ""); !ended || err != nil {
		t.Fatal(ended, err)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized || !deletes(a) {
		t.Errorf("got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}

// A request that was under way with the old cookie is answered when the browser holds a
// new one already.
func TestLateDenialKeepsTheNewSessionCookie(t *testing.T) {
	renewals := map[string]func(*gatewaytest.Browser){
		"after a denial and a sign-in": func(b *gatewaytest.Browser) { b.SignIn() },
		"after a sign-in":              func(b *gatewaytest.Browser) { b.Visit(b.Authorize("")) },
		"after a logout and a sign-in": func(b *gatewaytest.Browser) {
			b.Send("POST", "/oauth/logout", nil)
			b.PressAllow(b.Follow("/"))
		},
	}
	for name, renew := range renewals {
		s := gatewaytest.New(t, gatewaytest.Options{})
		b := s.NewBrowser().SignIn()
		late := b.Copy()
		s.Provider.RevokeUser(12345)
		s.Clock.Advance(over)
		renew(b)
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Fatalf("%s: the new session: %d", name, a.StatusCode)
		}
		if a := late.Get("/"); a.StatusCode != http.StatusUnauthorized || deletes(a) {
			t.Errorf("%s: the late answer: got %d, %q; want 401 without a deletion", name, a.StatusCode, a.Header.Values("Set-Cookie"))
		}
	}
}

// The late request brings an older value of the session's cookie than the logout did.
func TestLateDenialWithAnOlderValueKeepsTheNewCookie(t *testing.T) {
	cases := map[string]struct {
		inTollgate string
		pass       time.Duration
	}{
		"after a refresh":      {"", due},
		"after an idle period": {"session {\nidle_timeout 30m\n}", 20 * time.Minute},
	}
	for name, c := range cases {
		for _, ask := range []string{"GET /", "POST /oauth/refresh"} {
			s := gatewaytest.New(t, gatewaytest.Options{InTollgate: c.inTollgate})
			b := s.NewBrowser().SignIn()
			late := b.Copy()
			s.Clock.Advance(c.pass)
			b.Get("/")
			gatewaytest.Eventually(t, "the cookie is another one", func() bool {
				b.Get("/")
				return b.Cookies()["tollgate"] != late.Cookies()["tollgate"]
			})
			b.Send("POST", "/oauth/logout", nil)
			b.PressAllow(b.Follow("/"))
			method, path, _ := strings.Cut(ask, " ")
			if a := late.Send(method, path, nil); a.StatusCode != http.StatusUnauthorized || deletes(a) {
				t.Errorf("%s, %s: got %d, %q; want 401 without a deletion", name, ask, a.StatusCode, a.Header.Values("Set-Cookie"))
			}
		}
	}
}

func TestLateDenialKeepsTheCookieAfterAMigration(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{InTollgate: fromCookies})
	access := sessionOf(s, s.NewBrowser().SignIn()).Tokens.Access
	b := s.NewBrowser()
	b.SetCookie("tollgate", madeUpSession(s, gatewaytest.UserID, access))
	late := b.Copy()
	if a := b.Get("/"); a.StatusCode != http.StatusOK || b.Cookies()["tollgate"] == late.Cookies()["tollgate"] {
		t.Fatalf("the session is not migrated: %d", a.StatusCode)
	}
	b.Send("POST", "/oauth/logout", nil)
	b.PressAllow(b.Follow("/"))
	if a := late.Get("/"); a.StatusCode != http.StatusUnauthorized || deletes(a) {
		t.Errorf("got %d, %q; want 401 without a deletion", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}

func TestDuplicateCookiesAreLoggedOnceAMinute(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	logs := observe(s)
	ask := func(times int) {
		for range times {
			s.NewBrowser().Get("/", "Cookie: tollgate=1.a; tollgate=1.b")
		}
	}
	ask(20)
	s.Clock.Advance(time.Minute)
	ask(5)
	lines := logs.FilterMessageSnippet("two session cookies").All()
	if len(lines) != 2 {
		t.Fatalf("got %d lines, want 2", len(lines))
	}
	if got := lines[1].ContextMap()["requests"]; got != int64(20) {
		t.Errorf("the second line counts %v requests, want 20", got)
	}
}

func TestAnOutageDeletesNoCookie(t *testing.T) {
	s, storage, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	storage.Broken.Store(true)
	s.Clock.Advance(over)
	if a := b.Get("/"); a.StatusCode == http.StatusUnauthorized || deletes(a) {
		t.Errorf("got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}
