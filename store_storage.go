package tollgate

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

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
	"github.com/maypok86/otter/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

func init() {
	caddy.RegisterModule(StorageStore{})
}

// StorageStore keeps sessions in the storage that Caddy is configured with: files in
// Caddy's data folder, unless the global option `storage` says otherwise. Nothing has
// to be installed. Sessions survive restarts, signing out is final, and an operator
// can list and end sessions. Several processes can share it where they share the
// storage; its lock then keeps them from spending one refresh token twice.
//
// The site should have a `secret`. Without one the secret is kept in the same storage,
// and a copy of it is enough to make sessions.
type StorageStore struct {
	// For how long after the start sessions are taken over that stood in cookies: the time
	// of a change from `store cookie`. Up to 30d. It counts from the first configuration of
	// the process that has it; a reload does not prolong it, and a restart begins it anew.
	// A session that moves has its user information read anew before its first use.
	// Default: off, which signs such people in anew.
	FromCookies caddy.Duration `json:"from_cookies,omitempty"`

	storage certmagic.Storage
	logger  *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (StorageStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tollgate.stores.storage",
		New: func() caddy.Module { return new(StorageStore) },
	}
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Caddy's global option
// `storage` says where the storage is.
//
//	store storage {
//		from_cookies off|<duration>
//	}
func (s *StorageStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the store's name
	if d.NextArg() {
		return d.Errf("%s: Caddy's global option `storage` says where the storage is", storeSetting)
	}
	p := newBlockParser(d, "store storage", storeSetting)
	if err := p.block(storeSetting, words{"from_cookies": p.durationOrOff(&s.FromCookies)}); err != nil {
		return err
	}
	return p.tryOut(s.resolve)
}

// UnmarshalJSON is Caddy's own strict reading, with an error that shows no secret.
func (s *StorageStore) UnmarshalJSON(text []byte) error {
	type plain StorageStore
	return withoutSecrets(caddy.StrictUnmarshalJSON(text, (*plain)(s)), nil)
}

// Provision checks the settings.
func (s *StorageStore) Provision(ctx caddy.Context) error {
	s.storage, s.logger = ctx.Storage(), ctx.Logger()
	return s.resolve(caddy.NewReplacer())
}

func (s *StorageStore) resolve(repl *caddy.Replacer) error {
	r := &resolver{repl: repl}
	resolveFromCookies(r, s.FromCookies)
	if r.err != nil {
		return r.err
	}
	return nil
}

// resolveFromCookies checks the setting that all server-side stores have.
func resolveFromCookies(r *resolver, d caddy.Duration) {
	const setting = storeSetting + ".from_cookies"
	r.duration(setting, d, 0)
	if time.Duration(d) > maxLifetime {
		r.fail(setting, "must not be more than 30d: no session lives longer")
	}
}

// open implements storeModule.
func (s *StorageStore) open(env storeEnv) sessionStore {
	if !env.secretGiven {
		s.logger.Warn("store storage without secret: the secret is kept in Caddy's storage, beside the sessions; " +
			"whoever can read a copy of the storage can also open every cookie of the site; set `secret`, which `caddy tollgate keygen` prints")
	}
	return newTicketStore(env, newStorageRecords(s.storage), env.takeover(time.Duration(s.FromCookies)))
}

// Places in the storage, and the names of locks. Records and notes are named by
// hashes.
const (
	storageSessions = "tollgate/sessions"
	storageUsers    = "tollgate/users"
	storageProbe    = "tollgate/probe"

	storageSessionLock = "tollgate_session_" // one process refreshes
	storageRecordLock  = "tollgate_record_"  // one process writes
)

const (
	// storageReadAge is how old a record may be that is not read again: the bound of
	// how long another process takes to see a session's end.
	storageReadAge = 500 * time.Millisecond
	// maxReadBytes bounds what is remembered for that long.
	maxReadBytes = 32 << 20
	// storagePatience bounds one access, and the wait for a record's lock.
	storagePatience = 5 * time.Second
	// storageLockPause is the pause between two looks at a lock that is taken.
	storageLockPause = 20 * time.Millisecond
	// sweepInterval is how often records are deleted that nobody came back for, and
	// sweepPatience how long that may take.
	sweepInterval = time.Hour
	sweepPatience = 10 * time.Minute
)

// storageRecords keeps records in a storage of Caddy's.
type storageRecords struct {
	storage certmagic.Storage
	// writing keeps this process's own writers apart, by name, before the storage's
	// lock keeps them from other processes': that one is looked at now and then only.
	writing [64]sync.Mutex
	seed    maphash.Seed
	read    *otter.Cache[string, readRecordText]
	reads   singleflight.Group
	swept   atomic.Int64 // when, in Unix milliseconds
}

// readRecordText is a record's text, and when it was read.
type readRecordText struct {
	text    string
	missing bool // only until it is remembered: a record that is not there is not
	at      time.Time
}

func newStorageRecords(storage certmagic.Storage) *storageRecords {
	return &storageRecords{
		storage: storage,
		seed:    maphash.MakeSeed(),
		read: otter.Must(&otter.Options[string, readRecordText]{
			MaximumWeight:    maxReadBytes,
			Weigher:          func(_ string, r readRecordText) uint32 { return uint32(len(r.text)) + 256 },
			ExpiryCalculator: otter.ExpiryWriting[string, readRecordText](storageReadAge),
		}),
	}
}

func (s *storageRecords) get(ctx context.Context, name string, fresh bool) (string, bool, error) {
	if !fresh {
		if known, ok := s.read.GetIfPresent(name); ok && within(time.Since(known.at), storageReadAge) {
			return known.text, true, nil
		}
	}
	if fresh {
		return s.readNow(ctx, name)
	}
	// Files know no deadline: who waits for one that hangs goes away by itself, and
	// requests that come together share one read.
	done := s.reads.DoChan(name, func() (any, error) {
		text, ok, err := s.readNow(context.Background(), name)
		return readRecordText{text: text, missing: !ok}, err
	})
	select {
	case result := <-done:
		if result.Err != nil {
			return "", false, result.Err
		}
		read := result.Val.(readRecordText)
		return read.text, !read.missing, nil
	case <-ctx.Done():
		return "", false, fmt.Errorf("reading the session from Caddy's storage: %w", ctx.Err())
	}
}

func (s *storageRecords) readNow(ctx context.Context, name string) (string, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storagePatience)
	defer cancel()
	text, ok, err := s.load(ctx, path.Join(storageSessions, name))
	if err != nil {
		return "", false, fmt.Errorf("reading the session from Caddy's storage: %w", err)
	}
	if ok {
		s.read.Set(name, readRecordText{text: text, at: time.Now()})
	}
	return text, ok, nil
}

