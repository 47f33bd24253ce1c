package tollgate_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestResponseWithoutASessionDependsOnTheRequest(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	for name, c := range map[string]struct {
		method  string
		headers []string
		want    int
	}{
		"a person":                     {"GET", gatewaytest.Navigation, 302},
		"a person asking for a header": {"HEAD", gatewaytest.Navigation, 302},
		"a person's old browser":       {"GET", []string{"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}, 302},
		"fetch":                        {"GET", []string{"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: */*"}, 401},
		"XMLHttpRequest":               {"GET", []string{"X-Requested-With: XMLHttpRequest", "Accept: text/html"}, 401},
		"axios":                        {"GET", []string{"Accept: application/json, text/plain, */*"}, 401},
		"JSON before HTML":             {"GET", []string{"Accept: application/json, text/html"}, 401},
		"HTML with little weight":      {"GET", []string{"Accept: text/html;q=0.1, application/json"}, 401},
		"curl":                         {"GET", []string{"Accept: */*"}, 401},
		"nothing said":                 {"GET", nil, 401},
		"an event stream":              {"GET", []string{"Accept: text/event-stream"}, 401},
		"a WebSocket":                  {"GET", []string{"Connection: Upgrade", "Upgrade: websocket", "Accept: text/html"}, 401},
		"an image":                     {"GET", []string{"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"}, 401},
		"a frame":                      {"GET", []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Accept: text/html"}, 401},
		"a prefetch":                   {"GET", append([]string{"Sec-Purpose: prefetch;prerender"}, gatewaytest.Navigation...), 401},
		"a form":                       {"POST", gatewaytest.Navigation, 401},
		"another method":               {"DELETE", gatewaytest.Navigation, 401},
	} {
		a := s.NewBrowser().Send(c.method, "/page", nil, c.headers...)
		if a.StatusCode != c.want {
			t.Errorf("%s: got %d, want %d", name, a.StatusCode, c.want)
		}
		if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: the answer's own headers are missing: %v", name, a.Header)
		}
		if c.want != 401 {
			continue
		}
		if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: Content-Type %q", name, got)
		}
		document := a.JSON(t)
		if document["error"] != "not_authenticated" || document["error_description"] != "Not authenticated" || document["status"] != json.Number("401") || document["type"] != "about:blank" ||
			document["title"] != "Authentication required" || !strings.HasPrefix(document["login_url"].(string), "/oauth/start?return_to=%2F") {
			t.Errorf("%s: got %v", name, document)
		}
	}
	if n := s.Upstream.Requests.Load(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestAScriptsLoginLeadsBackToItsPage(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	a := s.NewBrowser().Get("/api/data", "Referer: "+s.URL+"/dashboard?tab=2")
	if got := a.JSON(t)["login_url"]; got != "/oauth/start?return_to=%2Fdashboard%3Ftab%3D2" {
		t.Errorf("login_url: %v", got)
	}
	a = s.NewBrowser().Get("/api/data", "Referer: https://evil.example/x")
	if got := a.JSON(t)["login_url"]; got != "/oauth/start?return_to=%2F" {
		t.Errorf("login_url with a foreign Referer: %v", got)
	}
}

func TestUserinfoReturnsProviderMembersAndBalanceAge(t *testing.T) {
	options := gatewaytest.Options{}
	options.Provider.Users = []simulator.User{{ID: 9007199254740993, Username: "big", Email: "big@example.com", BalanceCents: 320, Status: 1, CreatedTime: 1640995200}}
	options.Provider.AutoLogin = "big"
	s := gatewaytest.New(t, options)
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(12 * time.Second)

	a := b.Get("/oauth/userinfo")
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, %s", a.StatusCode, a.Header.Get("Content-Type"))
	}
	got := a.JSON(t)
	wantMembers := []string{"balance", "balance_formatted", "created_time", "email", "id", "quota", "session", "status", "used_quota", "username"}
	if members := slices.Sorted(maps.Keys(got)); !slices.Equal(members, wantMembers) {
		t.Errorf("members: %v", members)
	}
	for member, want := range map[string]any{
		"id": json.Number("9007199254740993"), "username": "big", "email": "big@example.com", "balance_formatted": "3.20",
		"created_time": json.Number("1640995200"), "status": json.Number("1"),
	} {
		if got[member] != want {
			t.Errorf("%s: got %v, want %v", member, got[member], want)
		}
	}
	balance := got["balance"].(map[string]any)
	if balance["value"] != "3.20" || balance["state"] != "fresh" || balance["age"] != json.Number("12") {
		t.Errorf("balance: %v", balance)
	}
	session := got["session"].(map[string]any)
	issued, _ := session["issued_at"].(json.Number).Int64()
	expires, _ := session["expires_at"].(json.Number).Int64()
	if expires-issued != 30*24*60*60 {
		t.Errorf("the session lasts %d seconds", expires-issued)
	}
}

func TestUserinfoWithoutASessionIsNotAuthenticated(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	for _, headers := range [][]string{nil, gatewaytest.Navigation} {
		a := s.NewBrowser().Get("/oauth/userinfo", headers...)
		if a.StatusCode != http.StatusUnauthorized || a.JSON(t)["error"] != "Not authenticated" {
			t.Errorf("got %d: %s", a.StatusCode, a.Text)
		}
	}
}

func TestRefreshReadsTheBalanceAtMostOnceASecond(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Provider.Spend(12345, 100)
	reads := s.Provider.Count(simulator.UserInfo)
	for range 5 {
		a := b.Send("POST", "/oauth/refresh", nil, "Origin: "+s.URL)
		if a.StatusCode != http.StatusOK || a.JSON(t)["balance_formatted"] != "749.00" {
			t.Fatalf("got %d: %s", a.StatusCode, a.Text)
		}
	}
	if n := s.Provider.Count(simulator.UserInfo) - reads; n != 1 {
		t.Errorf("five requests within a second made %d reads", n)
	}
	if got := b.Get("/").Seen(t).Header.Get("X-User-Balance"); got != "749.00" {
		t.Errorf("the upstream then saw %q", got)
	}
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 500})
	time.Sleep(tollgate.RereadInterval + 100*time.Millisecond)
	if a := b.Send("POST", "/oauth/refresh", nil, "Origin: "+s.URL); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("while the provider fails: %d", a.StatusCode)
	}
}

