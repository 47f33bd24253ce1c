package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/maypok86/otter/v2"

	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/records"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// Folders in the storage, and the names of locks. Records and index entries are named by
// hashes.
const (
	storageSessions = "tollgate/sessions"
	storageUsers    = "tollgate/users"
	storageProbe    = "tollgate/probe"

	storageSessionLock = "tollgate_session_" // its owner refreshes the tokens
	storageRecordLock  = "tollgate_record_"  // its owner writes the record
)

const (
	// storageReadAge is how long a record that was read is cached. It is also how long
	// another process may take to notice that a session has ended.
	storageReadAge = 500 * time.Millisecond
	// maxReadBytes is the maximum size of that cache.
	maxReadBytes = 32 << 20
	// storageTimeout is the usual timeout of one access, and of the wait for a record's lock.
	storageTimeout = 5 * time.Second
	// lockPause is the pause between two attempts to take a lock.
	lockPause = 20 * time.Millisecond
	// sweepInterval is how often expired records are deleted.
	sweepInterval = time.Hour
	// sweepTimeout is how long one deletion of expired records may take.
	sweepTimeout = 10 * time.Minute
)

// Records implements records.Store in a storage of Caddy's.
type Records struct {
	Storage certmagic.Storage
	// Timeout is the timeout of one access, and of the wait for a record's lock.
	Timeout time.Duration
	// writing holds locks for the writers of this process, by a hash of the name. A writer takes
	// its lock here before the storage's lock, which is slower because it has to be polled.
	writing [64]sync.Mutex
	seed    maphash.Seed
	Read    *otter.Cache[string, readRecordText]
	reads   flight.Group[readRecordText]
	swept   atomic.Int64 // when, in Unix milliseconds
}

// readRecordText is a record's text, and when it was read.
type readRecordText struct {
	text    string
	missing bool // true if the record does not exist; such a result is not cached
	at      time.Time
}

// NewRecords returns the records in the given storage.
func NewRecords(storage certmagic.Storage) *Records {
	return &Records{
		Storage: storage,
		Timeout: storageTimeout,
		seed:    maphash.MakeSeed(),
		Read: otter.Must(&otter.Options[string, readRecordText]{
			MaximumWeight:    maxReadBytes,
			Weigher:          func(_ string, r readRecordText) uint32 { return uint32(len(r.text)) + 256 },
			ExpiryCalculator: otter.ExpiryWriting[string, readRecordText](storageReadAge),
		}),
	}
}

// Get implements records.Store.
func (s *Records) Get(ctx context.Context, name string, fresh bool) (string, bool, error) {
	if !fresh {
		if known, ok := s.Read.GetIfPresent(name); ok && flight.Within(time.Since(known.at), storageReadAge) {
			return known.text, true, nil
		}
	}
	if fresh {
		return s.readNow(ctx, name)
	}
	// Reading a file has no deadline. Therefore each caller stops waiting when its own
	// context ends. Requests at the same time share one read.
	read, err := s.reads.Do(ctx, name, func(ctx context.Context) (readRecordText, error) {
		text, ok, err := s.readNow(ctx, name)
		return readRecordText{text: text, missing: !ok}, err
	})
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return "", false, fmt.Errorf("reading the session from Caddy's storage: %w", err)
	case err != nil:
		return "", false, err
	}
	return read.text, !read.missing, nil
}

func (s *Records) readNow(ctx context.Context, name string) (string, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	text, ok, err := s.Load(ctx, path.Join(storageSessions, name))
	if err != nil {
		return "", false, fmt.Errorf("reading the session from Caddy's storage: %w", err)
	}
	if ok {
		s.Read.Set(name, readRecordText{text: text, at: time.Now()})
	}
	return text, ok, nil
}

// Load reads a value. ok is false if the key does not exist.
func (s *Records) Load(ctx context.Context, key string) (string, bool, error) {
	value, err := s.Storage.Load(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, nil
	case err != nil:
		return "", false, err
	}
	return string(value), true, nil
}

