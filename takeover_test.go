package tollgate_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/caddy-tollgate/tollgate"
	"github.com/caddy-tollgate/tollgate/internal/adminapi"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// fromCookies is a storage store that takes sessions over from cookies for an hour.
const fromCookies = "session {\n\t\t\tstore storage {\n\t\t\t\tfrom_cookies 1h\n\t\t\t}\n\t\t}"

// sealedSession is the cookie value of a session in cookie form, as somebody who knows
// the site's secret can make it.
func sealedSession(s *gatewaytest.Site, made *session.Session) string {
	s.T.Helper()
	keys, err := s.Handlers[0].Internals().Keys.Ring(s.T.Context())
	if err != nil {
		s.T.Fatal(err)
	}
	value, err := keys.Session.Seal(made.AppendBinary(nil))
	if err != nil {
		s.T.Fatal(err)
	}
	return "1." + value
}

// madeUpSession is a session of the given user with the given access token.
func madeUpSession(s *gatewaytest.Site, user, access string) string {
	made := recordstest.FreshSession(user)
	made.Tokens.Access, made.Tokens.Refresh = access, "refresh_made_up"
	return sealedSession(s, made)
}

func TestSealedCookieWithoutFromCookiesIsNoSession(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{})
	victim := s.NewBrowser().SignIn()
	s.Provider.ResetCounts()
	genuine := sessionOf(s, victim).Tokens.Access
	for name, value := range map[string]string{
		"made-up tokens": madeUpSession(s, "1", "access_made_up"),
		"live tokens":    madeUpSession(s, gatewaytest.UserID, genuine),
	} {
		if a := s.NewBrowser().Get("/", "Cookie: tollgate="+value); a.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", name, a.StatusCode)
		}
	}
	if n := s.Provider.Count(simulator.UserInfo); n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}
}

func TestStorageWithoutASecretIsAWarning(t *testing.T) {
	for lines, want := range map[string]int{"": 1, "secret " + gatewaytest.Secret: 0} {
		log := startLog(t, "", "http:// {\ntollgate {\n"+minimalBlock+lines+"\n"+inStorage+"\n}\n}\n")
		if got := strings.Count(log, "store storage without secret"); got != want {
			t.Errorf("with %q: got %d warnings, want %d: %s", lines, got, want, log)
		}
	}
}

func TestACookieCannotClaimAnotherUser(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{InTollgate: fromCookies})
	attacker := s.NewBrowser().SignIn()
	logs := observe(s)
	own := sessionOf(s, attacker).Tokens.Access
	for name, value := range map[string]string{
		"the attacker's own access token": madeUpSession(s, "1", own),
		"a made-up access token":          madeUpSession(s, "1", "access_made_up"),
	} {
		before := s.Upstream.Requests.Load()
		for range 2 {
			if a := s.NewBrowser().Get("/", "Cookie: tollgate="+value); a.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: got %d, want 401", name, a.StatusCode)
			}
		}
		if n := s.Upstream.Requests.Load() - before; n != 0 {
			t.Errorf("%s: the upstream got %d requests", name, n)
		}
	}
	if n := logs.FilterLevelExact(zapcore.WarnLevel).FilterMessageSnippet("not taken over").Len(); n == 0 {
		t.Errorf("no warning: %v", logs.All())
	}
	// The victim's own reads must not vouch for somebody else's cookie.
	s.Handlers[0].Internals().Users.Outdate(sessionOf(s, attacker))
	if a := attacker.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("the attacker's own session: %d", a.StatusCode)
	}
}

func TestMigratedSessionReadsItsUserBeforeFirstUse(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "session {\n\t\t\tstore cookie\n\t\t}"})
	b := s.NewBrowser().SignIn()
	s.Caddyfile = strings.Replace(s.Caddyfile, "session {\n\t\t\tstore cookie\n\t\t}", fromCookies, 1)
	s.Load()
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusBadGateway})
	if a := b.Get("/"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("while the provider is down: got %d %q, want 503 and no cookie", a.StatusCode, a.Header.Get("Set-Cookie"))
	}
	s.Provider.ClearFaults()
	s.Provider.ResetCounts()
	s.Handlers[0].Internals().ForgetUnconfirmed() // the back-off runs on the real clock
	o := burst(b, 20, "/")
	if o.statuses[http.StatusOK] != 20 {
		t.Errorf("after the outage: %v", o.statuses)
	}
	if n := s.Provider.Count(simulator.UserInfo); n != 1 {
		t.Errorf("the provider was asked %d times, want 1", n)
	}
	if seen := s.Upstream.Last.Load(); seen.Header.Get("X-User-Id") != gatewaytest.UserID {
		t.Errorf("the upstream got %v", seen.Header)
	}
}

// runningHandlers finds the handlers of a site of this process.
func runningHandlers(t *testing.T, origin string) (handlers []*tollgate.Handler) {
	t.Helper()
	handlers = tollgate.RunningHandlers(origin)
	if len(handlers) != 1 {
		t.Fatalf("got %d handlers, want 1", len(handlers))
	}
	return handlers
}

