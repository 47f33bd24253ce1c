package simulator

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
)

// fingerprint is the key of a code, a token or a cookie in tables. It has the
// same size for every token, and the timing of a lookup by hash reveals nothing
// about the secret.
type fingerprint [sha256.Size]byte

func fingerprintOf(secret string) fingerprint {
	return sha256.Sum256([]byte(secret))
}

// sameSecret compares the hashes in constant time. So the timing does not
// reveal the length either.
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

// accessTokenHeader makes access tokens look like those in the provider's
// document. The rest of a token is random.
const accessTokenHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."

// minAccessToken is the minimum size of access tokens. It leaves more than 256
// random bits after the header.
const minAccessToken = 128

func newAccessToken(size int) string {
	size = max(size, minAccessToken)
	b := make([]byte, size)
	rand.Read(b)
	text := base64.RawURLEncoding.EncodeToString(b)

	// The last dot is where the signature of an HMAC with SHA-256 would begin.
	const signature = 43
	payload := size - len(accessTokenHeader) - 1 - signature
	return accessTokenHeader + text[:payload] + "." + text[payload:payload+signature]
}

func newRefreshToken() string { return "refresh_" + randomHex(48) }

func newCode() string { return "code_" + randomHex(48) }
