package renewal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/stores/redis"
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

func TestNextStepOfARefreshDependsOnTheTokensAndTheLock(t *testing.T) {
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
	for _, test := range []struct {
		name        string
		s, standing *session.Session
		locked      bool
		watched     time.Duration
		want        claimStep
	}{
		{"it has ended", s, nil, true, 0, stepEnded},
		{"it has ended, and somebody has the lock", s, nil, false, 0, stepEnded},
		{"another process was faster", s, newer, true, 0, stepUse},
		{"another process was faster, and has the lock", s, newer, false, 0, stepUse},
		{"somebody has the lock", s, s, false, time.Hour, stepWait},
		{"it is ours", s, s, true, 0, stepSpend},
		{"it is ours, and expired", expired, expired, true, 0, stepSpend},
		{"sent by somebody, still valid", s, pending(s, time.Hour), true, time.Hour, stepLeave},
		{"sent by somebody a moment ago", expired, pending(expired, lease-time.Second), true, time.Hour, stepWait},
		{"sent by somebody who died", expired, pending(expired, lease+time.Second), true, settlePause, stepSpend},
		{"sent by somebody who may be writing it now", expired, pending(expired, lease+time.Second), true, settlePause - 1, stepWait},
		{"this process has newer tokens, not written yet", newer, pending(s, time.Second), true, 0, stepSpend},
	} {
		if got := nextStep(test.s, test.standing, test.locked, now, test.watched, lease); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

// sharedSession keeps a session at a store of its own, and gives renewals to renew it with.
func sharedSession(t *testing.T, p recordstest.Place) (*records.Tickets, *session.Session, *Refresher) {
	t.Helper()
	store := p.Store(t)
	s := recordstest.FreshSession("12345")
	s.Tokens.Expires = time.Now().Add(-time.Second)
	s, _ = recordstest.Keep(t, store, s)
	sessions := session.NewRegistry(time.Now, func(session.ID, time.Time) {})
	t.Cleanup(sessions.Close)
	r := New(sessions, time.Now)
	t.Cleanup(r.Close)
	return store, s, r
}

func renewalWith(t *testing.T, store *records.Tickets, spend func(old oauth.Tokens) (oauth.Tokens, error)) How {
	return How{
		Store: store, Timeout: 30 * time.Second, Lease: time.Second,
		Spend:     func(_ context.Context, old oauth.Tokens) (oauth.Tokens, error) { return spend(old) },
		Report:    &reports{},
		Abandoned: func(_ context.Context, s *session.Session) { t.Log("abandoned:", s.Generation) },
	}
}

// reports remembers what refreshes report.
type reports struct {
	mu   sync.Mutex // guards seen
	seen []string
}

func (r *reports) add(report string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, report)
}

func (r *reports) NotBegun(*session.Session, error) { r.add("not begun") }
func (r *reports) Unsaved(*session.Session, error)  { r.add("unsaved") }
func (r *reports) Saved(*session.Session)           { r.add("saved") }
func (r *reports) TooLarge(*session.Session, error) { r.add("too large") }
func (r *reports) NotEnded(*session.Session, error) { r.add("not ended") }

func (r *reports) NotRestored(*session.Session, error) { r.add("not restored") }

// wantReports compares what the refreshes of how have reported.
func wantReports(t *testing.T, how How, want ...string) {
	t.Helper()
	r := how.Report.(*reports)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.seen, want) {
		t.Errorf("got reports %v, want %v", r.seen, want)
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
	recordstest.Eventually(t, "the tokens are written", func() bool {
		standing, err := store.Reread(t.Context(), s)
		return err == nil && standing.Tokens.Refresh == "refresh_2" && standing.Kept.Pending.IsZero()
	})
	renewals.Drain(30 * time.Second)
	if n := renewals.Running.Count(); n != 0 {
		t.Errorf("%d still run", n)
	}
	wantReports(t, how, "unsaved", "saved")
}

func TestARefreshInTheBackgroundReportsAStoreThatFails(t *testing.T) {
	storage, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) { return rotated(old), nil })
	storage.Full.Store(true)
	renewals.Start(t.Context(), s, how)
	renewals.Drain(30 * time.Second)
	wantReports(t, how, "not begun")
}

