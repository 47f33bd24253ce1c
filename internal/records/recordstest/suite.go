package recordstest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

// Suite tests what every store on a server promises, each promise at a place of its own.
func Suite(t *testing.T, newPlace func(t *testing.T) Place) {
	for _, c := range []struct {
		promise string
		test    func(*testing.T, Place)
	}{
		{"a session comes back as it was, in another process, too", testRoundTrip},
		{"a write replaces the revision it came from and no other", testCompareAndSet},
		{"of many writers one wins", testConcurrentSaves},
		{"an end is final", testEndIsFinal},
		{"an end to come", testEndToCome},
		{"a record expires", testExpiry},
		{"made-up, foreign and damaged values are no session", testNoSession},
		{"large tokens fit, and endless ones are refused", testSizes},
		{"a user's sessions can be listed and ended", testListing},
		{"a fault is not a miss", testFaults},
		{"one at a time has the lock", testLock},
		{"a cookie that held the session moves in once", testMovingIn},
		{"the secret can be changed", testSecretChange},
		{"all processes share what a user's requests hold", testLedger},
	} {
		t.Run(c.promise, func(t *testing.T) {
			t.Parallel()
			c.test(t, newPlace(t))
		})
	}
}

func testRoundTrip(t *testing.T, p Place) {
	here, there := p.Store(t), p.Store(t)
	s, value := Keep(t, here, FreshSession("12345"))
	if len(value) > 300 || strings.Contains(value, "access") {
		t.Errorf("the ticket is %d bytes: %s", len(value), value)
	}
	for _, c := range []struct {
		name  string
		store *records.Tickets
	}{{"here", here}, {"there", there}} {
		got := MustLoad(t, c.store, value)
		if diff := cmp.Diff(s, got, sessionsEqual); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	next, err := there.Save(t.Context(), s.Renewed(oauth.Tokens{Access: "access_2", Refresh: "refresh_2", Issued: s.Tokens.Issued, Expires: s.Tokens.Expires}))
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the other process sees the write", func() bool { return MustLoad(t, here, value).Tokens.Access == "access_2" })
	if got, err := here.Reread(t.Context(), s); err != nil || got.Generation != 2 || got.Kept.Revision != next.Kept.Revision {
		t.Errorf("read again: %+v, %v", got, err)
	}
}

func testCompareAndSet(t *testing.T, p Place) {
	store := p.Store(t)
	s, value := Keep(t, store, FreshSession("12345"))
	first, err := store.Save(t.Context(), s.Seen(s.LastSeen.Add(time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Save(t.Context(), s.Seen(s.LastSeen.Add(time.Hour))); !errors.Is(err, session.ErrMoved) {
		t.Errorf("a write over a revision that is gone: %v", err)
	}
	if _, err := store.Create(t.Context(), s); !errors.Is(err, session.ErrMoved) {
		t.Errorf("creating what is there: %v", err)
	}
	if got, _ := store.Reread(t.Context(), s); !got.LastSeen.Equal(first.LastSeen) {
		t.Errorf("last seen %v, want %v", got.LastSeen, first.LastSeen)
	}
	if MustLoad(t, store, value) == nil {
		t.Error("the session is gone")
	}
}

func testConcurrentSaves(t *testing.T, p Place) {
	here, there := p.Store(t), p.Store(t)
	s, _ := Keep(t, here, FreshSession("12345"))
	var won atomic.Int64
	var writers sync.WaitGroup
	for i := range 8 {
		store := here
		if i%2 == 1 {
			store = there
		}
		writers.Go(func() {
			_, err := store.Save(t.Context(), s.Seen(s.LastSeen.Add(time.Duration(i)*time.Second)))
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, session.ErrMoved):
				t.Error(err)
			}
		})
	}
	writers.Wait()
	if won.Load() != 1 {
		t.Errorf("%d writes won", won.Load())
	}
}

func testEndIsFinal(t *testing.T, p Place) {
	here, there := p.Store(t), p.Store(t)
	s, value := Keep(t, here, FreshSession("12345"))
	MustLoad(t, here, value)
	MustLoad(t, there, value)
	if err := here.End(t.Context(), s, time.Time{}); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the session is over everywhere", func() bool {
		return MustLoad(t, here, value) == nil && MustLoad(t, there, value) == nil
	})
	if _, err := there.Save(t.Context(), s.Renewed(s.Tokens)); !errors.Is(err, session.ErrMoved) {
		t.Errorf("a late write: %v", err)
	}
	if got, err := there.Reread(t.Context(), s); got != nil || err != nil {
		t.Errorf("read again: %v, %v", got, err)
	}
	if err := here.End(t.Context(), s, time.Time{}); err != nil {
		t.Errorf("ending it once more: %v", err)
	}
}

