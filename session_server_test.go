package tollgate_test

import (
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const inStorage = "session {\n\t\t\tstore storage\n\t\t}"

// breakable is Caddy's storage in a site whose storage breaks when the test says so.
type breakable struct {
	Folder string `json:"folder"`
}

var breakableStorages sync.Map // by folder

func (breakable) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.storage.tollgate_tests", New: func() caddy.Module { return new(breakable) }}
}

func (b *breakable) CertMagicStorage() (certmagic.Storage, error) {
	storage, _ := breakableStorages.Load(b.Folder)
	return storage.(*recordstest.Breakable), nil
}

func (b *breakable) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.AllArgs(&b.Folder) {
		return d.ArgErr()
	}
	return nil
}

func init() { caddy.RegisterModule(breakable{}) }

// newStoredSite is a site whose sessions are in Caddy's storage, in the given folder.
func newStoredSite(t *testing.T, options gatewaytest.Options) (s *gatewaytest.Site, storage *recordstest.Breakable, folder string) {
	t.Helper()
	if !strings.Contains(options.InTollgate, "session") {
		options.InTollgate += "\n" + inStorage
	}
	folder = t.TempDir()
	storage = &recordstest.Breakable{Storage: &certmagic.FileStorage{Path: folder}, Hang: make(chan struct{})}
	breakableStorages.Store(folder, storage)
	options.Storage = "tollgate_tests " + folder
	return gatewaytest.New(t, options), storage, folder
}

func TestTheTicketIsSmallAndStaysTheSame(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	cookies := b.Cookies()
	if len(cookies) != 1 || len(cookies["tollgate"]) > 300 {
		t.Errorf("the browser holds %v", cookies)
	}
	s.Clock.Advance(over)
	a := b.Get("/")
	if a.StatusCode != http.StatusOK || a.Header.Get("Set-Cookie") != "" || s.Refreshes() != 1 {
		t.Errorf("after a refresh: %d, %q, %d refreshes", a.StatusCode, a.Header.Get("Set-Cookie"), s.Refreshes())
	}
	s.Restart()
	if a := b.Get("/"); a.StatusCode != http.StatusOK || s.Refreshes() != 1 {
		t.Errorf("after a restart: %d, %d refreshes", a.StatusCode, s.Refreshes())
	}
	s.WantNoDoubleSpend()
}

func TestALogoutIsFinalAcrossRestarts(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	copied := b.Copy()
	if a := b.Send("POST", "/oauth/logout", nil); a.StatusCode != http.StatusSeeOther {
		t.Fatalf("signing out: %d", a.StatusCode)
	}
	s.Restart()
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the copied cookie: %d", a.StatusCode)
	}
}

func TestNewSignInEndsThePreviousSession(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	copied := b.Copy()
	b.Visit(b.Authorize("")) // as the same user
	if a := copied.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("a request that was under way: %d", a.StatusCode)
	}
	s.Clock.Advance(session.EndGrace)
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
	s.Restart()
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after a restart: %d", a.StatusCode)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("the new session: %d", a.StatusCode)
	}
}

func TestFailingStoreSignsNobodyOut(t *testing.T) {
	s, kind, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	before := b.Cookies()
	callback := s.NewBrowser()
	code := callback.Authorize("?return_to=/page")

	kind.Broken.Store(true)
	time.Sleep(max(storageReadAge, records.ProbeInterval))
	for name, a := range map[string]*gatewaytest.Answer{
		"a script":      b.Get("/page"),
		"a page":        b.Visit("/page"),
		"userinfo":      b.Get("/oauth/userinfo"),
		"refresh":       b.Send("POST", "/oauth/refresh", nil),
		"logout":        b.Send("POST", "/oauth/logout", nil),
		"a new sign-in": s.NewBrowser().Visit("/oauth/start"),
		"a callback":    callback.Visit(code),
		"topup":         b.Visit("/oauth/topup"),
		"ready":         b.Get("/oauth/ready"),
	} {
		if a.StatusCode != http.StatusServiceUnavailable || (name != "ready" && a.Header.Get("Retry-After") == "") {
			t.Errorf("%s: %d, Retry-After %q", name, a.StatusCode, a.Header.Get("Retry-After"))
		}
		if a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s: got Set-Cookie %q, want none", name, a.Header.Values("Set-Cookie"))
		}
	}
	if a := b.Visit("/page"); a.Header.Get("Refresh") == "" || !strings.Contains(a.Text, "<html") {
		t.Errorf("a page during the outage: got Refresh %q and the body %q, want a page that retries by itself", a.Header.Get("Refresh"), a.Text)
	}
	if a := b.Get("/oauth/health"); a.StatusCode != http.StatusOK {
		t.Errorf("health: %d", a.StatusCode)
	}
	if n := s.Provider.Count(simulator.Exchange); n != 1 {
		t.Errorf("%d codes were spent, want only the one from before the outage", n)
	}

	kind.Broken.Store(false)
	time.Sleep(records.ProbeInterval)
	if a := b.Get("/page"); a.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
	if after := b.Cookies(); after["tollgate"] != before["tollgate"] {
		t.Errorf("the cookies were %v and are %v", before, after)
	}
	if a := callback.Visit(code); a.StatusCode != http.StatusSeeOther || a.Location() != "/page" {
		t.Errorf("the callback, once more: %d to %q", a.StatusCode, a.Location())
	}
	if a := b.Get("/oauth/ready"); a.StatusCode != http.StatusOK {
		t.Errorf("ready: %d", a.StatusCode)
	}
}

