package tollgate_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// newRefusedSite is a site whose upstream refuses the access token of the browser's session.
// refuse answers a refused request.
func newRefusedSite(t *testing.T, options gatewaytest.Options, refuse http.HandlerFunc) (*gatewaytest.Site, *picky, *gatewaytest.Browser) {
	t.Helper()
	up := &picky{answer: echoHash}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, revoked := up.revoked.Load(r.Header.Get("Authorization")); revoked {
			up.refused.Add(1)
			refuse(w, r)
			return
		}
		up.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	options.InTollgate += "\npass_access_token"
	s := gatewaytest.New(t, options)
	s.Caddyfile = strings.Replace(s.Caddyfile, s.Upstream.URL, server.URL, 1)
	s.Load()
	b := s.NewBrowser()
	b.Follow("/")
	up.revoke(b)
	up.calls.Store(0)
	return s, up, b
}

// TestRetryFollowsA401ThatIsCutOff: an upstream that has not read the whole body may reset the
// connection before its 401 has arrived. Nobody needs the rest of that response.
func TestRetryFollowsA401ThatIsCutOff(t *testing.T) {
	s, up, b := newRefusedSite(t, gatewaytest.Options{}, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 1))
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	a := b.Send(http.MethodPost, "/x", strings.NewReader("hello"))
	if a.StatusCode != http.StatusOK || !strings.HasPrefix(a.Text, `POST /x "" 5 5 `) {
		t.Errorf("got %d %q, want the response to the retry", a.StatusCode, a.Text)
	}
	if up.refused.Load() != 1 || up.calls.Load() != 1 || s.Refreshes() != 1 {
		t.Errorf("%d refused requests, %d accepted ones, %d refreshes, want one of each", up.refused.Load(), up.calls.Load(), s.Refreshes())
	}
}

// TestNothingIsRetriedAfterASignOut: the session ends after the refresh, while the rest of the
// 401 arrives.
func TestNothingIsRetriedAfterASignOut(t *testing.T) {
	rest := make(chan struct{})
	var begun atomic.Bool
	s, up, b := newRefusedSite(t, gatewaytest.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		http.NewResponseController(w).Flush()
		begun.Store(true)
		<-rest
	})
	other := b.Copy()
	answered := make(chan *gatewaytest.Answer, 1)
	go func() { answered <- b.Send(http.MethodPost, "/x", strings.NewReader("hello")) }()
	gatewaytest.Eventually(t, "the token is refreshed", func() bool { return begun.Load() && s.Refreshes() == 1 })
	other.Send(http.MethodPost, "/oauth/logout", nil, "Origin: "+s.URL)
	close(rest)
	if a := <-answered; a.StatusCode != http.StatusUnauthorized || a.JSON(t)["login_url"] == nil {
		t.Errorf("got %d %s, want tollgate's 401", a.StatusCode, a.Text)
	}
	if got := up.refused.Load() + up.calls.Load(); got != 1 {
		t.Errorf("the upstream got the request %d times, want only the one before the session ended", got)
	}
}

// TestRetryHasAValidAssertion: the upstream's 401 takes longer than an assertion is valid.
func TestRetryHasAValidAssertion(t *testing.T) {
	var s *gatewaytest.Site
	s, up, b := newRefusedSite(t, gatewaytest.Options{InTollgate: "assertion"}, func(w http.ResponseWriter, r *http.Request) {
		s.Clock.Advance(5 * time.Minute)
		w.WriteHeader(http.StatusUnauthorized)
	})
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Tollgate-Assertion"))
	}
	a := b.Send(http.MethodPost, "/x", strings.NewReader("hello"))
	parts := strings.Split(a.Text, ".")
	if a.StatusCode != http.StatusOK || len(parts) != 3 {
		t.Fatalf("got %d %q, want the assertion", a.StatusCode, a.Text)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct{ Exp int64 }
	if err := json.Unmarshal(text, &claims); err != nil {
		t.Fatal(err)
	}
	if left := time.Unix(claims.Exp, 0).Sub(s.Clock.Now()); left <= 0 {
		t.Errorf("the assertion of the retry has expired %v ago", -left)
	}
}
