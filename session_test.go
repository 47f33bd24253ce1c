package tollgate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/decimal"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func sampleSession(accessLength int) *session.Session {
	now := time.UnixMilli(1_700_000_000_123)
	s := session.NewSession(now, oauth.Tokens{
		Access: strings.Repeat("a", accessLength), Refresh: "refresh_1", Scope: "profile balance",
		Issued: now, Expires: now.Add(2 * time.Hour),
	}, oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{oauth.FieldID: "12345", oauth.FieldUsername: `"张伟"`, oauth.FieldBalance: `"750.00"`}, now))
	s.Generation = 7
	return s
}

var sessionsEqual = cmp.AllowUnexported(session.Session{}, oauth.Tokens{}, oauth.UserInfo{}, session.Kept{}, session.Head{}, decimal.Decimal{})

func TestARecordReadsBackAsItWas(t *testing.T) {
	want := sampleSession(800)
	got, err := session.ParseSession(want.AppendBinary(nil))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, sessionsEqual); diff != "" {
		t.Error(diff)
	}
}

func TestInexactRecordIsRejected(t *testing.T) {
	record := sampleSession(10).AppendBinary(nil)
	for n := range record {
		if _, err := session.ParseSession(record[:n]); !errors.Is(err, session.ErrRecord) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(record), err)
		}
	}
	if _, err := session.ParseSession(append(bytes.Clone(record), 0)); !errors.Is(err, session.ErrRecord) {
		t.Errorf("one byte more: %v", err)
	}
	other := bytes.Clone(record)
	other[0]++
	if _, err := session.ParseSession(other); !errors.Is(err, session.ErrRecord) {
		t.Errorf("another version: %v", err)
	}
}

func TestCookieAttributes(t *testing.T) {
	for name, c := range map[string]struct {
		jar  browser.Jar
		want string
	}{
		"https":         {browser.Jar{Name: "__Host-tollgate", Secure: true, SameSite: http.SameSiteLaxMode}, "__Host-tollgate=1.v; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=Lax"},
		"plain http":    {browser.Jar{Name: "tollgate", SameSite: http.SameSiteLaxMode}, "tollgate=1.v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"},
		"a domain":      {browser.Jar{Name: "__Secure-tollgate", Domain: "example.com", Secure: true, SameSite: http.SameSiteStrictMode}, "__Secure-tollgate=1.v; Path=/; Domain=example.com; Max-Age=60; HttpOnly; Secure; SameSite=Strict"},
		"other frames'": {browser.Jar{Name: "x", Secure: true, SameSite: http.SameSiteNoneMode, Partitioned: true}, "x=1.v; Path=/; Max-Age=60; HttpOnly; Secure; SameSite=None; Partitioned"},
	} {
		if got := c.jar.Session("v", time.Minute, false); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
		removed := c.jar.Remove(c.jar.Name)
		if want := strings.Replace(strings.Replace(c.want, "=1.v;", "=;", 1), "Max-Age=60", "Max-Age=0", 1); removed != want {
			t.Errorf("%s: the deletion is %q, want %q", name, removed, want)
		}
		if login := c.jar.Login("f", "v"); !strings.Contains(login, "SameSite=Lax") || !strings.Contains(login, "Max-Age=86400") {
			t.Errorf("%s: the login cookie is %q", name, login)
		}
	}
}

func TestASessionOfAnySizeTravelsInTwoCookiesAtMost(t *testing.T) {
	jar := browser.Jar{Name: "__Host-tollgate", Secure: true, SameSite: http.SameSiteLaxMode}
	for size := 1; size <= keys.MaxSessionValue; size++ {
		if size > 100 && size < keys.MaxCookie-300 {
			continue
		}
		value := strings.Repeat("x", size-1) + "y"
		cookies := jar.Session(value, time.Hour, false)
		header := http.Header{}
		for _, line := range cookies {
			pair, _, _ := strings.Cut(line, ";")
			if len(pair)-1 > keys.MaxCookie {
				t.Fatalf("size %d: a cookie of %d bytes", size, len(pair)-1)
			}
			header.Add("Cookie", pair)
		}
		sent := jar.Take(header)
		if got, ok := sent.SessionValue(); !ok || got != value {
			t.Fatalf("size %d: came back as %d bytes, %v", size, len(got), ok)
		}
		if len(cookies) > 2 {
			t.Fatalf("size %d: %d cookies", size, len(cookies))
		}
	}
}

func TestChunksThatDoNotBelongTogetherAreNoSession(t *testing.T) {
	jar := browser.Jar{Name: "tollgate"}
	for _, line := range []string{
		"tollgate=2.x", "tollgate-2=x", "tollgate=3.x; tollgate-2=y", "tollgate=x", "tollgate=", "tollgate=1", "tollgate=1.x; tollgate=1.y",
		"tollgate=1.x; tollgate=1.x", "tollgate=2.x; tollgate-2=y; tollgate-2=y", "tollgate=999999999.x", "tollgate=; tollgate=1.x",
		"tollgate=2." + strings.Repeat("x", keys.MaxCookie) + "; tollgate-2=" + strings.Repeat("y", 2*keys.MaxCookie),
	} {
		sent := jar.Take(http.Header{"Cookie": {line}})
		if value, ok := sent.SessionValue(); ok {
			t.Errorf("%.60q: %.60q", line, value)
		}
	}
}

