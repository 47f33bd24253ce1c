package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/gorilla/securecookie"

	"github.com/caddy-tollgate/tollgate/internal/wire"
)

// Each purpose has keys of its own, so that a value that was sealed for one purpose never
// opens for another.
const (
	purposeSession = "tollgate session cookie 1"
	purposeTicket  = "tollgate ticket 1"
	purposeLogin   = "tollgate login cookie 1"
	purposeMoved   = "tollgate moved record 1"
	purposeIndex   = "tollgate user index 1"
	// purposeAssertion is the purpose of the keys that sign assertions.
	purposeAssertion = "tollgate assertion 1"
)

// macKeySize and blockKeySize select the strongest algorithms of securecookie:
// HMAC-SHA256 with a 64-byte key, and AES-256.
const (
	macKeySize   = 64
	blockKeySize = 32
)

// Sealer encrypts and authenticates values for one purpose. It seals with the current
// secret, and opens values that were sealed with any configured secret.
type Sealer struct {
	codecs []*securecookie.SecureCookie // one for each secret, the current one first
	name   string
	// noteOld, if it is not nil, is called when a value was opened that a previous secret has
	// sealed.
	noteOld func()
}

// newSealer returns the sealer for one purpose at one site. maxLength is the maximum
// length of a sealed value in bytes.
func newSealer(secrets [][]byte, clientID, redirectURI, purpose string, maxLength int) (*Sealer, error) {
	derived, err := deriveKeys(secrets, clientID, redirectURI, purpose, macKeySize+blockKeySize)
	if err != nil {
		return nil, err
	}
	s := &Sealer{name: purpose}
	for _, keys := range derived {
		codec := securecookie.New(keys[:macKeySize], keys[macKeySize:])
		codec.SetSerializer(securecookie.NopEncoder{})
		codec.MaxLength(maxLength)
		codec.MaxAge(0) // the sealed records hold their own times
		s.codecs = append(s.codecs, codec)
	}
	return s, nil
}

// deriveKeys derives one key of the given size in bytes from each secret, for one purpose
// at one site. The salt is the site (client id and redirect URI), so that two sites with
// one secret cannot read each other's cookies. The salt has a length in front of each
// part, so that two different pairs never have the same salt (Envoy CVE-2023-35941).
func deriveKeys(secrets [][]byte, clientID, redirectURI, purpose string, size int) ([][]byte, error) {
	salt := wire.AppendText(wire.AppendText(nil, clientID), redirectURI)
	derived := make([][]byte, 0, len(secrets))
	for _, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, salt, purpose, size)
		if err != nil {
			return nil, fmt.Errorf("deriving keys: %w", err)
		}
		derived = append(derived, key)
	}
	return derived, nil
}

// Seal encrypts and authenticates plain, and returns text of the base64url alphabet. It
// returns an error if plain is empty, or if the sealed text would be too long.
func (s *Sealer) Seal(plain []byte) (string, error) {
	return s.codecs[0].Encode(s.name, bytes.Clone(plain)) // securecookie encrypts in place
}

// Open returns the bytes that were given to Seal. which is the index of the secret that
// sealed them: 0 is the current secret. ok is false if the value was not sealed for this
// purpose with a configured secret; Open gives no reason, so that
// an attacker learns nothing from it.
func (s *Sealer) Open(sealed string) (plain []byte, which int, ok bool) {
	if !isCanonical(sealed) {
		return nil, 0, false
	}
	for i, codec := range s.codecs {
		if codec.Decode(s.name, sealed, &plain) == nil {
			if i > 0 && s.noteOld != nil {
				s.noteOld()
			}
			return plain, i, true
		}
	}
	return nil, 0, false
}

// isCanonical reports whether sealed is the only valid spelling of its bytes. Decoders
// also accept unused bits at the end, and line breaks: one session would then have many
// cookie values.
func isCanonical(sealed string) bool {
	if sealed == "" || strings.ContainsAny(sealed, "\r\n") {
		return false
	}
	_, err := base64.URLEncoding.Strict().DecodeString(sealed)
	return err == nil
}
