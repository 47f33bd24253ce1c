package tollgate

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func TestARefreshIsDueAheadOfTheEndButNotTooEarly(t *testing.T) {
	issued := time.Unix(1_700_000_000, 0)
	for _, lifetime := range []time.Duration{time.Second, 10 * time.Second, time.Minute, 299 * time.Second, 25 * time.Minute, 2 * time.Hour, 30 * 24 * time.Hour} {
		for _, before := range []time.Duration{time.Second, 5 * time.Minute, 24 * time.Hour} {
			tok := oauth.Tokens{Issued: issued, Expires: issued.Add(lifetime)}
			window := min(before, lifetime/5)
			earliest, latest := tok.Expires.Add(-window), tok.Expires.Add(-window+window/10)
			different := map[time.Time]bool{}
			for i := range 50 {
				id := session.ID{byte(i)}
				at := (&session.Session{ID: id, Tokens: tok}).RefreshAt(before)
				if at.Before(earliest) || at.After(latest) {
					t.Fatalf("life %v, before %v: due at %v, not between %v and %v", lifetime, before, at, earliest, latest)
				}
				if !at.Equal((&session.Session{ID: id, Tokens: tok}).RefreshAt(before)) {
					t.Fatal("the jitter of one session changes")
				}
				different[at] = true
			}
			if len(different) < 25 {
				t.Errorf("life %v, before %v: only %d different moments for 50 sessions", lifetime, before, len(different))
			}
		}
	}
}

// tokenEndpoint answers every request in one way.
func tokenEndpoint(t *testing.T, status int, body string) *oauth.Client {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain") // which nobody may trust
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return &oauth.Client{
		Config:        oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: server.URL, AuthStyle: oauth2.AuthStyleInParams}},
		TokenLifetime: time.Hour,
		Timeout:       5 * time.Second,
		Http:          oauth.NewHTTPClient(5 * time.Second),
		Now:           time.Now,
	}
}

