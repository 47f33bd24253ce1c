package tollgate_test

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/keys"
)

func TestLargeSessionIsSplitAndStalePartsAreDeleted(t *testing.T) {
	options := gatewaytest.Options{}
	options.Provider.AccessTokenSize = 2800
	s := gatewaytest.New(t, options)
	b := s.NewBrowser().SignIn()
	if got := b.Cookies(); len(got) != 2 || got["tollgate-2"] == "" {
		t.Fatalf("%d cookies", len(got))
	}
	if a := b.Get("/"); a.StatusCode != http.StatusOK || a.Seen(t).Header.Get("Cookie") != "" {
		t.Errorf("with two cookies: %d", a.StatusCode)
	}
	small := gatewaytest.New(t, gatewaytest.Options{})
	c := small.NewBrowser()
	c.SetCookie("tollgate-2", "stale")
	c.SignIn()
	if got := c.Cookies(); len(got) != 1 {
		t.Errorf("a stale part is left: %d cookies", len(got))
	}
}

func TestSessionTooLargeForCookiesIsAClearError(t *testing.T) {
	options := gatewaytest.Options{}
	options.Provider.AccessTokenSize = 9000
	s := gatewaytest.New(t, options)
	b := s.NewBrowser()
	a := b.Visit(b.Authorize(""))
	if a.StatusCode != http.StatusBadGateway || len(b.Cookies()) != 0 {
		t.Errorf("got %d, %d cookies", a.StatusCode, len(b.Cookies()))
	}
}

func TestAllBadCookiesGetTheSameResponse(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	other := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	good := b.Cookies()["tollgate"]
	foreign := other.NewBrowser().SignIn().Cookies()["tollgate"]
	var first *gatewaytest.Answer
	for name, value := range map[string]string{
		"empty": "", "rubbish": "1.rubbish", "truncated": good[:len(good)-5], "foreign": foreign, "two of one": "2." + good[2:],
		"a flipped byte": good[:50] + flip(good[50]) + good[51:], "not base64": "1.%%%", "huge": "1." + strings.Repeat("A", 7000),
		"an unknown chunk count": "9." + good[2:],
	} {
		a := s.NewBrowser().Get("/", "Cookie: tollgate="+value)
		a.Header.Del("Date")
		if first == nil {
			first = a
		}
		if a.StatusCode != http.StatusUnauthorized || a.Text != first.Text || cmp.Diff(a.Header, first.Header) != "" {
			t.Errorf("%s: %d %v %s", name, a.StatusCode, a.Header, a.Text)
		}
	}
	none := s.NewBrowser().Get("/")
	none.Header.Del("Date")
	if cmp.Diff(none.Header, first.Header) != "" || none.Text != first.Text {
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
	s := gatewaytest.New(t, gatewaytest.Options{})
	value := s.NewBrowser().SignIn().Cookies()["tollgate"]
	a := s.NewBrowser().Get("/", "Cookie: tollgate="+value+"; tollgate="+value)
	if a.StatusCode != http.StatusUnauthorized || !strings.Contains(strings.Join(a.Header.Values("Set-Cookie"), ";"), "tollgate=;") {
		t.Errorf("got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}

func TestCookieOfAPreviousSecretIsAcceptedAndResealed(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	old := b.Cookies()["tollgate"]
	newer := keys.NewSecret()
	s.Caddyfile = strings.Replace(s.Caddyfile, "secret "+gatewaytest.Secret, "secret "+newer+" "+gatewaytest.Secret, 1)
	s.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusOK || b.Cookies()["tollgate"] == old {
		t.Errorf("with the previous secret: %d", a.StatusCode)
	}
	s.Caddyfile = strings.Replace(s.Caddyfile, newer+" "+gatewaytest.Secret, newer, 1)
	s.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("without the previous secret: %d", a.StatusCode)
	}
	c := s.NewBrowser()
	c.SetCookie("tollgate", old)
	if a := c.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the old cookie without its secret: %d", a.StatusCode)
	}
}

func TestASessionEndsAfterItsLifetimeAndItsIdleTimeout(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "session {\nlifetime 3h\nidle_timeout 30m\n}"})
	idle := s.NewBrowser().SignIn()
	s.Clock.Advance(29 * time.Minute)
	if a := idle.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("shortly before the idle timeout: %d", a.StatusCode)
	}
	s.Clock.Advance(31 * time.Minute)
	if a := idle.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the idle timeout: %d", a.StatusCode)
	}
	busy := s.NewBrowser().SignIn()
	for range 8 {
		s.Clock.Advance(20 * time.Minute)
		if a := busy.Get("/"); a.StatusCode != http.StatusOK {
			t.Fatalf("in use: %d", a.StatusCode)
		}
	}
	s.Clock.Advance(21 * time.Minute)
	if a := busy.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the lifetime: %d", a.StatusCode)
	}
}

func TestSecretIsGeneratedAtFirstUseAndKept(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	s.Caddyfile = strings.Replace(s.Caddyfile, "secret "+gatewaytest.Secret, "", 1)
	s.Load()
	storage := s.Handlers[0].Internals().Storage
	if storage.Exists(t.Context(), keys.StoredSecretKey) {
		t.Fatalf("the storage has %s before the first sign-in", keys.StoredSecretKey)
	}
	b := s.NewBrowser().SignIn()
	if !storage.Exists(t.Context(), keys.StoredSecretKey) {
		t.Errorf("the storage does not have %s after the first sign-in", keys.StoredSecretKey)
	}
	s.Restart()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("after a restart: %d", a.StatusCode)
	}
}

func TestFailingStorageSignsNobodyOut(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Caddyfile = strings.Replace(s.Caddyfile, "secret "+gatewaytest.Secret, "", 1)
	s.Caddyfile = strings.Replace(s.Caddyfile, "storage file_system ", "storage file_system /dev/null/", 1)
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
	if a := b.Visit("/oauth/start"); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("start: %d", a.StatusCode)
	}
}

func TestOnHTTPSTheCookiesAreSecureAndBoundToTheHost(t *testing.T) {
	for more, want := range map[string]string{
		"": "__Host-tollgate-login-",
		"session {\ncookie_domain example.com\n}": "__Secure-tollgate-login-",
		"session {\ncookie_name my-app\n}":        "my-app-login-",
	} {
		server, handlers, err := gatewaytest.Provision("{\n\tadmin off\n\tauto_https off\n}\nhttp:// {\n\ttollgate {\n" + minimalBlock + more + "\n}\n}\n")
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
	s := gatewaytest.New(t, gatewaytest.Options{})
	s.NewBrowser().SignIn()
	s.Load()
	before := ownGoroutines()
	for range 30 {
		s.Load()
	}
	gatewaytest.Eventually(t, "the goroutines of old configurations end", func() bool { return ownGoroutines() <= before })
	s.Handlers[0].Cleanup()
	s.Handlers = nil
	gatewaytest.Eventually(t, "the goroutines of the last configuration end", func() bool { return ownGoroutines() < before })
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
