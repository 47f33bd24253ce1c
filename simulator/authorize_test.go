package simulator_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/simulator"
)

const verifier = "a-code-verifier-of-the-test-0123456789.~_abcd"

func challengeOf(verifier string) string {
	hash := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(hash[:])
}

// signedInBrowser is a browser with the simulator's own cookie.
func (w *world) signedInBrowser(user string) *browser {
	w.t.Helper()
	b := w.browser()
	w.wantStatus(b.submit(simulator.LoginPath, url.Values{"user": {user}}), http.StatusSeeOther)
	return b
}

func TestAuthorizeShowsAPageForAForeignRedirectURI(t *testing.T) {
	w := start(t, autoLogin())
	for name, query := range map[string]string{
		"no parameter at all":    "",
		"malformed query":        "client_id=%zz",
		"unknown client":         authorizeQuery("client_id", "client_unknown").Encode(),
		"missing client_id":      authorizeQuery("client_id", "").Encode(),
		"client_id twice":        authorizeQuery().Encode() + "&client_id=" + clientID,
		"missing redirect_uri":   authorizeQuery("redirect_uri", "").Encode(),
		"redirect_uri twice":     authorizeQuery().Encode() + "&redirect_uri=" + url.QueryEscape(redirectURI),
		"trailing slash":         authorizeQuery("redirect_uri", redirectURI+"/").Encode(),
		"prefix":                 authorizeQuery("redirect_uri", strings.TrimSuffix(redirectURI, "k")).Encode(),
		"longer path":            authorizeQuery("redirect_uri", redirectURI+"/more").Encode(),
		"other scheme":           authorizeQuery("redirect_uri", strings.Replace(redirectURI, "https", "http", 1)).Encode(),
		"upper case host":        authorizeQuery("redirect_uri", strings.Replace(redirectURI, "app", "APP", 1)).Encode(),
		"default port":           authorizeQuery("redirect_uri", strings.Replace(redirectURI, ".com", ".com:443", 1)).Encode(),
		"additional query":       authorizeQuery("redirect_uri", redirectURI+"?next=1").Encode(),
		"host of an attacker":    authorizeQuery("redirect_uri", "https://evil.example/oauth/callback").Encode(),
		"encoded dot dot":        authorizeQuery("redirect_uri", redirectURI+"/%2e%2e/callback").Encode(),
		"bad target, no state":   authorizeQuery("redirect_uri", "https://evil.example/", "state", "").Encode(),
		"bad target, bad scope":  authorizeQuery("redirect_uri", "https://evil.example/", "scope", "admin").Encode(),
		"redirect_uri is a data": authorizeQuery("redirect_uri", "data:text/html,x").Encode(),
	} {
		answer := w.browser().get(simulator.AuthorizePath + "?" + query)
		if answer.StatusCode != http.StatusBadRequest || answer.Header.Get("Location") != "" {
			t.Errorf("%s: %s, Location %q", name, answer.Status, answer.Header.Get("Location"))
		}
		if strings.Contains(answer.body, "evil") {
			t.Errorf("%s: the page repeats what the request said", name)
		}
	}
}

