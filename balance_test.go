package tollgate

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// balanceSeen is the balance as the upstream sees it: value, state and age.
func (b *visitor) balanceSeen() string {
	b.t.Helper()
	h := b.Get("/").seen(b.t).Header
	return strings.Join([]string{h.Get("X-User-Balance"), h.Get("X-User-Balance-State"), h.Get("X-User-Balance-Age")}, " ")
}

func TestOldBalanceIsReReadInTheBackground(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "balance {\nmax_age 30s\nmax_stale 5m\n}"})
	b := s.newBrowser().signIn()
	s.provider.Spend(12345, 100)
	if got := b.balanceSeen(); got != "750.00 fresh 0" {
		t.Errorf("at once: %q", got)
	}
	s.clock.advance(20 * time.Second)
	if got := b.balanceSeen(); got != "750.00 fresh 20" {
		t.Errorf("within max_age: %q", got)
	}
	s.clock.advance(20 * time.Second)
	if got := b.balanceSeen(); got != "750.00 stale 40" {
		t.Errorf("after max_age: %q", got)
	}
	eventually(t, "the balance was read anew", func() bool { return strings.HasPrefix(b.balanceSeen(), "749.00 fresh") })
}

func TestAnOldBalanceIsReadBeforeItIsUsed(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.provider.Spend(12345, 100)
	s.clock.advance(20 * time.Minute)
	if got := b.balanceSeen(); got != "749.00 fresh 0" {
		t.Errorf("after max_stale: %q", got)
	}
}

func TestTheBalanceOutlivesTheProviderUpToMaxStale(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "balance {\nmax_age 30s\nmax_stale 5m\n}"})
	b := s.newBrowser().signIn()
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	s.clock.advance(4 * time.Minute)
	if got := b.balanceSeen(); got != "750.00 stale 240" {
		t.Errorf("within max_stale: %q", got)
	}
	s.clock.advance(2 * time.Minute)
	a := b.Get("/").seen(t)
	if got := b.balanceSeen(); got != " unknown " {
		t.Errorf("beyond max_stale: %q", got)
	}
	if a.Header.Get("X-User-Id") != testUserID || a.Header.Get("X-User-Email") != "user@example.com" {
		t.Errorf("the identity is gone, too: %v", a.Header)
	}
	for _, name := range []string{"X-User-Balance", "X-User-Quota", "X-User-Used-Quota", "X-User-Balance-Age"} {
		if got, ok := a.Header[name]; !ok || got[0] != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := b.Get("/oauth/userinfo").json(t)["balance"].(map[string]any); got["value"] != nil || got["state"] != "unknown" {
		t.Errorf("userinfo: %v", got)
	}
	s.provider.ClearFaults()
	s.clock.advance(account.ReadBackOff + time.Second)
	if got := b.balanceSeen(); got != "750.00 fresh 0" {
		t.Errorf("after the provider came back: %q", got)
	}
}

func TestSessionsOfOneUserShareOneRead(t *testing.T) {
	s := newSite(t, siteOptions{})
	first, second := s.newBrowser().signIn(), s.newBrowser().signIn()
	s.clock.advance(2 * time.Minute)
	const latency = 3 * time.Second
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Delay: latency})
	reads := s.provider.Count(simulator.UserInfo)
	burst(first, 20, "/")
	got := burst(second, 20, "/")
	if got.statuses[http.StatusOK] != 20 || got.slowest >= latency {
		t.Errorf("got %v, the slowest after %v", got.statuses, got.slowest)
	}
	if n := s.provider.Count(simulator.UserInfo) - reads; n != 1 {
		t.Errorf("%d reads", n)
	}
}

