package oauth

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// FuzzTokenResponse: a rotated refresh token that a strict reader finds is never lost,
// and no token ever holds a control byte.
func FuzzTokenResponse(f *testing.F) {
	for _, seed := range []string{
		`{"access_token":"a","refresh_token":"r","expires_in":7200}`, `{"refresh_token":"r","x":[{`, `{"expires_in":"1e9","access_token":"a"}`,
		`{"error":"invalid_grant"}`, `{"success":false}`, `[]`, `{"access_token":"a\u0000"}`, `{"access_token":"a","access_token":"b"}`,
		`access_token=a&refresh_token=r&expires_in=7200`, `error=bad_verification_code`, `refresh_token=r&access_token=a%0`, `access_token=a%0d&success=false`,
	} {
		f.Add([]byte(seed), 200)
	}
	f.Fuzz(func(t *testing.T, body []byte, status int) {
		a := parseTokenResponse(body, true)
		for _, token := range []string{a.access, a.refresh} {
			if strings.ContainsFunc(token, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
				t.Fatalf("%q: a token is %q", body, token)
			}
		}
		if a.expiresIn < 0 || a.expiresIn > maxExpiresIn {
			t.Fatalf("%q: %d seconds", body, a.expiresIn)
		}
		err := a.judge(status, nil)
		if err == nil && (a.access == "" || a.refused || a.errorCode != "" || (status != 200 && status != 201)) {
			t.Fatalf("%d %q passes", status, body)
		}
		if err != nil && FailureOf(err) == FailureEnded && a.errorCode != "invalid_grant" && a.errorCode != "bad_verification_code" {
			t.Fatalf("%d %q ends a session", status, body)
		}
		var strict map[string]json.RawMessage
		if json.Unmarshal(body, &strict) == nil {
			if want := tokenText(jsonText(strict["refresh_token"])); want != "" && a.refresh != want {
				t.Fatalf("%q: the refresh token %q is read as %q", body, want, a.refresh)
			}
		}
	})
}

// TestTruncatedFormYieldsNoToken: a form that is cut off reads like a whole one.
func TestTruncatedFormYieldsNoToken(t *testing.T) {
	const form = "refresh_token=r2&token_type=bearer&access_token=abcdef"
	for cut := range len(form) {
		a := parseTokenResponse([]byte(form[:cut]), false)
		if a.access != "" || (a.refresh != "" && a.refresh != "r2") {
			t.Errorf("%q: got the tokens %q, %q, want none or a whole refresh token", form[:cut], a.access, a.refresh)
		}
	}
	if a := parseTokenResponse([]byte(form), true); a.access != "abcdef" || a.refresh != "r2" {
		t.Errorf("the whole form: got the tokens %q, %q, want both", a.access, a.refresh)
	}
}

func TestExpiresInIsReadInEveryNotation(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
	}{
		{`7200`, 7200},
		{`"7200"`, 7200},
		{`3600.5`, 3600},
		{`"299"`, 299},
		{`" 60 "`, 60},
		{`1e3`, 1000},
		{`null`, 0},
		{`""`, 0},
		{`0`, 0},
		{`-5`, 0},
		{`"soon"`, 0},
		{`[]`, 0},
		{`{}`, 0},
		{`true`, 0},
		{`1e300`, maxExpiresIn},
		{`99999999999`, maxExpiresIn},
		{`"NaN"`, 0},
		{`"Inf"`, maxExpiresIn},
	} {
		a := parseTokenResponse([]byte(`{"access_token":"a","expires_in":`+c.text+`}`), true)
		if a.expiresIn != c.want || a.access != "a" {
			t.Errorf("%s: got %d, want %d", c.text, a.expiresIn, c.want)
		}
	}
	if a := parseTokenResponse([]byte(`{"access_token":"a"}`), true); a.expiresIn != 0 {
		t.Errorf("missing: got %d, want 0", a.expiresIn)
	}
	c := &Client{TokenLifetime: 90 * time.Minute}
	now := time.Unix(1000, 0)
	if got := c.newTokens(Tokens{}, &oauth2.Token{}, now).Expires.Sub(now); got != 90*time.Minute {
		t.Errorf("without expires_in: got a lifetime of %v, want token_lifetime, 1h30m", got)
	}
}

// tokenEndpoint answers every request in one way.
func tokenEndpoint(t *testing.T, status int, body string) *Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain") // which nobody may trust
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	client := NewClient(5*time.Second, time.Now)
	client.Config.Endpoint = oauth2.Endpoint{TokenURL: server.URL, AuthStyle: oauth2.AuthStyleInParams}
	client.TokenLifetime = time.Hour
	return client
}