func TestAuthorizeRedirectsOtherErrorsWithTheState(t *testing.T) {
	w := start(t, autoLogin())
	for name, test := range map[string]struct {
		query       string
		code, state string
	}{
		"missing state":              {authorizeQuery("state", "").Encode(), "invalid_request", ""},
		"empty state":                {authorizeQuery("state", "").Encode() + "&state=", "invalid_request", ""},
		"state twice":                {authorizeQuery().Encode() + "&state=b", "invalid_request", ""},
		"missing response_type":      {authorizeQuery("response_type", "").Encode(), "invalid_request", "state-1"},
		"response_type token":        {authorizeQuery("response_type", "token").Encode(), "unsupported_response_type", "state-1"},
		"response_type twice":        {authorizeQuery().Encode() + "&response_type=code", "invalid_request", "state-1"},
		"unknown scope":              {authorizeQuery("scope", "profile admin").Encode(), "invalid_scope", "state-1"},
		"scopes with a comma":        {authorizeQuery("scope", "profile,balance").Encode(), "invalid_scope", "state-1"},
		"scopes with two spaces":     {authorizeQuery("scope", "profile  balance").Encode(), "invalid_scope", "state-1"},
		"plain challenge":            {authorizeQuery("code_challenge", challengeOf(verifier), "code_challenge_method", "plain").Encode(), "invalid_request", "state-1"},
		"challenge without a method": {authorizeQuery("code_challenge", challengeOf(verifier)).Encode(), "invalid_request", "state-1"},
		"method without challenge":   {authorizeQuery("code_challenge_method", "S256").Encode(), "invalid_request", "state-1"},
		"short challenge":            {authorizeQuery("code_challenge", "abc", "code_challenge_method", "S256").Encode(), "invalid_request", "state-1"},
		"padded challenge":           {authorizeQuery("code_challenge", challengeOf(verifier)+"=", "code_challenge_method", "S256").Encode(), "invalid_request", "state-1"},
		"challenge with a plus":      {authorizeQuery("code_challenge", "+"+challengeOf(verifier)[1:], "code_challenge_method", "S256").Encode(), "invalid_request", "state-1"},
	} {
		answer := w.browser().get(simulator.AuthorizePath + "?" + test.query)
		target, query := answer.location(t)
		if answer.StatusCode != http.StatusFound || target != redirectURI {
			t.Errorf("%s: %s to %s", name, answer.Status, target)
		}
		if query.Get("error") != test.code || query.Get("state") != test.state || query.Has("code") {
			t.Errorf("%s: %v, want %s with state %q", name, query, test.code, test.state)
		}
	}
}

func TestAuthorizeIgnoresUnknownParameters(t *testing.T) {
	w := start(t, autoLogin())
	if w.code("nonce", "1", "prompt", "login") == "" {
		t.Error("no code")
	}
}

func TestAuthorizeReturnsCodeAndStateUnchanged(t *testing.T) {
	w := start(t, autoLogin())
	for _, state := range []string{"a", "with space & ampersand=%2F", "ünï", strings.Repeat("s", 500)} {
		answer := w.browser().get(authorizePath("state", state))
		target, query := answer.location(t)
		if answer.StatusCode != http.StatusFound || target != redirectURI {
			t.Errorf("%s to %s", answer.Status, target)
		}
		if query.Get("state") != state || !strings.HasPrefix(query.Get("code"), "code_") {
			t.Errorf("state %q came back as %v", state, query)
		}
	}
}

func TestAuthorizeKeepsTheQueryOfARegisteredRedirectURI(t *testing.T) {
	w := start(t, autoLogin())
	target := redirectURI + "?tenant=7"
	answer := w.browser().get(authorizePath("redirect_uri", target))
	if !strings.HasPrefix(answer.Header.Get("Location"), target+"&code=") {
		t.Errorf("Location %q", answer.Header.Get("Location"))
	}
}

func TestSignInPageContinuesTheLoginAfterOneClick(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.browser()
	page := b.get(authorizePath())
	w.wantStatus(page, http.StatusOK)
	for _, name := range []string{"Sign in as", "Test App", "user123", "maria", "张伟"} {
		if !strings.Contains(page.body, name) {
			t.Errorf("the sign-in page lacks %q", name)
		}
	}

	action := formAction(t, page.body, simulator.LoginPath)
	answer := b.submit(action, url.Values{"user": {"24680"}})
	w.wantStatus(answer, http.StatusSeeOther)

	_, query := b.get(answer.Header.Get("Location")).location(t)
	info := w.userInfo(w.pair(w.exchange(query.Get("code"))).access).json(t)
	if info["username"] != "张伟" {
		t.Errorf("signed in as %v", info["username"])
	}
}

// formAction finds the form that goes to path, as a browser would read it.
func formAction(t *testing.T, page, path string) string {
	t.Helper()
	_, rest, ok := strings.Cut(page, `action="`+path)
	action, _, closed := strings.Cut(rest, `"`)
	if !ok || !closed {
		t.Fatalf("no form to %s in\n%s", path, page)
	}
	return path + strings.ReplaceAll(action, "&amp;", "&")
}

