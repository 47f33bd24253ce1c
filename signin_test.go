package tollgate_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestUserSignsInAndTheUpstreamReceivesTheIdentity(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()

	toStart := b.Visit("/page?x=1")
	if toStart.StatusCode != http.StatusFound || toStart.Location() != "/oauth/start?return_to=%2Fpage%3Fx%3D1" {
		t.Fatalf("an unknown visitor got %d to %q", toStart.StatusCode, toStart.Location())
	}
	a := b.Follow("/page?x=1")
	seen := a.Seen(t)
	if seen.URI != "/page?x=1" {
		t.Errorf("the sign-in came back to %q", seen.URI)
	}
	for name, want := range map[string]string{
		"X-User-Id": "12345", "X-User-Name": "user123", "X-User-Email": "user@example.com",
		"X-User-Balance": "750.00", "X-User-Balance-State": "fresh", "X-User-Balance-Age": "0",
	} {
		if got := seen.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if cookie := seen.Header.Get("Cookie"); cookie != "" {
		t.Errorf("the upstream saw cookies: %q", cookie)
	}
}

func TestAuthorizationRequestMatchesTheProvidersDocs(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InProvider: "authorize_param prompt login\nauthorize_param ui_locales \"pt zh\"\nscopes profile"})
	a := s.NewBrowser().Visit("/oauth/start")
	u, _ := url.Parse(a.Location())
	if got := u.Scheme + "://" + u.Host + u.Path; got != s.ProviderURL+"/api/oauth2/authorize" {
		t.Errorf("the endpoint is %s", got)
	}
	q := u.Query()
	for name, want := range map[string]string{
		"client_id": gatewaytest.ClientID, "redirect_uri": s.URL + "/oauth/callback", "response_type": "code", "scope": "profile",
		"auto_authorize": "true", "code_challenge_method": "S256", "prompt": "login", "ui_locales": "pt zh",
	} {
		if got := q[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if len(q.Get("state")) < 22 || len(q.Get("code_challenge")) != 43 || strings.Contains(a.Location(), gatewaytest.ClientSecret) {
		t.Errorf("state, code_challenge or secret: %s", a.Location())
	}
}

func TestAutoAuthorizeAndPKCECanBeOff(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InProvider: "auto_authorize off\npkce off"})
	b := s.NewBrowser()
	q := b.StartLogin("")
	if q.Has("auto_authorize") || q.Has("code_challenge") {
		t.Errorf("got %v", q)
	}
	signInWithConsent(b)
}

func TestTokenRequestsMatchTheProvidersDocs(t *testing.T) {
	for _, method := range []string{"client_secret_post", "client_secret_basic"} {
		s := gatewaytest.New(t, gatewaytest.Options{InProvider: "client_authentication " + method})
		b := s.NewBrowser().SignIn()
		s.Clock.Advance(over)
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d", method, a.StatusCode)
		}
		exchange, refresh := s.Provider.Requests(simulator.Exchange)[0], s.Provider.Requests(simulator.Refresh)[0]
		want := map[string]string{"grant_type": "authorization_code", "redirect_uri": s.URL + "/oauth/callback", "code": exchange.Form.Get("code"), "code_verifier": exchange.Form.Get("code_verifier")}
		wantRefresh := map[string]string{"grant_type": "refresh_token", "refresh_token": refresh.Form.Get("refresh_token")}
		if method == "client_secret_post" {
			for _, w := range []map[string]string{want, wantRefresh} {
				w["client_id"], w["client_secret"] = gatewaytest.ClientID, gatewaytest.ClientSecret
			}
		}
		for _, c := range []struct {
			request simulator.Request
			want    map[string]string
		}{{exchange, want}, {refresh, wantRefresh}} {
			if len(c.request.Form) != len(c.want) || len(c.request.Query) != 0 {
				t.Errorf("%s: the form is %v", method, c.request.Form)
			}
			for name, value := range c.want {
				if got := c.request.Form[name]; len(got) != 1 || got[0] != value || value == "" {
					t.Errorf("%s: %s: got %q, want %q", method, name, got, value)
				}
			}
			if _, has := c.request.Header["Authorization"]; has != (method == "client_secret_basic") {
				t.Errorf("%s: Authorization is there: %v", method, has)
			}
			for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key", "Cookie"} {
				if c.request.Header.Get(name) != "" {
					t.Errorf("%s: %s is sent", method, name)
				}
			}
		}
	}
}

