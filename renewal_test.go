package tollgate_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
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

// hurry makes the gateway wait only a moment for the provider from now on. It is for requests
// that the provider does not answer: on a busy machine, others may take longer.
func hurry(s *gatewaytest.Site) {
	s.T.Helper()
	s.Caddyfile = strings.Replace(s.Caddyfile, "client_id", hasty+"client_id", 1)
	s.Load()
}

// relax is the end of hurry.
func relax(s *gatewaytest.Site) {
	s.T.Helper()
	s.Caddyfile = strings.Replace(s.Caddyfile, hasty, "", 1)
	s.Load()
}

// hasty is the line that hurry writes.
const hasty = "timeout 200ms\n\t\t\t"

// outcome is what a burst of parallel requests got.
type outcome struct {
	statuses map[int]int
	cookies  int // responses that set a session cookie
}

// burst sends n requests at once, each with the same cookies.
func burst(b *gatewaytest.Browser, n int, target string) outcome {
	b.T.Helper()
	var mu sync.Mutex
	result := outcome{statuses: map[int]int{}}
	var ready, finished sync.WaitGroup
	start := make(chan struct{})
	for range n {
		c := b.Copy()
		ready.Add(1)
		finished.Go(func() {
			ready.Done()
			<-start
			a := c.Get(target)
			mu.Lock()
			defer mu.Unlock()
			result.statuses[a.StatusCode]++
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

func TestParallelRequestsShareOneRefresh(t *testing.T) {
	s := gatewaytest.New(t, patientOptions(gatewaytest.Options{}))
	b := s.NewBrowser().SignIn()
	old, first := b.Copy(), sessionOf(s, b)
	s.Clock.Advance(due)
	release := s.HoldBack(simulator.Refresh, simulator.Fault{})
	// No request waits for the refresh, because the old token is valid.
	got := burst(b, 200, "/")
	if got.statuses[http.StatusOK] != 200 {
		t.Errorf("200 requests got %v", got.statuses)
	}
	release()
	gatewaytest.Eventually(t, "the refresh was answered", func() bool {
		return s.Provider.LiveFamilies() == 1 && s.Refreshes() == 1 && newestGeneration(s, first) == 2
	})

	// The old cookie comes again a minute later, when its token is over.
	s.Clock.Advance(3 * time.Minute)
	got = burst(old, 50, "/")
	if got.statuses[http.StatusOK] != 50 || got.cookies != 50 {
		t.Errorf("the old cookie got %v, and %d new cookies", got.statuses, got.cookies)
	}
	if n := s.Refreshes(); n != 1 {
		t.Errorf("%d refreshes, want exactly one", n)
	}
	s.WantNoDoubleSpend()
}

// newestGeneration is the newest generation of a session that the gateway knows.
func newestGeneration(s *gatewaytest.Site, of *session.Session) uint64 {
	newest, _ := s.Handlers[0].Internals().Sessions.Latest(of)
	return newest.Generation
}

func TestRequestsWaitForOneRefreshAfterTheTokensExpire(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(over)
	s.Provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 300 * time.Millisecond})

	got := burst(b, 100, "/")
	if got.statuses[http.StatusOK] != 100 || got.cookies != 100 {
		t.Errorf("100 requests got %v, and %d new cookies", got.statuses, got.cookies)
	}
	if n := s.Refreshes(); n != 1 {
		t.Errorf("%d refreshes, want exactly one", n)
	}
	s.WantNoDoubleSpend()
}

func TestBrowserReceivesTheNewCookieAndStaysSignedIn(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	for generation := uint64(2); generation < 6; generation++ {
		s.Clock.Advance(over)
		before := b.Cookies()["tollgate"]
		if a := b.Get("/"); a.StatusCode != http.StatusOK {
			t.Fatalf("generation %d: status %d", generation, a.StatusCode)
		}
		if b.Cookies()["tollgate"] == before {
			t.Fatalf("generation %d: the cookie did not change", generation)
		}
		// Nothing is left to remember: the cookie alone carries the session.
		s.Restart()
	}
	s.WantNoDoubleSpend()
}

func TestClientLeavingDuringARefreshLosesNoTokens(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(over)
	release := s.HoldBack(simulator.Refresh, simulator.Fault{DelayAfterWork: true})

	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	left := make(chan error, 1)
	go func() {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/", nil)
		res, err := b.Client.Do(req)
		if err == nil {
			res.Body.Close()
		}
		left <- err
	}()
	gatewaytest.Eventually(t, "the refresh is under way", func() bool { return s.Refreshes() == 1 })
	leave()
	if err := <-left; err == nil {
		t.Fatal("the request was answered before its client left")
	}
	release()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("the next request got %d: %s", a.StatusCode, a.Text)
	}
	if n := s.Refreshes(); n != 1 {
		t.Errorf("%d refreshes, want exactly one", n)
	}
	s.WantNoDoubleSpend()
}

func TestFailingProviderEndsNoSession(t *testing.T) {
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
			s := gatewaytest.New(t, gatewaytest.Options{})
			b := s.NewBrowser().SignIn()
			hurry(s)
			s.Provider.SetFault(simulator.Token, fault)
			s.Clock.Advance(due)
			for range 5 {
				if a := b.Get("/"); a.StatusCode != http.StatusOK {
					t.Fatalf("with a valid token: status %d: %s", a.StatusCode, a.Text)
				}
				s.Clock.Advance(20 * time.Second)
			}

			s.Clock.Advance(over - due)
			a := b.Get("/")
			if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
				t.Errorf("without a valid token: status %d, Retry-After %q", a.StatusCode, a.Header.Get("Retry-After"))
			}
			if a.Header.Get("Set-Cookie") != "" {
				t.Errorf("a cookie was touched: %q", a.Header.Values("Set-Cookie"))
			}
			if page := b.Visit("/"); page.StatusCode != http.StatusServiceUnavailable || page.Header.Get("Refresh") == "" {
				t.Errorf("a person got status %d, Refresh %q", page.StatusCode, page.Header.Get("Refresh"))
			}

			s.Provider.ClearFaults()
			relax(s)
			s.Clock.Advance(time.Minute)
			if a := b.Get("/"); a.StatusCode != http.StatusOK {
				t.Errorf("after the provider came back: status %d: %s", a.StatusCode, a.Text)
			}
			s.WantNoDoubleSpend()
		})
	}
}