func TestSignInCookieIsHttpOnlyLaxAndFresh(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.browser()
	first := signInCookie(t, b.submit(simulator.LoginPath, url.Values{"user": {"12345"}}))
	if !first.HttpOnly || first.SameSite != http.SameSiteLaxMode || first.Path != "/" || first.Domain != "" || first.Secure {
		t.Errorf("cookie %v", first)
	}
	second := signInCookie(t, b.submit(simulator.LoginPath, url.Values{"user": {"12345"}}))
	if second.Value == first.Value {
		t.Error("a second sign-in keeps the cookie's value")
	}

	header := http.Header{"Cookie": {"aihubmix_simulator=" + first.Value}}
	old := w.browser().send("GET", authorizePath(), header, "")
	w.wantStatus(old, http.StatusOK)
	if !strings.Contains(old.body, "Sign in as") {
		t.Error("the replaced cookie still signs in")
	}
}

func signInCookie(t *testing.T, answer reply) *http.Cookie {
	t.Helper()
	for _, cookie := range answer.Cookies() {
		if cookie.Name == "aihubmix_simulator" {
			return cookie
		}
	}
	t.Fatal("no sign-in cookie")
	return nil
}

func TestUnknownCookieSignsNobodyIn(t *testing.T) {
	w := start(t, simulator.Options{})
	header := http.Header{"Cookie": {"aihubmix_simulator=12345"}}
	if page := w.browser().send("GET", authorizePath(), header, ""); !strings.Contains(page.body, "Sign in as") {
		t.Error("an invented cookie signs in")
	}
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	w := start(t, simulator.Options{})
	paths := []string{
		simulator.LoginPath, simulator.LogoutPath, simulator.TopUpPagePath,
		simulator.ConsentPath + "?" + authorizeQuery().Encode(),
	}
	for _, header := range []http.Header{
		{"Sec-Fetch-Site": {"cross-site"}},
		{"Sec-Fetch-Site": {"same-site"}},
		{"Origin": {"https://evil.example"}},
		{"Origin": {"null"}},
	} {
		for _, path := range paths {
			b := w.signedInBrowser("12345")
			form := url.Values{"user": {"12345"}, "decision": {"allow"}, "amount": {"50"}}
			sent := formHeader()
			for name, values := range header {
				sent[name] = values
			}
			answer := b.send("POST", path, sent, form.Encode())
			if answer.StatusCode != http.StatusForbidden || len(answer.Cookies()) > 0 {
				t.Errorf("%v to %s: %s", header, path, answer.Status)
			}
		}
	}
	if user, _ := w.User(userID); user.BalanceCents != 750_00 {
		t.Error("a form of another site moved money")
	}
}

func TestLoginRefusesUnknownUsers(t *testing.T) {
	w := start(t, simulator.Options{})
	for _, user := range []string{"", "1", "user123", "12345x"} {
		answer := w.browser().submit(simulator.LoginPath, url.Values{"user": {user}})
		if answer.StatusCode != http.StatusBadRequest || len(answer.Cookies()) > 0 {
			t.Errorf("user %q: %s", user, answer.Status)
		}
	}
}

func TestConsentIsAskedForOnceAndRemembered(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.signedInBrowser("12345")
	path := authorizePath("auto_authorize", "", "scope", "profile")
	page := b.get(path)
	w.wantStatus(page, http.StatusOK)
	for _, want := range []string{"Test App", "user123", "Allow", "Deny", "Use another account", "username and e-mail"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the consent page lacks %q", want)
		}
	}
	if strings.Contains(page.body, "see your account balance") {
		t.Error("the consent page names a scope that was not asked for")
	}

	answer := b.submit(formAction(t, page.body, simulator.ConsentPath), url.Values{"user": {"12345"}, "decision": {"allow"}})
	w.wantStatus(answer, http.StatusSeeOther)
	if _, query := answer.location(t); query.Get("code") == "" || query.Get("state") != "state-1" {
		t.Errorf("after Allow: %v", query)
	}

	if _, query := b.get(path).location(t); query.Get("code") == "" {
		t.Error("consent was not remembered")
	}
	more := b.get(authorizePath("auto_authorize", "", "scope", "profile balance"))
	if !strings.Contains(more.body, "Allow access?") {
		t.Error("a wider scope was not asked for")
	}
	w.RevokeUser(userID)
	if page := b.get(path); !strings.Contains(page.body, "Allow access?") {
		t.Error("consent outlived its revocation")
	}
}

