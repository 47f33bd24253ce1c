package tollgate_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/renewal"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

func TestFleetSharesOneRefresh(t *testing.T) {
	const lease = 600 * time.Millisecond
	for when, moment := range map[string]time.Duration{"while the token is valid": due, "after its end": over} {
		forEachSharedPlace(t, func(t *testing.T, session string) {
			f := gatewaytest.NewFleet(t, 3, session, lease)
			b := f.NewBrowser().SignIn()
			f.Advance(moment)
			f.Provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 2 * lease})

			if got := f.Burst(b, 200); got[http.StatusOK] != 200 {
				t.Errorf("%s, 200 requests got %v", when, got)
			}
			gatewaytest.Eventually(t, "the refresh was answered", func() bool { return f.Refreshes() == 1 })
			time.Sleep(2 * lease)
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

func TestALogoutIsFinalInTheWholeFleet(t *testing.T) {
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
		began := time.Now()
		for _, r := range f.Replicas {
			gatewaytest.Eventually(t, "the copied cookie is refused", func() bool { return copied.Get(r.At("/")).StatusCode == http.StatusUnauthorized })
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAProcessThatIsStoppedFinishesItsRefreshes(t *testing.T) {
	forEachSharedPlace(t, func(t *testing.T, session string) {
		f := gatewaytest.NewFleet(t, 2, session, time.Minute)
		b := f.NewBrowser().SignIn()
		f.Advance(due)
		f.Provider.SetFault(simulator.Refresh, simulator.Fault{Delay: 3 * time.Second, DelayAfterWork: true})
		if a := b.Get(f.Replicas[1].At("/")); a.StatusCode != http.StatusOK {
			t.Fatalf("while the refresh is under way: %d", a.StatusCode)
		}
		gatewaytest.Eventually(t, "the refresh is under way", func() bool { return f.Refreshes() == 1 })
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
		b.Get(f.Replicas[1].At("/"))
		gatewaytest.Eventually(t, "the refresh is under way", func() bool { return f.Refreshes() == 1 })
		f.Terminate(f.Replicas[1], syscall.SIGKILL)
		time.Sleep(2 * lease)
		f.Replicas = f.Replicas[:1]
		for range 5 {
			if a := b.Get(f.Replicas[0].At("/")); a.StatusCode != http.StatusOK {
				t.Errorf("while the old token is valid: %d", a.StatusCode)
			}
			time.Sleep(renewal.SettlePause / 4)
		}
		if n := f.Refreshes(); n != 1 {
			t.Errorf("%d refreshes while the old token is valid: the other process has spent it again", n)
		}
		f.WantNoDoubleSpend()
	})
}

func TestNextStep(t *testing.T) {
	now := time.Now()
	const lease = 15 * time.Second
	s := sampleSession(10)
	s.Tokens.Expires = now.Add(time.Minute)
	expired := s.KeptAs(s.Kept)
	expired.Tokens.Expires = now.Add(-time.Second)
	pending := func(s *session.Session, ago time.Duration) *session.Session {
		p := s.KeptAs(s.Kept)
		p.Kept.Pending = now.Add(-ago)
		return p
	}
	newer := s.Renewed(oauth.Tokens{})
	for name, test := range map[string]struct {
		s, standing *session.Session
		locked      bool
		watched     time.Duration
		want        renewal.ClaimStep
	}{
		"it has ended": {s, nil, true, 0, renewal.StepEnded},
		"it has ended, and somebody has the lock":        {s, nil, false, 0, renewal.StepEnded},
		"another process was faster":                     {s, newer, true, 0, renewal.StepUse},
		"another process was faster, and has the lock":   {s, newer, false, 0, renewal.StepUse},
		"somebody has the lock":                          {s, s, false, time.Hour, renewal.StepWait},
		"it is ours":                                     {s, s, true, 0, renewal.StepSpend},
		"it is ours, and expired":                        {expired, expired, true, 0, renewal.StepSpend},
		"sent by somebody, still valid":                  {s, pending(s, time.Hour), true, time.Hour, renewal.StepLeave},
		"sent by somebody a moment ago":                  {expired, pending(expired, lease-time.Second), true, time.Hour, renewal.StepWait},
		"sent by somebody who died":                      {expired, pending(expired, lease+time.Second), true, renewal.SettlePause, renewal.StepSpend},
		"sent by somebody who may be writing it now":     {expired, pending(expired, lease+time.Second), true, renewal.SettlePause - 1, renewal.StepWait},
		"this process has newer tokens, not written yet": {newer, pending(s, time.Second), true, 0, renewal.StepSpend},
	} {
		if got := renewal.NextStep(test.s, test.standing, test.locked, now, test.watched, lease); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

// sharedSession signs in at a store of its own, and gives renewals to renew it with.
func sharedSession(t *testing.T, p recordstest.Place) (*records.Tickets, *session.Session, *renewal.Refresher) {
	t.Helper()
	store := p.Store(t)
	s := recordstest.FreshSession("12345")
	s.Tokens.Expires = time.Now().Add(-time.Second)
	s, _ = recordstest.Keep(t, store, s)
	sessions := session.NewRegistry(time.Now, func(session.ID, time.Time) {})
	t.Cleanup(sessions.Close)
	r := renewal.New(sessions, time.Now)
	t.Cleanup(r.Close)
	return store, s, r
}

func renewalWith(t *testing.T, store *records.Tickets, spend func(old oauth.Tokens) (oauth.Tokens, error)) renewal.How {
	return renewal.How{
		Store: store, Timeout: 5 * time.Second, Lease: time.Second,
		Spend:     func(_ context.Context, old oauth.Tokens) (oauth.Tokens, error) { return spend(old) },
		Unsaved:   func(err error) { t.Log("unsaved:", err) },
		Abandoned: func(s *session.Session) { t.Log("abandoned:", s.Generation) },
	}
}

func rotated(old oauth.Tokens) oauth.Tokens {
	return oauth.Tokens{Access: "access_2", Refresh: "refresh_2", Issued: time.Now(), Expires: time.Now().Add(time.Hour)}
}

func TestUnsavedTokensAreServedFromMemoryAndSavedLater(t *testing.T) {
	storage, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) {
		storage.Full.Store(true)
		return rotated(old), nil
	})
	renewed, err := renewals.Wait(t.Context(), s, how)
	if err != nil || renewed.Tokens.Access != "access_2" {
		t.Fatalf("%+v, %v", renewed, err)
	}
	standing, err := store.Reread(t.Context(), s)
	if err != nil || standing.Generation != 1 || standing.Kept.Pending.IsZero() {
		t.Fatalf("in the store: %+v, %v", standing, err)
	}
	if newest, live := renewals.Sessions.Latest(standing); !live || newest.Tokens.Access != "access_2" {
		t.Errorf("this process serves %+v", newest)
	}
	if renewals.Running.Count() == 0 {
		t.Error("nobody is trying to write it down: a stop would lose it")
	}
	storage.Full.Store(false)
	gatewaytest.Eventually(t, "the tokens are written", func() bool {
		standing, err := store.Reread(t.Context(), s)
		return err == nil && standing.Tokens.Refresh == "refresh_2" && standing.Kept.Pending.IsZero()
	})
	renewals.Drain(5 * time.Second)
	if n := renewals.Running.Count(); n != 0 {
		t.Errorf("%d still run", n)
	}
}

func TestTheLockIsHeldForAsLongAsTheProviderTakes(t *testing.T) {
	for kind, newPlace := range places {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			store, s, renewals := sharedSession(t, p)
			other := p.Store(t)
			how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) {
				for range 8 {
					time.Sleep(200 * time.Millisecond)
					if _, ok, err := other.Records.TryLock(t.Context(), s.ID.Hash(), time.Second); ok || err != nil {
						t.Errorf("somebody else took the lock: %v, %v", ok, err)
					}
				}
				return rotated(old), nil
			})
			how.Lease = 600 * time.Millisecond // longer than a busy machine may leave us alone
			if _, err := renewals.Wait(t.Context(), s, how); err != nil {
				t.Fatal(err)
			}
			lock, ok, err := other.Records.TryLock(t.Context(), s.ID.Hash(), time.Second)
			if !ok || err != nil {
				t.Fatalf("afterwards the lock is not free: %v, %v", ok, err)
			}
			lock.Release(t.Context())
		})
	}
}

