package tollgate

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

	"github.com/caddy-tollgate/tollgate/simulator"
)

func (a *answer) json(t *testing.T) map[string]any {
	t.Helper()
	var document map[string]any
	d := json.NewDecoder(strings.NewReader(a.text))
	d.UseNumber()
	if err := d.Decode(&document); err != nil {
		t.Fatalf("no JSON: %v: %s", err, a.text)
	}
	return document
}

func TestWhoIsNotSignedInGetsTheRightAnswer(t *testing.T) {
	s := newSite(t, siteOptions{})
	for name, c := range map[string]struct {
		method  string
		headers []string
		want    int
	}{
		"a person":                     {"GET", navigation, 302},
		"a person asking for a header": {"HEAD", navigation, 302},
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
		"a prefetch":                   {"GET", append([]string{"Sec-Purpose: prefetch;prerender"}, navigation...), 401},
		"a form":                       {"POST", navigation, 401},
		"another method":               {"DELETE", navigation, 401},
	} {
		a := s.newBrowser().do(c.method, "/page", nil, c.headers...)
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
		document := a.json(t)
		if document["error"] != "not_authenticated" || document["error_description"] != "Not authenticated" || document["status"] != json.Number("401") || document["type"] != "about:blank" ||
			document["title"] != "Authentication required" || !strings.HasPrefix(document["login_url"].(string), "/oauth/start?return_to=%2F") {
			t.Errorf("%s: got %v", name, document)
		}
	}
	if n := s.upstream.requests.Load(); n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestAScriptsLoginLeadsBackToItsPage(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := s.newBrowser().Get("/api/data", "Referer: "+s.url+"/dashboard?tab=2")
	if got := a.json(t)["login_url"]; got != "/oauth/start?return_to=%2Fdashboard%3Ftab%3D2" {
		t.Errorf("login_url: %v", got)
	}
	a = s.newBrowser().Get("/api/data", "Referer: https://evil.example/x")
	if got := a.json(t)["login_url"]; got != "/oauth/start?return_to=%2F" {
		t.Errorf("login_url with a foreign Referer: %v", got)
	}
}

func TestUserinfoReturnsProviderMembersAndBalanceAge(t *testing.T) {
	options := siteOptions{}
	options.provider.Users = []simulator.User{{ID: 9007199254740993, Username: "big", Email: "big@example.com", BalanceCents: 320, Status: 1, CreatedTime: 1640995200}}
	options.provider.AutoLogin = "big"
	s := newSite(t, options)
	b := s.newBrowser().signIn()
	s.clock.advance(12 * time.Second)

	a := b.Get("/oauth/userinfo")
	if a.StatusCode != http.StatusOK || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("status %d, %s", a.StatusCode, a.Header.Get("Content-Type"))
	}
	got := a.json(t)
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
	s := newSite(t, siteOptions{})
	for _, headers := range [][]string{nil, navigation} {
		a := s.newBrowser().Get("/oauth/userinfo", headers...)
		if a.StatusCode != http.StatusUnauthorized || a.json(t)["error"] != "Not authenticated" {
			t.Errorf("got %d: %s", a.StatusCode, a.text)
		}
	}
}

func TestRefreshReadsTheBalanceAtMostOnceASecond(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.provider.Spend(12345, 100)
	reads := s.provider.Count(simulator.UserInfo)
	for range 5 {
		a := b.do("POST", "/oauth/refresh", nil, "Origin: "+s.url)
		if a.StatusCode != http.StatusOK || a.json(t)["balance_formatted"] != "749.00" {
			t.Fatalf("got %d: %s", a.StatusCode, a.text)
		}
	}
	if n := s.provider.Count(simulator.UserInfo) - reads; n != 1 {
		t.Errorf("five requests within a second made %d reads", n)
	}
	if got := b.Get("/").seen(t).Header.Get("X-User-Balance"); got != "749.00" {
		t.Errorf("the upstream then saw %q", got)
	}
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 500})
	time.Sleep(RereadInterval + 100*time.Millisecond)
	if a := b.do("POST", "/oauth/refresh", nil, "Origin: "+s.url); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("while the provider fails: %d", a.StatusCode)
	}
}