func TestAutoAuthorizeSkipsConsentAndOnlyTrueDoes(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.signedInBrowser("12345")
	if _, query := b.get(authorizePath()).location(t); query.Get("code") == "" {
		t.Error("auto_authorize=true asked for consent")
	}
	for _, value := range []string{"false", "1", "TRUE"} {
		if page := b.get(authorizePath("auto_authorize", value)); !strings.Contains(page.body, "Allow access?") {
			t.Errorf("auto_authorize=%s skipped consent", value)
		}
	}
}

func TestDenyRedirectsWithAccessDenied(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.signedInBrowser("12345")
	path := simulator.ConsentPath + "?" + authorizeQuery("auto_authorize", "").Encode()
	answer := b.submit(path, url.Values{"user": {"12345"}, "decision": {"deny"}})
	target, query := answer.location(t)
	if target != redirectURI || query.Get("error") != "access_denied" || query.Get("state") != "state-1" || query.Has("code") {
		t.Errorf("%s %v", target, query)
	}
	w.wantStatus(b.submit(path, url.Values{"user": {"12345"}, "decision": {"maybe"}}), http.StatusBadRequest)
}

func TestConsentFormOfAnotherUserStartsAgain(t *testing.T) {
	w := start(t, simulator.Options{})
	path := simulator.ConsentPath + "?" + authorizeQuery("auto_authorize", "").Encode()
	form := url.Values{"user": {"12345"}, "decision": {"allow"}}
	for name, b := range map[string]*browser{
		"nobody":       w.browser(),
		"another user": w.signedInBrowser("67890"),
	} {
		target, query := b.submit(path, form).location(t)
		if target != simulator.AuthorizePath || query.Get("state") != "state-1" {
			t.Errorf("%s: %s %v", name, target, query)
		}
	}
}

func TestConsentChecksTheRequestAgain(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.signedInBrowser("12345")
	path := simulator.ConsentPath + "?" + authorizeQuery("redirect_uri", "https://evil.example/").Encode()
	answer := b.submit(path, url.Values{"user": {"12345"}, "decision": {"allow"}})
	w.wantStatus(answer, http.StatusBadRequest)
}

func TestUseAnotherAccountLeadsBackToTheSignInPage(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.signedInBrowser("12345")
	page := b.get(authorizePath("auto_authorize", ""))
	answer := b.submit(formAction(t, page.body, simulator.LogoutPath), nil)
	again := b.get(answer.Header.Get("Location"))
	if !strings.Contains(again.body, "Sign in as") {
		t.Errorf("after logout: %s", again.Status)
	}
}

func TestLoginHintWorksOnlyWhenAllowed(t *testing.T) {
	refused := start(t, simulator.Options{})
	if page := refused.browser().get(authorizePath("login_hint", "maria")); !strings.Contains(page.body, "Sign in as") {
		t.Error("login_hint signs in although it is not allowed")
	}

	allowed := start(t, simulator.Options{AllowLoginHint: true})
	info := allowed.userInfo(allowed.login("login_hint", "maria").access).json(t)
	if info["username"] != "maria" {
		t.Errorf("signed in as %v", info["username"])
	}
	allowed.wantStatus(allowed.browser().get(authorizePath("login_hint", "nobody")), http.StatusBadRequest)
}

func TestLoginHintChangesTheSignedInUser(t *testing.T) {
	w := start(t, simulator.Options{AllowLoginHint: true})
	b := w.signedInBrowser("12345")
	b.get(authorizePath("login_hint", "maria"))
	if page := b.get("/").body; !strings.Contains(page, "signed in as <strong>maria") {
		t.Error("the hint did not replace the user")
	}
}

func TestAutoLoginYieldsToARealSignIn(t *testing.T) {
	w := start(t, autoLogin())
	_, query := w.signedInBrowser("67890").get(authorizePath()).location(t)
	info := w.userInfo(w.pair(w.exchange(query.Get("code"))).access).json(t)
	if info["username"] != "maria" {
		t.Errorf("signed in as %v", info["username"])
	}
}

func TestAutoLoginOfAnUnknownUserSignsNobodyIn(t *testing.T) {
	w := start(t, simulator.Options{AutoLogin: "nobody"})
	if page := w.browser().get(authorizePath()); !strings.Contains(page.body, "Sign in as") {
		t.Error("somebody was signed in")
	}
}