// load reads a value; one that is not there is none.
func (s *storageRecords) load(ctx context.Context, key string) (string, bool, error) {
	value, err := s.storage.Load(ctx, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, nil
	case err != nil:
		return "", false, err
	}
	return string(value), true, nil
}

// replace compares and writes under the storage's lock, which is what there is.
func (s *storageRecords) replace(ctx context.Context, name string, revision uint64, r *record) (replaced bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storagePatience)
	defer cancel()
	unlock, err := s.lockRecord(ctx, name)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()

	key := path.Join(storageSessions, name)
	text, ok, err := s.load(ctx, key)
	if err != nil {
		return false, err
	}
	standing := uint64(0)
	if ok {
		if standing, ok = revisionOf(text); !ok || standing == 0 {
			return false, nil // whatever it is, it is not ours to write over
		}
	}
	if standing != revision {
		return false, nil
	}
	if err := s.storage.Store(ctx, key, []byte(r.String())); err != nil {
		return false, err
	}
	s.read.Invalidate(name)
	s.sweepWhenDue()
	return true, nil
}

func (s *storageRecords) remove(ctx context.Context, name string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, storagePatience)
	defer cancel()
	unlock, err := s.lockRecord(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	defer s.read.Invalidate(name)
	return s.delete(ctx, path.Join(storageSessions, name))
}

func (s *storageRecords) delete(ctx context.Context, key string) error {
	if err := s.storage.Delete(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deleting from Caddy's storage: %w", err)
	}
	return nil
}

// lockRecord takes the right to write one record.
func (s *storageRecords) lockRecord(ctx context.Context, name string) (unlock func() error, err error) {
	own := &s.writing[maphash.String(s.seed, name)%uint64(len(s.writing))]
	own.Lock()
	lock := storageRecordLock + name
	for {
		ok, err := s.tryLockStorage(ctx, lock)
		switch {
		case err != nil:
			own.Unlock()
			return nil, fmt.Errorf("locking the session in Caddy's storage: %w", err)
		case ok:
			return func() error {
				defer own.Unlock()
				return s.storage.Unlock(context.WithoutCancel(ctx), lock)
			}, nil
		}
		select {
		case <-time.After(storageLockPause):
		case <-ctx.Done():
			own.Unlock()
			return nil, fmt.Errorf("locking the session in Caddy's storage: %w", ctx.Err())
		}
	}
}

