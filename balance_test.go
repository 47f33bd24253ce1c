package tollgate_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// balanceSeen is the balance as the upstream sees it: value, state and age.
func balanceSeen(b *gatewaytest.Browser) string {
	b.T.Helper()
	h := b.Get("/").Seen(b.T).Header
	return strings.Join([]string{h.Get("X-User-Balance"), h.Get("X-User-Balance-State"), h.Get("X-User-Balance-Age")}, " ")
}

func TestOldBalanceIsReReadInTheBackground(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "balance {\nmax_age 30s\nmax_stale 5m\n}"})
	b := s.NewBrowser().SignIn()
	s.Provider.Spend(12345, 100)
	if got := balanceSeen(b); got != "750.00 fresh 0" {
		t.Errorf("at once: %q", got)
	}
	s.Clock.Advance(20 * time.Second)
	if got := balanceSeen(b); got != "750.00 fresh 20" {
		t.Errorf("within max_age: %q", got)
	}
	s.Clock.Advance(20 * time.Second)
	if got := balanceSeen(b); got != "750.00 stale 40" {
		t.Errorf("after max_age: %q", got)
	}
	gatewaytest.Eventually(t, "the balance was read anew", func() bool { return strings.HasPrefix(balanceSeen(b), "749.00 fresh") })
}

func TestAnOldBalanceIsReadBeforeItIsUsed(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Provider.Spend(12345, 100)
	s.Clock.Advance(20 * time.Minute)
	if got := balanceSeen(b); got != "749.00 fresh 0" {
		t.Errorf("after max_stale: %q", got)
	}
}

func TestTheBalanceOutlivesTheProviderUpToMaxStale(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "balance {\nmax_age 30s\nmax_stale 5m\n}"})
	b := s.NewBrowser().SignIn()
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	s.Clock.Advance(4 * time.Minute)
	if got := balanceSeen(b); got != "750.00 stale 240" {
		t.Errorf("within max_stale: %q", got)
	}
	s.Clock.Advance(2 * time.Minute)
	a := b.Get("/").Seen(t)
	if got := balanceSeen(b); got != " unknown " {
		t.Errorf("beyond max_stale: %q", got)
	}
	if a.Header.Get("X-User-Id") != gatewaytest.UserID || a.Header.Get("X-User-Email") != "user@example.com" {
		t.Errorf("the identity is gone, too: %v", a.Header)
	}
	for _, name := range []string{"X-User-Balance", "X-User-Quota", "X-User-Used-Quota", "X-User-Balance-Age"} {
		if got, ok := a.Header[name]; !ok || got[0] != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := b.Get("/oauth/userinfo").JSON(t)["balance"].(map[string]any); got["value"] != nil || got["state"] != "unknown" {
		t.Errorf("userinfo: %v", got)
	}
	s.Provider.ClearFaults()
	s.Clock.Advance(account.ReadBackOff + time.Second)
	if got := balanceSeen(b); got != "750.00 fresh 0" {
		t.Errorf("after the provider came back: %q", got)
	}
}

func TestSessionsOfOneUserShareOneRead(t *testing.T) {
	s := gatewaytest.New(t, patientOptions(gatewaytest.Options{}))
	first, second := s.NewBrowser().SignIn(), s.NewBrowser().SignIn()
	s.Clock.Advance(2 * time.Minute)
	s.HoldBack(simulator.UserInfo, simulator.Fault{})
	reads := s.Provider.Count(simulator.UserInfo)
	burst(first, 20, "/")
	if got := burst(second, 20, "/"); got.statuses[http.StatusOK] != 20 {
		t.Errorf("got %v, want 200 from all while the read is under way", got.statuses)
	}
	if n := s.Provider.Count(simulator.UserInfo) - reads; n != 1 {
		t.Errorf("%d reads", n)
	}
}

