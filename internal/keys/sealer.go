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

// Purposes of keys. Each has keys of its own, so that a value sealed for one never
// opens as another.
const (
	PurposeSession   = "tollgate session cookie 1"
	purposeTicket    = "tollgate ticket 1"
	PurposeLogin     = "tollgate login cookie 1"
	purposeMoved     = "tollgate moved record 1"
	purposeIndex     = "tollgate user index 1"
	PurposeAssertion = "tollgate assertion 1"
)

// macKeySize and blockKeySize are securecookie's strongest: HMAC-SHA256 with a
// 64-byte key, AES-256.
const (
	macKeySize   = 64
	blockKeySize = 32
)

// Sealer seals with the current secret and opens what any configured secret
// sealed. It knows bytes and purposes, nothing of HTTP.
type Sealer struct {
	codecs []*securecookie.SecureCookie // current first
	name   string
}

// NewSealer makes the sealer for one purpose at one site.
func NewSealer(secrets [][]byte, clientID, redirectURI, purpose string, maxLength int) (*Sealer, error) {
	derived, err := DeriveKeys(secrets, clientID, redirectURI, purpose, macKeySize+blockKeySize)
	if err != nil {
		return nil, err
	}
	s := &Sealer{name: purpose}
	for _, keys := range derived {
		codec := securecookie.New(keys[:macKeySize], keys[macKeySize:])
		codec.SetSerializer(securecookie.NopEncoder{})
		codec.MaxLength(maxLength)
		codec.MaxAge(0) // times stand inside our own records, and only there
		s.codecs = append(s.codecs, codec)
	}
	return s, nil
}

// DeriveKeys derives one key from each secret, for one purpose at one site. The site
// (client id and redirect URI) salts them, so that two sites with one secret cannot
// read each other's cookies; the lengths in front of the parts keep two different
// pairs from giving one salt (Envoy CVE-2023-35941).
func DeriveKeys(secrets [][]byte, clientID, redirectURI, purpose string, size int) ([][]byte, error) {
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

// Seal gives an unreadable, unchangeable text of the base64url alphabet. What is to
// be sealed may not be empty.
func (s *Sealer) Seal(plain []byte) (string, error) {
	return s.codecs[0].Encode(s.name, bytes.Clone(plain)) // which encrypts in place
}

// Open gives back what seal was given, and which secret had sealed it: 0 is the
// current one. Whatever is wrong with the value, the answer is the same.
func (s *Sealer) Open(sealed string) (plain []byte, which int, ok bool) {
	if !isCanonical(sealed) {
		return nil, 0, false
	}
	for i, codec := range s.codecs {
		if codec.Decode(s.name, sealed, &plain) == nil {
			return plain, i, true
		}
	}
	return nil, 0, false
}

// isCanonical reports whether sealed is the one spelling of its bytes: decoders
// also take stray bits at the end and line breaks within, which would give one
// session many cookie values.
func isCanonical(sealed string) bool {
	if sealed == "" || strings.ContainsAny(sealed, "\r\n") {
		return false
	}
	_, err := base64.URLEncoding.Strict().DecodeString(sealed)
	return err == nil
}