func TestFailingStoreSpendsNoRefreshToken(t *testing.T) {
	storage, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	spent := 0
	how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) { spent++; return rotated(old), nil })
	storage.Full.Store(true)
	if _, err := renewals.Wait(t.Context(), s, how); err == nil || errors.Is(err, session.ErrEnded) {
		t.Errorf("with a full store: %v", err)
	}
	if spent != 0 {
		t.Error("the token was spent though nothing can be written down")
	}
	storage.Full.Store(false)
	time.Sleep(renewal.BackOffExpired)
	if _, err := renewals.Wait(t.Context(), s, how); err != nil || spent != 1 {
		t.Errorf("afterwards: %v, spent %d times", err, spent)
	}
}

func TestASessionThatEndsDuringItsRefreshStaysEnded(t *testing.T) {
	_, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) {
		if err := store.End(t.Context(), s, time.Time{}); err != nil {
			t.Error(err)
		}
		return rotated(old), nil
	})
	abandoned := ""
	how.Abandoned = func(s *session.Session) { abandoned = s.Tokens.Refresh }
	if _, err := renewals.Wait(t.Context(), s, how); !errors.Is(err, session.ErrEnded) {
		t.Errorf("got %v", err)
	}
	if abandoned != "refresh_2" {
		t.Errorf("nobody is told to revoke the new refresh token: %q", abandoned)
	}
	if standing, err := store.Reread(t.Context(), s); standing != nil || err != nil {
		t.Errorf("in the store: %+v, %v", standing, err)
	}
	if _, live := renewals.Sessions.Latest(s); live {
		t.Error("this process still serves it")
	}
}