func TestRejectedAccessTokenCausesOneRefreshAndOneRetry(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Provider.ExpireAccessTokens()
	reads := s.Provider.Count(simulator.UserInfo)
	if a := b.Send("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusOK {
		t.Errorf("got %d: %s", a.StatusCode, a.Text)
	}
	if refreshes, again := s.Refreshes(), s.Provider.Count(simulator.UserInfo)-reads; refreshes != 1 || again != 2 {
		t.Errorf("%d refreshes, %d reads", refreshes, again)
	}
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 401})
	s.Clock.Advance(2 * time.Minute)
	reads = s.Provider.Count(simulator.UserInfo)
	for range 5 {
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("a provider that accepts no token at all: %d", a.StatusCode)
		}
	}
	gatewaytest.Eventually(t, "the read failed", func() bool { return s.Provider.Count(simulator.UserInfo)-reads == 2 })
	if n := s.Refreshes(); n != 2 {
		t.Errorf("%d refreshes", n)
	}
	s.WantNoDoubleSpend()
}

func TestRevokedGrantSignsTheUserOutAtTheNextRead(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Provider.RevokeUser(12345)
	s.Clock.Advance(20 * time.Minute)
	b.Get("/")
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %d", a.StatusCode)
	}
}

func TestAUserWhoIsNotActiveIsRefused(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "optional /optional"})
	b := s.NewBrowser().SignIn()
	s.Provider.UpdateUser(12345, func(u *simulator.User) { u.Status = 2 })
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":12345,"username":"user123","status":2}`})
	s.Clock.Advance(20 * time.Minute)
	if a := b.Get("/"); a.StatusCode != http.StatusForbidden || a.JSON(t)["error"] != "refused" {
		t.Errorf("a script: %d %s", a.StatusCode, a.Text)
	}
	if a := b.Visit("/"); a.StatusCode != http.StatusForbidden || !strings.Contains(a.Text, "<main") {
		t.Errorf("a person: %d", a.StatusCode)
	}
	if a := b.Get("/oauth/userinfo"); a.StatusCode != http.StatusForbidden {
		t.Errorf("userinfo: %d", a.StatusCode)
	}
	if got := b.Get("/optional").Seen(t).Header.Get("X-User-Id"); got != "" {
		t.Errorf("optional: %q", got)
	}
	s.Caddyfile = strings.Replace(s.Caddyfile, "client_id", "active_status any\n\t\t\tclient_id", 1)
	s.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("with active_status any: %d", a.StatusCode)
	}
}

func TestUserInfoOfAnotherUserIsRejected(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":99,"username":"other","status":1,"balance_formatted":"1.00"}`})
	s.Clock.Advance(20 * time.Minute)
	if got := b.Get("/").Seen(t).Header; got.Get("X-User-Id") != gatewaytest.UserID || got.Get("X-User-Name") != "user123" {
		t.Errorf("the upstream saw %v", got)
	}
}

func TestSessionsWithDifferentScopesDoNotShareUserInfo(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	full := s.NewBrowser().SignIn()
	s.Caddyfile = strings.Replace(s.Caddyfile, "client_id", "scopes profile\n\t\t\tclient_id", 1)
	s.Load()
	bare := s.NewBrowser().SignIn()
	if got := balanceSeen(bare); got != " unknown " {
		t.Errorf("without the scope: %q", got)
	}
	if got := balanceSeen(full); !strings.HasPrefix(got, "750.00 fresh") {
		t.Errorf("with the scope: %q", got)
	}
}

func TestReadThatStartedBeforeAChangeDoesNotHideIt(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	h := s.Handlers[0]
	load := func() *session.Session { return sessionOf(s, b) }
	// A read is under way; its answer is made before the change, and comes after it.
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Delay: 400 * time.Millisecond, DelayAfterWork: true, Times: 1})
	h.Internals().Users.Outdate(load())
	var slow sync.WaitGroup
	slow.Go(func() { b.Copy().Get("/") })
	gatewaytest.Eventually(t, "the first read is under way", func() bool { return s.Provider.Count(simulator.UserInfo) == 2 })
	s.Provider.Spend(12345, 100)
	h.Internals().Users.Outdate(load())

	if got := balanceSeen(b); got != "749.00 fresh 0" {
		t.Errorf("after the change: %q", got)
	}
	slow.Wait()
	if got := balanceSeen(b); got != "749.00 fresh 0" {
		t.Errorf("afterwards: %q", got)
	}
}

func TestOutdatedBalanceIsNeverReportedAsFresh(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	b.Get("/oauth/topup")
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	for range 3 {
		if got := balanceSeen(b); got != "750.00 stale 0" {
			t.Errorf("while the provider fails: %q", got)
		}
	}
}