func TestALargeSessionIsSplitAndNoStalePartIsLeft(t *testing.T) {
	options := siteOptions{}
	options.provider.AccessTokenSize = 2800
	s := newSite(t, options)
	b := s.newBrowser().signIn()
	if got := b.cookies(); len(got) != 2 || got["tollgate-2"] == "" {
		t.Fatalf("%d cookies", len(got))
	}
	if a := b.Get("/"); a.StatusCode != http.StatusOK || a.seen(t).Header.Get("Cookie") != "" {
		t.Errorf("with two cookies: %d", a.StatusCode)
	}
	small := newSite(t, siteOptions{})
	c := small.newBrowser()
	c.setCookie("tollgate-2", "stale")
	c.signIn()
	if got := c.cookies(); len(got) != 1 {
		t.Errorf("a stale part is left: %d cookies", len(got))
	}
}

func TestASessionTooLargeForCookiesIsRefusedPlainly(t *testing.T) {
	options := siteOptions{}
	options.provider.AccessTokenSize = 9000
	s := newSite(t, options)
	b := s.newBrowser()
	a := b.visit(b.authorize(""))
	if a.StatusCode != http.StatusBadGateway || len(b.cookies()) != 0 {
		t.Errorf("got %d, %d cookies", a.StatusCode, len(b.cookies()))
	}
}

func TestBadCookiesGetOneAndTheSameAnswer(t *testing.T) {
	s := newSite(t, siteOptions{})
	other := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	good := b.cookies()["tollgate"]
	foreign := other.newBrowser().signIn().cookies()["tollgate"]
	var first *answer
	for name, value := range map[string]string{
		"empty": "", "rubbish": "1.rubbish", "truncated": good[:len(good)-5], "foreign": foreign, "two of one": "2." + good[2:],
		"a flipped byte": good[:50] + flip(good[50]) + good[51:], "not base64": "1.%%%", "huge": "1." + strings.Repeat("A", 7000),
		"an unknown chunk count": "9." + good[2:],
	} {
		a := s.newBrowser().Get("/", "Cookie: tollgate="+value)
		a.Header.Del("Date")
		if first == nil {
			first = a
		}
		if a.StatusCode != http.StatusUnauthorized || a.text != first.text || cmp.Diff(a.Header, first.Header) != "" {
			t.Errorf("%s: %d %v %s", name, a.StatusCode, a.Header, a.text)
		}
	}
	none := s.newBrowser().Get("/")
	none.Header.Del("Date")
	if cmp.Diff(none.Header, first.Header) != "" || none.text != first.text {
		t.Errorf("no cookie at all: %v", none.Header)
	}
}

func TestThousandsOfCookiesAreRejectedCheaply(t *testing.T) {
	jar := browser.Jar{Name: "tollgate"}
	var line strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&line, "tollgate-login-%d=x; other%d=y; ", i, i)
	}
	header := http.Header{"Cookie": {line.String()}}
	sent := jar.Take(header)
	if len(sent.Logins) != 5000 || strings.Contains(header.Get("Cookie"), "tollgate") || strings.Count(header.Get("Cookie"), "other") != 5000 {
		t.Errorf("%d logins, %d bytes left", len(sent.Logins), len(header.Get("Cookie")))
	}
	if _, ok := sent.SessionValue(); ok {
		t.Error("a session")
	}
	// No key is needed: none of these values is long enough to be opened.
	if pending := browser.ReadLogins(nil, sent.Logins, "", time.Now()); len(pending.Live) != 0 || len(pending.Removals()) != browser.MaxRemovals {
		t.Errorf("%d logins, %d removals", len(pending.Live), len(pending.Removals()))
	}
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func TestDuplicateSessionCookiesAreRejectedAndDeleted(t *testing.T) {
	s := newSite(t, siteOptions{})
	value := s.newBrowser().signIn().cookies()["tollgate"]
	a := s.newBrowser().Get("/", "Cookie: tollgate="+value+"; tollgate="+value)
	if a.StatusCode != http.StatusUnauthorized || !strings.Contains(strings.Join(a.Header.Values("Set-Cookie"), ";"), "tollgate=;") {
		t.Errorf("got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}

func TestAPreviousSecretStillOpensAndIsSealedAnew(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	old := b.cookies()["tollgate"]
	newer := keys.NewSecret()
	s.caddyfile = strings.Replace(s.caddyfile, "secret "+testSecret, "secret "+newer+" "+testSecret, 1)
	s.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusOK || b.cookies()["tollgate"] == old {
		t.Errorf("with the previous secret: %d", a.StatusCode)
	}
	s.caddyfile = strings.Replace(s.caddyfile, newer+" "+testSecret, newer, 1)
	s.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("without the previous secret: %d", a.StatusCode)
	}
	c := s.newBrowser()
	c.setCookie("tollgate", old)
	if a := c.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the old cookie without its secret: %d", a.StatusCode)
	}
}

func TestASessionEndsAfterItsLifetimeAndItsIdleTimeout(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "session {\nlifetime 3h\nidle_timeout 30m\n}"})
	idle := s.newBrowser().signIn()
	s.clock.advance(29 * time.Minute)
	if a := idle.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("shortly before the idle timeout: %d", a.StatusCode)
	}
	s.clock.advance(31 * time.Minute)
	if a := idle.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the idle timeout: %d", a.StatusCode)
	}
	busy := s.newBrowser().signIn()
	for range 8 {
		s.clock.advance(20 * time.Minute)
		if a := busy.Get("/"); a.StatusCode != http.StatusOK {
			t.Fatalf("in use: %d", a.StatusCode)
		}
	}
	s.clock.advance(21 * time.Minute)
	if a := busy.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the lifetime: %d", a.StatusCode)
	}
}