func TestReadOnlyStoreServesExistingSessions(t *testing.T) {
	s, storage, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	storage.Full.Store(true)
	time.Sleep(records.ProbeInterval)
	s.Clock.Advance(due)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("with a valid token: %d", a.StatusCode)
	}
	const kept = "You are still signed in."
	if a := s.NewBrowser().Visit("/oauth/start"); a.StatusCode != http.StatusServiceUnavailable || strings.Contains(a.Text, kept) {
		t.Errorf("a new sign-in: got %d %s, want 503 and no promise of a session", a.StatusCode, a.Text)
	}
	s.Clock.Advance(over - due)
	if a := b.Visit("/"); a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.Text, kept) {
		t.Errorf("a page: got %d %s, want 503 and %q", a.StatusCode, a.Text, kept)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusServiceUnavailable || s.Refreshes() != 0 {
		t.Errorf("with a token that is over: %d, %d refreshes", a.StatusCode, s.Refreshes())
	}
	storage.Full.Store(false)
	s.Clock.Advance(backOffExpired)
	if a := b.Get("/"); a.StatusCode != http.StatusOK || s.Refreshes() != 1 {
		t.Errorf("afterwards: %d, %d refreshes", a.StatusCode, s.Refreshes())
	}
}

func TestEmptyStoreDemandsASignIn(t *testing.T) {
	s, _, folder := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	os.RemoveAll(filepath.Join(folder, "tollgate"))
	s.Restart()
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a script: %d", a.StatusCode)
	}
	if a := b.Follow("/page?a=1&b=2"); a.StatusCode != http.StatusOK || a.Seen(t).URI != "/page?a=1&b=2" {
		t.Errorf("a page: %d, %s", a.StatusCode, a.Text)
	}
}

func TestIdleTimeoutIsKeptInTheRecord(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "session {\n\t\t\tstore storage\n\t\t\tidle_timeout 20m\n\t\t}"})
	b := s.NewBrowser()
	b.Visit(b.Authorize(""))
	for range 5 {
		s.Clock.Advance(15 * time.Minute)
		if a := b.Get("/"); a.StatusCode != http.StatusOK || a.Header.Get("Set-Cookie") != "" {
			t.Fatalf("in use: %d, %q", a.StatusCode, a.Header.Get("Set-Cookie"))
		}
		s.Restart() // what is known is in the store
	}
	s.Clock.Advance(21 * time.Minute)
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the idle timeout: %d", a.StatusCode)
	}
}

func TestMigrationFromCookiesSignsNobodyOut(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{
		InTollgate: "session {\n\t\t\tstore cookie\n\t\t}",
		Provider:   simulator.Options{AccessTokenSize: 3000},
	})
	b := s.NewBrowser().SignIn()
	late, copied := b.Copy(), b.Copy()
	if len(b.Cookies()) != 2 {
		t.Fatalf("the session does not take two cookies: %v", b.Cookies())
	}
	s.Clock.Advance(over) // the process holds newer tokens than the late browser
	b.Get("/")
	s.Caddyfile = strings.Replace(s.Caddyfile, "store cookie", "store storage {\n\t\t\t\tfrom_cookies 30d\n\t\t\t}", 1)
	s.Load()
	for name, browser := range map[string]*gatewaytest.Browser{"its browser": b, "one with an older cookie": late} {
		if a := browser.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", name, a.StatusCode)
		}
		if cookies := browser.Cookies(); len(cookies) != 1 || len(cookies["tollgate"]) > 300 {
			t.Errorf("%s holds %d cookies, of %d bytes", name, len(cookies), len(cookies["tollgate"]))
		}
	}
	s.Restart()
	if a := copied.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("after a restart: %d", a.StatusCode)
	}
	b.Send("POST", "/oauth/logout", nil)
	s.Restart()
	for name, browser := range map[string]*gatewaytest.Browser{"the ticket": late, "the old cookie": copied} {
		if a := browser.Get("/"); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("after signing out, %s: %d", name, a.StatusCode)
		}
	}
	if n := s.Refreshes(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
	s.WantNoDoubleSpend()
}

