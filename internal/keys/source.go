package keys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// Source returns the ring of keys. With configured secrets the ring exists from the start.
// Without them, the source makes a secret at first use and keeps it in Caddy's storage.
// It does not use the storage before: `caddy validate` also provisions, and the storage
// may be on the network.
type Source struct {
	ring *flight.Lazy[*Ring]
	made func()
}

// storageBackOff is the pause after the storage has failed. Requests during the pause get
// the same error at once.
const storageBackOff = time.Second

// NewSource returns the source for one site. secrets may be empty; then the storage keeps
// the secret. NewSource returns an error if no keys can be derived from the secrets.
func NewSource(secrets [][]byte, storage SecretStorage, clientID, redirectURI string) (*Source, error) {
	if len(secrets) > 0 {
		ring, err := NewRing(secrets, clientID, redirectURI)
		if err != nil {
			return nil, err
		}
		return SourceOf(ring), nil
	}
	source := &Source{made: func() {}}
	source.ring = flight.NewLazy(time.Now, storageBackOff, func(ctx context.Context) (*Ring, error) {
		secret, err := storedSecret(ctx, storage, source.made)
		if err != nil {
			return nil, fmt.Errorf("reading the secret from Caddy's storage: %w", err)
		}
		return NewRing([][]byte{secret}, clientID, redirectURI)
	})
	return source, nil
}

// OnMade sets what is called when this process has made a secret. Call it before Ring.
func (s *Source) OnMade(made func()) { s.made = made }

// SourceOf returns a source with the given ring.
func SourceOf(ring *Ring) *Source { return &Source{ring: flight.Obtained(ring)} }

// Ring returns the ring of keys, or an error while the storage cannot be reached.
func (s *Source) Ring(ctx context.Context) (*Ring, error) { return s.ring.Get(ctx) }

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