func TestRefreshResponsesAreClassified(t *testing.T) {
	const none = Failure(-1)
	for _, c := range []struct {
		name    string
		status  int
		body    string
		kind    Failure
		refresh string // kept or new
		access  string
	}{
		{"all of it", 200, `{"access_token":"a2","token_type":"Bearer","expires_in":60,"refresh_token":"r2"}`, none, "r2", "a2"},
		{"no refresh token", 200, `{"access_token":"a2"}`, none, "r1", "a2"},
		{"an empty refresh token", 200, `{"access_token":"a2","refresh_token":""}`, none, "r1", "a2"},
		{"a refresh token of null", 200, `{"access_token":"a2","refresh_token":null}`, none, "r1", "a2"},
		{"another case", 200, `{"access_token":"a2","token_type":"bEaReR"}`, none, "r1", "a2"},
		{"201", 201, `{"access_token":"a2"}`, none, "r1", "a2"},
		{"strange members", 200, `{"x":[[{}]],"expires_in":{"a":1},"scope":7,"access_token":"a2","refresh_token":"r2"}`, none, "r2", "a2"},
		{"broken after the tokens", 200, `{"access_token":"a2","refresh_token":"r2","scope":"x`, none, "r2", "a2"},
		{"only the refresh token is whole", 200, `{"refresh_token":"r2","access_token":"a2`, FailureUnanswered, "r2", "a1"},
		{"a refresh token without an access", 200, `{"refresh_token":"r2"}`, FailureUnanswered, "r2", "a1"},
		{"an access token with a line break", 200, `{"access_token":"a\r\n2","refresh_token":"r2"}`, FailureUnanswered, "r2", "a1"},
		{"a refresh token with a NUL", 200, `{"access_token":"a2","refresh_token":"r\u0000"}`, none, "r1", "a2"},
		{"another type of token", 200, `{"access_token":"a2","token_type":"mac"}`, FailureOperator, "r1", "a1"},
		{"an array", 200, `["a2"]`, FailureUnanswered, "r1", "a1"},
		{"a form", 200, `access_token=a2&refresh_token=r2&expires_in=60&token_type=bearer&scope=`, none, "r2", "a2"},
		{"a form as GitHub writes it", 200, `access_token=a2&scope=&token_type=bearer`, none, "r1", "a2"},
		{"a form with encoded tokens", 200, "\r\n access_token=%61+2&refresh_token=r%32 ", none, "r2", "a 2"},
		{"a form without an access token", 200, `refresh_token=r2&token_type=bearer`, FailureUnanswered, "r2", "a1"},
		{"a form with a line break in it", 200, `access_token=a%0D%0A2&refresh_token=r2`, FailureUnanswered, "r2", "a1"},
		{"a form with a broken escape", 200, `refresh_token=r2&access_token=a2%zz`, FailureUnanswered, "r2", "a1"},
		{"a form of another type of token", 200, `access_token=a2&token_type=mac`, FailureOperator, "r1", "a1"},
		{"a form that says no", 200, `error=bad_refresh_token&error_description=x`, FailureRefused, "r1", "a1"},
		{"a form: invalid_grant", 200, `error=invalid_grant`, FailureEnded, "r1", "a1"},
		{"a form: bad_verification_code", 200, `error=bad_verification_code`, FailureEnded, "r1", "a1"},
		{"a form: incorrect_client_…", 200, `error=incorrect_client_credentials`, FailureOperator, "r1", "a1"},
		{"a form: slow_down", 200, `error=slow_down`, FailureTransient, "r1", "a1"},
		{"a form: success=false", 200, `success=false`, FailureRefused, "r1", "a1"},
		{"a form of something else", 200, `a2=1&b=2`, FailureUnanswered, "r1", "a1"},
		{"a long form", 200, `access_token=a2&x=` + strings.Repeat("a", maxResponse), FailureUnanswered, "r1", "a1"},
		{"HTML", 200, `<html>`, FailureUnanswered, "r1", "a1"},
		{"nothing", 200, ``, FailureUnanswered, "r1", "a1"},
		{"an access token that is a number", 200, `{"access_token":5}`, FailureUnanswered, "r1", "a1"},
		{"invalid_grant", 400, `{"error":"invalid_grant"}`, FailureEnded, "r1", "a1"},
		{"invalid_grant under 401", 401, `{"error":"invalid_grant"}`, FailureEnded, "r1", "a1"},
		{"invalid_grant under 200", 200, `{"error":"invalid_grant"}`, FailureEnded, "r1", "a1"},
		{"invalid_grant under 500", 500, `{"error":"invalid_grant"}`, FailureEnded, "r1", "a1"},
		{"invalid_grant in another case", 400, `{"error":"Invalid_Grant"}`, FailureRefused, "r1", "a1"},
		{"invalid_grant and tokens", 200, `{"error":"invalid_grant","access_token":"a2"}`, FailureEnded, "r1", "a1"},
		{"invalid_client", 401, `{"error":"invalid_client"}`, FailureOperator, "r1", "a1"},
		{"invalid_request", 400, `{"error":"invalid_request"}`, FailureRefused, "r1", "a1"},
		{"invalid_request under 401", 401, `{"error":"invalid_request"}`, FailureRefused, "r1", "a1"},
		{"invalid_request under 503", 503, `{"error":"invalid_request"}`, FailureTransient, "r1", "a1"},
		{"invalid_scope", 400, `{"error":"invalid_scope"}`, FailureRefused, "r1", "a1"},
		{"unsupported_grant_type", 400, `{"error":"unsupported_grant_type"}`, FailureRefused, "r1", "a1"},
		{"interaction_required", 400, `{"error":"interaction_required"}`, FailureRefused, "r1", "a1"},
		{"bad_refresh_token", 200, `{"error":"bad_refresh_token"}`, FailureRefused, "r1", "a1"},
		{"temporarily_unavailable", 400, `{"error":"temporarily_unavailable"}`, FailureTransient, "r1", "a1"},
		{"slow_down", 400, `{"error":"slow_down"}`, FailureTransient, "r1", "a1"},
		{"server_error under 400", 400, `{"error":"server_error"}`, FailureTransient, "r1", "a1"},
		{"unauthorized_client", 400, `{"error":"unauthorized_client"}`, FailureOperator, "r1", "a1"},
		{"401 without a word", 401, ``, FailureOperator, "r1", "a1"},
		{"401 with another word", 401, `{"error":"Unauthorized"}`, FailureOperator, "r1", "a1"},
		{"400 without a word", 400, ``, FailureRefused, "r1", "a1"},
		{"403 with HTML", 403, `<html>`, FailureRefused, "r1", "a1"},
		{"404", 404, `not found`, FailureRefused, "r1", "a1"},
		{"408", 408, ``, FailureTransient, "r1", "a1"},
		{"429", 429, `{"error":"too_many"}`, FailureTransient, "r1", "a1"},
		{"302", 302, ``, FailureTransient, "r1", "a1"},
		{"success:false", 200, `{"success":false,"message":"invalid_grant"}`, FailureRefused, "r1", "a1"},
		{"success:false under 503", 503, `{"success":false}`, FailureTransient, "r1", "a1"},
		{"500", 500, `{"error":"server_error"}`, FailureTransient, "r1", "a1"},
		{"503 with tokens", 503, `{"access_token":"a2"}`, FailureTransient, "r1", "a1"},
		{"too long", 200, `{"access_token":"` + strings.Repeat("a", maxResponse) + `"}`, FailureUnanswered, "r1", "a1"},
		{"a member twice", 200, `{"access_token":"a1","refresh_token":"r0","access_token":"a2","refresh_token":"r2"}`, none, "r2", "a2"},
		{"deeply nested", 200, `{"x":` + strings.Repeat("[", 100_000) + `,"access_token":"a2"}`, FailureUnanswered, "r1", "a1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := tokenEndpoint(t, c.status, c.body)
			got, err := client.Refresh(t.Context(), Tokens{Access: "a1", Refresh: "r1", Scope: "s"})
			kind := none
			if err != nil {
				kind = FailureOf(err)
			}
			if kind != c.kind || got.Refresh != c.refresh || got.Access != c.access || got.Scope != "s" {
				t.Errorf("got %+v, failure %d: %v, want the tokens %q and %q, failure %d", got, kind, err, c.access, c.refresh, c.kind)
			}
			if err != nil && (strings.Contains(err.Error(), "a2") || strings.Contains(err.Error(), "html")) {
				t.Errorf("the error repeats the response: %v", err)
			}
		})
	}
}

func TestTokenRequestIsSentOnceAndFollowsNoRedirect(t *testing.T) {
	requests := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308, 500, 503} {
		requests = 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			w.Header().Set("Location", other.URL)
			w.WriteHeader(status)
		}))
		client := tokenEndpoint(t, 200, "")
		client.Config.Endpoint.TokenURL = server.URL
		if _, err := client.Refresh(t.Context(), Tokens{Refresh: "r1"}); FailureOf(err) != FailureTransient {
			t.Errorf("%d: got %v, want a transient failure", status, err)
		}
		server.Close()
		if requests != 1 {
			t.Errorf("%d: got %d requests, want 1", status, requests)
		}
	}
}