func testEndToCome(t *testing.T, p Place) {
	store := p.Store(t)
	var at time.Time
	var value string
	InTime(700*time.Millisecond, func(d time.Duration, left func() bool) {
		var s *session.Session
		s, value = Keep(t, store, FreshSession("12345"))
		at = time.Now().Add(d).Truncate(time.Millisecond)
		if err := store.End(t.Context(), s, at); err != nil {
			t.Fatal(err)
		}
		got, err := store.Reread(t.Context(), s)
		if got != nil && err == nil {
			_, err = store.Save(t.Context(), got.Renewed(got.Tokens))
		}
		if (got == nil || err != nil) && left() {
			t.Fatalf("before its end: %v, %v", got, err)
		}
	})
	Eventually(t, "the session ends", func() bool { return MustLoad(t, store, value) == nil })
	if time.Now().Before(at) {
		t.Error("it ended too early")
	}
}

func testExpiry(t *testing.T, p Place) {
	store := p.Store(t)
	var s *session.Session
	var value string
	InTime(500*time.Millisecond, func(lifetime time.Duration, left func() bool) {
		store.Lifetime = lifetime
		s, value = Keep(t, store, FreshSession("12345"))
		if MustLoad(t, store, value) == nil && left() {
			t.Fatal("it is gone already")
		}
	})
	Eventually(t, "the record expires", func() bool {
		got, err := store.Reread(t.Context(), s)
		return got == nil && err == nil && MustLoad(t, store, value) == nil
	})
}