func TestSavingLastSeenDuringARefreshLosesNoTokens(t *testing.T) {
	_, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	seen := s.LastSeen.Add(time.Minute)
	how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) {
		standing, err := store.Reread(t.Context(), s)
		if err == nil {
			_, err = store.Save(t.Context(), standing.Seen(seen))
		}
		return rotated(old), err
	})
	if _, err := renewals.Wait(t.Context(), s, how); err != nil {
		t.Fatal(err)
	}
	if standing, err := store.Reread(t.Context(), s); err != nil || standing.Tokens.Refresh != "refresh_2" || !standing.Kept.Pending.IsZero() {
		t.Errorf("in the store: %+v, %v", standing, err)
	}
}

func TestProviderAnswerDecidesAboutThePendingMark(t *testing.T) {
	for kind, want := range map[oauth.Failure]struct{ pending, ended bool }{
		oauth.FailureTransient:  {},
		oauth.FailureOperator:   {},
		oauth.FailureUnanswered: {pending: true},
		oauth.FailureEnded:      {ended: true},
	} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			_, p := newBreakablePlace(t)
			store, s, renewals := sharedSession(t, p)
			how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) { return old, &oauth.Error{Kind: kind} })
			if _, err := renewals.Wait(t.Context(), s, how); err == nil || errors.Is(err, session.ErrEnded) != want.ended {
				t.Errorf("got %v", err)
			}
			standing, err := store.Reread(t.Context(), s)
			if err != nil || (standing == nil) != want.ended {
				t.Fatalf("in the store: %+v, %v", standing, err)
			}
			if standing != nil && standing.Kept.Pending.IsZero() == want.pending {
				t.Errorf("the mark: %v", standing.Kept.Pending)
			}
		})
	}
}

