package keys

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// MinSecret is the least number of bytes of a secret.
const MinSecret = 32

// NewSecret makes a secret as keygen prints it: 32 random bytes in base64url.
func NewSecret() string {
	b := make([]byte, MinSecret)
	rand.Read(b) // never fails: the runtime ends the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseSecret reads a configured secret: 64 or more hex digits, else base64url.
// Padding and the standard base64 alphabet are taken, too, because common tools
// print them. The error never repeats the secret.
func ParseSecret(s string) ([]byte, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil, errors.New("is empty")
	}
	if len(s) >= 2*MinSecret {
		switch b, err := hex.DecodeString(s); {
		case err == nil:
			return b, nil
		case errors.Is(err, hex.ErrLength):
			return nil, errors.New("has an odd number of hex digits")
		}
	}
	b, err := base64.RawURLEncoding.DecodeString(toURLAlphabet.Replace(strings.TrimRight(s, "=")))
	if err != nil {
		return nil, errors.New("is neither 64 or more hex digits nor base64url; `caddy tollgate keygen` prints a good one")
	}
	if len(b) < MinSecret {
		return nil, fmt.Errorf("is too short: %d bytes, and at least %d random bytes are needed; `caddy tollgate keygen` prints a good one", len(b), MinSecret)
	}
	return b, nil
}

var toURLAlphabet = strings.NewReplacer("+", "-", "/", "_")
