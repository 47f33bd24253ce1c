package tollgate_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// refusals are answers to a refresh that are definite, and that do not speak of the
// grant: dex's for a token that is spent or whose storage is gone, GitHub's, those of
// servers that want to see the person, and one-api's.
var refusals = map[string]simulator.Fault{
	"invalid_request":      {Status: 400, Body: `{"error":"invalid_request","error_description":"Refresh token is invalid or has already been claimed by another client."}`},
	"bad_refresh_token":    {Body: `{"error":"bad_refresh_token"}`},
	"a form":               {Body: "error=bad_refresh_token&error_description=x", ContentType: "application/x-www-form-urlencoded"},
	"interaction_required": {Status: 400, Body: `{"error":"interaction_required"}`},
	"invalid_scope":        {Status: 400, Body: `{"error":"invalid_scope"}`},
	"success:false":        {Body: `{"success":false,"message":"no"}`},
	"403 with HTML":        {Status: 403, Body: "<html>"},
	"404":                  {Status: 404},
}

func TestRefusedRefreshDemandsASignInAndKeepsTheSession(t *testing.T) {
	for name, fault := range refusals {
		for _, store := range []string{"cookie", "storage"} {
			t.Run(name+" "+store, func(t *testing.T) {
				t.Parallel()
				s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "optional /optional\nsession {\nstore " + store + "\n}"})
				b := s.NewBrowser().SignIn()
				s.Provider.SetFault(simulator.Token, fault)

				s.Clock.Advance(due)
				for range 5 {
					if a := b.Get("/"); a.StatusCode != http.StatusOK {
						t.Fatalf("with a valid token: got %d: %s", a.StatusCode, a.Text)
					}
				}
				waitForRefusal(s, sessionOf(s, b))

				s.Clock.Advance(over - due)
				for range 10 {
					a := b.Get("/api", "Referer: "+s.URL+"/page")
					if a.StatusCode != http.StatusUnauthorized || a.JSON(t)["login_url"] != "/oauth/start?return_to=%2Fpage" || a.Header.Get("Set-Cookie") != "" {
						t.Fatalf("a script got %d, Set-Cookie %q: %s", a.StatusCode, a.Header.Get("Set-Cookie"), a.Text)
					}
				}
				if a := b.Visit("/page"); a.StatusCode != http.StatusFound || a.Location() != "/oauth/start?return_to=%2Fpage" || a.Header.Get("Set-Cookie") != "" {
					t.Errorf("a person got %d to %q, Set-Cookie %q", a.StatusCode, a.Location(), a.Header.Get("Set-Cookie"))
				}
				if a := b.Get("/optional"); a.StatusCode != http.StatusOK || a.Seen(t).Header.Get("X-User-Id") != "" {
					t.Errorf("an optional path: got %d, want an anonymous request", a.StatusCode)
				}
				if a := b.Get("/oauth/userinfo"); a.StatusCode != http.StatusUnauthorized {
					t.Errorf("userinfo: got %d, want 401", a.StatusCode)
				}
				if a := b.Send("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusUnauthorized {
					t.Errorf("POST refresh: got %d, want 401", a.StatusCode)
				}
				if n := s.Refreshes(); n != 2 {
					t.Errorf("the refused token was sent %d times, want 2", n)
				}

				s.Provider.ClearFaults()
				s.Clock.Advance(backOffRefused + time.Second)
				if a := b.Get("/"); a.StatusCode != http.StatusOK || a.Seen(t).Header.Get("X-User-Id") != gatewaytest.UserID {
					t.Errorf("with a refresh that works again: got %d: %s", a.StatusCode, a.Text)
				}
				s.WantNoDoubleSpend()
			})
		}
	}
}

// waitForRefusal waits until the gateway knows that the refresh of the session is refused.
func waitForRefusal(s *gatewaytest.Site, of *session.Session) {
	s.T.Helper()
	gatewaytest.Eventually(s.T, "the refresh was refused", func() bool { return s.Handlers[0].Internals().Renewals.IsRefused(of) })
}

// TestASignInAfterARefusedRefreshReplacesTheSession: the person comes back to the page,
// and the kept session is over.
func TestASignInAfterARefusedRefreshReplacesTheSession(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	copied := b.Copy()
	s.Provider.SetFault(simulator.Refresh, refusals["invalid_request"])
	s.Clock.Advance(over)
	if a := b.Follow("/page"); a.StatusCode != http.StatusOK || a.Seen(t).URI != "/page" {
		t.Fatalf("got %d: %s", a.StatusCode, a.Text)
	}
	s.Provider.ClearFaults()
	s.Clock.Advance(backOffRefused + session.EndGrace + time.Second)
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the replaced session: got %d, want 401", a.StatusCode)
	}
}

