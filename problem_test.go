package tollgate_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// TestProblemDocumentsCarryCodes checks the `error` of problem documents. At userinfo it
// is the text of the provider's sample backend.
func TestProblemDocumentsCarryCodes(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*"})
	for _, c := range []struct {
		method, target string
		status         int
		code           string
		description    any
	}{
		{"GET", "/page", http.StatusUnauthorized, "not_authenticated", "Not authenticated"},
		{"GET", "/oauth/userinfo", http.StatusUnauthorized, "Not authenticated", nil},
		{"POST", "/oauth/refresh", http.StatusUnauthorized, "not_authenticated", "Not authenticated"},
		{"POST", "/oauth/topup", http.StatusMethodNotAllowed, "method_not_allowed", nil},
		{"GET", "/public/..%2fadmin", http.StatusBadRequest, "bad_request", nil},
	} {
		a := s.NewBrowser().Send(c.method, c.target, nil, "Sec-Fetch-Site: same-origin")
		got := a.JSON(t)
		if a.StatusCode != c.status || got["error"] != c.code || got["error_description"] != c.description {
			t.Errorf("%s %s: got %d %s, want %d with %q and %v", c.method, c.target, a.StatusCode, a.Text, c.status, c.code, c.description)
		}
	}
}

// TestSpendingPageQuotesTheProblemDocument compares docs/spending.md with a response.
func TestSpendingPageQuotesTheProblemDocument(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /paid/* {\nbalance 800\n}"})
	text := s.NewBrowser().SignIn().Get("/paid/x").Text
	quoted := strings.Replace(text, `"balance":"750.00","required":"800"`, `"balance":"0.30","required":"0.50"`, 1)
	if quoted == text || !strings.Contains(manualtest.ReadFile(t, "docs/spending.md"), quoted) {
		t.Errorf("docs/spending.md does not quote the response: %s", quoted)
	}
}

// TestUnavailableNamesItsCause checks the problem documents of status 503.
func TestUnavailableNamesItsCause(t *testing.T) {
	s, storage, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "require /paid {\nbalance 1\nreserve\n}\nsession {\nstore storage\n}"})
	b := s.NewBrowser().SignIn()
	want := func(a *gatewaytest.Answer, code string) {
		t.Helper()
		got := a.JSON(t)
		if a.StatusCode != http.StatusServiceUnavailable || got["error"] != "unavailable" || got["cause"] != code {
			t.Errorf("%s: got status %d: %s, want 503 with cause %s", a.Request.URL.Path, a.StatusCode, a.Text, code)
		}
	}
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusTooManyRequests})
	want(b.Send(http.MethodPost, "/oauth/refresh", nil, "Origin: "+s.URL), "rate_limited")
	s.Provider.SetFault(simulator.TopUp, simulator.Fault{Hang: true})
	hurry(s)
	want(b.Get("/oauth/topup"), "timeout")
	relax(s)

	storage.Full.Store(true)
	want(b.Get("/paid"), "store_unavailable") // of the ledger
	storage.Full.Store(false)

	s.Provider.SetFault(simulator.Refresh, simulator.Fault{Status: http.StatusInternalServerError})
	s.Clock.Advance(over)
	want(b.Get("/"), "temporarily_unavailable")

	storage.Broken.Store(true)
	for _, path := range []string{"/", "/oauth/userinfo", "/oauth/ready"} {
		want(b.Get(path), "store_unavailable")
	}
}