// tryLockStorage takes a lock of the storage, or says false where somebody has it.
// A storage whose locks cannot be tried is waited for.
func (s *storageRecords) tryLockStorage(ctx context.Context, name string) (bool, error) {
	locker, ok := s.storage.(certmagic.TryLocker)
	if !ok {
		return true, s.storage.Lock(ctx, name)
	}
	if _, ok := s.storage.(*certmagic.FileStorage); !ok {
		return locker.TryLock(ctx, name)
	}
	// Where a file's lock is taken, trying means to sleep for a second and to look
	// again. There is a better pause below.
	brief, cancel := context.WithTimeout(ctx, storageLockPause)
	defer cancel()
	ok, err := locker.TryLock(brief, name)
	if err != nil && brief.Err() != nil && ctx.Err() == nil {
		return false, nil
	}
	return ok, err
}

func (s *storageRecords) tryLock(ctx context.Context, name string, lease time.Duration) (recordLock, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storagePatience)
	defer cancel()
	ok, err := s.tryLockStorage(ctx, storageSessionLock+name)
	if err != nil || !ok {
		return nil, false, err
	}
	return &storageLock{s.storage, storageSessionLock + name, lease}, true, nil
}

// storageLock is a lock of the storage. Files' locks are kept alive by the storage
// itself, for as long as the process lives; a storage with leases is asked to.
type storageLock struct {
	storage certmagic.Storage
	name    string
	lease   time.Duration
}

func (l *storageLock) renew(ctx context.Context) error {
	if renewer, ok := l.storage.(certmagic.LockLeaseRenewer); ok {
		return renewer.RenewLockLease(ctx, l.name, l.lease)
	}
	return nil
}

func (l *storageLock) release(ctx context.Context) error { return l.storage.Unlock(ctx, l.name) }

// addToIndex implements recordStore: a note is a value whose name says it all.
func (s *storageRecords) addToIndex(ctx context.Context, user, name string, expires time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, storagePatience)
	defer cancel()
	return s.storage.Store(ctx, path.Join(storageUsers, user, name), []byte(strconv.FormatInt(expires.UnixMilli(), 10)))
}

func (s *storageRecords) removeFromIndex(ctx context.Context, user, name string) error {
	ctx, cancel := context.WithTimeout(ctx, storagePatience)
	defer cancel()
	return s.delete(ctx, path.Join(storageUsers, user, name))
}

func (s *storageRecords) index(ctx context.Context, user string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, storagePatience)
	defer cancel()
	return s.list(ctx, path.Join(storageUsers, user))
}

// list gives the last parts of the names below a place.
func (s *storageRecords) list(ctx context.Context, place string) ([]string, error) {
	keys, err := s.storage.List(ctx, place, false)
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

// ready writes a little, and reads it back: a disk may be full, or read-only.
func (s *storageRecords) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storagePatience)
	defer cancel()
	if err := s.storage.Store(ctx, storageProbe, []byte("tollgate writes here to see whether it can\n")); err != nil {
		return fmt.Errorf("writing to Caddy's storage: %w", err)
	}
	if _, err := s.storage.Load(ctx, storageProbe); err != nil {
		return fmt.Errorf("reading from Caddy's storage: %w", err)
	}
	return nil
}

// sweepWhenDue begins to delete what has expired, now and then: nobody else does.
func (s *storageRecords) sweepWhenDue() {
	now := time.Now()
	last := s.swept.Load()
	if within(now.Sub(time.UnixMilli(last)), sweepInterval) || !s.swept.CompareAndSwap(last, now.UnixMilli()) {
		return
	}
	go func() { // ends with its patience
		ctx, cancel := context.WithTimeout(context.Background(), sweepPatience)
		defer cancel()
		s.sweep(ctx, now)
	}()
}

// sweep deletes the records that have expired, with the notes of them. What cannot
// be read or deleted now is left for the next time.
func (s *storageRecords) sweep(ctx context.Context, now time.Time) {
	names, err := s.list(ctx, storageSessions)
	if err != nil {
		return
	}
	for _, name := range names {
		text, ok, err := s.load(ctx, path.Join(storageSessions, name))
		if err != nil || !ok {
			continue
		}
		r, ok := parseRecord(text)
		if !ok || now.Before(r.expires) {
			continue
		}
		if s.remove(ctx, name) == nil && r.user != "" {
			_ = s.removeFromIndex(ctx, r.user, name)
		}
	}
}

// hold implements recordStore. The storage is Caddy's own, which keeps it open.
func (*storageRecords) hold() (release func()) { return func() {} }

func (s *storageRecords) close() { s.read.StopAllGoroutines() }

// Interface guards.
var (
	_ caddy.Provisioner     = (*StorageStore)(nil)
	_ caddy.Module          = (*StorageStore)(nil)
	_ caddyfile.Unmarshaler = (*StorageStore)(nil)
	_ storeModule           = (*StorageStore)(nil)
	_ recordStore           = (*storageRecords)(nil)
	_ recordLock            = (*storageLock)(nil)
)