func TestChangeFromAStoreToCookiesDemandsASignIn(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Caddyfile = strings.Replace(s.Caddyfile, "store storage", "store cookie", 1)
	s.Load()
	if a := b.Follow("/"); a.StatusCode != http.StatusOK {
		t.Errorf("got %d", a.StatusCode)
	}
}

func TestWithAStoreTheSecretCanBeChanged(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	other := keys.NewSecret()
	s.Caddyfile = strings.Replace(s.Caddyfile, "secret "+gatewaytest.Secret, "secret "+other+" "+gatewaytest.Secret, 1)
	s.Load()
	a := b.Get("/")
	if a.StatusCode != http.StatusOK || a.Header.Get("Set-Cookie") == "" {
		t.Fatalf("with both: %d, %q", a.StatusCode, a.Header.Get("Set-Cookie"))
	}
	if got := b.Get("/").Header.Get("Set-Cookie"); got != "" {
		t.Errorf("after the new ticket: got Set-Cookie %q, want none", got)
	}
	s.Caddyfile = strings.Replace(s.Caddyfile, "secret "+other+" "+gatewaytest.Secret, "secret "+other, 1)
	s.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("with the new one: %d", a.StatusCode)
	}
}

// wantNothingReadable looks for what a copy of a store must not give away.
func wantNothingReadable(t *testing.T, s *gatewaytest.Site, dump string) {
	t.Helper()
	secrets := map[string]string{"the e-mail address": "user@example.com", "the user name": "user123"}
	for _, endpoint := range []simulator.Endpoint{simulator.Refresh, simulator.UserInfo} {
		for _, request := range s.Provider.Requests(endpoint) {
			if token := request.Form.Get("refresh_token"); token != "" {
				secrets["a refresh token"] = token
			}
			if access := strings.TrimPrefix(request.Header.Get("Authorization"), "Bearer "); access != "" {
				secrets["an access token"] = access
			}
		}
	}
	if len(secrets) != 4 {
		t.Fatalf("only %d secrets to look for", len(secrets))
	}
	for what, secret := range secrets {
		for _, spelling := range []string{secret, url.QueryEscape(secret)} {
			if strings.Contains(dump, spelling) {
				t.Errorf("the store holds %s", what)
			}
		}
	}
	if got := regexp.MustCompile(`(^|.{0,40}[^0-9])` + gatewaytest.UserID + `([^0-9]|$)`).FindString(dump); got != "" {
		t.Errorf("the store holds the user's id: %q", got)
	}
}

func TestCopyOfTheStorageRevealsNothing(t *testing.T) {
	s, _, folder := newStoredSite(t, gatewaytest.Options{InTollgate: "balance {\n\t\t\tmax_age 1s\n\t\t}"})
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(over)
	b.Get("/")
	var dump strings.Builder
	files := 0
	filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files++
			dump.WriteString(path + "\n" + manualtest.ReadFile(t, path) + "\n")
		}
		return err
	})
	if files < 2 {
		t.Fatalf("the storage has %d files, want at least 2", files)
	}
	wantNothingReadable(t, s, dump.String())
	name := sessionOf(s, b).ID.Hash()
	if !strings.Contains(dump.String(), name) {
		t.Fatalf("the dump of %d files does not contain the session %s", files, name)
	}
}

func TestUseDuringARefreshIsRecorded(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "session {\n\t\t\tstore storage\n\t\t\tidle_timeout 2h\n\t\t}"})
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(due) // a refresh is due, and the idle timeout nearly over
	b.Get("/")
	gatewaytest.Eventually(t, "the refresh is done", func() bool {
		return s.Refreshes() == 1 && s.Handlers[0].Internals().Renewals.Running.Count() == 0
	})
	time.Sleep(storageReadAge)
	s.Clock.Advance(lifetimeInTests - due + time.Minute)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("three minutes after a request, with an idle timeout of two hours: %d", a.StatusCode)
	}
}

func TestAuthCheckCountsAsUseEvenWithASlowStore(t *testing.T) {
	s, kind, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "session {\n\t\t\tstore storage\n\t\t\tidle_timeout 20m\n\t\t}\n\t\tforward_auth"})
	b := s.NewBrowser().SignIn()
	s.Clock.AuthTimeout = time.Second
	s.Load()
	kind.Slow.Store(int64(2 * s.Clock.AuthTimeout))
	for i := range 2 {
		before := sessionOf(s, b).LastSeen
		s.Clock.Advance(15 * time.Minute)
		if a := b.Get("/oauth/auth"); a.StatusCode != http.StatusOK {
			t.Errorf("asked every 15 of 20 minutes, after %d minutes: %d, %s", 15*(i+1), a.StatusCode, a.Header.Get("Tollgate-Reason"))
		}
		gatewaytest.Eventually(t, "the use is written down", func() bool { return sessionOf(s, b).LastSeen.After(before) })
	}
}
