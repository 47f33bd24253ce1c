package tollgate

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

func TestARefreshIsDueAheadOfTheEndButNotTooEarly(t *testing.T) {
	issued := time.Unix(1_700_000_000, 0)
	for _, lifetime := range []time.Duration{time.Second, 10 * time.Second, time.Minute, 299 * time.Second, 25 * time.Minute, 2 * time.Hour, 30 * 24 * time.Hour} {
		for _, before := range []time.Duration{time.Second, 5 * time.Minute, 24 * time.Hour} {
			tok := tokens{issued: issued, expires: issued.Add(lifetime)}
			window := min(before, lifetime/5)
			earliest, latest := tok.expires.Add(-window), tok.expires.Add(-window+window/10)
			different := map[time.Time]bool{}
			for i := range 50 {
				id := sessionID{byte(i)}
				at := (&session{id: id, tokens: tok}).refreshAt(before)
				if at.Before(earliest) || at.After(latest) {
					t.Fatalf("life %v, before %v: due at %v, not between %v and %v", lifetime, before, at, earliest, latest)
				}
				if !at.Equal((&session{id: id, tokens: tok}).refreshAt(before)) {
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
func tokenEndpoint(t *testing.T, status int, body string) *oauthClient {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain") // which nobody may trust
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return &oauthClient{
		config:        oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: server.URL, AuthStyle: oauth2.AuthStyleInParams}},
		tokenLifetime: time.Hour,
		timeout:       5 * time.Second,
		http:          newProviderClient(5 * time.Second),
		now:           time.Now,
	}
}

func TestWhatARefreshAnswerMeans(t *testing.T) {
	const none = failure(-1)
	for name, c := range map[string]struct {
		status  int
		body    string
		kind    failure
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
		"only the refresh token is whole":   {200, `{"refresh_token":"r2","access_token":"a2`, failureUnanswered, "r2", "a1"},
		"a refresh token without an access": {200, `{"refresh_token":"r2"}`, failureUnanswered, "r2", "a1"},
		"an access token with a line break": {200, `{"access_token":"a\r\n2","refresh_token":"r2"}`, failureUnanswered, "r2", "a1"},
		"a refresh token with a NUL":        {200, `{"access_token":"a2","refresh_token":"r\u0000"}`, none, "r1", "a2"},
		"another type of token":             {200, `{"access_token":"a2","token_type":"mac"}`, failureOperator, "r1", "a1"},
		"an array":                          {200, `["a2"]`, failureUnanswered, "r1", "a1"},
		"a form":                            {200, `access_token=a2&refresh_token=r2&expires_in=60&token_type=bearer&scope=`, none, "r2", "a2"},
		"a form as GitHub writes it":        {200, `access_token=a2&scope=&token_type=bearer`, none, "r1", "a2"},
		"a form with encoded tokens":        {200, "\r\n access_token=%61+2&refresh_token=r%32 ", none, "r2", "a 2"},
		"a form without an access token":    {200, `refresh_token=r2&token_type=bearer`, failureUnanswered, "r2", "a1"},
		"a form with a line break in it":    {200, `access_token=a%0D%0A2&refresh_token=r2`, failureUnanswered, "r2", "a1"},
		"a form with a broken escape":       {200, `refresh_token=r2&access_token=a2%zz`, failureUnanswered, "r2", "a1"},
		"a form of another type of token":   {200, `access_token=a2&token_type=mac`, failureOperator, "r1", "a1"},
		"a form that says no":               {200, `error=bad_refresh_token&error_description=x`, failureRefused, "r1", "a1"},
		"a form: invalid_grant":             {200, `error=invalid_grant`, failureEnded, "r1", "a1"},
		"a form: bad_verification_code":     {200, `error=bad_verification_code`, failureEnded, "r1", "a1"},
		"a form: incorrect_client_…":        {200, `error=incorrect_client_credentials`, failureOperator, "r1", "a1"},
		"a form: slow_down":                 {200, `error=slow_down`, failureTransient, "r1", "a1"},
		"a form: success=false":             {200, `success=false`, failureRefused, "r1", "a1"},
		"a form of something else":          {200, `a2=1&b=2`, failureUnanswered, "r1", "a1"},
		"a long form":                       {200, `access_token=a2&x=` + strings.Repeat("a", maxAnswer), failureUnanswered, "r1", "a1"},
		"HTML":                              {200, `<html>`, failureUnanswered, "r1", "a1"},
		"nothing":                           {200, ``, failureUnanswered, "r1", "a1"},
		"an access token that is a number":  {200, `{"access_token":5}`, failureUnanswered, "r1", "a1"},
		"invalid_grant":                     {400, `{"error":"invalid_grant"}`, failureEnded, "r1", "a1"},
		"invalid_grant under 401":           {401, `{"error":"invalid_grant"}`, failureEnded, "r1", "a1"},
		"invalid_grant under 200":           {200, `{"error":"invalid_grant"}`, failureEnded, "r1", "a1"},
		"invalid_grant under 500":           {500, `{"error":"invalid_grant"}`, failureEnded, "r1", "a1"},
		"invalid_grant in another case":     {400, `{"error":"Invalid_Grant"}`, failureRefused, "r1", "a1"},
		"invalid_grant and tokens":          {200, `{"error":"invalid_grant","access_token":"a2"}`, failureEnded, "r1", "a1"},
		"invalid_client":                    {401, `{"error":"invalid_client"}`, failureOperator, "r1", "a1"},
		"invalid_request":                   {400, `{"error":"invalid_request"}`, failureRefused, "r1", "a1"},
		"invalid_request under 401":         {401, `{"error":"invalid_request"}`, failureRefused, "r1", "a1"},
		"invalid_request under 503":         {503, `{"error":"invalid_request"}`, failureTransient, "r1", "a1"},
		"invalid_scope":                     {400, `{"error":"invalid_scope"}`, failureRefused, "r1", "a1"},
		"unsupported_grant_type":            {400, `{"error":"unsupported_grant_type"}`, failureRefused, "r1", "a1"},
		"interaction_required":              {400, `{"error":"interaction_required"}`, failureRefused, "r1", "a1"},
		"bad_refresh_token":                 {200, `{"error":"bad_refresh_token"}`, failureRefused, "r1", "a1"},
		"temporarily_unavailable":           {400, `{"error":"temporarily_unavailable"}`, failureTransient, "r1", "a1"},
		"slow_down":                         {400, `{"error":"slow_down"}`, failureTransient, "r1", "a1"},
		"server_error under 400":            {400, `{"error":"server_error"}`, failureTransient, "r1", "a1"},
		"unauthorized_client":               {400, `{"error":"unauthorized_client"}`, failureOperator, "r1", "a1"},
		"401 without a word":                {401, ``, failureOperator, "r1", "a1"},
		"401 with another word":             {401, `{"error":"Unauthorized"}`, failureOperator, "r1", "a1"},
		"400 without a word":                {400, ``, failureRefused, "r1", "a1"},
		"403 with HTML":                     {403, `<html>`, failureRefused, "r1", "a1"},
		"404":                               {404, `not found`, failureRefused, "r1", "a1"},
		"408":                               {408, ``, failureTransient, "r1", "a1"},
		"429":                               {429, `{"error":"too_many"}`, failureTransient, "r1", "a1"},
		"302":                               {302, ``, failureTransient, "r1", "a1"},
		"success:false":                     {200, `{"success":false,"message":"invalid_grant"}`, failureRefused, "r1", "a1"},
		"success:false under 503":           {503, `{"success":false}`, failureTransient, "r1", "a1"},
		"500":                               {500, `{"error":"server_error"}`, failureTransient, "r1", "a1"},
		"503 with tokens":                   {503, `{"access_token":"a2"}`, failureTransient, "r1", "a1"},
		"too long":                          {200, `{"access_token":"` + strings.Repeat("a", maxAnswer) + `"}`, failureUnanswered, "r1", "a1"},
		"a member twice":                    {200, `{"access_token":"a1","refresh_token":"r0","access_token":"a2","refresh_token":"r2"}`, none, "r2", "a2"},
		"deeply nested":                     {200, `{"x":` + strings.Repeat("[", 100_000) + `,"access_token":"a2"}`, failureUnanswered, "r1", "a1"},
	} {
		t.Run(name, func(t *testing.T) {
			client := tokenEndpoint(t, c.status, c.body)
			got, err := client.refresh(t.Context(), tokens{access: "a1", refresh: "r1", scope: "s"})
			kind := none
			if err != nil {
				kind = failureOf(err)
			}
			if kind != c.kind || got.refresh != c.refresh || got.access != c.access || got.scope != "s" {
				t.Errorf("got %+v, failure %d: %v", got, kind, err)
			}
			if err != nil && (strings.Contains(err.Error(), "a2") || strings.Contains(err.Error(), "html")) {
				t.Errorf("the error repeats the answer: %v", err)
			}
		})
	}
}

func TestTheTokenEndpointIsAskedOnceAndNoRedirectIsFollowed(t *testing.T) {
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
		client.config.Endpoint.TokenURL = server.URL
		if _, err := client.refresh(t.Context(), tokens{refresh: "r1"}); failureOf(err) != failureTransient {
			t.Errorf("%d: %v", status, err)
		}
		server.Close()
		if asked != 1 {
			t.Errorf("%d: asked %d times", status, asked)
		}
	}
}

func TestUserInfoIsReadExactly(t *testing.T) {
	paths := resolveFields(&resolver{}, nil)
	u, err := parseUserInfo([]byte(`{"id":12345678901234567890,"username":"a\"é","email":null,"quota":1e3,"used_quota":-0.0,"balance_formatted":" $1,000.00 ","created_time":[],"status":"1","extra":"x"}`), paths, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[userField]string{
		fieldID: "12345678901234567890", fieldUsername: `a"é`, fieldEmail: "", fieldQuota: "1e3", fieldUsedQuota: "-0.0",
		fieldBalance: " $1,000.00 ", fieldCreatedTime: "", fieldStatus: "1",
	} {
		if got := u.text(f); got != want {
			t.Errorf("%s: got %q, want %q", userFieldWords[f], got, want)
		}
	}
	for _, body := range []string{`{}`, `{"id":null}`, `{"id":""}`, `{"id":{}}`, `{"id":true}`, `{"id":false}`, `null`, `[]`, `7`, ``, `{"id":1`, `{"id":1,"id":2}`, `{"id":1,"status":1,"status":2}`, `{"id":1}{"id":2}`, `{"id":1}x`, `{"id":1,"success":false}`, `{"id":"` + strings.Repeat("x", maxField) + `"}`} {
		if u, err := parseUserInfo([]byte(body), paths, time.Now()); err == nil {
			t.Errorf("%.40s: the id is %q", body, u.id())
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
	client.timeout = 300 * time.Millisecond
	client.config.Endpoint.TokenURL, client.userinfoEndpoint, client.topupEndpoint = server.URL, server.URL, server.URL
	for name, ask := range map[string]func() error{
		"token":    func() error { _, err := client.refresh(t.Context(), tokens{refresh: "r"}); return err },
		"userinfo": func() error { _, err := client.userInfo(t.Context(), "a"); return err },
		"topup":    func() error { _, err := client.topupURL(t.Context(), "a"); return err },
	} {
		began := time.Now()
		if err := ask(); err == nil || failureOf(err) == failureEnded || time.Since(began) > 5*time.Second {
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
		client.config.Endpoint.TokenURL, client.userinfoEndpoint = "http://"+listener.Addr().String(), "http://"+listener.Addr().String()
		_, refreshErr := client.refresh(t.Context(), tokens{refresh: "r"})
		_, readErr := client.userInfo(t.Context(), "a")
		for _, err := range []error{refreshErr, readErr} {
			if err == nil || strings.Contains(err.Error(), "PLANTED") {
				t.Errorf("%q: %v", answer, err)
			}
		}
		listener.Close()
	}
}