func TestRejectedAccessTokenCausesOneRefreshAndOneRetry(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.provider.ExpireAccessTokens()
	reads := s.provider.Count(simulator.UserInfo)
	if a := b.do("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusOK {
		t.Errorf("got %d: %s", a.StatusCode, a.text)
	}
	if refreshes, again := s.refreshes(), s.provider.Count(simulator.UserInfo)-reads; refreshes != 1 || again != 2 {
		t.Errorf("%d refreshes, %d reads", refreshes, again)
	}
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 401})
	s.clock.advance(2 * time.Minute)
	reads = s.provider.Count(simulator.UserInfo)
	for range 5 {
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("a provider that accepts no token at all: %d", a.StatusCode)
		}
	}
	eventually(t, "the read failed", func() bool { return s.provider.Count(simulator.UserInfo)-reads == 2 })
	if n := s.refreshes(); n != 2 {
		t.Errorf("%d refreshes", n)
	}
	s.wantNoDoubleSpend()
}

func TestRevokedGrantSignsTheUserOutAtTheNextRead(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.provider.RevokeUser(12345)
	s.clock.advance(20 * time.Minute)
	b.Get("/")
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d", a.StatusCode)
	}
}

func TestAUserWhoIsNotActiveIsRefused(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "optional /optional"})
	b := s.newBrowser().signIn()
	s.provider.UpdateUser(12345, func(u *simulator.User) { u.Status = 2 })
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":12345,"username":"user123","status":2}`})
	s.clock.advance(20 * time.Minute)
	if a := b.Get("/"); a.StatusCode != http.StatusForbidden || a.json(t)["error"] != "refused" {
		t.Errorf("a script: %d %s", a.StatusCode, a.text)
	}
	if a := b.visit("/"); a.StatusCode != http.StatusForbidden || !strings.Contains(a.text, "<main") {
		t.Errorf("a person: %d", a.StatusCode)
	}
	if a := b.Get("/oauth/userinfo"); a.StatusCode != http.StatusForbidden {
		t.Errorf("userinfo: %d", a.StatusCode)
	}
	if got := b.Get("/optional").seen(t).Header.Get("X-User-Id"); got != "" {
		t.Errorf("optional: %q", got)
	}
	s.caddyfile = strings.Replace(s.caddyfile, "client_id", "active_status any\n\t\t\tclient_id", 1)
	s.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("with active_status any: %d", a.StatusCode)
	}
}

func TestAnAnswerAboutAnotherUserIsNotBelieved(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":99,"username":"other","status":1,"balance_formatted":"1.00"}`})
	s.clock.advance(20 * time.Minute)
	if got := b.Get("/").seen(t).Header; got.Get("X-User-Id") != testUserID || got.Get("X-User-Name") != "user123" {
		t.Errorf("the upstream saw %v", got)
	}
}

func TestSessionsWithDifferentScopesDoNotShareUserInfo(t *testing.T) {
	s := newSite(t, siteOptions{})
	full := s.newBrowser().signIn()
	s.caddyfile = strings.Replace(s.caddyfile, "client_id", "scopes profile\n\t\t\tclient_id", 1)
	s.Load()
	bare := s.newBrowser().signIn()
	if got := bare.balanceSeen(); got != " unknown " {
		t.Errorf("without the scope: %q", got)
	}
	if got := full.balanceSeen(); !strings.HasPrefix(got, "750.00 fresh") {
		t.Errorf("with the scope: %q", got)
	}
}

func TestReadThatStartedBeforeAChangeDoesNotHideIt(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	h := s.handlers[0]
	load := func() *session.Session { return s.sessionOf(b) }
	// A read is under way; its answer is made before the change, and comes after it.
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Delay: 400 * time.Millisecond, DelayAfterWork: true, Times: 1})
	h.Internals().Users.Outdate(load())
	var slow sync.WaitGroup
	slow.Go(func() { b.copyOf().Get("/") })
	eventually(t, "the first read is under way", func() bool { return s.provider.Count(simulator.UserInfo) == 2 })
	s.provider.Spend(12345, 100)
	h.Internals().Users.Outdate(load())

	if got := b.balanceSeen(); got != "749.00 fresh 0" {
		t.Errorf("after the change: %q", got)
	}
	slow.Wait()
	if got := b.balanceSeen(); got != "749.00 fresh 0" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestOutdatedBalanceIsNeverReportedAsFresh(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	b.Get("/oauth/topup")
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	for range 3 {
		if got := b.balanceSeen(); got != "750.00 stale 0" {
			t.Errorf("while the provider fails: %q", got)
		}
	}
}

