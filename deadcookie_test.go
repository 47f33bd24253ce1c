package tollgate

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/session"
)

// deletes reports whether an answer deletes the session cookie.
func deletes(a *answer) bool {
	for _, line := range a.Header.Values("Set-Cookie") {
		if strings.HasPrefix(line, "tollgate=;") && strings.Contains(line, "Max-Age=0") {
			return true
		}
	}
	return false
}

func TestADeadSessionsCookieIsDeletedWithTheAnswer(t *testing.T) {
	ends := map[string]func(*site, *visitor){
		"the provider revokes it": func(s *site, _ *visitor) {
			s.provider.RevokeUser(12345)
			s.clock.advance(over)
		},
		"its lifetime ends": func(s *site, _ *visitor) { s.clock.advance(session.MaxLifetime) },
	}
	asks := map[string]func(*visitor) *answer{
		"a page":              func(b *visitor) *answer { return b.visit("/page") },
		"a script":            func(b *visitor) *answer { return b.Get("/api") },
		"userinfo":            func(b *visitor) *answer { return b.Get("/oauth/userinfo") },
		"optional userinfo":   func(b *visitor) *answer { return b.Get("/oauth/userinfo?optional=1") },
		"refresh":             func(b *visitor) *answer { return b.do("POST", "/oauth/refresh", nil) },
		"an anonymous answer": func(b *visitor) *answer { return b.Get("/open") },
	}
	for store, block := range map[string]string{"cookie": "session {\nstore cookie\n}", "storage": inStorage} {
		for end, work := range ends {
			for ask, request := range asks {
				s, _, _ := newStoredSite(t, siteOptions{inTollgate: "optional /open\n" + block})
				b := s.newBrowser().signIn()
				work(s, b)
				if a := request(b); !deletes(a) || len(b.cookies()) != 0 {
					t.Errorf("%s, %s, %s: got %d, %q", store, end, ask, a.StatusCode, a.Header.Values("Set-Cookie"))
				}
			}
		}
	}
}

func TestASessionEndedByAnOperatorLosesItsCookie(t *testing.T) {
	s, _, _ := newStoredSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	if ended, err := s.handlers[0].EndNamed(httptest.NewRequest(http.MethodDelete, "/", nil), s.sessionOf(b).ID.Hash(), ""); !ended || err != nil {
		t.Fatal(ended, err)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized || !deletes(a) {
		t.Errorf("got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}

// A request that was under way with the old cookie is answered when the browser holds a
// new one already.
func TestALateDenialSparesTheNewSessionsCookie(t *testing.T) {
	renewals := map[string]func(*visitor){
		"after a denial and a sign-in": func(b *visitor) { b.signIn() },
		"after a sign-in":              func(b *visitor) { b.visit(b.authorize("")) },
		"after a logout and a sign-in": func(b *visitor) {
			b.do("POST", "/oauth/logout", nil)
			b.pressAllow(b.follow("/"))
		},
	}
	for name, renew := range renewals {
		s := newSite(t, siteOptions{})
		b := s.newBrowser().signIn()
		late := b.copyOf()
		s.provider.RevokeUser(12345)
		s.clock.advance(over)
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
func TestALateDenialWithAnOlderValueSparesTheNewCookie(t *testing.T) {
	cases := map[string]struct {
		inTollgate string
		pass       time.Duration
	}{
		"after a refresh":      {"", due},
		"after an idle period": {"session {\nidle_timeout 30m\n}", 20 * time.Minute},
	}
	for name, c := range cases {
		for _, ask := range []string{"GET /", "POST /oauth/refresh"} {
			s := newSite(t, siteOptions{inTollgate: c.inTollgate})
			b := s.newBrowser().signIn()
			late := b.copyOf()
			s.clock.advance(c.pass)
			b.Get("/")
			eventually(t, "the cookie is another one", func() bool {
				b.Get("/")
				return b.cookies()["tollgate"] != late.cookies()["tollgate"]
			})
			b.do("POST", "/oauth/logout", nil)
			b.pressAllow(b.follow("/"))
			method, path, _ := strings.Cut(ask, " ")
			if a := late.do(method, path, nil); a.StatusCode != http.StatusUnauthorized || deletes(a) {
				t.Errorf("%s, %s: got %d, %q; want 401 without a deletion", name, ask, a.StatusCode, a.Header.Values("Set-Cookie"))
			}
		}
	}
}

func TestALateDenialSparesTheCookieAfterAMigration(t *testing.T) {
	s, _, _ := newStoredSite(t, siteOptions{inTollgate: fromCookies})
	access := s.sessionOf(s.newBrowser().signIn()).Tokens.Access
	b := s.newBrowser()
	b.setCookie("tollgate", s.madeUpSession(testUserID, access))
	late := b.copyOf()
	if a := b.Get("/"); a.StatusCode != http.StatusOK || b.cookies()["tollgate"] == late.cookies()["tollgate"] {
		t.Fatalf("the session is not migrated: %d", a.StatusCode)
	}
	b.do("POST", "/oauth/logout", nil)
	b.pressAllow(b.follow("/"))
	if a := late.Get("/"); a.StatusCode != http.StatusUnauthorized || deletes(a) {
		t.Errorf("got %d, %q; want 401 without a deletion", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}

func TestTwoCookiesOfOneNameAreLoggedOnceAMinute(t *testing.T) {
	s := newSite(t, siteOptions{})
	logs := s.observe()
	ask := func(times int) {
		for range times {
			s.newBrowser().Get("/", "Cookie: tollgate=1.a; tollgate=1.b")
		}
	}
	ask(20)
	s.clock.advance(time.Minute)
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
	s, storage, _ := newStoredSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	storage.Broken.Store(true)
	s.clock.advance(over)
	if a := b.Get("/"); a.StatusCode == http.StatusUnauthorized || deletes(a) {
		t.Errorf("got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}