func TestWhatARefreshAnswerMeans(t *testing.T) {
	const none = oauth.Failure(-1)
	for name, c := range map[string]struct {
		status  int
		body    string
		kind    oauth.Failure
		refresh string // kept or new
		access  string
	}{
		"all of it":                         {200, `{"access_token":"a2","token_type":"Bearer","expires_in":60,"refresh_token":"r2"}`, none, "r2", "a2"},
		"no refresh token":                  {200, `{"access_token":"a2"}`, none, "r1", "a2"},
		"an empty refresh token":            {200, `{"access_token":"a2","refresh_token":""}`, none, "r1", "a2"},
		"a refresh token of null":           {200, `{"access_token":"a2","refresh_token":null}`, none, "r1", "a2"},
		"another case":                      {200, `{"access_token":"a2","token_type":"bEaReR"}`, none, "r1", "a2"},
		"201":                               {201, `{"access_token":"a2"}`, none, "r1", "a2"},
		"strange members":                   {200, `{"x":[[{}]],"expires_in":{"a":1},"scope":7,"access_token":"a2","refresh_token":"r2"}`, none, "r2", "a2"},
		"broken after the tokens":           {200, `{"access_token":"a2","refresh_token":"r2","scope":"x`, none, "r2", "a2"},
		"only the refresh token is whole":   {200, `{"refresh_token":"r2","access_token":"a2`, oauth.FailureUnanswered, "r2", "a1"},
		"a refresh token without an access": {200, `{"refresh_token":"r2"}`, oauth.FailureUnanswered, "r2", "a1"},
		"an access token with a line break": {200, `{"access_token":"a\r\n2","refresh_token":"r2"}`, oauth.FailureUnanswered, "r2", "a1"},
		"a refresh token with a NUL":        {200, `{"access_token":"a2","refresh_token":"r\u0000"}`, none, "r1", "a2"},
		"another type of token":             {200, `{"access_token":"a2","token_type":"mac"}`, oauth.FailureOperator, "r1", "a1"},
		"an array":                          {200, `["a2"]`, oauth.FailureUnanswered, "r1", "a1"},
		"a form":                            {200, `access_token=a2&refresh_token=r2&expires_in=60&token_type=bearer&scope=`, none, "r2", "a2"},
		"a form as GitHub writes it":        {200, `access_token=a2&scope=&token_type=bearer`, none, "r1", "a2"},
		"a form with encoded tokens":        {200, "\r\n access_token=%61+2&refresh_token=r%32 ", none, "r2", "a 2"},
		"a form without an access token":    {200, `refresh_token=r2&token_type=bearer`, oauth.FailureUnanswered, "r2", "a1"},
		"a form with a line break in it":    {200, `access_token=a%0D%0A2&refresh_token=r2`, oauth.FailureUnanswered, "r2", "a1"},
		"a form with a broken escape":       {200, `refresh_token=r2&access_token=a2%zz`, oauth.FailureUnanswered, "r2", "a1"},
		"a form of another type of token":   {200, `access_token=a2&token_type=mac`, oauth.FailureOperator, "r1", "a1"},
		"a form that says no":               {200, `error=bad_refresh_token&error_description=x`, oauth.FailureRefused, "r1", "a1"},
		"a form: invalid_grant":             {200, `error=invalid_grant`, oauth.FailureEnded, "r1", "a1"},
		"a form: bad_verification_code":     {200, `error=bad_verification_code`, oauth.FailureEnded, "r1", "a1"},
		"a form: incorrect_client_…":        {200, `error=incorrect_client_credentials`, oauth.FailureOperator, "r1", "a1"},
		"a form: slow_down":                 {200, `error=slow_down`, oauth.FailureTransient, "r1", "a1"},
		"a form: success=false":             {200, `success=false`, oauth.FailureRefused, "r1", "a1"},
		"a form of something else":          {200, `a2=1&b=2`, oauth.FailureUnanswered, "r1", "a1"},
		"a long form":                       {200, `access_token=a2&x=` + strings.Repeat("a", oauth.MaxAnswer), oauth.FailureUnanswered, "r1", "a1"},
		"HTML":                              {200, `<html>`, oauth.FailureUnanswered, "r1", "a1"},
		"nothing":                           {200, ``, oauth.FailureUnanswered, "r1", "a1"},
		"an access token that is a number":  {200, `{"access_token":5}`, oauth.FailureUnanswered, "r1", "a1"},
		"invalid_grant":                     {400, `{"error":"invalid_grant"}`, oauth.FailureEnded, "r1", "a1"},
		"invalid_grant under 401":           {401, `{"error":"invalid_grant"}`, oauth.FailureEnded, "r1", "a1"},
		"invalid_grant under 200":           {200, `{"error":"invalid_grant"}`, oauth.FailureEnded, "r1", "a1"},
		"invalid_grant under 500":           {500, `{"error":"invalid_grant"}`, oauth.FailureEnded, "r1", "a1"},
		"invalid_grant in another case":     {400, `{"error":"Invalid_Grant"}`, oauth.FailureRefused, "r1", "a1"},
		"invalid_grant and tokens":          {200, `{"error":"invalid_grant","access_token":"a2"}`, oauth.FailureEnded, "r1", "a1"},
		"invalid_client":                    {401, `{"error":"invalid_client"}`, oauth.FailureOperator, "r1", "a1"},
		"invalid_request":                   {400, `{"error":"invalid_request"}`, oauth.FailureRefused, "r1", "a1"},
		"invalid_request under 401":         {401, `{"error":"invalid_request"}`, oauth.FailureRefused, "r1", "a1"},
		"invalid_request under 503":         {503, `{"error":"invalid_request"}`, oauth.FailureTransient, "r1", "a1"},
		"invalid_scope":                     {400, `{"error":"invalid_scope"}`, oauth.FailureRefused, "r1", "a1"},
		"unsupported_grant_type":            {400, `{"error":"unsupported_grant_type"}`, oauth.FailureRefused, "r1", "a1"},
		"interaction_required":              {400, `{"error":"interaction_required"}`, oauth.FailureRefused, "r1", "a1"},
		"bad_refresh_token":                 {200, `{"error":"bad_refresh_token"}`, oauth.FailureRefused, "r1", "a1"},
		"temporarily_unavailable":           {400, `{"error":"temporarily_unavailable"}`, oauth.FailureTransient, "r1", "a1"},
		"slow_down":                         {400, `{"error":"slow_down"}`, oauth.FailureTransient, "r1", "a1"},
		"server_error under 400":            {400, `{"error":"server_error"}`, oauth.FailureTransient, "r1", "a1"},
		"unauthorized_client":               {400, `{"error":"unauthorized_client"}`, oauth.FailureOperator, "r1", "a1"},
		"401 without a word":                {401, ``, oauth.FailureOperator, "r1", "a1"},
		"401 with another word":             {401, `{"error":"Unauthorized"}`, oauth.FailureOperator, "r1", "a1"},
		"400 without a word":                {400, ``, oauth.FailureRefused, "r1", "a1"},
		"403 with HTML":                     {403, `<html>`, oauth.FailureRefused, "r1", "a1"},
		"404":                               {404, `not found`, oauth.FailureRefused, "r1", "a1"},
		"408":                               {408, ``, oauth.FailureTransient, "r1", "a1"},
		"429":                               {429, `{"error":"too_many"}`, oauth.FailureTransient, "r1", "a1"},
		"302":                               {302, ``, oauth.FailureTransient, "r1", "a1"},
		"success:false":                     {200, `{"success":false,"message":"invalid_grant"}`, oauth.FailureRefused, "r1", "a1"},
		"success:false under 503":           {503, `{"success":false}`, oauth.FailureTransient, "r1", "a1"},
		"500":                               {500, `{"error":"server_error"}`, oauth.FailureTransient, "r1", "a1"},
		"503 with tokens":                   {503, `{"access_token":"a2"}`, oauth.FailureTransient, "r1", "a1"},
		"too long":                          {200, `{"access_token":"` + strings.Repeat("a", oauth.MaxAnswer) + `"}`, oauth.FailureUnanswered, "r1", "a1"},
		"a member twice":                    {200, `{"access_token":"a1","refresh_token":"r0","access_token":"a2","refresh_token":"r2"}`, none, "r2", "a2"},
		"deeply nested":                     {200, `{"x":` + strings.Repeat("[", 100_000) + `,"access_token":"a2"}`, oauth.FailureUnanswered, "r1", "a1"},
	} {
		t.Run(name, func(t *testing.T) {
			client := tokenEndpoint(t, c.status, c.body)
			got, err := client.Refresh(t.Context(), oauth.Tokens{Access: "a1", Refresh: "r1", Scope: "s"})
			kind := none
			if err != nil {
				kind = oauth.FailureOf(err)
			}
			if kind != c.kind || got.Refresh != c.refresh || got.Access != c.access || got.Scope != "s" {
				t.Errorf("got %+v, failure %d: %v", got, kind, err)
			}
			if err != nil && (strings.Contains(err.Error(), "a2") || strings.Contains(err.Error(), "html")) {
				t.Errorf("the error repeats the answer: %v", err)
			}
		})
	}
}