func TestOnlyATopLevelNavigationStartsALogin(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	for _, headers := range [][]string{
		{"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image", "Accept: text/html"},
		{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"},
		{"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty"},
		append([]string{"Purpose: prefetch"}, gatewaytest.Navigation...),
		{"Accept: */*"},
	} {
		a := s.NewBrowser().Get("/oauth/start", headers...)
		if a.StatusCode != http.StatusUnauthorized || a.Header.Get("Set-Cookie") != "" {
			t.Errorf("%q: status %d, cookies %q", headers, a.StatusCode, a.Header.Values("Set-Cookie"))
		}
	}
}

func TestAtMostFiveLoginsArePendingAndTheOldestIsDropped(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	var states []string
	for i := range 8 {
		states = append(states, b.StartLogin(fmt.Sprintf("?return_to=/page%d", i)).Get("state"))
		s.Clock.Advance(time.Second)
	}
	if n := len(b.Cookies()); n != maxPendingLogins {
		t.Errorf("%d logins are pending", n)
	}
	for i, state := range states {
		_, pending := b.Cookies()["tollgate-login-"+browser.FlowOf(state)]
		if pending != (i >= 3) {
			t.Errorf("login %d is pending: %v", i, pending)
		}
	}
	// Long return paths count by their size, too.
	long := s.NewBrowser()
	for i := range 5 {
		long.StartLogin("?return_to=/" + strings.Repeat("x", 900) + fmt.Sprint(i))
		s.Clock.Advance(time.Second)
	}
	total := 0
	for name, value := range long.Cookies() {
		total += len(name) + len(value)
	}
	if total > maxLoginBytes+maxLoginBytes/2 || len(long.Cookies()) == 0 {
		t.Errorf("the pending logins take %d bytes in %d cookies", total, len(long.Cookies()))
	}
}

func TestParallelSignInsInTabsEachReturnToTheirPage(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	authorize := make([]string, 5)
	for i := range authorize {
		authorize[i] = b.Visit(fmt.Sprintf("/oauth/start?return_to=/tab%d", i)).Location()
	}
	for i := len(authorize) - 1; i >= 0; i-- {
		if got := b.Follow(authorize[i]).Seen(t); got.URI != fmt.Sprintf("/tab%d", i) || got.Header.Get("X-User-Id") != gatewaytest.UserID {
			t.Errorf("tab %d came back to %s", i, got.URI)
		}
	}
	if got := b.Cookies(); len(got) != 1 {
		t.Errorf("cookies are left: %v", got)
	}
}

func TestRepeatedCallbackRedirectsToItsPage(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	callback := b.Authorize("?return_to=/page")
	for i := range 3 {
		a := b.Visit(callback)
		if a.StatusCode != http.StatusSeeOther || a.Location() != "/page" {
			t.Errorf("time %d: %d to %q", i+1, a.StatusCode, a.Location())
		}
	}
	if n := s.Provider.Count(simulator.Exchange); n != 1 {
		t.Errorf("%d exchanges", n)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}

func TestCallbackInAnotherBrowserUsesNoCode(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	attacker := s.NewBrowser()
	callback := attacker.Authorize("")

	victim := s.NewBrowser()
	a := victim.Visit(callback)
	if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "/oauth/start") || len(victim.Cookies()) != 0 {
		t.Errorf("without a session: %d, %v", a.StatusCode, victim.Cookies())
	}
	victim.SignIn()
	before := victim.Cookies()["tollgate"]
	if a := victim.Visit(callback); a.StatusCode != http.StatusSeeOther || a.Location() != "/" || victim.Cookies()["tollgate"] != before {
		t.Errorf("with a session: %d to %q", a.StatusCode, a.Location())
	}
	if n := s.Provider.Count(simulator.Exchange); n != 1 {
		t.Errorf("%d exchanges, want the victim's own only", n)
	}
}

func TestAStateIsUsedOnceEvenWithACopyOfItsCookie(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	callback := b.Authorize("")
	thief := b.Copy()
	b.Visit(callback)
	if a := thief.Visit(callback); a.StatusCode != http.StatusBadRequest || thief.Get("/").StatusCode != http.StatusUnauthorized {
		t.Errorf("the copy got %d", a.StatusCode)
	}
	if n := s.Provider.Count(simulator.Exchange); n != 1 {
		t.Errorf("%d exchanges", n)
	}
}

func TestDuplicateCallbackSpendsItsCodeOnce(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	callback := b.Authorize("?return_to=/page")
	s.Provider.SetFault(simulator.Exchange, simulator.Fault{Delay: 200 * time.Millisecond})
	var both sync.WaitGroup
	for range 2 {
		c := b.Copy()
		both.Go(func() {
			if a := c.Visit(callback); a.StatusCode != http.StatusSeeOther || a.Location() != "/page" || c.Get("/").StatusCode != http.StatusOK {
				t.Errorf("got %d to %q", a.StatusCode, a.Location())
			}
		})
	}
	both.Wait()
	if n := s.Provider.Count(simulator.Exchange); n != 1 {
		t.Errorf("%d exchanges", n)
	}
}

func TestEveryCallbackErrorHasItsCode(t *testing.T) {
	const pending = "STATE"
	for query, c := range map[string]struct {
		code   string
		status int
	}{
		"":                                      {"missing_parameters", 400},
		"?code=c":                               {"missing_parameters", 400},
		"?state=" + pending:                     {"missing_parameters", 400},
		"?code=c&state=other":                   {"invalid_state", 400},
		"?error=access_denied":                  {"invalid_state", 400},
		"?error=access_denied&state=x":          {"invalid_state", 400},
		"?code=c&state=x&state=y":               {"invalid_state", 400},
		"?code=c&code=d&state=" + pending:       {"invalid_state", 400},
		"?error=a&error=b&state=" + pending:     {"invalid_state", 400},
		"?error=access_denied&state=" + pending: {"access_denied", 400},
		"?error=temporarily_unavailable&state=" + pending:               {"temporarily_unavailable", 400},
		"?error=%3Cscript%3E&state=" + pending:                          {"server_error", 400},
		"?code=c&state=" + pending + "&iss=https://evil.example":        {"invalid_response", 400},
		"?code=wrong&state=" + pending:                                  {"invalid_grant", 400},
		"?code=wrong&state=" + pending + "&session_state=x&scope=a%20b": {"invalid_grant", 400},
	} {
		s := gatewaytest.New(t, gatewaytest.Options{})
		b := s.NewBrowser()
		resolved := strings.ReplaceAll(query, pending, b.StartLogin("").Get("state"))
		a := b.Visit("/oauth/callback" + resolved)
		if a.StatusCode != c.status || !strings.Contains(a.Header.Get("Content-Type"), "text/html") || strings.Contains(a.Text, "<script") {
			t.Errorf("%q: %d: %s", query, a.StatusCode, a.Text)
		}
		if exchanged := s.Provider.Count(simulator.Exchange) > 0; exchanged != strings.Contains(query, "wrong") {
			t.Errorf("%q: the provider was asked: %v", query, exchanged)
		}

		redirecting := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /welcome\nerror_redirect /welcome?lang=pt"})
		b = redirecting.NewBrowser()
		resolved = strings.ReplaceAll(query, pending, b.StartLogin("").Get("state"))
		a = b.Visit("/oauth/callback" + resolved)
		if a.StatusCode != http.StatusSeeOther || a.Location() != "/welcome?error="+c.code+"&lang=pt" {
			t.Errorf("%q with error_redirect: %d to %q", query, a.StatusCode, a.Location())
		}
	}
}

func TestProviderFailureDuringSignInGetsAnErrorPage(t *testing.T) {
	for name, c := range map[string]struct {
		endpoint simulator.Endpoint
		fault    simulator.Fault
		status   int
	}{
		"the token endpoint is down":        {simulator.Exchange, simulator.Fault{Status: 503}, 503},
		"the token endpoint is cut":         {simulator.Exchange, simulator.Fault{Cut: simulator.CutBeforeAnswer}, 503},
		"the token endpoint hangs":          {simulator.Exchange, simulator.Fault{Hang: true}, 503},
		"the token answer is HTML":          {simulator.Exchange, simulator.Fault{Body: "<html>"}, 502},
		"success:false":                     {simulator.Exchange, simulator.Fault{Body: `{"success":false,"message":"x"}`}, 502},
		"the client is refused":             {simulator.Exchange, simulator.Fault{Status: 401, Body: `{"error":"invalid_client"}`}, 502},
		"the token endpoint redirects":      {simulator.Exchange, simulator.Fault{Status: 307, Header: http.Header{"Location": {"http://127.0.0.1:1/"}}}, 502},
		"a token of another type":           {simulator.Exchange, simulator.Fault{Body: `{"access_token":"a","token_type":"mac"}`}, 502},
		"userinfo is down":                  {simulator.UserInfo, simulator.Fault{Status: 500}, 503},
		"userinfo has no id":                {simulator.UserInfo, simulator.Fault{Body: `{"username":"x"}`}, 502},
		"userinfo says success:false":       {simulator.UserInfo, simulator.Fault{Body: `{"success":false,"message":"x","id":1}`}, 502},
		"userinfo is no object":             {simulator.UserInfo, simulator.Fault{Body: `[1]`}, 502},
		"userinfo is endless":               {simulator.UserInfo, simulator.Fault{Endless: true}, 502},
		"userinfo says 401 again and again": {simulator.UserInfo, simulator.Fault{Status: 401}, 502},
		"the user is disabled":              {simulator.UserInfo, simulator.Fault{Body: `{"id":1,"status":2}`}, 403},
		"the user's status is missing":      {simulator.UserInfo, simulator.Fault{Body: `{"id":1}`}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := gatewaytest.New(t, gatewaytest.Options{})
			if c.fault.Hang {
				hurry(s)
			}
			b := s.NewBrowser()
			callback := b.Authorize("?return_to=/page")
			s.Provider.SetFault(c.endpoint, c.fault)
			a := b.Visit(callback)
			if a.StatusCode != c.status || !strings.Contains(a.Header.Get("Content-Type"), "text/html") {
				t.Errorf("got %d: %s", a.StatusCode, a.Text)
			}
			if got := b.Cookies(); len(got) != 0 {
				t.Errorf("cookies are left: %v", got)
			}
			if (a.StatusCode == 503) != (a.Header.Get("Retry-After") != "") {
				t.Errorf("Retry-After %q", a.Header.Get("Retry-After"))
			}
		})
	}
}