func TestAuthAnswers401AfterRefusedRefreshAnd403InAnOutage(t *testing.T) {
	s := gatewaytest.New(t, asked(noPeer))
	b := s.NewBrowser().SignIn()
	s.Provider.SetFault(simulator.Refresh, simulator.Fault{Status: 503})
	s.Clock.Advance(over)
	wantAuth(b.Get("/oauth/auth"), t, "an outage", 403, "unavailable", "")
	s.Provider.SetFault(simulator.Refresh, refusals["invalid_request"])
	s.Clock.Advance(backOffRefused)
	wantAuth(b.Get("/oauth/auth"), t, "a refusal", 401, "unauthenticated", "")
	s.Provider.SetFault(simulator.Refresh, simulator.Fault{Status: 401, Body: `{"error":"invalid_client"}`})
	s.Clock.Advance(backOffRefused + time.Second)
	wantAuth(b.Get("/oauth/auth"), t, "an operator's error", 403, "unavailable", "")
	s.Provider.ClearFaults()
	s.Clock.Advance(backOffRefused + time.Second)
	wantAuth(b.Get("/oauth/auth"), t, "a refresh that works again", 200, "", gatewaytest.UserID)
}

// TestAnyReplicaRevivesASessionAfterARefusedRefresh: what is remembered of the refusal is
// the process's own, and does not outlive the tokens that it was about.
func TestAnyReplicaRevivesASessionAfterARefusedRefresh(t *testing.T) {
	forEachSharedPlace(t, func(t *testing.T, session string) {
		f := gatewaytest.NewFleet(t, 2, session, time.Minute)
		b := f.NewBrowser().SignIn()
		f.Provider.SetFault(simulator.Refresh, refusals["invalid_request"])
		f.Advance(over)
		for i, r := range f.Replicas {
			if a := b.Get(r.At("/")); a.StatusCode != http.StatusUnauthorized {
				t.Errorf("replica %d: got %d, want 401", i, a.StatusCode)
			}
		}
		f.Provider.ClearFaults()
		f.Advance(backOffRefused + time.Second)
		before := f.Refreshes()
		for i, r := range f.Replicas {
			if a := b.Get(r.At("/")); a.StatusCode != http.StatusOK {
				t.Errorf("replica %d, when a refresh works again: got %d, want 200", i, a.StatusCode)
			}
		}
		if n := f.Refreshes() - before; n != 1 {
			t.Errorf("%d refreshes, want exactly one", n)
		}
		f.WantNoDoubleSpend()
	})
}

// TestStreamsEndWithARefusedRefresh: a request like theirs would be asked to sign in.
func TestStreamsEndWithARefusedRefresh(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: oftenRechecked})
	b := s.NewBrowser().SignIn()
	ws, events := webSocket(b, s.URL+"/stream/ws"), eventStreamOf(b, s.URL+"/stream/events")
	s.Provider.SetFault(simulator.Refresh, refusals["invalid_request"])
	s.Clock.Advance(due)
	waitForRefusal(s, sessionOf(s, b))
	wantEcho(t, ws)
	s.Clock.Advance(over - due)
	wantClosed(t, ws, 4401, "session ended")
	events.wantCut()
}

// TestARefusalAtUserinfoAndTopupAsksForASignIn: the provider accepts the access token no
// more, and refuses to give another one.
func TestARefusalAtUserinfoAndTopupAsksForASignIn(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Provider.SetFault(simulator.Refresh, refusals["invalid_request"])
	s.Provider.ExpireAccessTokens()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("while what is known is fresh: got %d, want 200", a.StatusCode)
	}
	if a := b.Send("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusUnauthorized || a.JSON(t)["login_url"] == nil {
		t.Errorf("POST refresh: got %d: %s", a.StatusCode, a.Text)
	}
	if a := b.Visit("/oauth/topup"); a.StatusCode != http.StatusFound || !strings.HasPrefix(a.Location(), "/oauth/start") {
		t.Errorf("topup: got %d to %q", a.StatusCode, a.Location())
	}
	s.Clock.Advance(20 * time.Minute)
	b.Get("/")
	if a := b.Visit("/"); a.StatusCode != http.StatusFound {
		t.Errorf("when what is known is too old: got %d, want 302", a.StatusCode)
	}
	s.Provider.ClearFaults()
	s.Clock.Advance(backOffRefused + time.Second)
	if a := b.Send("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusOK {
		t.Errorf("with a refresh that works again: got %d: %s", a.StatusCode, a.Text)
	}
}

// TestTokenAndRevocationRequestsAcceptJSON: GitHub answers in a form otherwise.
func TestTokenAndRevocationRequestsAcceptJSON(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	s.Caddyfile = strings.Replace(s.Caddyfile, "client_id", "revocation_endpoint "+s.ProviderURL+simulator.RevokePath+"\n\t\t\tclient_id", 1)
	s.Load()
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(over)
	b.Get("/")
	b.Send("POST", "/oauth/logout", nil)
	gatewaytest.Eventually(t, "the token was revoked", func() bool { return s.Provider.Count(simulator.Revoke) == 1 })
	for _, endpoint := range []simulator.Endpoint{simulator.Exchange, simulator.Refresh, simulator.Revoke} {
		requests := s.Provider.Requests(endpoint)
		if len(requests) != 1 || requests[0].Header.Get("Accept") != "application/json" {
			t.Errorf("%s: got %d requests: %v", endpoint, len(requests), requests)
		}
	}
}
