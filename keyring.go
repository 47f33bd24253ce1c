package tollgate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// keyring holds the keys of one site, each derived from the site's secrets.
type keyring struct {
	session *sealer
	ticket  *sealer
	login   *sealer
	// moved and index are keys for movedTicket and userIndexName, one for each
	// secret, the current one first.
	moved [][]byte
	index [][]byte
	// assertion signs the identity for the upstream.
	assertion *assertionKeys
}

func newKeyring(secrets [][]byte, clientID, redirectURI string) (*keyring, error) {
	k := &keyring{}
	for purpose, target := range map[string]struct {
		sealer    **sealer
		maxLength int
	}{
		purposeSession: {&k.session, maxSessionValue},
		purposeTicket:  {&k.ticket, maxCookie},
		purposeLogin:   {&k.login, maxCookie - 200},
	} {
		made, err := newSealer(secrets, clientID, redirectURI, purpose, target.maxLength)
		if err != nil {
			return nil, err
		}
		*target.sealer = made
	}
	for purpose, target := range map[string]*[][]byte{purposeMoved: &k.moved, purposeIndex: &k.index} {
		made, err := deriveKeys(secrets, clientID, redirectURI, purpose, 32)
		if err != nil {
			return nil, err
		}
		*target = made
	}
	var err error
	k.assertion, err = newAssertionKeys(secrets, clientID, redirectURI)
	return k, err
}

// The made secret's place in Caddy's storage, and the lock under which it is made.
const (
	storedSecretKey  = "tollgate/secret"
	storedSecretLock = "tollgate_secret"
)

// secretStorage is what a made secret needs of Caddy's storage. A value that is not there
// gives an error that is fs.ErrNotExist.
type secretStorage interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
}

// keySource gives the keyring. With a configured secret it is there from the
// start. Without one, a secret is made at first use and kept in Caddy's own
// storage, which is not touched before: `caddy validate` provisions, too, and the
// storage may be on the network.
type keySource struct {
	storage     secretStorage
	clientID    string
	redirectURI string

	made    atomic.Pointer[keyring]
	flights singleflight.Group
	failed  atomic.Pointer[keyFault]
}

// keyFault is why there was no keyring, and when.
type keyFault struct {
	err error
	at  time.Time
}

// keyBackOff is the pause after the storage has failed: requests in between get the
// same answer at once.
const keyBackOff = time.Second

// keyring returns the keys, or an error while the storage cannot be reached.
func (k *keySource) keyring(ctx context.Context) (*keyring, error) {
	if keys := k.made.Load(); keys != nil {
		return keys, nil
	}
	if fault := k.failed.Load(); fault != nil && within(time.Since(fault.at), keyBackOff) {
		return nil, fault.err
	}
	select {
	case done := <-k.flights.DoChan("", k.obtain):
		if done.Err != nil {
			return nil, done.Err
		}
		return done.Val.(*keyring), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// obtain asks the storage, on a context of its own: one visitor's hang-up must not
// fail the others that wait for the key.
func (k *keySource) obtain() (any, error) {
	if keys := k.made.Load(); keys != nil {
		return keys, nil
	}
	secret, err := storedSecret(context.Background(), k.storage)
	if err != nil {
		err = fmt.Errorf("reading the secret from Caddy's storage: %w", err)
		k.failed.Store(&keyFault{err, time.Now()})
		return nil, err
	}
	keys, err := newKeyring([][]byte{secret}, k.clientID, k.redirectURI)
	if err != nil {
		return nil, err
	}
	k.made.Store(keys)
	return keys, nil
}

// storedSecret loads the secret from the storage, or makes it under the storage's
// lock: of all processes that share the storage, one makes it and all use it.
func storedSecret(ctx context.Context, storage secretStorage) (secret []byte, err error) {
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
	text := newSecret()
	if err := storage.Store(ctx, storedSecretKey, []byte(text+"\n")); err != nil {
		return nil, fmt.Errorf("storing: %w", err)
	}
	return parseSecret(text)
}

func loadSecret(ctx context.Context, storage secretStorage) ([]byte, error) {
	text, err := storage.Load(ctx, storedSecretKey)
	if err != nil {
		return nil, err
	}
	secret, err := parseSecret(string(text))
	if err != nil {
		return nil, fmt.Errorf("the value of %s %w", storedSecretKey, err)
	}
	return secret, nil
}