func TestSignInInAPopupReportsToItsOpener(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	a := b.Visit(b.Authorize("?popup=1&nonce=abc-123&return_to=/page"))
	if a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "abc-123") || !strings.Contains(a.Text, s.URL) {
		t.Errorf("got %d: %s", a.StatusCode, a.Text)
	}
	if got := a.Header.Get("Cross-Origin-Opener-Policy"); got != "" {
		t.Errorf("the popup's page: got Cross-Origin-Opener-Policy %q, want none, so that it keeps its opener", got)
	}
	if got := b.Get("/"); got.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d", got.StatusCode)
	}
	q := b.StartLogin(`?popup=1&nonce=%3Cscript%3E`)
	if a := b.Visit("/oauth/callback?error=access_denied&state=" + q.Get("state")); a.StatusCode != http.StatusBadRequest ||
		!strings.Contains(a.Text, "access_denied") || strings.Contains(a.Text, "<script>alert") {
		t.Errorf("got %d: %s", a.StatusCode, a.Text)
	}
}

func TestReturnPathsStayOnTheOriginAndDoNotLoop(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "after_login /home"})
	for returnTo, want := range map[string]string{
		"/page?a=1&b=2":            "/page?a=1&b=2",
		"https://evil.example/":    "/home",
		"//evil.example/":          "/home",
		"/\\evil.example":          "/home",
		"":                         "/home",
		"/oauth/start":             "/home",
		"/oauth/callback?code=x":   "/home",
		"/a/../oauth/start?x":      "/home",
		s.URL + "/page?a=1&b=2":    "/page?a=1&b=2",
		s.URL + ".evil.example/":   "/home",
		s.URL + "/oauth/start":     "/home",
		s.URL + "//evil.example/":  "/home",
		strings.Repeat("/x", 3999): "/home",
	} {
		b := s.NewBrowser()
		a := b.Visit(b.Authorize("?return_to=" + url.QueryEscape(returnTo)))
		if a.Location() != want {
			t.Errorf("%q leads to %q, want %q", returnTo, a.Location(), want)
		}
	}
	// The path of the request that started it goes the same way.
	if a := s.NewBrowser().Visit("//evil.example/x"); strings.Contains(a.Location(), "evil") {
		t.Errorf("leads to %q", a.Location())
	}
}

