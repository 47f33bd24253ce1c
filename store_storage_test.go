package tollgate

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
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

// breakableStorage fails while it is broken.
type breakableStorage struct {
	certmagic.Storage
	broken atomic.Bool
	full   atomic.Bool  // reads still work
	slow   atomic.Int64 // how long a write takes, in nanoseconds
	hangs  atomic.Bool  // reads do, as those of a network's files, until hang is closed
	hang   chan struct{}
	loads  atomic.Int64
}

func (b *breakableStorage) Load(ctx context.Context, key string) ([]byte, error) {
	b.loads.Add(1)
	if b.broken.Load() {
		return nil, errOutOfOrder
	}
	if b.hangs.Load() {
		<-b.hang
		return nil, errOutOfOrder
	}
	return b.Storage.Load(ctx, key)
}

func (b *breakableStorage) Store(ctx context.Context, key string, value []byte) error {
	if b.broken.Load() || b.full.Load() {
		return errOutOfOrder
	}
	select {
	case <-time.After(time.Duration(b.slow.Load())):
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.Storage.Store(ctx, key, value)
}

func (b *breakableStorage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	if b.broken.Load() {
		return nil, errOutOfOrder
	}
	return b.Storage.List(ctx, prefix, recursive)
}

func (b *breakableStorage) TryLock(ctx context.Context, name string) (bool, error) {
	if b.broken.Load() {
		return false, errOutOfOrder
	}
	// As of a file, whose wait for a lock that is taken is long.
	brief, cancel := context.WithTimeout(ctx, storage.StorageLockPause)
	defer cancel()
	ok, err := b.Storage.(certmagic.TryLocker).TryLock(brief, name)
	if err != nil && brief.Err() != nil {
		return false, ctx.Err()
	}
	return ok, err
}

// newBreakablePlace is a folder whose storage breaks when the test says so.
func newBreakablePlace(t *testing.T) (*breakableStorage, placeUnderTest) {
	kind := &breakableStorage{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
	return kind, placeUnderTest{
		open: func(*testing.T) records.Store { return storage.NewRecords(kind) },
		fail: func(*testing.T) { kind.broken.Store(true) },
		mend: func(*testing.T) { kind.broken.Store(false) },
	}
}

func TestExpiredRecordsAreSweptAway(t *testing.T) {
	folder := t.TempDir()
	held := storage.NewRecords(&certmagic.FileStorage{Path: folder})
	t.Cleanup(held.Close)
	p := placeUnderTest{open: func(*testing.T) records.Store { return held }}
	store := p.suiteStore(t)
	live, _ := keepInStore(t, store, freshSession("1"))
	store.Lifetime = time.Millisecond
	expired, _ := keepInStore(t, store, freshSession("2"))
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
	expired, _ = keepInStore(t, store, freshSession("3"))
	time.Sleep(5 * time.Millisecond)
	store.Lifetime = time.Hour
	keepInStore(t, store, freshSession("4"))
	if !strings.Contains(files(), expired.ID.Hash()) {
		t.Error("it is swept with every write")
	}
	held.Swept.Store(time.Now().Add(-storage.SweepInterval).UnixMilli())
	keepInStore(t, store, freshSession("5"))
	eventually(t, "it is swept", func() bool { return !strings.Contains(files(), expired.ID.Hash()) })
}
