package tollgate

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/renewal"
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
				s := newSite(t, siteOptions{inTollgate: "optional /optional\nsession {\nstore " + store + "\n}"})
				b := s.newBrowser().signIn()
				s.provider.SetFault(simulator.Token, fault)

				s.clock.advance(due)
				for range 5 {
					if a := b.Get("/"); a.StatusCode != http.StatusOK {
						t.Fatalf("with a valid token: got %d: %s", a.StatusCode, a.text)
					}
				}
				s.waitForRefusal()

				s.clock.advance(over - due)
				for range 10 {
					a := b.Get("/api", "Referer: "+s.url+"/page")
					if a.StatusCode != http.StatusUnauthorized || a.json(t)["login_url"] != "/oauth/start?return_to=%2Fpage" || a.Header.Get("Set-Cookie") != "" {
						t.Fatalf("a script got %d, Set-Cookie %q: %s", a.StatusCode, a.Header.Get("Set-Cookie"), a.text)
					}
				}
				if a := b.visit("/page"); a.StatusCode != http.StatusFound || a.location() != "/oauth/start?return_to=%2Fpage" || a.Header.Get("Set-Cookie") != "" {
					t.Errorf("a person got %d to %q, Set-Cookie %q", a.StatusCode, a.location(), a.Header.Get("Set-Cookie"))
				}
				if a := b.Get("/optional"); a.StatusCode != http.StatusOK || a.seen(t).Header.Get("X-User-Id") != "" {
					t.Errorf("an optional path: got %d, want an anonymous request", a.StatusCode)
				}
				if a := b.Get("/oauth/userinfo"); a.StatusCode != http.StatusUnauthorized {
					t.Errorf("userinfo: got %d, want 401", a.StatusCode)
				}
				if a := b.do("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusUnauthorized {
					t.Errorf("POST refresh: got %d, want 401", a.StatusCode)
				}
				if n := s.refreshes(); n != 2 {
					t.Errorf("the refused token was sent %d times, want 2", n)
				}

				s.provider.ClearFaults()
				s.clock.advance(renewal.BackOffRefused + time.Second)
				if a := b.Get("/"); a.StatusCode != http.StatusOK || a.seen(t).Header.Get("X-User-Id") != testUserID {
					t.Errorf("with a refresh that works again: got %d: %s", a.StatusCode, a.text)
				}
				s.wantNoDoubleSpend()
			})
		}
	}
}

// waitForRefusal waits until the gateway knows that the one session's refresh is refused.
func (s *site) waitForRefusal() {
	s.t.Helper()
	eventually(s.t, "the refresh was refused", func() bool {
		return s.handlers[0].Internals().Renewals.Failures.EstimatedSize() > 0
	})
}

// TestASignInAfterARefusedRefreshReplacesTheSession: the person comes back to the page,
// and the kept session is over.
func TestASignInAfterARefusedRefreshReplacesTheSession(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	copied := b.copyOf()
	s.provider.SetFault(simulator.Refresh, refusals["invalid_request"])
	s.clock.advance(over)
	if a := b.follow("/page"); a.StatusCode != http.StatusOK || a.seen(t).URI != "/page" {
		t.Fatalf("got %d: %s", a.StatusCode, a.text)
	}
	s.provider.ClearFaults()
	s.clock.advance(renewal.BackOffRefused + session.EndGrace + time.Second)
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the replaced session: got %d, want 401", a.StatusCode)
	}
}

func TestAuthAnswers401AfterRefusedRefreshAnd403InAnOutage(t *testing.T) {
	s := newSite(t, asked(noPeer))
	b := s.newBrowser().signIn()
	s.provider.SetFault(simulator.Refresh, simulator.Fault{Status: 503})
	s.clock.advance(over)
	b.Get("/oauth/auth").wantAuth(t, "an outage", 403, "unavailable", "")
	s.provider.SetFault(simulator.Refresh, refusals["invalid_request"])
	s.clock.advance(renewal.BackOffRefused)
	b.Get("/oauth/auth").wantAuth(t, "a refusal", 401, "unauthenticated", "")
	s.provider.SetFault(simulator.Refresh, simulator.Fault{Status: 401, Body: `{"error":"invalid_client"}`})
	s.clock.advance(renewal.BackOffRefused + time.Second)
	b.Get("/oauth/auth").wantAuth(t, "an operator's error", 403, "unavailable", "")
	s.provider.ClearFaults()
	s.clock.advance(renewal.BackOffRefused + time.Second)
	b.Get("/oauth/auth").wantAuth(t, "a refresh that works again", 200, "", testUserID)
}

