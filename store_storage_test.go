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
	brief, cancel := context.WithTimeout(ctx, storageLockPause)
	defer cancel()
	ok, err := b.Storage.(certmagic.TryLocker).TryLock(brief, name)
	if err != nil && brief.Err() != nil {
		return false, ctx.Err()
	}
	return ok, err
}

// newBreakablePlace is a folder whose storage breaks when the test says so.
func newBreakablePlace(t *testing.T) (*breakableStorage, placeUnderTest) {
	storage := &breakableStorage{Storage: &certmagic.FileStorage{Path: t.TempDir()}}
	return storage, placeUnderTest{
		open: func(*testing.T) recordStore { return newStorageRecords(storage) },
		fail: func(*testing.T) { storage.broken.Store(true) },
		mend: func(*testing.T) { storage.broken.Store(false) },
	}
}

func TestExpiredRecordsAreSweptAway(t *testing.T) {
	folder := t.TempDir()
	records := newStorageRecords(&certmagic.FileStorage{Path: folder})
	t.Cleanup(records.close)
	p := placeUnderTest{open: func(*testing.T) recordStore { return records }}
	store := p.suiteStore(t)
	live, _ := keepInStore(t, store, freshSession("1"))
	store.lifetime = time.Millisecond
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
	if n := strings.Count(files(), expired.id.hash()); n != 2 {
		t.Fatalf("the expired session has %d files:\n%s", n, files())
	}
	records.sweep(t.Context(), time.Now())
	if strings.Contains(files(), expired.id.hash()) || strings.Count(files(), live.id.hash()) != 2 {
		t.Errorf("after the sweep:\n%s", files())
	}
	// The next write sweeps by itself, when the last sweep is long ago.
	store.lifetime = time.Millisecond
	expired, _ = keepInStore(t, store, freshSession("3"))
	time.Sleep(5 * time.Millisecond)
	store.lifetime = time.Hour
	keepInStore(t, store, freshSession("4"))
	if !strings.Contains(files(), expired.id.hash()) {
		t.Error("it is swept with every write")
	}
	records.swept.Store(time.Now().Add(-sweepInterval).UnixMilli())
	keepInStore(t, store, freshSession("5"))
	eventually(t, "it is swept", func() bool { return !strings.Contains(files(), expired.id.hash()) })
}
