// Package keys turns configured secrets into keys, one for each purpose and site, and
// seals and opens values with them.
//
// The first secret seals, all of them open. A Source gives the ring of keys, and makes a
// secret at first use where none is configured. What is sealed, a session or a login, is
// the concern of the packages above. Begin with NewRing.
package keys

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-tollgate/tollgate/internal/flight"
)

// assertionType is the `typ` of an assertion, so that no other JWT is taken for one
// (RFC 8725 section 3.11).
const assertionType = "tollgate+jwt"

// Signing signs assertions with the current secret's key, and names the public
// keys of all secrets.
type Signing struct {
	Signer jose.Signer
	Public jose.JSONWebKeySet
}

// NewSigning derives one Ed25519 key from each secret, so that all gateways with
// the same secrets sign alike and know each other's keys.
func NewSigning(secrets [][]byte, clientID, redirectURI string) (*Signing, error) {
	seeds, err := DeriveKeys(secrets, clientID, redirectURI, PurposeAssertion, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	k := &Signing{}
	for i, seed := range seeds {
		private := ed25519.NewKeyFromSeed(seed)
		public := jose.JSONWebKey{Key: private.Public(), Algorithm: string(jose.EdDSA), Use: "sig"}
		thumbprint, err := public.Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("naming a key: %w", err)
		}
		public.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
		k.Public.Keys = append(k.Public.Keys, public)
		if i > 0 {
			continue
		}
		signingKey := jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: public.KeyID}}
		k.Signer, err = jose.NewSigner(signingKey, (&jose.SignerOptions{}).WithType(assertionType))
		if err != nil {
			return nil, fmt.Errorf("making a signer: %w", err)
		}
	}
	return k, nil
}

// Limits of what a browser and a server take. A browser drops a cookie whose name
// and value exceed 4,096 bytes without a word, and Caddy's header budget is
// 16 KiB. All our cookies together stay under 8 KiB, but for one login next to a session
// of the longest kind, and for logins that a browser begins all at once.
const (
	MaxCookie       = 4096
	MaxSessionValue = 2 * (MaxCookie - 160) // two chunks; 160 for the name and the attributes
)

// Ring holds the keys of one site, each derived from the site's secrets.
type Ring struct {
	Session *Sealer
	Ticket  *Sealer
	Login   *Sealer
	// Moved and index are keys for movedTicket and UserIndexName, one for each
	// secret, the current one first.
	Moved [][]byte
	Index [][]byte
	// Assertion signs the identity for the upstream.
	Assertion *Signing
}

func NewRing(secrets [][]byte, clientID, redirectURI string) (*Ring, error) {
	k := &Ring{}
	for purpose, target := range map[string]struct {
		sealer    **Sealer
		maxLength int
	}{
		PurposeSession: {&k.Session, MaxSessionValue},
		purposeTicket:  {&k.Ticket, MaxCookie},
		PurposeLogin:   {&k.Login, MaxCookie - 200},
	} {
		made, err := NewSealer(secrets, clientID, redirectURI, purpose, target.maxLength)
		if err != nil {
			return nil, err
		}
		*target.sealer = made
	}
	for purpose, target := range map[string]*[][]byte{purposeMoved: &k.Moved, purposeIndex: &k.Index} {
		made, err := DeriveKeys(secrets, clientID, redirectURI, purpose, 32)
		if err != nil {
			return nil, err
		}
		*target = made
	}
	var err error
	k.Assertion, err = NewSigning(secrets, clientID, redirectURI)
	return k, err
}

// The made secret's place in Caddy's storage, and the lock under which it is made.
const (
	StoredSecretKey  = "tollgate/secret"
	storedSecretLock = "tollgate_secret"
)

// SecretStorage is what a made secret needs of Caddy's storage. A value that does not exist
// gives an error that is fs.ErrNotExist.
type SecretStorage interface {
	Load(ctx context.Context, key string) ([]byte, error)
	Store(ctx context.Context, key string, value []byte) error
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
}

// Source gives the ring of keys. With configured secrets the ring is there from the start.
// Without them a secret is made at first use and kept in Caddy's own storage, which is not
// touched before: `caddy validate` provisions, too, and the storage may be on the network.
type Source struct {
	ring *flight.Lazy[*Ring]
}

// storageBackOff is the pause after the storage has failed: requests in between get the
// same error at once.
const storageBackOff = time.Second

// NewSource returns the source for one site. secrets may be empty; an error says that one
// of them cannot be used.
func NewSource(secrets [][]byte, storage SecretStorage, clientID, redirectURI string) (*Source, error) {
	if len(secrets) > 0 {
		ring, err := NewRing(secrets, clientID, redirectURI)
		if err != nil {
			return nil, err
		}
		return SourceOf(ring), nil
	}
	return &Source{flight.NewLazy(time.Now, storageBackOff, func(ctx context.Context) (*Ring, error) {
		secret, err := storedSecret(ctx, storage)
		if err != nil {
			return nil, fmt.Errorf("reading the secret from Caddy's storage: %w", err)
		}
		return NewRing([][]byte{secret}, clientID, redirectURI)
	})}, nil
}

// SourceOf returns a source that has its ring already.
func SourceOf(ring *Ring) *Source { return &Source{flight.Obtained(ring)} }

// Ring returns the keys, or an error while the storage cannot be reached.
func (s *Source) Ring(ctx context.Context) (*Ring, error) { return s.ring.Get(ctx) }

// storedSecret loads the secret from the storage, or makes it under the storage's
// lock: of all processes that share the storage, one makes it and all use it.
func storedSecret(ctx context.Context, storage SecretStorage) (secret []byte, err error) {
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
