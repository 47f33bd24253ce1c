package tollgate

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
	storage := s.handlers[0].Internals().Storage
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
