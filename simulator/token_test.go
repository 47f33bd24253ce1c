package simulator_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestExchangeReturnsTheDocumentedFields(t *testing.T) {
	w := start(t, autoLogin())
	answer := w.exchange(w.code())
	w.wantStatus(answer, http.StatusOK)
	if answer.Header.Get("Cache-Control") != "no-store" {
		t.Error("tokens may be cached")
	}
	object := answer.json(t)
	if len(object) != 5 || object["token_type"] != "Bearer" || object["expires_in"] != 7200.0 || object["scope"] != "profile balance" {
		t.Errorf("answer %v", object)
	}
	access, refresh := object["access_token"].(string), object["refresh_token"].(string)
	if len(access) != 800 || !strings.HasPrefix(access, "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.") {
		t.Errorf("access token of %d bytes: %.50s", len(access), access)
	}
	if !regexp.MustCompile(`^refresh_[0-9a-f]{48}$`).MatchString(refresh) {
		t.Errorf("refresh token %q", refresh)
	}
}

func TestAccessTokensHaveTheConfiguredSize(t *testing.T) {
	for size, want := range map[int]int{0: 800, 1: 128, 128: 128, 129: 129, 2000: 2000} {
		options := autoLogin()
		options.AccessTokenSize = size
		if got := len(start(t, options).login().access); got != want {
			t.Errorf("size %d: %d bytes, want %d", size, got, want)
		}
	}
}

func TestExpiresInIsNeverZero(t *testing.T) {
	for lifetime, want := range map[time.Duration]float64{
		500 * time.Millisecond: 1, time.Second: 1, 1500 * time.Millisecond: 2, 299 * time.Second: 299,
	} {
		options := autoLogin()
		options.AccessLifetime = lifetime
		w := start(t, options)
		if got := w.exchange(w.code()).json(t)["expires_in"]; got != want {
			t.Errorf("%v: expires_in %v, want %v", lifetime, got, want)
		}
	}
}

