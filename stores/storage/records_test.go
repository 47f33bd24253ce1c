package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func TestExpiredRecordsAreSweptAway(t *testing.T) {
	folder := t.TempDir()
	held := NewRecords(&certmagic.FileStorage{Path: folder})
	t.Cleanup(held.Close)
	p := recordstest.Place{Open: func(*testing.T) records.Store { return held }}
	store := p.Store(t)
	live, _ := recordstest.Keep(t, store, recordstest.FreshSession("1"))
	store.Lifetime = time.Millisecond
	expired, _ := recordstest.Keep(t, store, recordstest.FreshSession("2"))
	time.Sleep(5 * time.Millisecond)

	files := func() string {
		var names []string
		filepath.Walk(folder, func(path string, info os.FileInfo, err error) error {
			if err == nil && !info.IsDir() {
				names = append(names, path)
			}
			return nil
		})
		return strings.Join(names, "\n")
	}
	if n := strings.Count(files(), expired.ID.Hash()); n != 2 {
		t.Fatalf("the expired session has %d files:\n%s", n, files())
	}
	held.Sweep(t.Context(), time.Now())
	if strings.Contains(files(), expired.ID.Hash()) || strings.Count(files(), live.ID.Hash()) != 2 {
		t.Errorf("after the sweep:\n%s", files())
	}
	// The next write sweeps by itself, when the last sweep is long ago.
	store.Lifetime = time.Millisecond
	expired, _ = recordstest.Keep(t, store, recordstest.FreshSession("3"))
	time.Sleep(5 * time.Millisecond)
	store.Lifetime = time.Hour
	recordstest.Keep(t, store, recordstest.FreshSession("4"))
	if !strings.Contains(files(), expired.ID.Hash()) {
		t.Error("it is swept with every write")
	}
	held.swept.Store(time.Now().Add(-sweepInterval).UnixMilli())
	recordstest.Keep(t, store, recordstest.FreshSession("5"))
	recordstest.Eventually(t, "it is swept", func() bool { return !strings.Contains(files(), expired.ID.Hash()) })
}

// watchedRecords counts writes, and holds them back if hold is set, until that is closed.
type watchedRecords struct {
	records.Store
	writes atomic.Int64
	hold   atomic.Pointer[chan struct{}]
}

func (w *watchedRecords) AddToIndex(ctx context.Context, user, name string, expires time.Time) error {
	w.writes.Add(1)
	if hold := w.hold.Load(); hold != nil {
		<-*hold
	}
	return w.Store.AddToIndex(ctx, user, name, expires)
}

func TestStoragePassesTheStoreSuite(t *testing.T) {
	recordstest.Suite(t, newPlace)
}

// newPlace is a folder, kept in a storage that breaks on demand.
func newPlace(t *testing.T) recordstest.Place {
	return recordstest.NewBreakable(t.TempDir()).Place(func(s certmagic.Storage) records.Store {
		held := NewRecords(s)
		held.Timeout = 30 * time.Second // a busy disk is slow
		return held
	})
}

func TestAnAccessOfTheStorageEndsWithItsTimeout(t *testing.T) {
	slow := recordstest.NewBreakable(t.TempDir())
	slow.Slow.Store(int64(time.Hour))
	for timeout, env := range map[time.Duration]session.Env{storageTimeout: {}, time.Millisecond: {Timeout: time.Millisecond}} {
		env.SecretGiven = true
		env.Takeover = func(time.Duration) session.Takeover { return session.Takeover{} }
		store := (&Store{storage: slow}).Open(env).(*records.Tickets).Records.(*Records)
		t.Cleanup(store.Close)
		if store.Timeout != timeout {
			t.Errorf("got a timeout of %v, want %v", store.Timeout, timeout)
		}
		if env.Timeout != 0 && !errors.Is(store.Ready(t.Context()), context.DeadlineExceeded) {
			t.Error("a write that takes an hour does not end with the timeout")
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	recordstest.BenchmarkLoad(b, NewRecords(&certmagic.FileStorage{Path: b.TempDir()}))
}

func TestMigratingAnOldCookieWritesOnceAndDoesNotBlock(t *testing.T) {
	p := newPlace(t)
	watched := &watchedRecords{Store: p.Open(t)}
	p.Open = func(*testing.T) records.Store { return watched }
	store := p.Store(t)
	keys, _ := store.Keys(t.Context())
	ended, _ := keys.Session.Seal(recordstest.FreshSession("12345").AppendBinary(nil))
	if err := store.End(t.Context(), recordstest.MustLoad(t, store, ended), time.Time{}); err != nil {
		t.Fatal(err)
	}
	before := watched.writes.Load()
	for range 20 {
		if recordstest.MustLoad(t, store, ended) != nil {
			t.Fatal("it is back")
		}
	}
	if n := watched.writes.Load() - before; before == 0 || n != 0 {
		t.Errorf("%d writes for a session that has ended, %d before", n, before)
	}

	hold := make(chan struct{})
	watched.hold.Store(&hold)
	moving, _ := keys.Session.Seal(recordstest.FreshSession("6").AppendBinary(nil))
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := store.Load(ctx, moving); err == nil { // which returns, although the write does not
		t.Error("it moved in at once")
	}
	close(hold)
	recordstest.Eventually(t, "it has moved in all the same", func() bool { return recordstest.MustLoad(t, store, moving) != nil })
}
