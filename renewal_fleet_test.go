package tollgate_test

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestFleetSharesOneRefresh(t *testing.T) {
	const lease = 3 * time.Second // it is renewed each second, which a busy machine delays
	for when, moment := range map[string]time.Duration{"while the token is valid": due, "after its end": over} {
		forEachSharedPlace(t, func(t *testing.T, session string) {
			f := gatewaytest.NewFleet(t, 3, session, lease)
			b := f.NewBrowser().SignIn()
			f.Advance(moment)
			f.Provider.SetFault(simulator.Refresh, simulator.Fault{Delay: lease + time.Second})

			if got := f.Burst(b, 200); got[http.StatusOK] != 200 {
				t.Errorf("%s, 200 requests got %v", when, got)
			}
			gatewaytest.Eventually(t, "the refresh was answered", func() bool { return f.Refreshes() == 1 })
			f.Provider.ClearFaults()
			f.Advance(over - moment)
			if got := f.Burst(b, 60); got[http.StatusOK] != 60 {
				t.Errorf("%s, with the new token 60 requests got %v", when, got)
			}
			if n := f.Refreshes(); n != 1 {
				t.Errorf("%s: %d refreshes, want exactly one", when, n)
			}
			f.WantNoDoubleSpend()
		})
	}
}

func TestLogoutIsFinalOnAllGateways(t *testing.T) {
	forEachSharedPlace(t, func(t *testing.T, session string) {
		f := gatewaytest.NewFleet(t, 2, session, time.Minute)
		b := f.NewBrowser().SignIn()
		copied := b.Copy()
		for _, r := range f.Replicas {
			if a := copied.Get(r.At("/")); a.StatusCode != http.StatusOK {
				t.Fatalf("before: %d", a.StatusCode)
			}
		}
		b.Send("POST", f.Replicas[0].At("/oauth/logout"), nil)
		for _, r := range f.Replicas {
			gatewaytest.Eventually(t, "the copied cookie is refused", func() bool { return copied.Get(r.At("/")).StatusCode == http.StatusUnauthorized })
		}
	})
}

// startRefresh sends requests to the second process until the provider has received a
// refresh. One request is not enough if the store takes too long for the lock.
func startRefresh(t *testing.T, f *gatewaytest.Fleet, b *gatewaytest.Browser) {
	t.Helper()
	gatewaytest.Eventually(t, "the refresh is under way", func() bool {
		if a := b.Get(f.Replicas[1].At("/")); a.StatusCode != http.StatusOK {
			t.Fatalf("while the refresh is under way: got %d, want 200", a.StatusCode)
		}
		return f.Refreshes() == 1
	})
}

func TestStoppedProcessFinishesItsRefreshes(t *testing.T) {
	forEachSharedPlace(t, func(t *testing.T, session string) {
		f := gatewaytest.NewFleet(t, 2, session, time.Minute)
		b := f.NewBrowser().SignIn()
		f.Advance(due)
		f.Provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 3 * time.Second, DelayAfterWork: true})
		startRefresh(t, f, b)
		f.Terminate(f.Replicas[1], syscall.SIGTERM)
		f.Provider.ClearFaults()

		f.Replicas = f.Replicas[:1]
		f.Advance(over - due)
		if a := b.Get(f.Replicas[0].At("/")); a.StatusCode != http.StatusOK {
			t.Errorf("at the other process, after the token's end: %d", a.StatusCode)
		}
		if n := f.Refreshes(); n != 1 {
			t.Errorf("%d refreshes, want exactly one", n)
		}
		f.WantNoDoubleSpend()
	})
}

func TestCrashDuringRefreshDoesNotSpendTheTokenTwice(t *testing.T) {
	forEachSharedPlace(t, func(t *testing.T, session string) {
		const lease = 500 * time.Millisecond
		f := gatewaytest.NewFleet(t, 2, session, lease)
		b := f.NewBrowser().SignIn()
		f.Advance(due)
		f.Provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 30 * time.Second, DelayAfterWork: true, Times: 1})
		startRefresh(t, f, b)
		f.Terminate(f.Replicas[1], syscall.SIGKILL)
		time.Sleep(2 * lease)
		f.Replicas = f.Replicas[:1]
		for range 5 {
			if a := b.Get(f.Replicas[0].At("/")); a.StatusCode != http.StatusOK {
				t.Errorf("while the old token is valid: %d", a.StatusCode)
			}
			time.Sleep(500 * time.Millisecond) // in all longer than the other process is waited for
		}
		if n := f.Refreshes(); n != 1 {
			t.Errorf("%d refreshes while the old token is valid: the other process has spent it again", n)
		}
		f.WantNoDoubleSpend()
	})
}

func TestShutdownWaitsForRefreshesUpToALimit(t *testing.T) {
	for grace, finished := range map[string]bool{"1m": true, "200ms": false} {
		s := gatewaytest.New(t, gatewaytest.Options{})
		s.Caddyfile = strings.Replace(s.Caddyfile, "admin off", "admin off\n\tgrace_period "+grace, 1)
		s.Load()
		b := s.NewBrowser().SignIn()
		s.Clock.Advance(due)
		release := s.HoldBack(simulator.Refresh, simulator.Fault{})
		b.Get("/")
		gatewaytest.Eventually(t, "the refresh is under way", func() bool { return s.Refreshes() == 1 })
		renewals := s.Handlers[0].Internals().Renewals
		if finished {
			time.AfterFunc(500*time.Millisecond, release) // while Cleanup waits
		}
		s.Handlers[0].Cleanup()
		s.Handlers = nil
		if running := renewals.Running.Count(); (running == 0) != finished {
			t.Errorf("with a grace period of %s, %d refreshes were cut off", grace, running)
		}
		release()
	}
}

func TestLostRecordIsWrittenAgain(t *testing.T) {
	s, kind, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	name := sessionOf(s, b).ID.Hash()
	key := "tollgate/sessions/" + name
	before, err := kind.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	s.Clock.Advance(over)
	b.Get("/")
	gatewaytest.Eventually(t, "the refresh is done", func() bool { return s.Refreshes() == 1 && s.Handlers[0].Internals().Renewals.Running.Count() == 0 })
	// The store fails over to a copy that has not seen the refresh.
	if err := kind.Storage.Store(t.Context(), key, before); err != nil {
		t.Fatal(err)
	}
	time.Sleep(storageReadAge)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Fatalf("got %d", a.StatusCode)
	}
	gatewaytest.Eventually(t, "the tokens are in the store again", func() bool {
		after, err := kind.Load(t.Context(), key)
		return err == nil && string(after) != string(before)
	})
	s.Restart() // as another process, which knows what is in the store
	if a := b.Get("/"); a.StatusCode != http.StatusOK || s.Refreshes() != 1 {
		t.Errorf("got %d, after %d refreshes", a.StatusCode, s.Refreshes())
	}
	s.WantNoDoubleSpend()
}
