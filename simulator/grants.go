package simulator

import (
	"sync"
	"time"
)

// Limits of the tables. An entry takes about 250 bytes, so the largest
// table stays below 40 MB. Expired and spent entries stay until they are
// pushed out: reuse can only be told from nonsense by what is remembered.
const (
	maxCodes         = 10_000
	maxAccessTokens  = 1 << 17
	maxRefreshTokens = 1 << 17
)

// codeGrant is an authorization code and what it is bound to.
type codeGrant struct {
	clientID    string
	redirectURI string
	challenge   string
	scope       string
	userID      int64

	expires time.Time
	spent   bool
	family  *family // what the exchange gave, nil before and after a failed one
}

// family is everything that came out of one authorization: rotation after
// rotation, it is revoked as a whole.
type family struct {
	clientID string
	userID   int64
	scope    string

	revoked    bool
	generation int // counts rotations
}

type accessToken struct {
	family     *family
	scope      string // may be narrower than the family's
	generation int
	expires    time.Time
}

type refreshToken struct {
	family  *family
	expires time.Time
	spent   bool
}

// tokens is what the token endpoint gives out.
type tokens struct {
	access  string
	refresh string // empty when the client keeps the one it has
	scope   string
}

// grantTable holds codes and tokens, by fingerprint.
type grantTable struct {
	options Options

	mu           sync.Mutex // guards all below, and all that is pointed to
	codes        *table[fingerprint, *codeGrant]
	access       *table[fingerprint, *accessToken]
	refresh      *table[fingerprint, *refreshToken]
	doubleSpends int
}

func newGrantTable(options Options) *grantTable {
	return &grantTable{
		options: options,
		codes:   newTable[fingerprint, *codeGrant](maxCodes),
		access:  newTable[fingerprint, *accessToken](maxAccessTokens),
		refresh: newTable[fingerprint, *refreshToken](maxRefreshTokens),
	}
}

func (t *grantTable) issueCode(g codeGrant) string {
	code := newCode()
	t.mu.Lock()
	defer t.mu.Unlock()
	g.expires = t.options.Now().Add(t.options.CodeLifetime)
	t.codes.put(fingerprintOf(code), &g)
	return code
}

// exchange spends a code. Whatever else is wrong with the request, the
// client's first try is its only one: a code verifier cannot be guessed twice.
func (t *grantTable) exchange(client Client, code, redirectURI, verifier string) (tokens, error) {
	t.mu.Lock()
	defer t.mu.Unlock()

	g, ok := t.codes.get(fingerprintOf(code))
	if !ok || g.clientID != client.ID {
		// Another client's code stays usable: else anyone could spend it.
		return tokens{}, invalidGrant("unknown authorization code")
	}
	if g.spent {
		// RFC 6749 section 4.1.2: somebody else may have been first.
		if g.family != nil {
			g.family.revoked = true
		}
		return tokens{}, invalidGrant("the authorization code was used before")
	}
	g.spent = true
	switch {
	case !t.options.Now().Before(g.expires):
		return tokens{}, invalidGrant("the authorization code has expired")
	case redirectURI != g.redirectURI:
		return tokens{}, invalidGrant("redirect_uri differs from the authorize request")
	}
	if err := checkVerifier(g.challenge, verifier); err != nil {
		return tokens{}, err
	}
	g.family = &family{clientID: g.clientID, userID: g.userID, scope: g.scope}
	return t.issue(g.family, g.scope, true), nil
}

