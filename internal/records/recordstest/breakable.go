package recordstest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/records"
)

// Breakable fails while it is broken.
type Breakable struct {
	certmagic.Storage
	Broken atomic.Bool
	Full   atomic.Bool  // reads still work
	Slow   atomic.Int64 // how long a write takes, in nanoseconds
	Hangs  atomic.Bool  // reads do, as those of a network's files, until hang is closed
	Hang   chan struct{}
	Loads  atomic.Int64
}

// Load implements the method of certmagic.
func (b *Breakable) Load(ctx context.Context, key string) ([]byte, error) {
	b.Loads.Add(1)
	if b.Broken.Load() {
		return nil, errOutOfOrder
	}
	if b.Hangs.Load() {
		<-b.Hang
		return nil, errOutOfOrder
	}
	return b.Storage.Load(ctx, key)
}

// Store implements the method of certmagic.
func (b *Breakable) Store(ctx context.Context, key string, value []byte) error {
	if b.Broken.Load() || b.Full.Load() {
		return errOutOfOrder
	}
	select {
	case <-time.After(time.Duration(b.Slow.Load())):
	case <-ctx.Done():
		return ctx.Err()
	}
	return b.Storage.Store(ctx, key, value)
}

// List implements the method of certmagic.
func (b *Breakable) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	if b.Broken.Load() {
		return nil, errOutOfOrder
	}
	return b.Storage.List(ctx, prefix, recursive)
}

// TryLock implements the method of certmagic.
func (b *Breakable) TryLock(ctx context.Context, name string) (bool, error) {
	if b.Broken.Load() {
		return false, errOutOfOrder
	}
	// As of a file, whose wait for a lock that is taken is long.
	brief, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	ok, err := b.Storage.(certmagic.TryLocker).TryLock(brief, name)
	if err != nil && brief.Err() != nil {
		return false, ctx.Err()
	}
	return ok, err
}

// NewBreakable is a storage in the folder.
func NewBreakable(folder string) *Breakable {
	return &Breakable{Storage: &certmagic.FileStorage{Path: folder}}
}

// Place is the storage as a place for records, which open keeps in it.
func (b *Breakable) Place(open func(certmagic.Storage) records.Store) Place {
	return Place{
		Open: func(*testing.T) records.Store { return open(b) },
		Fail: func(*testing.T) { b.Broken.Store(true) },
		Mend: func(*testing.T) { b.Broken.Store(false) },
	}
}

// lockWait is how long a lock that is taken is waited for.
const lockWait = 50 * time.Millisecond

var errOutOfOrder = errors.New("out of order")