func TestUnansweredRefreshTokenIsNotResentWhileTheTokenIsValid(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	hurry(s)
	s.Clock.Advance(lifetimeInTests - 4*time.Minute)
	s.Provider.SetFault(simulator.Refresh, simulator.Fault{Hang: true})
	for range 6 {
		b.Get("/")
		gatewaytest.Eventually(t, "no refresh is under way", func() bool { return s.Handlers[0].Internals().Renewals.Running.Count() == 0 })
		s.Clock.Advance(35 * time.Second)
	}
	if n := s.Refreshes(); n != 1 {
		t.Errorf("the refresh token was sent %d times", n)
	}
}

func TestTruncatedTokenResponseEndsNoSession(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(due)
	s.Provider.SetFault(simulator.Refresh, simulator.Fault{Cut: simulator.CutHalf, Times: 1})
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Fatalf("with a valid token: status %d", a.StatusCode)
	}
	gatewaytest.Eventually(t, "the refresh was tried", func() bool { return s.Refreshes() == 1 })
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("after half an answer: status %d", a.StatusCode)
	}
}

func TestOnlyInvalidGrantEndsASession(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	s.Provider.RevokeUser(12345)
	s.Clock.Advance(over)
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the provider took the grant back: status %d", a.StatusCode)
	}
	if a := b.Visit("/"); a.StatusCode != http.StatusFound {
		t.Errorf("a person got status %d", a.StatusCode)
	}
	if n := s.Refreshes(); n != 1 {
		t.Errorf("%d refreshes, want exactly one", n)
	}
}

func TestAConfigReloadEverySecondLosesNothing(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	var browsers []*gatewaytest.Browser
	for range 8 {
		browsers = append(browsers, s.NewBrowser().SignIn())
	}
	s.Provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 30 * time.Millisecond})

	var failed, served atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for _, b := range browsers {
		for range 3 {
			c := b.Copy() // never takes the new cookie's place in the other copies
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
		s.Clock.Advance(due)
		time.Sleep(20 * time.Millisecond)
		s.Load()
		time.Sleep(20 * time.Millisecond)
		s.Clock.Advance(lifetimeInTests - due)
	}
	close(stop)
	load.Wait()
	if failed.Load() != 0 || served.Load() == 0 {
		t.Errorf("%d requests failed, %d were served", failed.Load(), served.Load())
	}
	if s.Refreshes() < len(browsers) {
		t.Errorf("only %d refreshes: the test did not test", s.Refreshes())
	}
	s.WantNoDoubleSpend()
}

func TestLateResponseDoesNotOverwriteTheNewSessionCookie(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	oldTab := b.Copy()
	b.Visit(b.Authorize("")) // signs in anew, as the same user
	old, renewals := sessionOf(s, oldTab), s.Handlers[0].Internals().Renewals
	if _, err := renewals.Wait(t.Context(), old, s.Handlers[0].Renewal(old)); err != nil {
		t.Fatal(err)
	}
	if a := oldTab.Get("/"); a.StatusCode != http.StatusOK || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("after a refresh of the old session its tab got %d, %q", a.StatusCode, a.Header.Values("Set-Cookie"))
	}
}

// sessionOf is the session that a browser's cookie holds.
func sessionOf(s *gatewaytest.Site, b *gatewaytest.Browser) *session.Session {
	s.T.Helper()
	found, err := s.Handlers[0].Internals().Store.Load(s.T.Context(), strings.TrimPrefix(b.Cookies()["tollgate"], "1."))
	if found.Session == nil || err != nil {
		s.T.Fatalf("no session: %v", err)
	}
	return found.Session
}

func TestReloadThatChangesAnEndpointKeepsLogouts(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	copied := b.Copy()
	b.Send("POST", "/oauth/logout", nil)
	s.Caddyfile = strings.Replace(s.Caddyfile, "client_id", "userinfo_endpoint "+s.ProviderURL+simulator.UserInfoPath+"?v=2\n\t\t\tclient_id", 1)
	s.Load()
	if a := copied.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the copy got %d", a.StatusCode)
	}
}