func TestSignInPageNeedsAClick(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: `login_page on
		brand "Ada & <Co>"`})
	a := s.NewBrowser().Visit("/page")
	if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, "/oauth/start?return_to=%2Fpage") ||
		!strings.Contains(a.Text, "Ada &amp; &lt;Co&gt;") {
		t.Errorf("got %d: %s", a.StatusCode, a.Text)
	}
}

func TestStrictCookieCausesNoLoop(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "session {\nsame_site strict\n}"})
	b := s.NewBrowser()
	a := b.Visit(b.Authorize("?return_to=/page"))
	if a.StatusCode != http.StatusOK || a.Header.Get("Refresh") != "0;url=/page" || !strings.Contains(a.Text, "/page") {
		t.Errorf("got %d, Refresh %q", a.StatusCode, a.Header.Get("Refresh"))
	}
	for _, line := range a.Header.Values("Set-Cookie") {
		if strings.HasPrefix(line, "tollgate=") && !strings.Contains(line, "SameSite=Strict") {
			t.Errorf("the session cookie is %q", line)
		}
	}
}

func TestSignInAsAnotherUserEndsTheOldSession(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	old := b.Copy()
	b.Follow(b.Visit("/oauth/start").Location() + "&login_hint=maria")
	if got := b.Get("/").Seen(t).Header.Get("X-User-Name"); got != "maria" {
		t.Fatalf("signed in as %q", got)
	}
	if a := old.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the old session: %d", a.StatusCode)
	}
	// The same user in another tab: what is under way may finish, then it ends.
	same := b.Copy()
	b.Follow(b.Visit("/oauth/start").Location())
	if a := same.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("under way in another tab: %d", a.StatusCode)
	}
	s.Clock.Advance(session.EndGrace + time.Second)
	if a := same.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}

