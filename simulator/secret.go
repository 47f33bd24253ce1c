package simulator

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
)

// fingerprint stands in tables for a code, a token or a cookie. It keeps
// tables small whatever the token's size, and a lookup by hash says nothing
// through its timing about the secret.
type fingerprint [sha256.Size]byte

func fingerprintOf(secret string) fingerprint {
	return sha256.Sum256([]byte(secret))
}

// sameSecret compares in constant time, and through the hashes, so that the
// length does not show either.
func sameSecret(a, b string) bool {
	fa, fb := fingerprintOf(a), fingerprintOf(b)
	return subtle.ConstantTimeCompare(fa[:], fb[:]) == 1
}

// randomHex returns n random hexadecimal digits; n is even.
func randomHex(n int) string {
	b := make([]byte, n/2)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// accessTokenHeader makes access tokens look like the ones in the provider's
// document. They are opaque all the same: what follows is random.
const accessTokenHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."

// minAccessToken leaves more than 256 random bits after the header.
const minAccessToken = 128

func newAccessToken(size int) string {
	size = max(size, minAccessToken)
	b := make([]byte, size)
	rand.Read(b)
	text := base64.RawURLEncoding.EncodeToString(b)

	// The last dot stands where a SHA-256 signature would begin.
	const signature = 43
	payload := size - len(accessTokenHeader) - 1 - signature
	return accessTokenHeader + text[:payload] + "." + text[payload:payload+signature]
}

func newRefreshToken() string { return "refresh_" + randomHex(48) }

func newCode() string { return "code_" + randomHex(48) }