func TestSessionListMarksUnconfirmedSessions(t *testing.T) {
	o := operateCaddy(t, fromCookies)
	o.Handlers = runningHandlers(t, o.URL)
	access := sessionOf(o.Running.Site, o.NewBrowser().SignIn()).Tokens.Access
	forged, genuine := "tollgate="+madeUpSession(o.Running.Site, "1", "access_made_up"), "tollgate="+madeUpSession(o.Running.Site, gatewaytest.UserID, access)
	get := func(cookie string, want int) {
		t.Helper()
		if a := o.NewBrowser().Get("/", "Cookie: "+cookie); a.StatusCode != want {
			t.Errorf("got %d, want %d", a.StatusCode, want)
		}
	}
	unconfirmed := func(user string, want ...bool) []adminapi.Session {
		t.Helper()
		sessions := o.list(user).Sessions
		var got []bool
		for _, s := range sessions {
			got = append(got, s.Unconfirmed)
		}
		slices.SortFunc(got, func(a, b bool) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		if !slices.Equal(got, want) {
			t.Fatalf("user %s: unconfirmed %v, want %v", user, got, want)
		}
		return sessions
	}
	o.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusServiceUnavailable})
	get(forged, http.StatusServiceUnavailable)
	get(genuine, http.StatusServiceUnavailable)
	unconfirmed(gatewaytest.UserID, false, true)
	name := unconfirmed("1", true)[0].Session
	if got := o.run("list", "--user", "1"); !strings.Contains(got.Out, name) || !strings.Contains(got.Out, ") (unconfirmed)\n") {
		t.Errorf("the command does not mark it: %s", got.All())
	}
	if got := o.run("list", "--user", gatewaytest.UserID); strings.Count(got.Out, "(unconfirmed)") != 1 {
		t.Errorf("the command does not mark one of two: %s", got.All())
	}

	o.Provider.ClearFaults()
	o.Handlers[0].Internals().ForgetUnconfirmed() // the back-off runs on the real clock
	get(forged, http.StatusUnauthorized)
	get(genuine, http.StatusOK)
	unconfirmed("1")
	for _, s := range unconfirmed(gatewaytest.UserID, false, false) {
		o.wantEnded("/tollgate/sessions/"+s.Session, `{"ended":1}`)
	}
	get(genuine, http.StatusUnauthorized) // a confirmed session's cookie stays worthless, too
}

func TestAReloadDoesNotProlongTheTakeover(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "session {\n\t\t\tstore cookie\n\t\t}"})
	early, late := s.NewBrowser().SignIn(), s.NewBrowser().SignIn()
	s.Caddyfile = strings.Replace(s.Caddyfile, "session {\n\t\t\tstore cookie\n\t\t}", fromCookies, 1)
	s.Load()
	s.Clock.Advance(50 * time.Minute)
	if a := early.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("within the hour: got %d, want 200", a.StatusCode)
	}
	s.Load()
	s.Clock.Advance(20 * time.Minute)
	if a := late.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the hour: got %d, want 401", a.StatusCode)
	}
	if a := early.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("a session that has moved, after the hour: got %d, want 200", a.StatusCode)
	}
}

func TestFromCookiesIsChecked(t *testing.T) {
	for block, want := range map[string]string{
		"store storage {\nfrom_cookies 31d\n}":             "session.store.from_cookies: must not be more than 30d: no session lives longer, at Caddyfile:11",
		"store storage {\nfrom_cookies soon\n}":            "is not a duration",
		"store storage {\nfrom_cookie 1h\n}":               "unknown word 'from_cookie'; did you mean 'from_cookies'?, at Caddyfile:11",
		"store storage here":                               "Caddy's global option `storage` says where the storage is, at Caddyfile:10",
		"store cookie {\nfrom_cookies 1h\n}":               "store cookie has no options",
		"store redis {\naddress a:1\nfrom_cookies 31d\n}":  "session.store.from_cookies: must not be more than 30d",
		"store redis {\naddress a:1\nfrom_cookies\n}":      "session.store.from_cookies: wrong number of arguments",
		"store storage {\nfrom_cookies 1h\nfrom_cookies\n": "from_cookies is set twice",
	} {
		if _, err := adaptHandler(minimalBlock + "session {\n" + block + "\n}"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", block, err, want)
		}
	}
	for store, want := range map[string]string{
		"store storage {\nfrom_cookies 30d\n}":           `{"from_cookies":2592000000000000,"module":"storage"}`,
		"store storage {\nfrom_cookies off\n}":           `{"module":"storage"}`,
		"store redis {\naddress a:1\nfrom_cookies 2h\n}": `{"address":["a:1"],"from_cookies":7200000000000,"module":"redis"}`,
	} {
		h, err := adaptHandler(minimalBlock + "session {\n" + store + "\n}")
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := json.Marshal(h["session"].(map[string]any)["store"]); string(got) != want {
			t.Errorf("%s: got %s, want %s", store, got, want)
		}
	}
}

func TestEndedSessionStaysEndedIfItsRecordComesBack(t *testing.T) {
	s, _, folder := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	again := b.Copy() // the response that denies a request deletes the browser's cookie
	restarted := b.Copy()
	name := sessionOf(s, b).ID.Hash()
	file := filepath.Join(folder, "tollgate/sessions", name)
	backup := manualtest.ReadFile(t, file)
	if ended, err := s.Handlers[0].EndNamed(httptest.NewRequest(http.MethodDelete, "/", nil), name, ""); !ended || err != nil {
		t.Fatalf("ending the session: %v, %v", ended, err)
	}
	if err := os.WriteFile(file, []byte(backup), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("with its record back: got %d, want 401", a.StatusCode)
	}
	if sessions, err := s.Handlers[0].Internals().Store.(*records.Tickets).SessionsOf(t.Context(), gatewaytest.UserID); len(sessions) != 0 || err != nil {
		t.Errorf("listed: %v, %v", sessions, err)
	}
	s.Load()
	if a := again.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after a reload: got %d, want 401", a.StatusCode)
	}
	// The memory is the process's own, which docs/sessions.md says.
	s.Restart()
	if a := restarted.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("after a restart: got %d, want 200", a.StatusCode)
	}
}