func TestRefusedUserIsServedUntilMaxStale(t *testing.T) {
	for name, fault := range map[string]simulator.Fault{
		"401":           {Status: 401},
		"success:false": {Body: `{"success":false,"message":"banned"}`},
	} {
		s := newSite(t, siteOptions{})
		b := s.newBrowser().signIn()
		s.provider.SetFault(simulator.UserInfo, fault)
		s.clock.advance(5 * time.Minute)
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: within max_stale: %d", name, a.StatusCode)
		}
		s.clock.advance(15 * time.Minute)
		if a := b.Get("/"); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s: beyond max_stale: %d", name, a.StatusCode)
		}
		s.provider.ClearFaults()
		s.clock.advance(account.ReadBackOff + time.Second)
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: after the provider took the user back: %d", name, a.StatusCode)
		}
	}
}

func TestSessionEndingDuringAUserInfoReadDoesNotPass(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "optional /optional"})
	b := s.newBrowser().signIn()
	s.provider.RevokeUser(12345)
	s.clock.advance(20 * time.Minute)
	before := s.upstream.requests.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized || s.upstream.requests.Load() != before {
		t.Errorf("got %d, and %d requests reached the upstream", a.StatusCode, s.upstream.requests.Load()-before)
	}

	other := s.newBrowser().signIn()
	s.provider.RevokeUser(12345)
	s.clock.advance(20 * time.Minute)
	if got := other.Get("/optional").seen(t).Header.Get("X-User-Id"); got != "" {
		t.Errorf("at an optional path the upstream saw %q", got)
	}
}

func TestAClockThatIsSetBackStopsNoReads(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.clock.advance(-time.Hour)
	s.provider.Spend(12345, 100)
	if got := b.balanceSeen(); got != "749.00 fresh 0" {
		t.Errorf("after the step: %q", got)
	}
	s.clock.advance(2 * time.Hour)
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503, Times: 1})
	b.Get("/")
	s.clock.advance(-time.Hour)
	s.provider.Spend(12345, 100)
	b.Get("/oauth/topup") // asks for a new read
	if got := b.balanceSeen(); got != "748.00 fresh 0" {
		t.Errorf("after a failure and another step: %q", got)
	}
}

func TestTokenRejectedAfterARefreshIsNotRefreshedAgain(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.provider.SetFault(simulator.TopUp, simulator.Fault{Status: 401})
	for range 20 {
		b.Get("/oauth/topup")
	}
	if n := s.refreshes(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
}

func TestEndingOneSessionDoesNotFailOthers(t *testing.T) {
	s := newSite(t, siteOptions{})
	ended, live := s.newBrowser().signIn(), s.newBrowser().signIn()
	h := s.handlers[0]
	over := s.sessionOf(ended)
	// The ended session's read is under way when the live one asks.
	release := make(chan struct{})
	reading := h.Internals().Users.StartRead(over, h.Internals().Users.Known(over), func(context.Context) (oauth.UserInfo, error) {
		<-release
		return oauth.UserInfo{}, session.ErrEnded
	})
	go func() {
		time.Sleep(100 * time.Millisecond)
		close(release)
	}()
	if a := live.do("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusOK {
		t.Errorf("the live session got %d: %s", a.StatusCode, a.text)
	}
	<-reading
}

func TestHangingProviderCostsOneTimeout(t *testing.T) {
	s := newSite(t, siteOptions{inProvider: "timeout 5s"})
	b := s.newBrowser().signIn()
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Hang: true})
	s.clock.advance(20 * time.Minute)
	began := time.Now()
	for range 5 {
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("got %d", a.StatusCode)
		}
	}
	if took := time.Since(began); took >= 2*account.ReadTimeout {
		t.Errorf("five requests took %v", took)
	}
}