func TestAPendingLoginExpires(t *testing.T) {
	for _, passed := range []time.Duration{browser.LoginLifetime + time.Second, 15 * time.Hour} {
		s := gatewaytest.New(t, gatewaytest.Options{Provider: simulator.Options{CodeLifetime: 24 * time.Hour}})
		b := s.NewBrowser()
		callback := b.Authorize("?return_to=/page%3Fa%3D1")
		again := b.Authorize("?return_to=/other")
		s.Clock.Advance(passed)
		a := b.Visit(callback)
		if a.StatusCode != http.StatusBadRequest || s.Provider.Count(simulator.Exchange) != 0 {
			t.Errorf("after %v: got %d", passed, a.StatusCode)
		}
		if !strings.Contains(a.Text, `href="/oauth/start?return_to=%2Fpage%3Fa%3D1"`) {
			t.Errorf("after %v nothing leads on to the page: %s", passed, a.Text)
		}
		b.SignIn() // and it is as if nothing had been
		if a := b.Visit(again); a.StatusCode != http.StatusSeeOther {
			t.Errorf("after %v, of another tab: %d to %q", passed, a.StatusCode, a.Location())
		}
	}
}

func TestABrowserWithoutFetchMetadataSignsInAndOut(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Provider: simulator.Options{AutoLogin: "user123"}})
	b := s.NewBrowser()
	const accept = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	at := "/page?a=1"
	var last *gatewaytest.Answer
	for range 4 { // the page, start, the provider, callback
		last = b.Send("GET", at, nil, accept)
		at = last.Location()
	}
	if last.StatusCode != http.StatusSeeOther || at != "/page?a=1" {
		t.Fatalf("the last answer is %d to %q", last.StatusCode, at)
	}
	if a := b.Send("GET", at, nil, accept); a.StatusCode != http.StatusOK {
		t.Errorf("signed in: %d", a.StatusCode)
	}
	for origin, want := range map[string]int{"https://elsewhere.example": http.StatusForbidden, s.URL: http.StatusSeeOther} {
		if a := b.Send("POST", "/oauth/logout", nil, accept, "Origin: "+origin); a.StatusCode != want {
			t.Errorf("signing out from %s: %d, want %d", origin, a.StatusCode, want)
		}
	}
	if a := b.Send("GET", "/page", nil, "Accept: */*"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("a script: %d", a.StatusCode)
	}
}

func TestCallbackFromHistoryDoesNotSignInAfterLogout(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	callback := b.Authorize("?return_to=/page")
	b.Visit(callback)
	b.Send("POST", "/oauth/logout", nil)
	a := b.Visit(callback)
	if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, `href="/oauth/start?return_to=%2Fpage"`) {
		t.Errorf("got %d: %s", a.StatusCode, a.Text)
	}
	if n := s.Provider.Count(simulator.Exchange); n != 1 || b.Get("/").StatusCode != http.StatusUnauthorized {
		t.Errorf("%d exchanges", n)
	}
}