func TestUnsafeEndpointsRefuseOtherOrigins(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	for _, endpoint := range []string{"/oauth/refresh", "/oauth/logout"} {
		for name, c := range map[string]struct {
			headers []string
			refused bool
		}{
			"same origin by Fetch Metadata": {[]string{"Sec-Fetch-Site: same-origin"}, false},
			"same origin by Origin":         {[]string{"Origin: " + s.URL}, false},
			"a client that says neither":    {nil, false},
			"a new window of WebKit":        {[]string{"Sec-Fetch-Site: cross-site", "Origin: " + s.URL}, false},
			"another site":                  {[]string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"}, true},
			"another site without Origin":   {[]string{"Sec-Fetch-Site: cross-site"}, true},
			"another site's null origin":    {[]string{"Sec-Fetch-Site: cross-site", "Origin: null"}, true},
			"another site's empty origin":   {[]string{"Sec-Fetch-Site: cross-site", "Origin: "}, true},
			"another site's two origins":    {[]string{"Sec-Fetch-Site: cross-site", "Origin: " + s.URL, "Origin: https://evil.example"}, true},
			"another port":                  {[]string{"Sec-Fetch-Site: same-site", "Origin: http://127.0.0.1:1"}, true},
			"an origin that begins as ours": {[]string{"Sec-Fetch-Site: cross-site", "Origin: " + s.URL + ".evil.example"}, true},
			"a sibling":                     {[]string{"Sec-Fetch-Site: same-site"}, true},
			"no site":                       {[]string{"Sec-Fetch-Site: none"}, true},
			"another origin":                {[]string{"Origin: https://evil.example"}, true},
			"the null origin":               {[]string{"Origin: null"}, true},
			"another scheme":                {[]string{"Origin: " + strings.Replace(s.URL, "http:", "https:", 1)}, true},
			"two origins":                   {[]string{"Origin: " + s.URL, "Origin: https://evil.example"}, true},
		} {
			b := s.NewBrowser().SignIn()
			a := b.Send("POST", endpoint, nil, c.headers...)
			if (a.StatusCode == http.StatusForbidden) != c.refused {
				t.Errorf("%s from %s: status %d", endpoint, name, a.StatusCode)
			}
			if c.refused && b.Get("/").StatusCode != http.StatusOK {
				t.Errorf("%s from %s: the session is gone", endpoint, name)
			}
		}
	}
}

func TestTopupLeadsToTheProvidersPage(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	a := b.Visit("/oauth/topup")
	if a.StatusCode != http.StatusSeeOther || !strings.HasPrefix(a.Location(), s.ProviderURL+"/topup") {
		t.Errorf("a person got %d to %q", a.StatusCode, a.Location())
	}
	a = b.Get("/oauth/topup", "Accept: application/json")
	if a.StatusCode != http.StatusOK || !strings.HasPrefix(a.JSON(t)["topup_url"].(string), s.ProviderURL) {
		t.Errorf("a script got %d: %s", a.StatusCode, a.Text)
	}
	// The next request sees what was topped up, though the balance was fresh.
	s.Provider.TopUp(12345, 500)
	if got := b.Get("/").Seen(t).Header.Get("X-User-Balance"); got != "755.00" {
		t.Errorf("after topping up the upstream saw %q", got)
	}
	if a := s.NewBrowser().Visit("/oauth/topup"); a.StatusCode != http.StatusFound {
		t.Errorf("without a session a person got %d", a.StatusCode)
	}
}

func TestTopupFollowsOnlySafeURLs(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	for body, ok := range map[string]bool{
		`{"topup_url":"https://pay.example/x"}`:      true,
		`{"topup_url":"http://127.0.0.1:5/x"}`:       true,
		`{"topup_url":"http://pay.example/x"}`:       false,
		`{"topup_url":"javascript:alert(1)"}`:        false,
		`{"topup_url":"//pay.example/x"}`:            false,
		`{"topup_url":"/x"}`:                         false,
		`{"topup_url":"https://u:p@pay.example/x"}`:  false,
		`{"topup_url":""}`:                           false,
		`{"topup_url":7}`:                            false,
		`{"success":false,"topup_url":"https://x/"}`: false,
		`[]`:                            false,
		`<html>`:                        false,
		`{"topup_url":"https://x\r\n"}`: false,
	} {
		s.Provider.SetFault(simulator.TopUp, simulator.Fault{Body: body})
		a := b.Visit("/oauth/topup")
		if ok != (a.StatusCode == http.StatusSeeOther) || ok == (a.StatusCode == http.StatusBadGateway) || ok != (a.Location() != "") {
			t.Errorf("%s: got %d to %q", body, a.StatusCode, a.Location())
		}
	}
}

func TestNoRedirectOfTheProviderIsFollowed(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	elsewhere := gatewaytest.NewUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"id":666,"status":1,"access_token":"a","topup_url":"https://evil.example/"}`))
	})
	b := s.NewBrowser().SignIn()
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, endpoint := range []simulator.Endpoint{simulator.Token, simulator.UserInfo, simulator.TopUp} {
			s.Provider.SetFault(endpoint, simulator.Fault{Status: status, Header: http.Header{"Location": {elsewhere.URL}}})
		}
		if a := b.Visit("/oauth/topup"); a.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%d: topup: %d to %q", status, a.StatusCode, a.Location())
		}
		s.Clock.Advance(20 * time.Minute)
		if got := b.Get("/").Seen(t).Header.Get("X-User-Id"); got != gatewaytest.UserID {
			t.Errorf("%d: the upstream saw the user %q", status, got)
		}
		if a := s.NewBrowser().Follow("/"); a.StatusCode < 500 {
			t.Errorf("%d: a sign-in: %d", status, a.StatusCode)
		}
	}
	if n := elsewhere.Requests.Load(); n != 0 {
		t.Errorf("%d requests went where the provider pointed", n)
	}
}

func TestTheClientSecretIsSentToTheTokenEndpointAlone(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(over)
	b.Get("/")
	b.Get("/oauth/topup")
	b.Send("POST", "/oauth/logout", nil)
	asked := 0
	for _, endpoint := range simulator.Endpoints() {
		for _, request := range s.Provider.Requests(endpoint) {
			asked++
			isToken := request.Path == simulator.TokenPath
			text := fmt.Sprint(request.Query, request.Header, request.Form, request.Body)
			if strings.Contains(text, gatewaytest.ClientSecret) != isToken {
				t.Errorf("%s %s: %s", request.Method, request.Path, text)
			}
		}
	}
	if asked < 6 {
		t.Errorf("only %d requests were looked at", asked)
	}
}

func TestTopupCanBeOff(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InProvider: "topup_endpoint off"})
	if a := s.NewBrowser().SignIn().Get("/oauth/topup"); a.StatusCode != http.StatusNotFound {
		t.Errorf("got %d", a.StatusCode)
	}
}

func TestLogoutInvalidatesEveryCopyOfTheCookie(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	copied := b.Copy()
	b.Visit("/oauth/start") // one login is pending

	if a := b.Visit("/oauth/logout"); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, `method="post"`) {
		t.Errorf("GET: %d: %s", a.StatusCode, a.Text)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("GET signed the user out: %d", a.StatusCode)
	}
	a := b.Send("POST", "/oauth/logout", nil, "Origin: "+s.URL)
	if a.StatusCode != http.StatusSeeOther || a.Location() != "/oauth/logout" || a.Header.Get("Clear-Site-Data") != `"cache"` {
		t.Errorf("POST: %d to %q, %v", a.StatusCode, a.Location(), a.Header)
	}
	if page := b.Visit(a.Location()); page.StatusCode != http.StatusOK || !strings.Contains(page.Text, "/oauth/start") {
		t.Errorf("the signed-out page: %d: %s", page.StatusCode, page.Text)
	}
	for name := range b.Cookies() {
		if name != "tollgate-signed-out" {
			t.Errorf("the cookie %s is left", name)
		}
	}
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a copy of the cookie: %d", a.StatusCode)
	}
	s.Load() // a reload forgets no logout
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a copy of the cookie after a reload: %d", a.StatusCode)
	}
	if a := s.NewBrowser().SignIn().Send("POST", "/oauth/logout", nil, "Accept: application/json"); a.StatusCode != http.StatusNoContent {
		t.Errorf("a script got %d", a.StatusCode)
	}
}

func TestLogoutWorksWhileTheProviderIsDown(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	copied := b.Copy()
	s.Provider.SetFault(simulator.Token, simulator.Fault{Status: 503})
	s.Clock.Advance(over)
	if a := b.Send("POST", "/oauth/logout", nil); a.StatusCode != http.StatusSeeOther {
		t.Errorf("got %d", a.StatusCode)
	}
	s.Provider.ClearFaults()
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a copy of the cookie: %d", a.StatusCode)
	}
}

func TestLogoutRevokesTheRefreshToken(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	s.Caddyfile = strings.Replace(s.Caddyfile, "client_id", "revocation_endpoint "+s.ProviderURL+simulator.RevokePath+"\n\t\t\tclient_id", 1)
	s.Load()
	b := s.NewBrowser().SignIn()
	b.Send("POST", "/oauth/logout", nil)
	gatewaytest.Eventually(t, "the refresh token was revoked", func() bool {
		return s.Provider.Count(simulator.Revoke) == 1 && s.Provider.LiveFamilies() == 0
	})
}

func TestTheFirstLoginAfterALogoutAsksForConsent(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	auto := func(b *gatewaytest.Browser) string {
		u, _ := url.Parse(b.Visit("/oauth/start").Location())
		return u.Query().Get("auto_authorize")
	}
	b := s.NewBrowser().SignIn()
	if got := auto(b); got != "true" {
		t.Errorf("before the logout: auto_authorize=%q", got)
	}
	b.Send("POST", "/oauth/logout", nil)
	if got := auto(b); got != "" {
		t.Errorf("after the logout: auto_authorize=%q", got)
	}
	signInWithConsent(b)
	if got := auto(b); got != "true" {
		t.Errorf("after signing in again: auto_authorize=%q", got)
	}
}

// signInWithConsent presses Allow on the provider's consent page where there is one.
func signInWithConsent(b *gatewaytest.Browser) {
	b.T.Helper()
	a := b.Follow("/")
	if strings.Contains(a.Text, "AIHubMix simulator") {
		a = b.PressAllow(a)
	}
	if a.StatusCode != http.StatusOK {
		b.T.Fatalf("signing in: %d: %s", a.StatusCode, a.Text)
	}
}

func TestOwnEndpointsNeverReachTheUpstream(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public *\nforward_auth\nassertion\nsession {\nstore storage\n}"})
	before := s.Upstream.Requests.Load()
	for _, name := range tollgate.EndpointNames() {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "TRACE"} {
			a := s.NewBrowser().Send(method, "/oauth/"+name, nil, gatewaytest.Navigation...)
			if a.StatusCode == http.StatusMethodNotAllowed && a.Header.Get("Allow") == "" {
				t.Errorf("%s %s: 405 without Allow", method, name)
			}
			if a.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: Cache-Control %q", method, name, a.Header.Get("Cache-Control"))
			}
		}
		for _, odd := range []string{"//oauth/" + name, "/x/../oauth/" + name, "/oauth/./" + name, "/oauth%2f" + name, "/oauth/" + name + ";x", "/oauth\\" + name, "/%6fauth/" + name + "%00"} {
			res := rawRequest(t, s, "GET "+odd+" HTTP/1.1", "Host: gateway", "", "")
			want := http.StatusBadRequest
			if name == "auth" { // which answers nothing but 200, 401 and 403
				want = http.StatusUnauthorized
			}
			if res.StatusCode != want {
				t.Errorf("%s: got %d", odd, res.StatusCode)
			}
		}
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests for own endpoints reached the upstream", n)
	}
}

func TestPathsOfEndpointsAreConfigurable(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: `path_prefix /gate
		endpoints {
			start /auth/oauth/start
			userinfo /api/user/info
		}`})
	b := s.NewBrowser()
	if a := b.Visit("/"); !strings.HasPrefix(a.Location(), "/auth/oauth/start?") {
		t.Errorf("the login starts at %q", a.Location())
	}
	b.SignIn()
	if a := b.Get("/api/user/info"); a.JSON(t)["username"] != "user123" {
		t.Errorf("userinfo: %d %s", a.StatusCode, a.Text)
	}
	if a := b.Get("/gate/health"); a.StatusCode != http.StatusOK || a.Text != `{"status":"ok"}` {
		t.Errorf("health: %d %s", a.StatusCode, a.Text)
	}
	if got := b.Get("/oauth/userinfo").Seen(t).URI; got != "/oauth/userinfo" {
		t.Errorf("the default path: the upstream saw %q, want /oauth/userinfo", got)
	}
}

func TestHealthAndReadyDoNotDependOnTheProvider(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	for _, endpoint := range simulator.Endpoints() {
		s.Provider.SetFault(endpoint, simulator.Fault{Status: 503})
	}
	for _, name := range []string{"health", "ready"} {
		if a := s.NewBrowser().Get("/oauth/" + name); a.StatusCode != http.StatusOK || a.Text != `{"status":"ok"}` {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.Text)
		}
	}
}

func TestLogoutPageKnowsWhoIsSignedIn(t *testing.T) {
	s, storage, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser()
	if page := b.Visit("/oauth/logout"); !strings.Contains(page.Text, "You are signed out") || !strings.Contains(page.Text, `href="/oauth/start"`) {
		t.Errorf("signed out: got %s", page.Text)
	}
	b.SignIn()
	if page := b.Visit("/oauth/logout"); !strings.Contains(page.Text, "Stay signed in") || !strings.Contains(page.Text, "Signed in as <bdi>user123</bdi>") {
		t.Errorf("signed in: got %s", page.Text)
	}
	s.Restart() // otherwise the process remembers the session
	storage.Broken.Store(true)
	page := b.Visit("/oauth/logout")
	if page.StatusCode != http.StatusOK || !strings.Contains(page.Text, `method="post"`) {
		t.Errorf("the store is down: got %d %s, want a form", page.StatusCode, page.Text)
	}
	for _, claim := range []string{"Stay signed in", "You are signed out", "Signed in as"} {
		if strings.Contains(page.Text, claim) {
			t.Errorf("the store is down: the page says %q: %s", claim, page.Text)
		}
	}
	for accept, want := range map[string]string{"text/html": "text/html; charset=utf-8", "application/json": "application/problem+json"} {
		a := b.Send("POST", "/oauth/logout", nil, "Accept: "+accept)
		if got := a.Header.Get("Content-Type"); a.StatusCode != http.StatusServiceUnavailable || got != want {
			t.Errorf("the store is down: POST with Accept %s got %d %s, want 503 %s", accept, a.StatusCode, got, want)
		}
	}
	if page := b.Visit("/"); page.StatusCode != http.StatusServiceUnavailable || !strings.Contains(page.Text, "If you were signed in") {
		t.Errorf("the store is down: got %d %s, want 503 and no promise of a session", page.StatusCode, page.Text)
	}
}

// TestPagesShowUserNamesAsText also has a name of letters from right to left, which bdi keeps
// from moving the words around it.
func TestPagesShowUserNamesAsText(t *testing.T) {
	for name, want := range map[string]string{
		`<b>"'&`:         "&lt;b&gt;&#34;&#39;&amp;",
		"محمد (admin)":   "محمد (admin)",
		"a\u202eb\tc":    "ab c",
		"{user} {brand}": "{user} {brand}",
		"\u202e\u2066":   "12345",
		" \t\u200b":      "12345",
	} {
		options := gatewaytest.Options{InTollgate: "require {\nuser nobody\n}"}
		options.Provider.Users = []simulator.User{{ID: 12345, Username: name, Status: simulator.StatusEnabled}}
		options.Provider.AutoLogin = name
		b := gatewaytest.New(t, options).NewBrowser()
		for _, page := range []*gatewaytest.Answer{b.Follow("/page"), b.Visit("/oauth/logout")} {
			if !strings.Contains(page.Text, "<bdi>"+want+"</bdi>") {
				t.Errorf("%q: got %d %s, want %s", name, page.StatusCode, page.Text, want)
			}
		}
	}
}