func TestUnsafeEndpointsRefuseOtherOrigins(t *testing.T) {
	s := newSite(t, siteOptions{})
	for _, endpoint := range []string{"/oauth/refresh", "/oauth/logout"} {
		for name, c := range map[string]struct {
			headers []string
			refused bool
		}{
			"same origin by Fetch Metadata": {[]string{"Sec-Fetch-Site: same-origin"}, false},
			"same origin by Origin":         {[]string{"Origin: " + s.url}, false},
			"a client that says neither":    {nil, false},
			"a new window of WebKit":        {[]string{"Sec-Fetch-Site: cross-site", "Origin: " + s.url}, false},
			"another site":                  {[]string{"Sec-Fetch-Site: cross-site", "Origin: https://evil.example"}, true},
			"another site without Origin":   {[]string{"Sec-Fetch-Site: cross-site"}, true},
			"another site's null origin":    {[]string{"Sec-Fetch-Site: cross-site", "Origin: null"}, true},
			"another site's empty origin":   {[]string{"Sec-Fetch-Site: cross-site", "Origin: "}, true},
			"another site's two origins":    {[]string{"Sec-Fetch-Site: cross-site", "Origin: " + s.url, "Origin: https://evil.example"}, true},
			"another port":                  {[]string{"Sec-Fetch-Site: same-site", "Origin: http://127.0.0.1:1"}, true},
			"an origin that begins as ours": {[]string{"Sec-Fetch-Site: cross-site", "Origin: " + s.url + ".evil.example"}, true},
			"a sibling":                     {[]string{"Sec-Fetch-Site: same-site"}, true},
			"no site":                       {[]string{"Sec-Fetch-Site: none"}, true},
			"another origin":                {[]string{"Origin: https://evil.example"}, true},
			"the null origin":               {[]string{"Origin: null"}, true},
			"another scheme":                {[]string{"Origin: " + strings.Replace(s.url, "http:", "https:", 1)}, true},
			"two origins":                   {[]string{"Origin: " + s.url, "Origin: https://evil.example"}, true},
		} {
			b := s.newBrowser().signIn()
			a := b.do("POST", endpoint, nil, c.headers...)
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
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	a := b.visit("/oauth/topup")
	if a.StatusCode != http.StatusSeeOther || !strings.HasPrefix(a.location(), s.providerURL+"/topup") {
		t.Errorf("a person got %d to %q", a.StatusCode, a.location())
	}
	a = b.Get("/oauth/topup", "Accept: application/json")
	if a.StatusCode != http.StatusOK || !strings.HasPrefix(a.json(t)["topup_url"].(string), s.providerURL) {
		t.Errorf("a script got %d: %s", a.StatusCode, a.text)
	}
	// The next request sees what was topped up, though the balance was fresh.
	s.provider.TopUp(12345, 500)
	if got := b.Get("/").seen(t).Header.Get("X-User-Balance"); got != "755.00" {
		t.Errorf("after topping up the upstream saw %q", got)
	}
	if a := s.newBrowser().visit("/oauth/topup"); a.StatusCode != http.StatusFound {
		t.Errorf("without a session a person got %d", a.StatusCode)
	}
}

func TestTopupFollowsOnlySafeURLs(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
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
		s.provider.SetFault(simulator.TopUp, simulator.Fault{Body: body})
		a := b.visit("/oauth/topup")
		if ok != (a.StatusCode == http.StatusSeeOther) || ok == (a.StatusCode == http.StatusBadGateway) || ok != (a.location() != "") {
			t.Errorf("%s: got %d to %q", body, a.StatusCode, a.location())
		}
	}
}

func TestNoRedirectOfTheProviderIsFollowed(t *testing.T) {
	s := newSite(t, siteOptions{})
	elsewhere := newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"id":666,"status":1,"access_token":"a","topup_url":"https://evil.example/"}`))
	})
	b := s.newBrowser().signIn()
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, endpoint := range []simulator.Endpoint{simulator.Token, simulator.UserInfo, simulator.TopUp} {
			s.provider.SetFault(endpoint, simulator.Fault{Status: status, Header: http.Header{"Location": {elsewhere.URL}}})
		}
		if a := b.visit("/oauth/topup"); a.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%d: topup: %d to %q", status, a.StatusCode, a.location())
		}
		s.clock.advance(20 * time.Minute)
		if got := b.Get("/").seen(t).Header.Get("X-User-Id"); got != testUserID {
			t.Errorf("%d: the upstream saw the user %q", status, got)
		}
		if a := s.newBrowser().follow("/"); a.StatusCode < 500 {
			t.Errorf("%d: a sign-in: %d", status, a.StatusCode)
		}
	}
	if n := elsewhere.requests.Load(); n != 0 {
		t.Errorf("%d requests went where the provider pointed", n)
	}
}

func TestTheClientSecretIsSentToTheTokenEndpointAlone(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.clock.advance(over)
	b.Get("/")
	b.Get("/oauth/topup")
	b.do("POST", "/oauth/logout", nil)
	asked := 0
	for _, endpoint := range simulator.Endpoints() {
		for _, request := range s.provider.Requests(endpoint) {
			asked++
			isToken := request.Path == simulator.TokenPath
			text := fmt.Sprint(request.Query, request.Header, request.Form, request.Body)
			if strings.Contains(text, testClientSecret) != isToken {
				t.Errorf("%s %s: %s", request.Method, request.Path, text)
			}
		}
	}
	if asked < 6 {
		t.Errorf("only %d requests were looked at", asked)
	}
}

func TestTopupCanBeOff(t *testing.T) {
	s := newSite(t, siteOptions{inProvider: "topup_endpoint off"})
	if a := s.newBrowser().signIn().Get("/oauth/topup"); a.StatusCode != http.StatusNotFound {
		t.Errorf("got %d", a.StatusCode)
	}
}

func TestLogoutEndsTheSessionForEveryCopyOfTheCookie(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	copied := b.copyOf()
	b.visit("/oauth/start") // one login is pending

	if a := b.visit("/oauth/logout"); a.StatusCode != http.StatusOK || !strings.Contains(a.text, `method="post"`) {
		t.Errorf("GET: %d: %s", a.StatusCode, a.text)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("GET signed the user out: %d", a.StatusCode)
	}
	a := b.do("POST", "/oauth/logout", nil, "Origin: "+s.url)
	if a.StatusCode != http.StatusSeeOther || a.location() != "/oauth/logout?done" || a.Header.Get("Clear-Site-Data") != `"cache"` {
		t.Errorf("POST: %d to %q, %v", a.StatusCode, a.location(), a.Header)
	}
	if page := b.visit(a.location()); page.StatusCode != http.StatusOK || !strings.Contains(page.text, "/oauth/start") {
		t.Errorf("the signed-out page: %d: %s", page.StatusCode, page.text)
	}
	for name := range b.cookies() {
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
	if a := s.newBrowser().signIn().do("POST", "/oauth/logout", nil, "Accept: application/json"); a.StatusCode != http.StatusNoContent {
		t.Errorf("a script got %d", a.StatusCode)
	}
}

func TestLogoutWorksWhileTheProviderIsDown(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	copied := b.copyOf()
	s.provider.SetFault(simulator.Token, simulator.Fault{Status: 503})
	s.clock.advance(over)
	if a := b.do("POST", "/oauth/logout", nil); a.StatusCode != http.StatusSeeOther {
		t.Errorf("got %d", a.StatusCode)
	}
	s.provider.ClearFaults()
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a copy of the cookie: %d", a.StatusCode)
	}
}

func TestLogoutRevokesTheRefreshToken(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.caddyfile = strings.Replace(s.caddyfile, "client_id", "revocation_endpoint "+s.providerURL+simulator.RevokePath+"\n\t\t\tclient_id", 1)
	s.Load()
	b := s.newBrowser().signIn()
	b.do("POST", "/oauth/logout", nil)
	eventually(t, "the refresh token was revoked", func() bool {
		return s.provider.Count(simulator.Revoke) == 1 && s.provider.LiveFamilies() == 0
	})
}

func TestTheFirstLoginAfterALogoutAsksForConsent(t *testing.T) {
	s := newSite(t, siteOptions{})
	auto := func(b *visitor) string {
		u, _ := url.Parse(b.visit("/oauth/start").location())
		return u.Query().Get("auto_authorize")
	}
	b := s.newBrowser().signIn()
	if got := auto(b); got != "true" {
		t.Errorf("before the logout: auto_authorize=%q", got)
	}
	b.do("POST", "/oauth/logout", nil)
	if got := auto(b); got != "" {
		t.Errorf("after the logout: auto_authorize=%q", got)
	}
	b.signInWithConsent()
	if got := auto(b); got != "true" {
		t.Errorf("after signing in again: auto_authorize=%q", got)
	}
}

// signInWithConsent presses Allow on the provider's consent page where there is one.
func (b *visitor) signInWithConsent() {
	b.t.Helper()
	a := b.follow("/")
	if strings.Contains(a.text, "AIHubMix simulator") {
		a = b.pressAllow(a)
	}
	if a.StatusCode != http.StatusOK {
		b.t.Fatalf("signing in: %d: %s", a.StatusCode, a.text)
	}
}

func TestOwnEndpointsNeverReachTheUpstream(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "public *\nforward_auth\nassertion\nsession {\nstore storage\n}"})
	before := s.upstream.requests.Load()
	for _, name := range EndpointNames() {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "TRACE"} {
			a := s.newBrowser().do(method, "/oauth/"+name, nil, navigation...)
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
	if n := s.upstream.requests.Load() - before; n != 0 {
		t.Errorf("%d requests for own endpoints reached the upstream", n)
	}
}

func TestEndpointsMayStandElsewhere(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: `path_prefix /gate
		endpoints {
			start /auth/oauth/start
			userinfo /api/user/info
		}`})
	b := s.newBrowser()
	if a := b.visit("/"); !strings.HasPrefix(a.location(), "/auth/oauth/start?") {
		t.Errorf("the login starts at %q", a.location())
	}
	b.signIn()
	if a := b.Get("/api/user/info"); a.json(t)["username"] != "user123" {
		t.Errorf("userinfo: %d %s", a.StatusCode, a.text)
	}
	if a := b.Get("/gate/health"); a.StatusCode != http.StatusOK || a.text != `{"status":"ok"}` {
		t.Errorf("health: %d %s", a.StatusCode, a.text)
	}
	if a := b.Get("/oauth/userinfo"); a.seen(t).URI != "/oauth/userinfo" {
		t.Error("the default path is still ours")
	}
}

func TestHealthAndReadyDoNotDependOnTheProvider(t *testing.T) {
	s := newSite(t, siteOptions{})
	for _, endpoint := range simulator.Endpoints() {
		s.provider.SetFault(endpoint, simulator.Fault{Status: 503})
	}
	for _, name := range []string{"health", "ready"} {
		if a := s.newBrowser().Get("/oauth/" + name); a.StatusCode != http.StatusOK || a.text != `{"status":"ok"}` {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.text)
		}
	}
}
