package identity

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/maypok86/otter/v2"

	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// DefaultAssertionHeader is the header of the assertion if none is configured.
const DefaultAssertionHeader = "X-Tollgate-Assertion"

// DefaultAssertionLifetime is the lifetime of an assertion if none is configured.
const DefaultAssertionLifetime = time.Minute

// MinAssertionLifetime is the shortest lifetime that may be configured. It is well above one
// second, the unit of a JWT's times.
const MinAssertionLifetime = 10 * time.Second

// MaxAssertionLifetime is the longest lifetime that may be configured. An assertion cannot be
// revoked.
const MaxAssertionLifetime = 5 * time.Minute

// maxAssertions is the maximum number of cached assertions. One takes about a kilobyte.
const maxAssertions = 10_000

// AssertionOptions holds the settings of the assertion block.
type AssertionOptions struct {
	Audience string
	Lifetime time.Duration
}

// AddAssertion makes name the assertion's header. Headers then sets it, and removes it from
// client requests.
func (h *Headers) AddAssertion(name string) {
	h.assertion = name
	h.folded[header.Fold(name)] = struct{}{}
	h.noteFirstBytes()
}

// RemoveProofs removes the access token and the assertion from a request. Whoever
// receives one of them can use it elsewhere. The other identity headers are worth nothing
// without the gateway, and the client's own are gone: they stay.
func (h *Headers) RemoveProofs(header http.Header) {
	for _, name := range []string{h.Token, h.assertion} {
		if name != "" {
			delete(header, name)
		}
	}
}

// assertedIdentity holds the claims about the user and the session. Unknown values are left
// out.
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

// assertionClaims holds all claims of an assertion. Times are Unix seconds.
type assertionClaims struct {
	assertedIdentity
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	ID       string `json:"jti"`
}

// madeAssertion is a cached assertion.
type madeAssertion struct {
	says assertedIdentity
	made time.Time
	text string
	// ring signed it. It is outdated once there is another ring.
	ring *keys.Signing
}

// Asserter makes the assertions of one handler. It caches the last assertion of each
// session: signing every request would be most of the gateway's CPU time.
type Asserter struct {
	*AssertionOptions
	origin string
	recent *otter.Cache[session.ID, madeAssertion]
}

// NewAsserter returns an Asserter. origin is the external origin of the site: the issuer.
func NewAsserter(settings *AssertionOptions, origin string) *Asserter {
	return &Asserter{
		AssertionOptions: settings,
		origin:           origin,
		recent:           otter.Must(&otter.Options[session.ID, madeAssertion]{MaximumSize: maxAssertions}),
	}
}

// Assert returns a signed assertion of id. It is valid for at least half of the configured
// lifetime, but not after end, when the session ends. It fails if the signing fails.
func (a *Asserter) Assert(ring *keys.Signing, id *Identity, end, now time.Time) (string, error) {
	says := a.says(id)
	if last, ok := a.recent.GetIfPresent(id.Session.ID); ok && last.ring == ring && last.says == says && flight.Within(now.Sub(last.made), a.Lifetime/2) {
		return last.text, nil
	}
	claims := assertionClaims{
		assertedIdentity: says,
		IssuedAt:         now.Unix(),
		Expires:          session.Earlier(now.Add(a.Lifetime), end).Unix(),
		ID:               rand.Text(),
	}
	text, err := jwt.Signed(ring.Signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("signing the assertion: %w", err)
	}
	a.recent.Set(id.Session.ID, madeAssertion{says, now, text, ring})
	return text, nil
}

func (a *Asserter) says(id *Identity) assertedIdentity {
	says := assertedIdentity{
		Issuer:       a.origin,
		Audience:     a.Audience,
		Subject:      id.Text(ValueID),
		Session:      id.Session.ID.Hash(),
		Name:         id.Text(ValueUsername),
		Email:        id.Text(ValueEmail),
		Balance:      id.Text(ValueBalance),
		BalanceState: string(id.State),
	}
	if id.Told {
		says.BalanceTime = id.Info.ReadAt.Unix()
	}
	return says
}
