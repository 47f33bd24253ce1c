package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/flight"
)

const (
	// StoredSecretKey is the key in Caddy's storage of a secret that tollgate has made.
	StoredSecretKey = "tollgate/secret"
	// storedSecretLock is the lock under which the secret is made.
	storedSecretLock = "tollgate_secret"
)

// SecretStorage is the part of Caddy's storage that keeps a secret which tollgate has
// made. Load returns an error that is fs.ErrNotExist if the key does not exist.
type SecretStorage interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
}

// Source returns the ring of keys. With configured secrets the ring exists from the start,
// and Replace may replace it. Without them, the first call of Ring makes a secret and keeps it
// in Caddy's storage. The storage is not used before: `caddy validate` also provisions, and
// the storage may be on the network. A running site calls Ring after its start, when it looks
// at its store.
type Source struct {
	// current is the ring of the configured secrets. nil if none are configured.
	current atomic.Pointer[configured]
	// stored is the ring of the secret in Caddy's storage. nil if secrets are configured.
	stored                *flight.Lazy[*Ring]
	clientID, redirectURI string
	noteOld               func()
	made                  func()
}

// configured is a ring, and the secrets that it was derived from.
type configured struct {
	ring    *Ring
	secrets [][]byte
}

// storageBackOff is the pause after the storage has failed. Requests during the pause get
// the same error at once.
const storageBackOff = time.Second

// NewSource returns the source for one site. secrets may be empty; then the storage keeps
// the secret. NewSource returns an error if no keys can be derived from the secrets.
//
// noteOld is called whenever a value was opened that a previous secret sealed. It may be nil.
func NewSource(secrets [][]byte, storage SecretStorage, clientID, redirectURI string, noteOld func()) (*Source, error) {
	s := &Source{clientID: clientID, redirectURI: redirectURI, noteOld: noteOld, made: func() {}}
	if len(secrets) > 0 {
		_, err := s.Replace(secrets)
		return s, err
	}
	s.stored = flight.NewLazy(time.Now, storageBackOff, func(ctx context.Context) (*Ring, error) {
		secret, err := storedSecret(ctx, storage, s.made)
		if err != nil {
			return nil, fmt.Errorf("reading the secret from Caddy's storage: %w", err)
		}
		return NewRing([][]byte{secret}, clientID, redirectURI)
	})
	return s, nil
}

// OnMade sets what is called when this process has made a secret. Call it before Ring.
func (s *Source) OnMade(made func()) { s.made = made }

// Replace replaces the configured secrets, the current one first. The next value is sealed
// with the new current secret, and values open if any of the new secrets sealed them. It
// reports whether the secrets have changed.
func (s *Source) Replace(secrets [][]byte) (changed bool, err error) {
	if now := s.current.Load(); now != nil && slices.EqualFunc(now.secrets, secrets, bytes.Equal) {
		return false, nil
	}
	ring, err := NewRing(secrets, s.clientID, s.redirectURI)
	if err != nil {
		return false, err
	}
	for _, sealer := range []*Sealer{ring.Session, ring.Ticket, ring.Login} {
		sealer.noteOld = s.noteOld
	}
	s.current.Store(&configured{ring, secrets})
	return true, nil
}

// Ring returns the ring of keys, or an error while the storage cannot be reached. What was
// derived from a ring is outdated as soon as Ring returns another one.
func (s *Source) Ring(ctx context.Context) (*Ring, error) {
	if now := s.current.Load(); now != nil {
		return now.ring, nil
	}
	return s.stored.Get(ctx)
}

// storedSecret loads the secret from the storage, or makes it under the storage's lock.
// Of all processes that share the storage, one makes the secret and calls made, and all use it.
func storedSecret(ctx context.Context, storage SecretStorage, made func()) (secret []byte, err error) {
	if secret, err = loadSecret(ctx, storage); !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	if err := storage.Lock(ctx, storedSecretLock); err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	defer func() {
		if unlockErr := storage.Unlock(context.WithoutCancel(ctx), storedSecretLock); err == nil && unlockErr != nil {
			err = fmt.Errorf("unlocking: %w", unlockErr)
		}
	}()
	if secret, err = loadSecret(ctx, storage); !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	text := NewSecret()
	if err := storage.Store(ctx, StoredSecretKey, []byte(text+"\n")); err != nil {
		return nil, fmt.Errorf("storing: %w", err)
	}
	made()
	return ParseSecret(text)
}

func loadSecret(ctx context.Context, storage SecretStorage) ([]byte, error) {
	text, err := storage.Load(ctx, StoredSecretKey)
	if err != nil {
		return nil, err
	}
	secret, err := ParseSecret(string(text))
	if err != nil {
		return nil, fmt.Errorf("the value of %s %w", StoredSecretKey, err)
	}
	return secret, nil
}