func TestRestoreReportsAStoreThatFails(t *testing.T) {
	storage, p := newBreakablePlace(t)
	store, s, renewals := sharedSession(t, p)
	how := renewalWith(t, store, nil)
	newest := *s
	newest.Generation, newest.Tokens = s.Generation+1, rotated(s.Tokens)
	storage.Full.Store(true)
	renewals.Restore(t.Context(), &newest, s, how)
	renewals.Drain(30 * time.Second)
	wantReports(t, how, "not restored")
}

func TestLockIsHeldUntilTheProviderResponds(t *testing.T) {
	for _, place := range places {
		t.Run(place.name, func(t *testing.T) {
			t.Parallel()
			p := place.new(t)
			store, s, renewals := sharedSession(t, p)
			other := p.Store(t)
			how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) {
				for range 10 {
					time.Sleep(300 * time.Millisecond)
					if _, ok, err := other.Records.TryLock(t.Context(), s.ID.Hash(), time.Second); ok || err != nil {
						t.Errorf("somebody else took the lock: %v, %v", ok, err)
					}
				}
				return rotated(old), nil
			})
			how.Lease = 2 * time.Second // renewed each 667 ms, which a busy machine delays
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
	time.Sleep(backOffExpired)
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
	how.Abandoned = func(_ context.Context, s *session.Session) { abandoned = s.Tokens.Refresh }
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

func TestPendingMarkDependsOnTheProvidersResponse(t *testing.T) {
	for _, want := range []struct {
		kind           oauth.Failure
		pending, ended bool
	}{
		{kind: oauth.FailureTransient},
		{kind: oauth.FailureOperator},
		{kind: oauth.FailureUnanswered, pending: true},
		{kind: oauth.FailureEnded, ended: true},
	} {
		t.Run(fmt.Sprint(want.kind), func(t *testing.T) {
			_, p := newBreakablePlace(t)
			store, s, renewals := sharedSession(t, p)
			how := renewalWith(t, store, func(old oauth.Tokens) (oauth.Tokens, error) { return old, &oauth.Error{Kind: want.kind} })
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
	if _, err := renewals.Spend(t.Context(), marked, how); err != nil {
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
	time.Sleep(backOffExpired)
	if got, err := renewals.Wait(t.Context(), s, how); err != nil || got.Tokens.Refresh != "refresh_2" {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
}

func TestTokensThatAreTooLargeAreNotRetriedForEver(t *testing.T) {
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
	renewals.Drain(30 * time.Second)
	if n := renewals.Running.Count(); n != 0 {
		t.Error("it is tried again")
	}
	if lock, free, err := store.Records.TryLock(t.Context(), s.ID.Hash(), time.Second); !free || err != nil {
		t.Errorf("the lock is still held: %v", err)
	} else {
		lock.Release(t.Context())
	}
	wantReports(t, how, "too large")
}

func sampleSession(accessLength int) *session.Session {
	now := time.UnixMilli(1_700_000_000_123)
	s := session.NewSession(now, oauth.Tokens{
		Access: strings.Repeat("a", accessLength), Refresh: "refresh_1", Scope: "profile balance",
		Issued: now, Expires: now.Add(2 * time.Hour),
	}, oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{oauth.FieldID: "12345", oauth.FieldUsername: `"张伟"`, oauth.FieldBalance: `"750.00"`}, now))
	s.Generation = 7
	return s
}

// places are the kinds of places, each with a fresh one for a test.
var places = []struct {
	name string
	new  func(t *testing.T) recordstest.Place
}{
	{"storage", func(t *testing.T) recordstest.Place {
		_, place := newBreakablePlace(t)
		return place
	}},
	{"redis", func(t *testing.T) recordstest.Place {
		options := redis.Options{Addresses: []string{redistest.Start(t).Address()}, ClientCache: true, Timeout: 30 * time.Second}
		return recordstest.Place{Open: func(*testing.T) records.Store { return redis.NewRecords(options, "tollgate:") }}
	}},
}

// newBreakablePlace is a folder whose storage breaks when the test says so.
func newBreakablePlace(t *testing.T) (*recordstest.Breakable, recordstest.Place) {
	kind := recordstest.NewBreakable(t.TempDir())
	return kind, kind.Place(func(s certmagic.Storage) records.Store { return storage.NewRecords(s) })
}