func testNoSession(t *testing.T, p Place) {
	store := p.Store(t)
	s, value := Keep(t, store, FreshSession("12345"))
	other, otherValue := Keep(t, store, FreshSession("6"))
	keys, _ := store.Keys(t.Context())
	seal := func(tk records.Ticket) string {
		sealed, err := keys.Ticket.Seal(tk.AppendBinary(nil))
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	for _, c := range []struct{ name, madeUp string }{
		{"empty", ""},
		{"text", "made up"},
		{"an unknown id", seal(records.Ticket{ID: session.ID{1}, Key: s.Kept.Key})},
		{"another's key", seal(records.Ticket{ID: s.ID, Key: other.Kept.Key})},
		{"a cut ticket", value[:len(value)-1]},
		{"another version", func() string { v, _ := keys.Ticket.Seal(append([]byte{9}, make([]byte, 48)...)); return v }()},
		{"a login", func() string {
			v, _ := keys.Login.Seal(records.Ticket{ID: s.ID, Key: s.Kept.Key}.AppendBinary(nil))
			return v
		}()},
		{"a foreign secret", func() string { _, v := Keep(t, p.Store(t, "x"), FreshSession("1")); return v }()},
		{"an ancient ticket", seal(records.Ticket{})},
	} {
		if MustLoad(t, store, c.madeUp) != nil {
			t.Errorf("%s is a session", c.name)
		}
	}
	// Whoever can write to the store cannot put one user's record in another's place.
	text, _, _ := store.Records.Get(t.Context(), other.ID.Hash(), true)
	foreign, _ := records.ParseRecord(text)
	mixedUp, err := records.SealRecord(s.Kept.Key, s.ID.Hash(), other.AppendBinary(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		damaged *records.Record
	}{
		{"another's record", foreign},
		{"a damaged record", &records.Record{Head: session.Head{Expires: foreign.Expires, Kind: session.RecordLive}, Sealed: "x" + foreign.Sealed[1:]}},
		{"another's session", &records.Record{Head: session.Head{Expires: foreign.Expires, Kind: session.RecordLive}, Sealed: mixedUp}},
		{"an empty record", &records.Record{Head: session.Head{Expires: foreign.Expires, Kind: session.RecordLive}, Sealed: ""}},
	} {
		current, _, _ := store.Records.Get(t.Context(), s.ID.Hash(), true)
		revision, _ := records.RevisionOf(current)
		c.damaged.Revision = revision + 1
		if ok, err := store.Records.Replace(t.Context(), s.ID.Hash(), revision, c.damaged); !ok || err != nil {
			t.Fatal(ok, err)
		}
		Eventually(t, c.name+" is no session", func() bool { return MustLoad(t, store, value) == nil })
	}
	if MustLoad(t, store, otherValue) == nil {
		t.Error("the other session is gone")
	}
}

func testSizes(t *testing.T, p Place) {
	store := p.Store(t)
	large := FreshSession("12345")
	large.Tokens.Access = strings.Repeat("a", 16<<10)
	if _, value := Keep(t, store, large); MustLoad(t, p.Store(t), value).Tokens != large.Tokens {
		t.Error("the tokens came back otherwise")
	}
	endless := FreshSession("12345")
	endless.Tokens.Access = strings.Repeat("a", records.MaxRecord)
	if _, err := store.Create(t.Context(), endless); !errors.Is(err, session.ErrTooLarge) {
		t.Errorf("an endless token: %v", err)
	}
}

func testListing(t *testing.T, p Place) {
	here, there := p.Store(t), p.Store(t)
	names := map[string]string{} // to cookie values
	for range 3 {
		s, value := Keep(t, here, FreshSession("12345"))
		names[s.ID.Hash()] = value
	}
	other, otherValue := Keep(t, here, FreshSession("123456"))
	sessions, err := there.SessionsOf(t.Context(), "12345")
	if err != nil || len(sessions) != 3 {
		t.Fatalf("%d sessions, %v", len(sessions), err)
	}
	for _, s := range sessions {
		if names[s.Name] == "" || s.Created.IsZero() || s.Expires.Before(time.Now()) {
			t.Errorf("listed: %+v", s)
		}
		if ended, err := there.EndByName(t.Context(), s.Name, time.Time{}); !ended || err != nil {
			t.Errorf("ending: %v, %v", ended, err)
		}
		Eventually(t, "it is over", func() bool { return MustLoad(t, here, names[s.Name]) == nil })
	}
	if sessions, err := here.SessionsOf(t.Context(), "12345"); err != nil || len(sessions) != 0 {
		t.Errorf("%d sessions are left, %v", len(sessions), err)
	}
	if noted, err := here.Records.Index(t.Context(), records.UserIndexName(firstIndexKey(t, here), "12345")); err != nil || len(noted) != 0 {
		t.Errorf("still in the index: %v, %v", noted, err)
	}
	if ended, err := here.EndByName(t.Context(), strings.Repeat("0", 32), time.Time{}); ended || err != nil {
		t.Errorf("ending what is not there: %v, %v", ended, err)
	}
	if MustLoad(t, here, otherValue) == nil {
		t.Error("another user's session is over, too")
	}
	if names, err := there.Names(t.Context()); err != nil || !slices.Equal(names, []string{other.ID.Hash()}) {
		t.Errorf("got all sessions %v, %v, want the other user's alone", names, err)
	}
}

func firstIndexKey(t *testing.T, store *records.Tickets) []byte {
	t.Helper()
	keys, err := store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return keys.Index[0]
}

func testLedger(t *testing.T, p Place) {
	here, there := p.Store(t), p.Store(t)
	user, err := here.LedgerUser(t.Context(), "12345")
	if err != nil || user == "" || strings.Contains(user, "12345") {
		t.Fatalf("the user is %q in the ledger: %v", user, err)
	}
	if other, _ := there.LedgerUser(t.Context(), "12345"); other != user {
		t.Fatalf("%q is %q to another process", user, other)
	}
	ledger := here.Ledger(nil)
	ticket, err := ledger.BeginReading(t.Context(), user)
	if err == nil {
		err = ledger.EndReading(t.Context(), user, ticket, spending.Balance{Amount: spending.AmountOf(1, 0), Known: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	outcomes := []spending.Outcome{spending.Admitted, spending.Insufficient}
	for i, store := range []*records.Tickets{here, there} {
		r := &spending.Request{ID: spending.ID{byte(i)}, Amount: spending.AmountOf(1, 0), Reserve: true, MaxAge: time.Hour, RefusalAge: time.Hour}
		if result, _, err := store.Ledger(nil).Admit(t.Context(), user, r); err != nil || result.Outcome != outcomes[i] {
			t.Errorf("request %d of 1.00, with 1.00 there: %+v %v", i, result, err)
		}
	}
}

func testFaults(t *testing.T, p Place) {
	store := p.Store(t)
	s, value := Keep(t, store, FreshSession("12345"))
	if err := store.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Fail(t)
	// What was read a moment ago may still be served.
	Eventually(t, "loading fails", func() bool { _, err := store.Load(t.Context(), value); return err != nil })
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"creating", func() error { _, err := store.Create(t.Context(), FreshSession("1")); return err }},
		{"saving", func() error { _, err := store.Save(t.Context(), s.Renewed(s.Tokens)); return err }},
		{"rereading", func() error { _, err := store.Reread(t.Context(), s); return err }},
		{"ending", func() error { return store.End(t.Context(), s, time.Time{}) }},
		{"listing", func() error { _, err := store.SessionsOf(t.Context(), "12345"); return err }},
		{"locking", func() error { _, _, err := store.Records.TryLock(t.Context(), s.ID.Hash(), time.Second); return err }},
		{"asking the ledger", func() error {
			_, _, err := store.Ledger(nil).Admit(t.Context(), "user", &spending.Request{})
			return err
		}},
		{"being ready", func() error { time.Sleep(records.ProbeInterval); return store.Ready(t.Context()) }},
	} {
		if err := c.do(); err == nil || errors.Is(err, session.ErrMoved) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	p.Mend(t)
	Eventually(t, "the store is back", func() bool { found, err := store.Load(t.Context(), value); return err == nil && found.Session != nil })
	Eventually(t, "the store is ready", func() bool { return store.Ready(t.Context()) == nil })
}

func testLock(t *testing.T, p Place) {
	here, there := p.Store(t), p.Store(t)
	name := FreshSession("1").ID.Hash()
	lock, ok, err := here.Records.TryLock(t.Context(), name, time.Minute)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	for range 3 {
		if _, ok, err := there.Records.TryLock(t.Context(), name, time.Minute); ok || err != nil {
			t.Fatalf("a second lock: %v, %v", ok, err)
		}
	}
	if err := lock.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	if err := lock.Release(t.Context()); err != nil {
		t.Error(err)
	}
	again, ok, err := there.Records.TryLock(t.Context(), name, time.Minute)
	if !ok || err != nil {
		t.Fatalf("after its release: %v, %v", ok, err)
	}
	again.Release(t.Context())
}
