package storage

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/records/recordstest"
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

// watchedRecords counts writes, and takes its time with them.
type watchedRecords struct {
	records.Store
	writes atomic.Int64
	delay  atomic.Int64
}

func (w *watchedRecords) AddToIndex(ctx context.Context, user, name string, expires time.Time) error {
	w.writes.Add(1)
	time.Sleep(time.Duration(w.delay.Load()))
	return w.Store.AddToIndex(ctx, user, name, expires)
}

func TestStoragePassesTheStoreSuite(t *testing.T) {
	recordstest.Suite(t, newPlace)
}

// newPlace is a folder, kept in a storage that breaks on demand.
func newPlace(t *testing.T) recordstest.Place {
	return recordstest.NewBreakable(t.TempDir()).Place(func(s certmagic.Storage) records.Store { return NewRecords(s) })
}

func BenchmarkLoad(b *testing.B) {
	recordstest.BenchmarkLoad(b, NewRecords(&certmagic.FileStorage{Path: b.TempDir()}))
}

func TestMigratingAnOldCookieWritesOnceAndDoesNotBlock(t *testing.T) {
	const timeout = 150 * time.Millisecond
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

	watched.delay.Store(int64(time.Second))
	moving, _ := keys.Session.Seal(recordstest.FreshSession("6").AppendBinary(nil))
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	began := time.Now()
	if _, err := store.Load(ctx, moving); err == nil {
		t.Error("it moved in at once")
	}
	if took := time.Since(began); took > 2*timeout {
		t.Errorf("Load took %v, want at most %v", took, 2*timeout)
	}
	recordstest.Eventually(t, "it has moved in all the same", func() bool { return recordstest.MustLoad(t, store, moving) != nil })
}
