package recordstest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/stores/cookie"
)

func testMovingIn(t *testing.T, p Place) {
	store := p.Store(t)
	keys, _ := store.Keys(t.Context())
	before := FreshSession("12345")
	sent, _, err := (&cookie.Sessions{Env: session.Env{Keys: store.Keys}}).Cookie(t.Context(), before)
	if err != nil {
		t.Fatal(err)
	}
	var browsers sync.WaitGroup
	for range 8 {
		browsers.Go(func() {
			other := p.Store(t)
			found, err := other.Load(t.Context(), sent)
			if err != nil || found.Session == nil || !found.Rewrite || found.Session.Tokens != before.Tokens {
				t.Errorf("moving in: %+v, %v", found, err)
			}
		})
	}
	browsers.Wait()
	moved := MustLoad(t, store, sent)
	if moved == nil || moved.Kept.Revision != 1 {
		t.Fatalf("moved: %+v", moved)
	}
	ticketValue, _, err := store.Cookie(t.Context(), moved)
	if err != nil || len(ticketValue) > 300 {
		t.Fatalf("%d bytes, %v", len(ticketValue), err)
	}
	if _, err := store.Save(t.Context(), moved.Renewed(oauth.Tokens{Access: "access_2"})); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "cookie and ticket stand for one session", func() bool {
		a, b := MustLoad(t, store, sent), MustLoad(t, store, ticketValue)
		return a.Tokens.Access == "access_2" && b.Tokens.Access == "access_2"
	})
	// The old cookie still opens, but its session is over for good.
	if sessions, err := store.SessionsOf(t.Context(), "12345"); len(sessions) != 1 || err != nil {
		t.Errorf("listed: %v, %v", sessions, err)
	}
	if ended, err := store.EndByName(t.Context(), moved.ID.Hash(), time.Time{}); !ended || err != nil {
		t.Fatal(ended, err)
	}
	Eventually(t, "it is over", func() bool { return MustLoad(t, store, sent) == nil && MustLoad(t, store, ticketValue) == nil })
	if MustLoad(t, p.Store(t), sent) != nil {
		t.Error("the old cookie brought the session back")
	}
	another := FreshSession("12345")
	anothersCookie, _ := keys.Session.Seal(another.AppendBinary(nil))
	if err := store.End(t.Context(), MustLoad(t, store, anothersCookie), time.Now().Add(50*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if records, ok := store.Records.(interface {
		Sweep(ctx context.Context, now time.Time)
	}); ok {
		records.Sweep(t.Context(), time.Now())
	}
	if MustLoad(t, p.Store(t), anothersCookie) != nil {
		t.Error("the old cookie brought a session back that was to end")
	}
	if sessions, err := store.SessionsOf(t.Context(), "12345"); len(sessions) != 0 || err != nil {
		t.Errorf("listed: %v, %v", sessions, err)
	}
	ended := FreshSession("7")
	endedCookie, _ := keys.Session.Seal(ended.AppendBinary(nil))
	store.Latest = func(s *session.Session) (*session.Session, bool) { return nil, false }
	if MustLoad(t, store, endedCookie) != nil {
		t.Error("a session that had ended here moved in")
	}
}

func testSecretChange(t *testing.T, p Place) {
	old := p.Store(t, "a")
	s, value := Keep(t, old, FreshSession("12345"))
	both := p.Store(t, "b", "a")
	found, err := both.Load(t.Context(), value)
	if err != nil || found.Session == nil || !found.Rewrite {
		t.Fatalf("%+v, %v", found, err)
	}
	renewed, _, err := both.Cookie(t.Context(), found.Session)
	if err != nil {
		t.Fatal(err)
	}
	alone := p.Store(t, "b")
	if MustLoad(t, alone, renewed) == nil || MustLoad(t, alone, value) != nil {
		t.Error("with the new secret alone: the new ticket must open, and the old one not")
	}
	if MustLoad(t, old, value) == nil {
		t.Error("a process that knows the old secret alone has lost the session")
	}
	for _, c := range []struct {
		name  string
		store *records.Tickets
	}{{"both", both}, {"the new one", alone}} {
		if sessions, err := c.store.SessionsOf(t.Context(), "12345"); err != nil || len(sessions) != 1 || sessions[0].Name != s.ID.Hash() {
			t.Errorf("%s: %+v, %v", c.name, sessions, err)
		}
	}
}