func TestSignInWithAnotherAccountLeadsToTheProvider(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require {\nuser somebody-else\n}\nafter_logout /bye"})
	b := s.NewBrowser()
	b.Follow("/oauth/start")
	refused := b.Visit("/page?a=1")
	const action = "/oauth/logout?sign_in=1&return_to=%2Fpage%3Fa%3D1"
	if page := parsePage(t, refused); refused.StatusCode != http.StatusForbidden || page.attrs["form action"] != action || page.attrs["a href"] != "/" || !strings.Contains(page.words, "Signed in as user123") {
		t.Fatalf("got %d %s", refused.StatusCode, refused.Text)
	}
	if link, ok := parsePage(t, b.Visit("/")).attrs["a href"]; ok {
		t.Errorf("the page of / has a way back to %q, which is the same page", link)
	}
	if a := b.Send("POST", action, nil, "Origin: https://evil.example"); a.StatusCode != http.StatusForbidden {
		t.Errorf("from another origin: got %d, want 403", a.StatusCode)
	}
	if a := b.Visit(action); a.Header.Get("Refresh") != "" {
		t.Errorf("GET: got Refresh %q, want the page that asks", a.Header.Get("Refresh"))
	}
	if a := b.Visit("/page"); a.StatusCode != http.StatusForbidden {
		t.Errorf("the session, before the POST: got %d, want it live and refused", a.StatusCode)
	}
	a := b.Send("POST", action, nil, "Origin: "+s.URL)
	if refresh := a.Header.Get("Refresh"); a.StatusCode != http.StatusOK || refresh != "0;url=/oauth/start?return_to=%2Fpage%3Fa%3D1" {
		t.Fatalf("got %d, Refresh %q", a.StatusCode, refresh)
	}
	if a := b.Get("/page"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the old session: got %d, want 401", a.StatusCode)
	}
	to, err := url.Parse(b.Visit("/oauth/start?return_to=%2Fpage%3Fa%3D1").Location())
	if err != nil || to.Query().Get("auto_authorize") != "" {
		t.Errorf("the sign-in goes to %v, want one that asks", to)
	}
	for _, outside := range []string{"//evil.example", "https://evil.example/", `/\evil.example`, "/;url=https://evil.example", "/oauth/start"} {
		a := b.Send("POST", "/oauth/logout?sign_in=1&return_to="+url.QueryEscape(outside), nil, "Origin: "+s.URL)
		refresh := a.Header.Get("Refresh")
		if target, err := url.Parse(strings.TrimPrefix(refresh, "0;url=")); err != nil || target.Host != "" || target.Path != "/oauth/start" || target.Query().Get("return_to") == outside && !strings.HasPrefix(outside, "/;") {
			t.Errorf("return_to %q: got Refresh %q, want start with a path of this origin", outside, refresh)
		}
	}
	if a := b.Send("POST", "/oauth/logout", nil, "Origin: "+s.URL); a.Location() != "/bye" {
		t.Errorf("a sign-out without sign_in leads to %q, want after_logout", a.Location())
	}
}

// A user who is not active gets no session, but can sign in with another account.
func TestRefusedSignInKeepsTheReturnPath(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	callback := b.Authorize("?return_to=%2Fpage%3Fa%3D1")
	if err := s.Provider.UpdateUser(12345, func(u *simulator.User) { u.Status = 2 }); err != nil {
		t.Fatal(err)
	}
	a := b.Visit(callback)
	if action := parsePage(t, a).attrs["form action"]; a.StatusCode != http.StatusForbidden || action != "/oauth/logout?sign_in=1&return_to=%2Fpage%3Fa%3D1" || strings.Contains(a.Text, "Signed in as") {
		t.Errorf("got %d, the form posts to %q: %s", a.StatusCode, action, a.Text)
	}
}