// Replace implements records.Store. A storage has no atomic compare-and-write, so Replace
// takes the storage's lock.
func (s *Records) Replace(ctx context.Context, name string, revision uint64, r *records.Record) (replaced bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	unlock, err := s.lockRecord(ctx, name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()

	key := path.Join(storageSessions, name)
	text, ok, err := s.Load(ctx, key)
	if err != nil {
		return false, err
	}
	current := uint64(0)
	if ok {
		if current, ok = records.RevisionOf(text); !ok || current == 0 {
			return false, nil // the value is not ours and must not be overwritten
		}
	}
	if current != revision {
		return false, nil
	}
	if err := s.Storage.Store(ctx, key, []byte(r.String())); err != nil {
		return false, err
	}
	s.Read.Invalidate(name)
	s.sweepWhenDue()
	return true, nil
}

// Remove implements records.Store.
func (s *Records) Remove(ctx context.Context, name string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	unlock, err := s.lockRecord(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	defer s.Read.Invalidate(name)
	return s.delete(ctx, path.Join(storageSessions, name))
}

func (s *Records) delete(ctx context.Context, key string) error {
	if err := s.Storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting from Caddy's storage: %w", err)
	}
	return nil
}

// lockRecord takes the lock for writing one record.
func (s *Records) lockRecord(ctx context.Context, name string) (unlock func() error, err error) {
	if unlock, err = s.lock(ctx, storageRecordLock+name); err != nil {
		return nil, fmt.Errorf("locking the session in Caddy's storage: %w", err)
	}
	return unlock, nil
}

// lock takes a lock of the storage. It waits for it until ctx ends.
func (s *Records) lock(ctx context.Context, name string) (unlock func() error, err error) {
	own := &s.writing[maphash.String(s.seed, name)%uint64(len(s.writing))]
	own.Lock()
	for {
		ok, err := s.tryLockStorage(ctx, name)
		switch {
		case err != nil:
			own.Unlock()
			return nil, err
		case ok:
			return func() error {
				defer own.Unlock()
				return s.Storage.Unlock(context.WithoutCancel(ctx), name)
			}, nil
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			own.Unlock()
			return nil, ctx.Err()
		}
	}
}

// tryLockStorage takes a lock of the storage. It returns false if the lock is taken. If the
// storage has no TryLock, it waits for the lock.
func (s *Records) tryLockStorage(ctx context.Context, name string) (bool, error) {
	locker, ok := s.Storage.(certmagic.TryLocker)
	if !ok {
		return true, s.Storage.Lock(ctx, name)
	}
	if _, ok := s.Storage.(*certmagic.FileStorage); !ok {
		return locker.TryLock(ctx, name)
	}
	// If the lock of a file is taken, TryLock sleeps for a second and tries again. That is
	// too long, so it gets a short timeout, and our callers retry.
	brief, cancel := context.WithTimeout(ctx, lockPause)
	defer cancel()
	ok, err := locker.TryLock(brief, name)
	if err != nil && brief.Err() != nil && ctx.Err() == nil {
		return false, nil
	}
	return ok, err
}

// TryLock implements records.Store.
func (s *Records) TryLock(ctx context.Context, name string, lease time.Duration) (session.Lock, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	ok, err := s.tryLockStorage(ctx, storageSessionLock+name)
	if err != nil || !ok {
		return nil, false, err
	}
	return &storageLock{s.Storage, storageSessionLock + name, lease}, true, nil
}

// storageLock is a lock of the storage. A file storage renews its locks by itself while the
// process lives. A storage with leases renews them on request.
type storageLock struct {
	storage certmagic.Storage
	name    string
	lease   time.Duration
}

// Renew implements session.Lock.
func (l *storageLock) Renew(ctx context.Context) error {
	if renewer, ok := l.storage.(certmagic.LockLeaseRenewer); ok {
		return renewer.RenewLockLease(ctx, l.name, l.lease)
	}
	return nil
}

// Release implements session.Lock.
func (l *storageLock) Release(ctx context.Context) error { return l.storage.Unlock(ctx, l.name) }

// AddToIndex implements records.Store. An index entry is a key below the user's folder. Its
// name is the name of the record.
func (s *Records) AddToIndex(ctx context.Context, user, name string, expires time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	return s.Storage.Store(ctx, path.Join(storageUsers, user, name), []byte(strconv.FormatInt(expires.UnixMilli(), 10)))
}

// RemoveFromIndex implements records.Store.
func (s *Records) RemoveFromIndex(ctx context.Context, user, name string) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	return s.delete(ctx, path.Join(storageUsers, user, name))
}

// Index implements records.Store.
func (s *Records) Index(ctx context.Context, user string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	return s.list(ctx, path.Join(storageUsers, user))
}

// Names implements records.Store.
func (s *Records) Names(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	return s.list(ctx, storageSessions)
}

// list returns the last path elements of the keys directly below a folder.
func (s *Records) list(ctx context.Context, place string) ([]string, error) {
	keys, err := s.Storage.List(ctx, place, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing Caddy's storage: %w", err)
	}
	for i, key := range keys {
		keys[i] = path.Base(key)
	}
	return keys, nil
}

// Ready implements records.Store. It writes a small value and reads it back, which fails if
// the disk is full or read-only.
func (s *Records) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if err := s.Storage.Store(ctx, storageProbe, []byte("tollgate writes here to see whether it can\n")); err != nil {
		return fmt.Errorf("writing to Caddy's storage: %w", err)
	}
	if _, err := s.Storage.Load(ctx, storageProbe); err != nil {
		return fmt.Errorf("reading from Caddy's storage: %w", err)
	}
	return nil
}

// sweepWhenDue deletes expired records in the background, if the last time was long ago.
// Nothing else deletes them.
func (s *Records) sweepWhenDue() {
	now := time.Now()
	last := s.swept.Load()
	if flight.Within(now.Sub(time.UnixMilli(last)), sweepInterval) || !s.swept.CompareAndSwap(last, now.UnixMilli()) {
		return
	}
	go func() { // ends with its timeout
		ctx, cancel := context.WithTimeout(context.Background(), sweepTimeout)
		defer cancel()
		s.Sweep(ctx, now)
	}()
}

// Sweep deletes expired records and their index entries. A record that cannot be read or
// deleted now is left for the next sweep.
func (s *Records) Sweep(ctx context.Context, now time.Time) {
	names, err := s.list(ctx, storageSessions)
	if err != nil {
		return
	}
	for _, name := range names {
		text, ok, err := s.Load(ctx, path.Join(storageSessions, name))
		if err != nil || !ok {
			continue
		}
		r, ok := records.ParseRecord(text)
		if !ok || now.Before(r.Expires) {
			continue
		}
		if s.Remove(ctx, name) == nil && r.User != "" {
			_ = s.RemoveFromIndex(ctx, r.User, name)
		}
	}
}

// Hold implements records.Store. It does nothing, because Caddy keeps the storage open.
func (*Records) Hold() (release func()) { return func() {} }

// Close implements records.Store.
func (s *Records) Close() { s.Read.StopAllGoroutines() }

// Interface guards.
var (
	_ records.Store = (*Records)(nil)
	_ session.Lock  = (*storageLock)(nil)
)
