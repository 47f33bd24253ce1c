package tollgate

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/maypok86/otter/v2"
	"go.uber.org/zap"
)

const (
	// assertionType is the `typ` of an assertion, so that no other JWT is taken for one
	// (RFC 8725 section 3.11).
	assertionType = "tollgate+jwt"

	defaultAssertionHeader   = "X-Tollgate-Assertion"
	defaultAssertionLifetime = time.Minute
	// minAssertionLifetime is well above the whole seconds that a JWT counts in.
	minAssertionLifetime = 10 * time.Second
	maxAssertionLifetime = 5 * time.Minute

	// maxAssertions bounds the assertions remembered; one takes about a kilobyte.
	maxAssertions = 10_000
)

// Assertion is the user's identity as a signed JWT, for an upstream that others than
// the gateway could reach, or that hands the identity on.
type Assertion struct {
	// The header that carries it. One of this name that a client sends is removed.
	// Default: `X-Tollgate-Assertion`.
	Header string `json:"header,omitempty"`

	// Who it is for, in the claim `aud`. Default: the origin of `redirect_uri`.
	Audience string `json:"audience,omitempty"`

	// How long it is valid, from 10s to 5m, and never beyond the session's `lifetime`.
	// One assertion is used for up to half of that, while nothing in it changes.
	// Default: 60s.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`
}

// assertionSettings is the assertion block, resolved.
type assertionSettings struct {
	audience string
	lifetime time.Duration
}

func (s *settings) resolveAssertion(r *resolver, a *Assertion) {
	if a == nil || s.identity == nil {
		return
	}
	const setting = "assertion.header"
	name := textproto.CanonicalMIMEHeaderKey(r.text(setting, a.Header, defaultAssertionHeader))
	switch {
	case !isHeaderName(name):
		r.fail(setting, "%q is not a header name", name)
	case isReservedHeader(name) || slices.Contains(authHeaderNames, name):
		r.fail(setting, "%s means something else already", name)
	case s.identity.forges(name):
		r.fail(setting, "%s carries something of the identity already", name)
	default:
		s.identity.addAssertion(name)
	}
	s.assertion = &assertionSettings{
		audience: r.text("assertion.audience", a.Audience, s.origin),
		lifetime: r.duration("assertion.lifetime", a.Lifetime, defaultAssertionLifetime),
	}
	if l := s.assertion.lifetime; l < minAssertionLifetime || l > maxAssertionLifetime {
		r.fail("assertion.lifetime", "must be from 10s to 5m")
	}
}

// addAssertion adds the assertion's header to the list of what is set and removed.
func (h *identityHeaders) addAssertion(name string) {
	h.assertion = name
	h.folded[foldName(name)] = struct{}{}
	h.noteBeginnings()
}

// assertionKeys signs assertions with the current secret's key, and names the public
// keys of all secrets.
type assertionKeys struct {
	signer jose.Signer
	public jose.JSONWebKeySet
}

// newAssertionKeys derives one Ed25519 key from each secret, so that all gateways with
// the same secrets sign alike and know each other's keys.
func newAssertionKeys(secrets [][]byte, clientID, redirectURI string) (*assertionKeys, error) {
	seeds, err := deriveKeys(secrets, clientID, redirectURI, purposeAssertion, ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	k := &assertionKeys{}
	for i, seed := range seeds {
		private := ed25519.NewKeyFromSeed(seed)
		public := jose.JSONWebKey{Key: private.Public(), Algorithm: string(jose.EdDSA), Use: "sig"}
		thumbprint, err := public.Thumbprint(crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("naming a key: %w", err)
		}
		public.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
		k.public.Keys = append(k.public.Keys, public)
		if i > 0 {
			continue
		}
		signingKey := jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: public.KeyID}}
		k.signer, err = jose.NewSigner(signingKey, (&jose.SignerOptions{}).WithType(assertionType))
		if err != nil {
			return nil, fmt.Errorf("making a signer: %w", err)
		}
	}
	return k, nil
}

// assertedIdentity is what an assertion says of the user and the session. What is
// unknown is left out.
type assertedIdentity struct {
	Issuer       string `json:"iss"`
	Audience     string `json:"aud"`
	Subject      string `json:"sub"`
	Session      string `json:"sid"`
	Name         string `json:"name,omitempty"`
	Email        string `json:"email,omitempty"`
	Balance      string `json:"balance,omitempty"`
	BalanceTime  int64  `json:"balance_time,omitempty"`
	BalanceState string `json:"balance_state"`
}

// assertionClaims are all claims of an assertion; times in Unix seconds.
type assertionClaims struct {
	assertedIdentity
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti"`
}

// madeAssertion is an assertion that may be used again.
type madeAssertion struct {
	says assertedIdentity
	made time.Time
	text string
}

// asserter makes the assertions of one handler. It remembers the last one of each
// session: signing each request would be most of what the gateway costs.
type asserter struct {
	*assertionSettings
	origin string
	recent *otter.Cache[sessionID, madeAssertion]
}

func newAsserter(settings *assertionSettings, origin string) *asserter {
	return &asserter{
		assertionSettings: settings,
		origin:            origin,
		recent:            otter.Must(&otter.Options[sessionID, madeAssertion]{MaximumSize: maxAssertions}),
	}
}

// assert gives an assertion of id that is valid for half of its lifetime at least, or
// until the session ends.
func (a *asserter) assert(keys *assertionKeys, id *identity, end, now time.Time) (string, error) {
	says := a.says(id)
	if last, ok := a.recent.GetIfPresent(id.session.id); ok && last.says == says && within(now.Sub(last.made), a.lifetime/2) {
		return last.text, nil
	}
	claims := assertionClaims{
		assertedIdentity: says,
		IssuedAt:         now.Unix(),
		Expires:          earlier(now.Add(a.lifetime), end).Unix(),
		ID:               rand.Text(),
	}
	text, err := jwt.Signed(keys.signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("signing the assertion: %w", err)
	}
	a.recent.Set(id.session.id, madeAssertion{says, now, text})
	return text, nil
}

func (a *asserter) says(id *identity) assertedIdentity {
	says := assertedIdentity{
		Issuer:       a.origin,
		Audience:     a.audience,
		Subject:      id.text(valueID),
		Session:      id.session.id.hash(),
		Name:         id.text(valueUsername),
		Email:        id.text(valueEmail),
		Balance:      id.text(valueBalance),
		BalanceState: string(id.state),
	}
	if id.told {
		says.BalanceTime = id.info.readAt.Unix()
	}
	return says
}

// assert gives the assertion of id, or nothing where there is none to be made: an
// upstream that asks for one then refuses the request.
func (h *Handler) assert(ctx context.Context, id *identity) string {
	if h.asserter == nil {
		return ""
	}
	keys, err := h.keys.keyring(ctx)
	if err != nil {
		h.logFault(ctx, err)
		return ""
	}
	text, err := h.asserter.assert(keys.assertion, id, id.session.end(h.lifetime, 0), h.now())
	if err != nil {
		h.logger.Error("the identity cannot be asserted", zap.String("session", id.session.id.hash()), zap.Error(err))
		return ""
	}
	return text
}

// serveKeys answers with the public keys by which assertions are verified: that of the
// current secret first, then those of the previous ones.
func (h *Handler) serveKeys(w http.ResponseWriter, r *http.Request) error {
	keys, err := h.keys.keyring(r.Context())
	if err != nil {
		h.logFault(r.Context(), err)
		return h.writeUnavailable(w, r, h.endpoints["jwks.json"])
	}
	return writeJSON(w, r, http.StatusOK, typeJSON, keys.assertion.public)
}