func TestRefusedUserIsServedUntilMaxStale(t *testing.T) {
	for name, fault := range map[string]simulator.Fault{
		"401":           {Status: 401},
		"success:false": {Body: `{"success":false,"message":"banned"}`},
	} {
		s := gatewaytest.New(t, gatewaytest.Options{})
		b := s.NewBrowser().SignIn()
		s.Provider.SetFault(simulator.UserInfo, fault)
		s.Clock.Advance(5 * time.Minute)
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: within max_stale: %d", name, a.StatusCode)
		}
		s.Clock.Advance(15 * time.Minute)
		if a := b.Get("/"); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s: beyond max_stale: %d", name, a.StatusCode)
		}
		s.Provider.ClearFaults()
		s.Clock.Advance(account.ReadBackOff + time.Second)
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: after the provider took the user back: %d", name, a.StatusCode)
		}
	}
}

func TestSessionEndingDuringAUserInfoReadDoesNotPass(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "optional /optional"})
	b := s.NewBrowser().SignIn()
	s.Provider.RevokeUser(12345)
	s.Clock.Advance(20 * time.Minute)
	before := s.Upstream.Requests.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized || s.Upstream.Requests.Load() != before {
		t.Errorf("got %d, and %d requests reached the upstream", a.StatusCode, s.Upstream.Requests.Load()-before)
	}

	other := s.NewBrowser().SignIn()
	s.Provider.RevokeUser(12345)
	s.Clock.Advance(20 * time.Minute)
	if got := other.Get("/optional").Seen(t).Header.Get("X-User-Id"); got != "" {
		t.Errorf("at an optional path the upstream saw %q", got)
	}
}

func TestClockThatIsSetBackDoesNotStopReads(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(-time.Hour)
	s.Provider.Spend(12345, 100)
	if got := balanceSeen(b); got != "749.00 fresh 0" {
		t.Errorf("after the step: %q", got)
	}
	s.Clock.Advance(2 * time.Hour)
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503, Times: 1})
	b.Get("/")
	s.Clock.Advance(-time.Hour)
	s.Provider.Spend(12345, 100)
	b.Get("/oauth/topup") // asks for a new read
	if got := balanceSeen(b); got != "748.00 fresh 0" {
		t.Errorf("after a failure and another step: %q", got)
	}
}

func TestTokenRejectedAfterARefreshIsNotRefreshedAgain(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Provider.SetFault(simulator.TopUp, simulator.Fault{Status: 401})
	for range 20 {
		b.Get("/oauth/topup")
	}
	if n := s.Refreshes(); n != 1 {
		t.Errorf("%d refreshes", n)
	}
}

func TestEndingOneSessionDoesNotFailOthers(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	ended, live := s.NewBrowser().SignIn(), s.NewBrowser().SignIn()
	h := s.Handlers[0]
	over := sessionOf(s, ended)
	// The ended session's read is under way when the live one asks.
	release := make(chan struct{})
	began, reading := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(began) })
	go func() { // ends with the read
		defer close(reading)
		_ = h.Internals().Users.Reread(t.Context(), over, func(context.Context) (oauth.UserInfo, error) {
			begin()
			<-release
			return oauth.UserInfo{}, session.ErrEnded
		})
	}()
	<-began
	go func() {
		time.Sleep(100 * time.Millisecond)
		close(release)
	}()
	if a := live.Send("POST", "/oauth/refresh", nil); a.StatusCode != http.StatusOK {
		t.Errorf("the live session got %d: %s", a.StatusCode, a.Text)
	}
	<-reading
}

func TestHangingProviderCostsOneTimeout(t *testing.T) {
	s := gatewaytest.New(t, patientOptions(gatewaytest.Options{}))
	b := s.NewBrowser().SignIn()
	s.HoldBack(simulator.UserInfo, simulator.Fault{})
	s.Clock.Advance(20 * time.Minute)
	began := time.Now()
	for range 5 {
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Errorf("got %d", a.StatusCode)
		}
	}
	if took := time.Since(began); took >= 5*readTimeout {
		t.Errorf("five requests took %v: each has waited for the provider", took)
	}
}