func TestExchangeRefusesWhatDoesNotMatchTheAuthorizeRequest(t *testing.T) {
	w := start(t, autoLogin())
	for name, pairs := range map[string][]string{
		"unknown code":                 {"code", "code_unknown"},
		"other redirect_uri":           {"redirect_uri", redirectURI + "/"},
		"other registered redirect":    {"redirect_uri", redirectURI + "?tenant=7"},
		"another client":               {"client_id", otherID, "client_secret", "other"},
		"verifier without a challenge": {"code_verifier", verifier},
	} {
		w.wantError(w.exchange(w.code(), pairs...), http.StatusBadRequest, "invalid_grant")
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestCodeExpires(t *testing.T) {
	c := newClock()
	options := autoLogin()
	options.Now = c.Now
	w := start(t, options)

	late, inTime := w.code(), ""
	c.advance(time.Second)
	inTime = w.code()
	c.advance(59 * time.Second)
	w.wantError(w.exchange(late), http.StatusBadRequest, "invalid_grant")
	w.wantStatus(w.exchange(inTime), http.StatusOK)
}

func TestCodeIsUsedUpByItsFirstExchangeEvenAFailedOne(t *testing.T) {
	w := start(t, autoLogin())
	code := w.code("code_challenge", challengeOf(verifier), "code_challenge_method", "S256")
	w.wantError(w.exchange(code, "code_verifier", strings.Repeat("x", 43)), http.StatusBadRequest, "invalid_grant")
	w.wantError(w.exchange(code, "code_verifier", verifier), http.StatusBadRequest, "invalid_grant")
}

func TestCodeIsNotUsedUpByAnotherClientOrAWrongSecret(t *testing.T) {
	w := start(t, autoLogin())
	code := w.code()
	w.wantError(w.exchange(code, "client_id", otherID, "client_secret", "other"), http.StatusBadRequest, "invalid_grant")
	w.wantError(w.exchange(code, "client_secret", "wrong"), http.StatusUnauthorized, "invalid_client")
	w.wantStatus(w.exchange(code), http.StatusOK)
}

func TestCodeUsedTwiceRevokesItsTokens(t *testing.T) {
	w := start(t, autoLogin())
	code := w.code()
	given := w.pair(w.exchange(code))
	bystander := w.login()

	w.wantError(w.exchange(code), http.StatusBadRequest, "invalid_grant")

	w.wantStatus(w.userInfo(given.access), http.StatusUnauthorized)
	w.wantError(w.refresh(given.refresh), http.StatusBadRequest, "invalid_grant")
	w.wantStatus(w.userInfo(bystander.access), http.StatusOK)
	if w.DoubleSpends() != 0 {
		t.Error("a code used twice counts as a double spend of a refresh token")
	}
}

func TestPKCENeedsTheMatchingVerifier(t *testing.T) {
	w := start(t, autoLogin())
	for name, test := range map[string]struct {
		verifier string
		want     int
	}{
		"right":        {verifier, http.StatusOK},
		"missing":      {"", http.StatusBadRequest},
		"wrong":        {"b" + verifier[1:], http.StatusBadRequest},
		"too short":    {"short", http.StatusBadRequest},
		"too long":     {strings.Repeat("v", 129), http.StatusBadRequest},
		"bad alphabet": {verifier + "!", http.StatusBadRequest},
		"challenge":    {challengeOf(verifier), http.StatusBadRequest},
	} {
		code := w.code("code_challenge", challengeOf(verifier), "code_challenge_method", "S256")
		answer := w.exchange(code, "code_verifier", test.verifier)
		if answer.StatusCode != test.want {
			t.Errorf("%s: %s", name, answer.Status)
		}
		if test.want != http.StatusOK && answer.json(t)["error"] != "invalid_grant" {
			t.Errorf("%s: %s", name, answer.body)
		}
	}
}

func TestVerifierOf43And128BytesIsAccepted(t *testing.T) {
	w := start(t, autoLogin())
	for _, length := range []int{43, 128} {
		v := strings.Repeat("v", length)
		code := w.code("code_challenge", challengeOf(v), "code_challenge_method", "S256")
		w.wantStatus(w.exchange(code, "code_verifier", v), http.StatusOK)
	}
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

func TestClientAuthentication(t *testing.T) {
	good := basic(url.QueryEscape(clientID), url.QueryEscape(clientSecret))
	without := []string{"client_id", "", "client_secret", ""}
	w := start(t, autoLogin())
	for name, test := range map[string]struct {
		header string
		pairs  []string
		status int
		code   string
	}{
		"in the body":                  {"", nil, 200, ""},
		"in the header":                {good, without, 200, ""},
		"header and same client_id":    {good, []string{"client_secret", ""}, 200, ""},
		"header and other client_id":   {good, []string{"client_id", otherID, "client_secret", ""}, 400, "invalid_request"},
		"both ways at once":            {good, nil, 400, "invalid_request"},
		"header without encoding":      {basic(clientID, clientSecret), without, 401, "invalid_client"},
		"header with wrong secret":     {basic(clientID, "wrong"), without, 401, "invalid_client"},
		"header that is not Basic":     {"Bearer abc", without, 401, "invalid_client"},
		"header that is not base64":    {"Basic !!!", without, 401, "invalid_client"},
		"wrong secret":                 {"", []string{"client_secret", "wrong"}, 401, "invalid_client"},
		"empty secret":                 {"", []string{"client_secret", ""}, 401, "invalid_client"},
		"unknown client":               {"", []string{"client_id", "client_unknown"}, 401, "invalid_client"},
		"unknown client, empty secret": {"", []string{"client_id", "client_unknown", "client_secret", ""}, 401, "invalid_client"},
		"no client":                    {"", without, 401, "invalid_client"},
	} {
		header := formHeader()
		if test.header != "" {
			header.Set("Authorization", test.header)
		}
		form := exchangeForm(w.code(), test.pairs...)
		answer := w.browser().send("POST", simulator.TokenPath, header, form.Encode())
		if answer.StatusCode != test.status {
			t.Errorf("%s: %s %s", name, answer.Status, answer.body)
		}
		if got, _ := answer.json(t)["error"].(string); got != test.code {
			t.Errorf("%s: error %q, want %q", name, got, test.code)
		}
		if challenge := answer.Header.Get("WWW-Authenticate"); (challenge != "") != (test.status == 401) {
			t.Errorf("%s: WWW-Authenticate %q", name, challenge)
		}
	}
}

func TestPublicClientNamesOnlyItsID(t *testing.T) {
	w := start(t, autoLogin())
	code := func() string { return w.code("client_id", publicID) }
	w.wantStatus(w.exchange(code(), "client_id", publicID, "client_secret", ""), http.StatusOK)
	w.wantError(w.exchange(code(), "client_id", publicID, "client_secret", "guess"), http.StatusUnauthorized, "invalid_client")
}

func TestTokenEndpointRefusesMalformedRequests(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	good := refreshForm(pair.refresh).Encode()
	for name, test := range map[string]struct {
		contentType, query, body string
		code                     string
	}{
		"JSON":                 {"application/json", "", `{"grant_type":"refresh_token"}`, "invalid_request"},
		"no content type":      {"", "", good, "invalid_request"},
		"multipart":            {"multipart/form-data; boundary=x", "", "--x--", "invalid_request"},
		"broken escape":        {"application/x-www-form-urlencoded", "", good + "&x=%zz", "invalid_request"},
		"parameters in URL":    {"application/x-www-form-urlencoded", "?" + good, "", "invalid_request"},
		"refresh_token twice":  {"application/x-www-form-urlencoded", "", good + "&refresh_token=x", "invalid_request"},
		"grant_type twice":     {"application/x-www-form-urlencoded", "", good + "&grant_type=refresh_token", "invalid_request"},
		"unknown name twice":   {"application/x-www-form-urlencoded", "", good + "&x=1&x=2", "invalid_request"},
		"no grant_type":        {"application/x-www-form-urlencoded", "", refreshForm("x", "grant_type", "").Encode(), "invalid_request"},
		"unknown grant_type":   {"application/x-www-form-urlencoded", "", refreshForm("x", "grant_type", "password").Encode(), "unsupported_grant_type"},
		"no refresh_token":     {"application/x-www-form-urlencoded", "", refreshForm("x", "refresh_token", "").Encode(), "invalid_request"},
		"no code":              {"application/x-www-form-urlencoded", "", exchangeForm("x", "code", "").Encode(), "invalid_request"},
		"no redirect_uri":      {"application/x-www-form-urlencoded", "", exchangeForm("x", "redirect_uri", "").Encode(), "invalid_request"},
		"unknown code":         {"application/x-www-form-urlencoded", "", exchangeForm("x").Encode(), "invalid_grant"},
		"unknown token":        {"application/x-www-form-urlencoded", "", refreshForm("x").Encode(), "invalid_grant"},
		"access token instead": {"application/x-www-form-urlencoded", "", refreshForm(pair.access).Encode(), "invalid_grant"},
	} {
		header := http.Header{"Content-Type": {test.contentType}}
		answer := w.browser().send("POST", simulator.TokenPath+test.query, header, test.body)
		if answer.StatusCode != http.StatusBadRequest || answer.json(t)["error"] != test.code {
			t.Errorf("%s: %s %s", name, answer.Status, answer.body)
		}
	}
	w.wantStatus(w.refresh(pair.refresh), http.StatusOK)
}

func TestFormWithACharsetIsAForm(t *testing.T) {
	w := start(t, autoLogin())
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=UTF-8"}}
	answer := w.browser().send("POST", simulator.TokenPath, header, exchangeForm(w.code()).Encode())
	w.wantStatus(answer, http.StatusOK)
}

func TestRefreshRotatesBothTokens(t *testing.T) {
	w := start(t, autoLogin())
	first := w.login()
	second := w.pair(w.refresh(first.refresh))
	if second.access == first.access || second.refresh == first.refresh || second.refresh == "" {
		t.Error("a token was not replaced")
	}
	w.wantStatus(w.userInfo(first.access), http.StatusOK)
	w.wantStatus(w.userInfo(second.access), http.StatusOK)
	w.wantStatus(w.refresh(second.refresh), http.StatusOK)
	if w.DoubleSpends() != 0 || w.LiveFamilies() != 1 {
		t.Errorf("double spends %d, families %d", w.DoubleSpends(), w.LiveFamilies())
	}
}

func TestReuseOfARefreshTokenRevokesTheFamily(t *testing.T) {
	w := start(t, autoLogin())
	first, bystander := w.login(), w.login()
	second := w.pair(w.refresh(first.refresh))

	w.wantError(w.refresh(first.refresh), http.StatusBadRequest, "invalid_grant")

	w.wantStatus(w.userInfo(first.access), http.StatusUnauthorized)
	w.wantStatus(w.userInfo(second.access), http.StatusUnauthorized)
	w.wantError(w.refresh(second.refresh), http.StatusBadRequest, "invalid_grant")
	w.wantStatus(w.userInfo(bystander.access), http.StatusOK)
	if w.DoubleSpends() != 1 || w.LiveFamilies() != 1 {
		t.Errorf("double spends %d, families %d", w.DoubleSpends(), w.LiveFamilies())
	}
}

func TestParallelRefreshesWithOneTokenRevokeTheLogin(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	const parallel = 8
	statuses := make([]int, parallel)
	var group sync.WaitGroup
	for i := range parallel {
		group.Go(func() { statuses[i] = w.refresh(pair.refresh).StatusCode })
	}
	group.Wait()

	good := 0
	for _, status := range statuses {
		if status == http.StatusOK {
			good++
		}
	}
	if good != 1 || w.DoubleSpends() != parallel-1 || w.LiveFamilies() != 0 {
		t.Errorf("good %d, double spends %d, families %d", good, w.DoubleSpends(), w.LiveFamilies())
	}
}

func TestRefreshTokenOfAnotherClientIsUnknownAndStaysUsable(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	stolen := w.refresh(pair.refresh, "client_id", otherID, "client_secret", "other")
	w.wantError(stolen, http.StatusBadRequest, "invalid_grant")
	w.wantStatus(w.refresh(pair.refresh), http.StatusOK)
}

func TestRefreshMayNarrowTheScopeButNotWidenIt(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	answer := w.refresh(pair.refresh, "scope", "profile")
	if scope := answer.json(t)["scope"]; scope != "profile" {
		t.Errorf("scope %v", scope)
	}
	narrow := w.pair(answer)
	if _, has := w.userInfo(narrow.access).json(t)["quota"]; has {
		t.Error("the narrowed token shows the balance")
	}

	small := w.login("scope", "profile")
	w.wantError(w.refresh(small.refresh, "scope", "profile balance"), http.StatusBadRequest, "invalid_scope")
	w.wantStatus(w.refresh(small.refresh), http.StatusOK) // a bad scope spends nothing
}

func TestNoRotationKeepsTheRefreshToken(t *testing.T) {
	options := autoLogin()
	options.NoRotation = true
	w := start(t, options)
	pair := w.login()
	for range 3 {
		answer := w.refresh(pair.refresh)
		w.wantStatus(answer, http.StatusOK)
		if _, has := answer.json(t)["refresh_token"]; has {
			t.Error("the answer carries a refresh token")
		}
	}
	if w.DoubleSpends() != 0 {
		t.Error("repeated use counts as a double spend")
	}
}

func TestRevokeOldAccessEndsTheOldAccessTokenAtRotation(t *testing.T) {
	options := autoLogin()
	options.RevokeOldAccess = true
	w := start(t, options)
	first := w.login()
	second := w.pair(w.refresh(first.refresh))
	w.wantStatus(w.userInfo(first.access), http.StatusUnauthorized)
	w.wantStatus(w.userInfo(second.access), http.StatusOK)
}

func TestTokensExpire(t *testing.T) {
	c := newClock()
	options := autoLogin()
	options.Now = c.Now
	w := start(t, options)
	pair := w.login()

	c.advance(2*time.Hour - time.Second)
	w.wantStatus(w.userInfo(pair.access), http.StatusOK)
	c.advance(time.Second)
	w.wantStatus(w.userInfo(pair.access), http.StatusUnauthorized)
	if w.LiveFamilies() != 1 {
		t.Error("the refresh token does not keep the login alive")
	}

	c.advance(29 * 24 * time.Hour)
	pair = w.pair(w.refresh(pair.refresh))
	c.advance(30*24*time.Hour - time.Second)
	pair = w.pair(w.refresh(pair.refresh)) // counted from the rotation
	c.advance(30 * 24 * time.Hour)
	w.wantError(w.refresh(pair.refresh), http.StatusBadRequest, "invalid_grant")
	if w.LiveFamilies() != 0 {
		t.Error("an expired login counts as live")
	}
}

func TestExpireAccessTokensLeavesRefreshTokens(t *testing.T) {
	w := start(t, autoLogin())
	pair := w.login()
	w.ExpireAccessTokens()
	w.wantStatus(w.userInfo(pair.access), http.StatusUnauthorized)
	w.wantStatus(w.userInfo(w.pair(w.refresh(pair.refresh)).access), http.StatusOK)
}

func TestRevokeUserEndsAllGrantsOfThatUserAlone(t *testing.T) {
	w := start(t, simulator.Options{AllowLoginHint: true})
	one, two := w.login("login_hint", "user123"), w.login("login_hint", "user123")
	maria := w.login("login_hint", "maria")
	waiting := w.code("login_hint", "user123")

	w.RevokeUser(userID)

	for _, pair := range []tokenPair{one, two} {
		w.wantStatus(w.userInfo(pair.access), http.StatusUnauthorized)
		w.wantError(w.refresh(pair.refresh), http.StatusBadRequest, "invalid_grant")
	}
	w.wantError(w.exchange(waiting), http.StatusBadRequest, "invalid_grant")
	w.wantStatus(w.userInfo(maria.access), http.StatusOK)
	if w.LiveFamilies() != 1 {
		t.Errorf("live families %d", w.LiveFamilies())
	}
	w.wantStatus(w.userInfo(w.login("login_hint", "user123").access), http.StatusOK)
}

func TestRevocationEndpointEndsTheWholeLogin(t *testing.T) {
	w := start(t, autoLogin())
	revoke := func(token string, pairs ...string) reply {
		return w.post(simulator.RevokePath, with(url.Values{
			"token": {token}, "client_id": {clientID}, "client_secret": {clientSecret},
		}, pairs...))
	}
	for name, choose := range map[string]func(tokenPair) string{
		"by refresh token": func(p tokenPair) string { return p.refresh },
		"by access token":  func(p tokenPair) string { return p.access },
	} {
		pair := w.login()
		w.wantStatus(revoke(choose(pair), "token_type_hint", "refresh_token"), http.StatusOK)
		if w.userInfo(pair.access).StatusCode != 401 || w.refresh(pair.refresh).StatusCode != 400 {
			t.Errorf("%s: the login lives on", name)
		}
	}

	pair := w.login()
	w.wantError(revoke(pair.refresh, "client_secret", "wrong"), http.StatusUnauthorized, "invalid_client")
	w.wantError(revoke(pair.refresh, "client_id", otherID, "client_secret", "other"), http.StatusBadRequest, "invalid_grant")
	w.wantError(revoke(pair.refresh, "token", ""), http.StatusBadRequest, "invalid_request")
	w.wantStatus(revoke("unknown"), http.StatusOK)
	w.wantStatus(w.userInfo(pair.access), http.StatusOK)
	if n := w.Count(simulator.Revoke); n != 6 {
		t.Errorf("counted %d revocations", n)
	}
}
