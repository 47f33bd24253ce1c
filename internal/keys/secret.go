package keys

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// MinSecret is the minimum length of a secret in bytes.
const MinSecret = 32

// NewSecret returns a new secret in the form that keygen prints: 32 random bytes in
// base64url.
func NewSecret() string {
	b := make([]byte, MinSecret)
	rand.Read(b) // never fails: the runtime ends the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// maxSecrets is the maximum number of secrets in one value. A value that no secret sealed is
// tried with each of them.
const maxSecrets = 16

// ParseSecrets decodes the secrets of one value, one in each line: the first one is the
// current one. It skips blank lines and lines that begin with #. The error names the line if
// there are several, and never repeats a secret.
func ParseSecrets(text string) ([][]byte, error) {
	var secrets [][]byte
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		secret, err := ParseSecret(line)
		switch {
		case err != nil && len(lines) > 1:
			return nil, fmt.Errorf("line %d %w", i+1, err)
		case err != nil:
			return nil, err
		}
		secrets = append(secrets, secret)
	}
	switch {
	case len(secrets) == 0:
		return nil, errors.New("is empty")
	case len(secrets) > maxSecrets:
		return nil, fmt.Errorf("has %d secrets; the maximum is %d", len(secrets), maxSecrets)
	}
	return secrets, nil
}

// ParseSecret decodes a configured secret: 64 or more hex digits, or base64url. It also
// accepts padding and the standard base64 alphabet, because common tools print them. It
// returns an error if the text is neither, or decodes to fewer than MinSecret bytes. The
// error never repeats the secret.
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
		return nil, errors.New("is neither 64 or more hex digits nor base64url; run `caddy tollgate keygen` to make one")
	}
	if len(b) < MinSecret {
		return nil, fmt.Errorf("is too short: it has %d bytes, and needs at least %d random bytes; run `caddy tollgate keygen` to make one", len(b), MinSecret)
	}
	return b, nil
}

var toURLAlphabet = strings.NewReplacer("+", "-", "/", "_")