func TestTheGatewayStartsWhileTheProviderIsDown(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	s.Caddyfile = strings.ReplaceAll(s.Caddyfile, s.ProviderURL, "http://127.0.0.1:1")
	s.Load()
	if a := s.NewBrowser().Visit("/"); a.StatusCode != http.StatusFound {
		t.Errorf("got %d", a.StatusCode)
	}
}

func TestAnotherProviderNeedsOnlySettings(t *testing.T) {
	mux := http.NewServeMux()
	provider := gatewaytest.NewUpstream(t, mux.ServeHTTP)
	mux.HandleFunc("POST /t", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"access_token":"a","token_type":"bearer","expires_in":"299","refresh_token":"r"}`))
	})
	mux.HandleFunc("GET /u", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"data":{"sub":"u-1","name":"Ada","mail":"ada@example.com"}}`))
	})
	mux.HandleFunc("GET /b", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"credits": map[string]string{"left": "-1.5"}, "authorized": r.Header.Get("Authorization") == "Bearer a"})
	})
	s := gatewaytest.New(t, gatewaytest.Options{})
	from, to := strings.Index(s.Caddyfile, "provider aihubmix"), strings.Index(s.Caddyfile, "redirect_uri")
	s.Caddyfile = s.Caddyfile[:from] + fmt.Sprintf(`provider oauth2 {
			authorization_endpoint %[1]s/a
			token_endpoint %[1]s/t
			userinfo_endpoint %[1]s/u
			balance_endpoint %[1]s/b
			client_id c
			client_authentication none
			fields {
				id data.sub
				username data.name
				email data.mail
				balance credits.left
			}
		}
		`, provider.URL) + s.Caddyfile[to:]
	s.Load()
	b := s.NewBrowser()
	q := b.StartLogin("")
	seen := b.Follow("/oauth/callback?code=c&state=" + q.Get("state")).Seen(t)
	for name, want := range map[string]string{"X-User-Id": "u-1", "X-User-Name": "Ada", "X-User-Email": "ada@example.com", "X-User-Balance": "-1.5", "X-User-Quota": ""} {
		if got, ok := seen.Header[name]; !ok || got[0] != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if a := b.Get("/oauth/topup"); a.StatusCode != http.StatusNotFound {
		t.Errorf("topup: %d", a.StatusCode)
	}
}

func TestLoginCookieUnderAnotherNameIsRejected(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	first, second := b.StartLogin("").Get("state"), b.StartLogin("").Get("state")
	swapped := b.Cookies()["tollgate-login-"+browser.FlowOf(second)]
	b.SetCookie("tollgate-login-"+browser.FlowOf(first), swapped)
	for _, state := range []string{first, first + "x", strings.ToUpper(first)} {
		if a := b.Visit("/oauth/callback?code=c&state=" + state); a.StatusCode != http.StatusBadRequest {
			t.Errorf("got %d", a.StatusCode)
		}
	}
	if n := s.Provider.Count(simulator.Exchange); n != 0 {
		t.Errorf("%d exchanges", n)
	}
}

func TestBrowserWithoutCookiesGetsTheLoginLoopPage(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	for i := 1; i <= loopLogins; i++ {
		a := b.Visit(b.Authorize("?return_to=/page"))
		b.SetCookie("tollgate", "") // the session is lost
		switch {
		case i < loopLogins && a.StatusCode != http.StatusSeeOther:
			t.Fatalf("sign-in %d: %d", i, a.StatusCode)
		case i == loopLogins && (a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "cookies") || !strings.Contains(a.Text, "/oauth/start?return_to=%2Fpage")):
			t.Errorf("sign-in %d: %d: %s", i, a.StatusCode, a.Text)
		}
	}
	// On the way to another page it is no loop.
	if a := b.Visit(b.Authorize("?return_to=/other")); a.StatusCode != http.StatusSeeOther {
		t.Errorf("to another page: %d", a.StatusCode)
	}
}

func TestRepeatedSignInsWithASessionAreNotALoop(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	for i := range 2 * loopLogins {
		if a := b.Visit(b.Authorize("?return_to=/page")); a.StatusCode != http.StatusSeeOther {
			t.Fatalf("sign-in %d: %d", i, a.StatusCode)
		}
	}
	for i := range 2 * loopLogins {
		b.Send("POST", "/oauth/logout", nil)
		signInWithConsent(b)
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Fatalf("sign-in %d after signing out: %d", i, a.StatusCode)
		}
	}
}
