package tollgate

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// due moves the clock to where a refresh is due and the old token still valid;
// over, to where it is not valid any more.
const (
	lifetimeInTests = 2 * time.Hour
	due             = lifetimeInTests - 2*time.Minute
	over            = lifetimeInTests + time.Minute
)

// outcome is what a burst of parallel requests got.
type outcome struct {
	statuses map[int]int
	slowest  time.Duration
	cookies  int // answers with a session cookie
}

// burst sends n requests at once, each with the same cookies.
func burst(b *visitor, n int, target string) outcome {
	b.t.Helper()
	var mu sync.Mutex
	result := outcome{statuses: map[int]int{}}
	var ready, finished sync.WaitGroup
	start := make(chan struct{})
	for range n {
		c := b.copyOf()
		ready.Add(1)
		finished.Go(func() {
			ready.Done()
			<-start
			began := time.Now()
			a := c.Get(target)
			mu.Lock()
			defer mu.Unlock()
			result.statuses[a.StatusCode]++
			result.slowest = max(result.slowest, time.Since(began))
			if a.Header.Get("Set-Cookie") != "" {
				result.cookies++
			}
		})
	}
	ready.Wait()
	close(start)
	finished.Wait()
	return result
}

func (s *site) refreshes() int { return s.provider.Count(simulator.Refresh) }

func (s *site) wantNoDoubleSpend() {
	s.t.Helper()
	if n := s.provider.DoubleSpends(); n != 0 {
		s.t.Errorf("%d refresh tokens were spent twice", n)
	}
}

func TestParallelRequestsShareOneRefresh(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	old := b.copyOf()
	s.clock.advance(due)
	const latency = 3 * time.Second
	s.provider.SetFault(simulator.Refresh, simulator.Fault{Delay: latency})

	got := burst(b, 200, "/")
	if got.statuses[http.StatusOK] != 200 {
		t.Errorf("200 requests got %v", got.statuses)
	}
	if got.slowest >= latency {
		t.Errorf("a request waited %v for the refresh, though the old token was valid", got.slowest)
	}
	eventually(t, "the refresh was answered", func() bool { return s.provider.LiveFamilies() == 1 && s.refreshes() == 1 && s.newestGeneration() == 2 })

	// The old cookie comes again a minute later, when its token is over.
	s.clock.advance(3 * time.Minute)
	got = burst(old, 50, "/")
	if got.statuses[http.StatusOK] != 50 || got.cookies != 50 {
		t.Errorf("the old cookie got %v, and %d new cookies", got.statuses, got.cookies)
	}
	if n := s.refreshes(); n != 1 {
		t.Errorf("%d refreshes, want exactly one", n)
	}
	s.wantNoDoubleSpend()
}

// newestGeneration is the highest generation that the gateway remembers.
func (s *site) newestGeneration() uint64 {
	newest := uint64(1)
	for remembered := range s.handlers[0].Internals().Sessions.Newest.Values() {
		newest = max(newest, remembered.Generation)
	}
	return newest
}

func TestRequestsWaitForOneRefreshAfterTheTokensExpire(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.clock.advance(over)
	s.provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 300 * time.Millisecond})

	got := burst(b, 100, "/")
	if got.statuses[http.StatusOK] != 100 || got.cookies != 100 {
		t.Errorf("100 requests got %v, and %d new cookies", got.statuses, got.cookies)
	}
	if n := s.refreshes(); n != 1 {
		t.Errorf("%d refreshes, want exactly one", n)
	}
	s.wantNoDoubleSpend()
}

func TestTheNewCookieReachesTheBrowserAndCarriesOn(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	for generation := uint64(2); generation < 6; generation++ {
		s.clock.advance(over)
		before := b.cookies()["tollgate"]
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Fatalf("generation %d: status %d", generation, a.StatusCode)
		}
		if b.cookies()["tollgate"] == before {
			t.Fatalf("generation %d: the cookie did not change", generation)
		}
		// Nothing is left to remember: the cookie alone carries the session.
		s.forget()
	}
	s.wantNoDoubleSpend()
}

// forget begins with an empty memory, as after a restart.
func (s *site) forget() {
	s.handlers[0].Cleanup()
	s.handlers = nil
	s.Load()
}

func TestClientLeavingDuringARefreshLosesNoTokens(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.clock.advance(over)
	s.provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 500 * time.Millisecond, DelayAfterWork: true})

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/", nil)
	if res, err := b.Client.Do(req); err == nil {
		res.Body.Close()
		t.Fatalf("the request was answered with %d before its client left", res.StatusCode)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("the next request got %d: %s", a.StatusCode, a.text)
	}
	if n := s.refreshes(); n != 1 {
		t.Errorf("%d refreshes, want exactly one", n)
	}
	s.wantNoDoubleSpend()
}