func TestTheSecretIsMadeAtFirstUseAndKept(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.caddyfile = strings.Replace(s.caddyfile, "secret "+testSecret, "", 1)
	s.Load()
	storage := s.handlers[0].ctx.Storage()
	if storage.Exists(t.Context(), keys.StoredSecretKey) {
		t.Fatal("the secret was made before its first use")
	}
	b := s.newBrowser().signIn()
	if !storage.Exists(t.Context(), keys.StoredSecretKey) {
		t.Error("the secret was not kept")
	}
	s.forget()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("after a restart: %d", a.StatusCode)
	}
}

func TestAStorageThatFailsSignsNobodyOut(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.caddyfile = strings.Replace(s.caddyfile, "secret "+testSecret, "", 1)
	s.caddyfile = strings.Replace(s.caddyfile, "storage file_system ", "storage file_system /dev/null/", 1)
	s.Load()
	a := b.Get("/")
	if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Set-Cookie") != "" || a.Header.Get("Retry-After") == "" {
		t.Errorf("got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
	if a := b.Get("/oauth/ready"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("ready: %d", a.StatusCode)
	}
	if a := b.Get("/oauth/health"); a.StatusCode != http.StatusOK {
		t.Errorf("health: %d", a.StatusCode)
	}
	if a := b.visit("/oauth/start"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("start: %d", a.StatusCode)
	}
}

func TestOnHTTPSTheCookiesAreSecureAndBoundToTheHost(t *testing.T) {
	for more, want := range map[string]string{
		"": "__Host-tollgate-login-",
		"session {\ncookie_domain example.com\n}": "__Secure-tollgate-login-",
		"session {\ncookie_name my-app\n}":        "my-app-login-",
	} {
		server, handlers, err := provision("{\n\tadmin off\n\tauto_https off\n}\nhttp:// {\n\ttollgate {\n" + minimalBlock + more + "\n}\n}\n")
		if err != nil {
			t.Fatal(err)
		}
		defer handlers[0].Cleanup()
		front := httptest.NewServer(server)
		defer front.Close()
		req, _ := http.NewRequest(http.MethodGet, front.URL+"/oauth/start", nil)
		req.Host = "app.example.com"
		req.Header.Set("Accept", "text/html")
		res, err := front.Client().Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		cookie := res.Header.Get("Set-Cookie")
		if !strings.HasPrefix(cookie, want) || !strings.Contains(cookie, "; Secure") || strings.Contains(cookie, "Domain=") != strings.Contains(more, "domain") {
			t.Errorf("%q: %q", more, cookie)
		}
	}
}

func TestReloadsLeakNothing(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.newBrowser().signIn()
	s.Load()
	before := ownGoroutines()
	for range 30 {
		s.Load()
	}
	eventually(t, "the goroutines of old configurations end", func() bool { return ownGoroutines() <= before })
	s.handlers[0].Cleanup()
	s.handlers = nil
	eventually(t, "the goroutines of the last configuration end", func() bool { return ownGoroutines() < before })
}

// ownGoroutines counts the goroutines that tollgate, or a table of its, has begun.
func ownGoroutines() int {
	stacks := make([]byte, 1<<22)
	stacks = stacks[:runtime.Stack(stacks, true)]
	count := 0
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		_, creator, _ := strings.Cut(stack, "created by ")
		if strings.HasPrefix(creator, "github.com/maypok86/otter") || strings.HasPrefix(creator, "github.com/caddy-tollgate/tollgate.(") {
			count++
		}
	}
	return count
}

// slowStorage fails after a while.
type slowStorage struct{ certmagic.Storage }

func (slowStorage) Load(context.Context, string) ([]byte, error) {
	time.Sleep(200 * time.Millisecond)
	return nil, errors.New("out of order")
}

func TestFailingStorageDoesNotQueueRequests(t *testing.T) {
	ring, err := keys.NewSource(nil, slowStorage{}, "client", "https://app.example.com/oauth/callback")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if _, err := ring.Ring(t.Context()); err == nil {
				t.Error("there are keys")
			}
		})
	}
	callers.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ring.Ring(ctx); err == nil {
		t.Error("there are keys")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("20 callers waited %v", took)
	}
}