// TestAnyReplicaRevivesASessionAfterARefusedRefresh: what is remembered of the refusal is
// the process's own, and does not outlive the tokens that it was about.
func TestAnyReplicaRevivesASessionAfterARefusedRefresh(t *testing.T) {
	forEachSharedPlace(t, func(t *testing.T, session string) {
		f := newFleet(t, 2, session, time.Minute)
		b := f.newBrowser().signIn()
		f.provider.SetFault(simulator.Refresh, refusals["invalid_request"])
		f.advance(over)
		for i, r := range f.replicas {
			if a := b.Get(r.at("/")); a.StatusCode != http.StatusUnauthorized {
				t.Errorf("replica %d: got %d, want 401", i, a.StatusCode)
			}
		}
		f.provider.ClearFaults()
		f.advance(renewal.BackOffRefused + time.Second)
		before := f.refreshes()
		for i, r := range f.replicas {
			if a := b.Get(r.at("/")); a.StatusCode != http.StatusOK {
				t.Errorf("replica %d, when a refresh works again: got %d, want 200", i, a.StatusCode)
			}
		}
		if n := f.refreshes() - before; n != 1 {
			t.Errorf("%d refreshes, want exactly one", n)
		}
		f.wantNoDoubleSpend()
	})
}

// TestStreamsEndWithARefusedRefresh: a request like theirs would be asked to sign in.
func TestStreamsEndWithARefusedRefresh(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: oftenRechecked})
	b := s.newBrowser().signIn()
	ws, events := b.webSocket(s.url+"/stream/ws"), b.eventStream(s.url+"/stream/events")
	s.provider.SetFault(simulator.Refresh, refusals["invalid_request"])
	s.clock.advance(due)
	s.waitForRefusal()
	wantEcho(t, ws)
	s.clock.advance(over - due)
	wantClosed(t, ws, 4401, "session ended", withinRecheck)
	events.wantCut(withinRecheck)
}

// TestARefusalAtUserinfoAndTopupAsksForASignIn: the provider accepts the access token no
// more, and refuses to give another one.
func TestARefusalAtUserinfoAndTopupAsksForASignIn(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.provider.SetFault(simulator.Refresh, refusals["invalid_request"])
	s.provider.ExpireAccessTokens()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("while what is known is fresh: got %d, want 200", a.StatusCode)
	}
	if a := b.do("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusUnauthorized || a.json(t)["login_url"] == nil {
		t.Errorf("POST refresh: got %d: %s", a.StatusCode, a.text)
	}
	if a := b.visit("/oauth/topup"); a.StatusCode != http.StatusFound || !strings.HasPrefix(a.location(), "/oauth/start") {
		t.Errorf("topup: got %d to %q", a.StatusCode, a.location())
	}
	s.clock.advance(20 * time.Minute)
	b.Get("/")
	if a := b.visit("/"); a.StatusCode != http.StatusFound {
		t.Errorf("when what is known is too old: got %d, want 302", a.StatusCode)
	}
	s.provider.ClearFaults()
	s.clock.advance(renewal.BackOffRefused + time.Second)
	if a := b.do("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusOK {
		t.Errorf("with a refresh that works again: got %d: %s", a.StatusCode, a.text)
	}
}

// TestJSONIsAskedForAtTheTokenAndRevocationEndpoints: GitHub answers in a form otherwise.
func TestJSONIsAskedForAtTheTokenAndRevocationEndpoints(t *testing.T) {
	s := newSite(t, siteOptions{})
	s.caddyfile = strings.Replace(s.caddyfile, "client_id", "revocation_endpoint "+s.providerURL+simulator.RevokePath+"\n\t\t\tclient_id", 1)
	s.Load()
	b := s.newBrowser().signIn()
	s.clock.advance(over)
	b.Get("/")
	b.do("POST", "/oauth/logout", nil)
	eventually(t, "the token was revoked", func() bool { return s.provider.Count(simulator.Revoke) == 1 })
	for _, endpoint := range []simulator.Endpoint{simulator.Exchange, simulator.Refresh, simulator.Revoke} {
		requests := s.provider.Requests(endpoint)
		if len(requests) != 1 || requests[0].Header.Get("Accept") != "application/json" {
			t.Errorf("%s: got %d requests: %v", endpoint, len(requests), requests)
		}
	}
}
