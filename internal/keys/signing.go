package keys

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// assertionType is the `typ` of an assertion, so that no other JWT can pass as one
// (RFC 8725 section 3.11).
const assertionType = "tollgate+jwt"

// Signing holds the keys that sign assertions.
type Signing struct {
	// Signer signs with the key of the current secret.
	Signer jose.Signer
	// Public holds the public keys of all secrets, the current one first.
	Public jose.JSONWebKeySet
}

// newSigning derives one Ed25519 key from each secret, so that all gateways with the same
// secrets sign with the same key and publish the same keys.
func newSigning(secrets [][]byte, clientID, redirectURI string) (*Signing, error) {
	seeds, err := deriveKeys(secrets, clientID, redirectURI, purposeAssertion, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	s := &Signing{}
	for i, seed := range seeds {
		private := ed25519.NewKeyFromSeed(seed)
		public := jose.JSONWebKey{Key: private.Public(), Algorithm: string(jose.EdDSA), Use: "sig"}
		thumbprint, err := public.Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("naming a key: %w", err)
		}
		public.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
		s.Public.Keys = append(s.Public.Keys, public)
		if i > 0 {
			continue
		}
		signingKey := jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: public.KeyID}}
		s.Signer, err = jose.NewSigner(signingKey, (&jose.SignerOptions{}).WithType(assertionType))
		if err != nil {
			return nil, fmt.Errorf("making a signer: %w", err)
		}
	}
	return s, nil
}