func TestAProviderThatFailsDestroysNoSession(t *testing.T) {
	for name, fault := range map[string]simulator.Fault{
		"503":               {Status: 503},
		"429":               {Status: 429},
		"HTML under 200":    {Body: "<html>maintenance</html>"},
		"garbage":           {Body: "\x00\xff{"},
		"an empty answer":   {Status: 200, Body: " "},
		"invalid_client":    {Status: 401, Body: `{"error":"invalid_client"}`},
		"slow_down":         {Status: 400, Body: `{"error":"slow_down"}`},
		"unavailable":       {Status: 400, Body: `{"error":"temporarily_unavailable"}`},
		"invalid_request":   {Status: 503, Body: `{"error":"invalid_request"}`},
		"408":               {Status: 408},
		"a redirect":        {Status: 307, Header: http.Header{"Location": {"http://127.0.0.1:1/"}}},
		"a cut connection":  {Cut: simulator.CutBeforeAnswer},
		"no answer":         {Hang: true},
		"an endless answer": {Endless: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, siteOptions{inProvider: "timeout 300ms"})
			b := s.newBrowser().signIn()
			s.provider.SetFault(simulator.Token, fault)
			s.clock.advance(due)
			for range 5 {
				if a := b.Get("/"); a.StatusCode != http.StatusOK {
					t.Fatalf("with a valid token: status %d: %s", a.StatusCode, a.text)
				}
				s.clock.advance(20 * time.Second)
			}

			s.clock.advance(over - due)
			a := b.Get("/")
			if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
				t.Errorf("without a valid token: status %d, Retry-After %q", a.StatusCode, a.Header.Get("Retry-After"))
			}
			if a.Header.Get("Set-Cookie") != "" {
				t.Errorf("a cookie was touched: %q", a.Header.Values("Set-Cookie"))
			}
			if page := b.visit("/"); page.StatusCode != http.StatusServiceUnavailable || page.Header.Get("Refresh") == "" {
				t.Errorf("a person got status %d, Refresh %q", page.StatusCode, page.Header.Get("Refresh"))
			}

			s.provider.ClearFaults()
			s.clock.advance(time.Minute)
			if a := b.Get("/"); a.StatusCode != http.StatusOK {
				t.Errorf("after the provider came back: status %d: %s", a.StatusCode, a.text)
			}
			s.wantNoDoubleSpend()
		})
	}
}

func TestUnansweredRefreshTokenIsNotResentWhileTheTokenIsValid(t *testing.T) {
	s := newSite(t, siteOptions{inProvider: "timeout 200ms"})
	b := s.newBrowser().signIn()
	s.clock.advance(lifetimeInTests - 4*time.Minute)
	s.provider.SetFault(simulator.Refresh, simulator.Fault{Hang: true})
	for range 6 {
		b.Get("/")
		time.Sleep(300 * time.Millisecond)
		s.clock.advance(35 * time.Second)
	}
	if n := s.refreshes(); n != 1 {
		t.Errorf("the refresh token was sent %d times", n)
	}
}

func TestHalfAnAnswerKeepsWhatCanBeKept(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.clock.advance(due)
	s.provider.SetFault(simulator.Refresh, simulator.Fault{Cut: simulator.CutHalf, Times: 1})
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Fatalf("with a valid token: status %d", a.StatusCode)
	}
	eventually(t, "the refresh was tried", func() bool { return s.refreshes() == 1 })
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("after half an answer: status %d", a.StatusCode)
	}
}

func TestOnlyInvalidGrantEndsASession(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	s.provider.RevokeUser(12345)
	s.clock.advance(over)
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the provider took the grant back: status %d", a.StatusCode)
	}
	if a := b.visit("/"); a.StatusCode != http.StatusFound {
		t.Errorf("a person got status %d", a.StatusCode)
	}
	if n := s.refreshes(); n != 1 {
		t.Errorf("%d refreshes, want exactly one", n)
	}
}

func TestAConfigReloadEverySecondLosesNothing(t *testing.T) {
	s := newSite(t, siteOptions{})
	var browsers []*visitor
	for range 8 {
		browsers = append(browsers, s.newBrowser().signIn())
	}
	s.provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 30 * time.Millisecond})

	var failed, served atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for _, b := range browsers {
		for range 3 {
			c := b.copyOf() // never takes the new cookie's place in the other copies
			load.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if a := c.Get("/"); a.StatusCode == http.StatusOK {
						served.Add(1)
					} else {
						failed.Add(1)
					}
					time.Sleep(2 * time.Millisecond)
				}
			})
		}
	}
	for range 12 {
		time.Sleep(100 * time.Millisecond)
		s.clock.advance(due)
		time.Sleep(20 * time.Millisecond)
		s.Load()
		time.Sleep(20 * time.Millisecond)
		s.clock.advance(lifetimeInTests - due)
	}
	close(stop)
	load.Wait()
	if failed.Load() != 0 || served.Load() == 0 {
		t.Errorf("%d requests failed, %d were served", failed.Load(), served.Load())
	}
	if s.refreshes() < len(browsers) {
		t.Errorf("only %d refreshes: the test did not test", s.refreshes())
	}
	s.wantNoDoubleSpend()
}

func TestLateResponseDoesNotOverwriteTheNewSessionCookie(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	oldTab := b.copyOf()
	b.visit(b.authorize("")) // signs in anew, as the same user
	old, renewals := s.sessionOf(oldTab), s.handlers[0].Internals().Renewals
	if _, err := renewals.Wait(t.Context(), old, s.handlers[0].Renewal(old)); err != nil {
		t.Fatal(err)
	}
	if a := oldTab.Get("/"); a.StatusCode != http.StatusOK || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("after a refresh of the old session its tab got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}

// sessionOf is the session that a browser's cookie holds.
func (s *site) sessionOf(b *visitor) *session.Session {
	s.t.Helper()
	found, err := s.handlers[0].Internals().Store.Load(s.t.Context(), strings.TrimPrefix(b.cookies()["tollgate"], "1."))
	if found.Session == nil || err != nil {
		s.t.Fatalf("no session: %v", err)
	}
	return found.Session
}

func TestAReloadThatChangesAnEndpointForgetsNoLogout(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	copied := b.copyOf()
	b.do("POST", "/oauth/logout", nil)
	s.caddyfile = strings.Replace(s.caddyfile, "client_id", "userinfo_endpoint "+s.providerURL+simulator.UserInfoPath+"?v=2\n\t\t\tclient_id", 1)
	s.Load()
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the copy got %d", a.StatusCode)
	}
}