func TestTokenRequestIsSentOnceAndFollowsNoRedirect(t *testing.T) {
	asked := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308, 500, 503} {
		asked = 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.Header().Set("Location", other.URL)
			w.WriteHeader(status)
		}))
		client := tokenEndpoint(t, 200, "")
		client.Config.Endpoint.TokenURL = server.URL
		if _, err := client.Refresh(t.Context(), oauth.Tokens{Refresh: "r1"}); oauth.FailureOf(err) != oauth.FailureTransient {
			t.Errorf("%d: %v", status, err)
		}
		server.Close()
		if asked != 1 {
			t.Errorf("%d: asked %d times", status, asked)
		}
	}
}

func TestUserInfoIsReadExactly(t *testing.T) {
	paths := resolveFields(&config.Resolver{}, nil)
	u, err := oauth.ParseUserInfo([]byte(`{"id":12345678901234567890,"username":"a\"é","email":null,"quota":1e3,"used_quota":-0.0,"balance_formatted":" $1,000.00 ","created_time":[],"status":"1","extra":"x"}`), paths, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[oauth.UserField]string{
		oauth.FieldID: "12345678901234567890", oauth.FieldUsername: `a"é`, oauth.FieldEmail: "", oauth.FieldQuota: "1e3", oauth.FieldUsedQuota: "-0.0",
		oauth.FieldBalance: " $1,000.00 ", oauth.FieldCreatedTime: "", oauth.FieldStatus: "1",
	} {
		if got := u.Text(f); got != want {
			t.Errorf("%s: got %q, want %q", oauth.UserFieldWords[f], got, want)
		}
	}
	for _, body := range []string{`{}`, `{"id":null}`, `{"id":""}`, `{"id":{}}`, `{"id":true}`, `{"id":false}`, `null`, `[]`, `7`, ``, `{"id":1`, `{"id":1,"id":2}`, `{"id":1,"status":1,"status":2}`, `{"id":1}{"id":2}`, `{"id":1}x`, `{"id":1,"success":false}`, `{"id":"` + strings.Repeat("x", oauth.MaxField) + `"}`} {
		if u, err := oauth.ParseUserInfo([]byte(body), paths, time.Now()); err == nil {
			t.Errorf("%.40s: the id is %q", body, u.ID())
		}
	}
}

// TestAnswersThatTrickleEndWithTheTimeout: one byte now and then keeps no request
// open for longer than the timeout, and costs no memory to speak of.
func TestAnswersThatTrickleEndWithTheTimeout(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write([]byte(" ")); err != nil {
				return
			}
			http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}))
	defer server.Close()
	client := tokenEndpoint(t, 200, "")
	client.Timeout = 300 * time.Millisecond
	client.Config.Endpoint.TokenURL, client.UserinfoEndpoint, client.TopupEndpoint = server.URL, server.URL, server.URL
	for name, ask := range map[string]func() error{
		"token":    func() error { _, err := client.Refresh(t.Context(), oauth.Tokens{Refresh: "r"}); return err },
		"userinfo": func() error { _, err := client.UserInfo(t.Context(), "a"); return err },
		"topup":    func() error { _, err := client.TopupURL(t.Context(), "a"); return err },
	} {
		began := time.Now()
		if err := ask(); err == nil || oauth.FailureOf(err) == oauth.FailureEnded || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, time.Since(began))
		}
	}
}

func TestAnErrorRepeatsNothingThatTheOtherSideSent(t *testing.T) {
	for _, answer := range []string{
		`{"access_token":"PLANTED","refresh_token":"PLANTED"}`,
		"HTTP/1.1 200 OK\r\nX PLANTED\r\n\r\n",
		"HTTP/1.1 PLANTED\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: PLANTED\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: PLANTED\r\n\r\n",
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Read(make([]byte, 4096))
				conn.Write([]byte(answer))
				conn.Close()
			}
		}()
		client := tokenEndpoint(t, 200, "")
		client.Config.Endpoint.TokenURL, client.UserinfoEndpoint = "http://"+listener.Addr().String(), "http://"+listener.Addr().String()
		_, refreshErr := client.Refresh(t.Context(), oauth.Tokens{Refresh: "r"})
		_, readErr := client.UserInfo(t.Context(), "a")
		for _, err := range []error{refreshErr, readErr} {
			if err == nil || strings.Contains(err.Error(), "PLANTED") {
				t.Errorf("%q: %v", answer, err)
			}
		}
		listener.Close()
	}
}