// rotate spends a refresh token and gives its successors.
func (t *grantTable) rotate(client Client, token, scope string) (tokens, error) {
	t.mu.Lock()
	defer t.mu.Unlock()

	rt, ok := t.refresh.get(fingerprintOf(token))
	if !ok || rt.family.clientID != client.ID {
		return tokens{}, invalidGrant("unknown refresh token")
	}
	if rt.spent {
		// Two parties hold this token, and nothing tells which is the thief
		// (RFC 9700 section 4.14.2): the whole family ends.
		t.doubleSpends++
		rt.family.revoked = true
		return tokens{}, invalidGrant("the refresh token was used before; all tokens of this login are revoked")
	}
	if rt.family.revoked || !t.options.Now().Before(rt.expires) {
		return tokens{}, invalidGrant("the refresh token is expired or revoked")
	}
	// A mistake in the request must not cost the client its session, so the
	// scope is looked at before anything is spent.
	narrowed, problem := parseScope(scope, rt.family.scope)
	if problem != nil {
		return tokens{}, problem
	}
	rt.family.generation++
	rt.spent = !t.options.NoRotation
	return t.issue(rt.family, narrowed, rt.spent), nil
}

// issue makes tokens for a family. The caller holds the lock.
func (t *grantTable) issue(f *family, scope string, withRefresh bool) tokens {
	now := t.options.Now()
	issued := tokens{access: newAccessToken(t.options.AccessTokenSize), scope: scope}
	t.access.put(fingerprintOf(issued.access), &accessToken{
		family:     f,
		scope:      scope,
		generation: f.generation,
		expires:    now.Add(t.options.AccessLifetime),
	})
	if withRefresh {
		issued.refresh = newRefreshToken()
		t.refresh.put(fingerprintOf(issued.refresh), &refreshToken{
			family:  f,
			expires: now.Add(t.options.RefreshLifetime),
		})
	}
	return issued
}

// valid reports whether an access token still opens anything. The caller
// holds the lock.
func (t *grantTable) valid(at *accessToken) bool {
	if at.family.revoked || !t.options.Now().Before(at.expires) {
		return false
	}
	return !t.options.RevokeOldAccess || at.generation == at.family.generation
}

// look returns whose access token this is, and for which scope.
func (t *grantTable) look(token string) (userID int64, scope string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.access.get(fingerprintOf(token))
	if !ok || !t.valid(at) {
		return 0, "", false
	}
	return at.family.userID, at.scope, true
}

// familyOf finds the family of an access or refresh token, also of one that
// is spent or expired. The caller holds the lock.
func (t *grantTable) familyOf(token string) (*family, bool) {
	if rt, ok := t.refresh.get(fingerprintOf(token)); ok {
		return rt.family, true
	}
	if at, ok := t.access.get(fingerprintOf(token)); ok {
		return at.family, true
	}
	return nil, false
}

// RevokeUser revokes all that a user has granted, as the page of authorized
// applications in the user's settings does: every token and every code that
// still waits for its exchange is invalid, and consent has to be given anew.
func (p *Provider) RevokeUser(id int64) {
	p.browsers.forget(id)

	t := p.grants
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, g := range t.codes.all() {
		if g.userID == id {
			t.codes.delete(key)
		}
	}
	for _, rt := range t.refresh.all() {
		if rt.family.userID == id {
			rt.family.revoked = true
		}
	}
	for _, at := range t.access.all() {
		if at.family.userID == id {
			at.family.revoked = true
		}
	}
}

// ExpireAccessTokens makes every access token invalid at once. Refresh
// tokens live on.
func (p *Provider) ExpireAccessTokens() {
	p.grants.mu.Lock()
	defer p.grants.mu.Unlock()
	p.grants.access.clear()
}

// LiveFamilies counts the logins that still hold something of value: an
// access token or a refresh token that would be accepted now.
func (p *Provider) LiveFamilies() int {
	t := p.grants
	t.mu.Lock()
	defer t.mu.Unlock()
	live := make(map[*family]bool)
	for _, rt := range t.refresh.all() {
		if !rt.family.revoked && !rt.spent && t.options.Now().Before(rt.expires) {
			live[rt.family] = true
		}
	}
	for _, at := range t.access.all() {
		if t.valid(at) {
			live[at.family] = true
		}
	}
	return len(live)
}

// DoubleSpends counts how often a spent refresh token was presented again,
// each of which cost a login. A client that refreshes well leaves it at zero.
func (p *Provider) DoubleSpends() int {
	p.grants.mu.Lock()
	defer p.grants.mu.Unlock()
	return p.grants.doubleSpends
}