func TestInvalidGrantYieldsToNewerTokensInTheStore(t *testing.T) {
	_, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) {
		standing, _ := store.Reread(t.Context(), s)
		if _, err := store.Save(t.Context(), standing.Renewed(rotated(old))); err != nil {
			t.Error(err)
		}
		return old, &oauth.Error{Kind: oauth.FailureEnded}
	})
	got, err := renewals.Wait(t.Context(), s, how)
	if err != nil || got.Tokens.Refresh != "refresh_2" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestShutdownWaitsForRefreshesUpToALimit(t *testing.T) {
	for grace, finished := range map[string]bool{"10s": true, "200ms": false} {
		s := gatewaytest.New(t, gatewaytest.Options{})
		s.Caddyfile = strings.Replace(s.Caddyfile, "admin off", "admin off\n\tgrace_period "+grace, 1)
		s.Load()
		b := s.NewBrowser().SignIn()
		s.Clock.Advance(due)
		s.Provider.SetFault(simulator.Refresh, simulator.Fault{Delay: time.Second})
		b.Get("/")
		gatewaytest.Eventually(t, "the refresh is under way", func() bool { return s.Refreshes() == 1 })
		renewals := s.Handlers[0].Internals().Renewals
		began := time.Now()
		s.Handlers[0].Cleanup()
		s.Handlers = nil
		if running := renewals.Running.Count(); (running == 0) != finished {
			t.Errorf("with a grace period of %s, %d refreshes were cut off after %v", grace, running, time.Since(began))
		}
		s.Provider.ClearFaults()
	}
}

func TestTokensInMemoryAreNotMarkedAsPending(t *testing.T) {
	_, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	marked := s.KeptAs(s.Kept)
	marked.Kept.Pending = time.Now()
	marked, err := store.Save(t.Context(), marked)
	if err != nil {
		t.Fatal(err)
	}
	how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) { return rotated(old), nil })
	if _, err := renewals.Spend(marked, how); err != nil {
		t.Fatal(err)
	}
	// A request in between writes down that the session is used.
	newest, _ := renewals.Sessions.Latest(s)
	if _, err := store.Save(t.Context(), newest.Seen(time.Now())); err != nil {
		t.Fatal(err)
	}
	if standing, err := store.Reread(t.Context(), s); err != nil || standing.Generation != 2 || !standing.Kept.Pending.IsZero() {
		t.Errorf("in the store: %+v, %v", standing, err)
	}
}

func TestInvalidGrantEndsNoSessionWhileTheStoreFails(t *testing.T) {
	storage, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	other := p.Store(t)
	how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) {
		standing, _ := other.Reread(t.Context(), s) // this process was held up, and another one was faster
		if _, err := other.Save(t.Context(), standing.Renewed(rotated(old))); err != nil {
			t.Error(err)
		}
		storage.Broken.Store(true)
		return old, &oauth.Error{Kind: oauth.FailureEnded}
	})
	if _, err := renewals.Wait(t.Context(), s, how); err == nil || errors.Is(err, session.ErrEnded) {
		t.Errorf("while the store does not answer: %v", err)
	}
	storage.Broken.Store(false)
	if _, live := renewals.Sessions.Latest(s); !live {
		t.Error("the session is taken for ended")
	}
	time.Sleep(renewal.BackOffExpired)
	if got, err := renewals.Wait(t.Context(), s, how); err != nil || got.Tokens.Refresh != "refresh_2" {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
}

func TestTokensThatAreTooLargeAreNotTriedForEver(t *testing.T) {
	_, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) {
		next := rotated(old)
		next.Access = strings.Repeat("a", records.MaxRecord)
		return next, nil
	})
	if renewed, err := renewals.Wait(t.Context(), s, how); err != nil || len(renewed.Tokens.Access) != records.MaxRecord {
		t.Fatalf("the process that has them does not use them: %v", err)
	}
	renewals.Drain(time.Second)
	if n := renewals.Running.Count(); n != 0 {
		t.Error("it is tried again")
	}
	if lock, free, err := store.Records.TryLock(t.Context(), s.ID.Hash(), time.Second); !free || err != nil {
		t.Errorf("the lock is still held: %v", err)
	} else {
		lock.Release(t.Context())
	}
}

func TestWhatTheStoreLostIsWrittenAgain(t *testing.T) {
	s, kind, _ := newStoredSite(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	name := sessionOf(s, b).ID.Hash()
	key := storage.StorageSessions + "/" + name
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
	time.Sleep(storage.StorageReadAge)
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
