package simulator

import (
	"sync"
	"time"
)

// Maximum sizes of the tables. An entry takes about 250 bytes, so the largest
// table stays below 40 MB. Expired and used entries stay until newer ones
// replace them. Otherwise reuse would look the same as an unknown token.
const (
	maxCodes         = 10_000
	maxAccessTokens  = 1 << 17
	maxRefreshTokens = 1 << 17
)

// codeGrant is an authorization code and the values that it is bound to.
type codeGrant struct {
	clientID    string
	redirectURI string
	challenge   string
	scope       string
	userID      int64

	expires time.Time
	spent   bool
	family  *family // the tokens of the exchange; nil before it, or if it failed
}

// family is one authorization with all its tokens, over any number of
// rotations. It is revoked as a whole.
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

// tokens are the tokens of one response of the token endpoint.
type tokens struct {
	access  string
	refresh string // empty if the client keeps its refresh token
	scope   string
}

// grantTable holds codes and tokens, by fingerprint.
type grantTable struct {
	options Options

	mu           sync.Mutex // guards all below, with the values behind the pointers
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

// exchange uses up a code and returns tokens for it. The code is used up even
// if the request is wrong, so that a code verifier can be guessed only once.
func (t *grantTable) exchange(client Client, code, redirectURI, verifier string) (tokens, error) {
	t.mu.Lock()
	defer t.mu.Unlock()

	g, ok := t.codes.get(fingerprintOf(code))
	if !ok || g.clientID != client.ID {
		// A code of another client stays valid. Otherwise any client could use
		// up the codes of others.
		return tokens{}, invalidGrant("unknown authorization code")
	}
	if g.spent {
		// RFC 6749 section 4.1.2: an attacker may have used the code first.
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

// rotate uses up a refresh token and returns new tokens.
func (t *grantTable) rotate(client Client, token, scope string) (tokens, error) {
	t.mu.Lock()
	defer t.mu.Unlock()

	rt, ok := t.refresh.get(fingerprintOf(token))
	if !ok || rt.family.clientID != client.ID {
		return tokens{}, invalidGrant("unknown refresh token")
	}
	if rt.spent {
		// Two parties have this token, and we cannot know which of them stole
		// it. So the whole family is revoked (RFC 9700 section 4.14.2).
		t.doubleSpends++
		rt.family.revoked = true
		return tokens{}, invalidGrant("the refresh token was used before; all tokens of this login are revoked")
	}
	if rt.family.revoked || !t.options.Now().Before(rt.expires) {
		return tokens{}, invalidGrant("the refresh token is expired or revoked")
	}
	// Check the scope before the token is used up: a mistake in the request
	// must not end the client's session.
	narrowed, problem := parseScope(scope, rt.family.scope)
	if problem != nil {
		return tokens{}, problem
	}
	rt.family.generation++
	rt.spent = !t.options.NoRotation
	return t.issue(rt.family, narrowed, rt.spent), nil
}

// issue makes tokens of a family. The caller holds the lock.
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

// valid reports whether an access token is still valid. The caller holds the
// lock.
func (t *grantTable) valid(at *accessToken) bool {
	if at.family.revoked || !t.options.Now().Before(at.expires) {
		return false
	}
	return !t.options.RevokeOldAccess || at.generation == at.family.generation
}

// look returns the user and the scope of an access token. ok is false if it is
// not valid.
func (t *grantTable) look(token string) (userID int64, scope string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.access.get(fingerprintOf(token))
	if !ok || !t.valid(at) {
		return 0, "", false
	}
	return at.family.userID, at.scope, true
}

// familyOf finds the family of an access or refresh token, also if the token
// is used up or expired. The caller holds the lock.
func (t *grantTable) familyOf(token string) (*family, bool) {
	if rt, ok := t.refresh.get(fingerprintOf(token)); ok {
		return rt.family, true
	}
	if at, ok := t.access.get(fingerprintOf(token)); ok {
		return at.family, true
	}
	return nil, false
}

// RevokeUser revokes all grants of a user, as the page of authorized
// applications in the user's settings does. All tokens and unused codes
// become invalid, and the user has to consent again.
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
// tokens stay valid.
func (p *Provider) ExpireAccessTokens() {
	p.grants.mu.Lock()
	defer p.grants.mu.Unlock()
	p.grants.access.clear()
}

// LiveFamilies returns the number of logins that have a valid access token or
// a valid refresh token.
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

// DoubleSpends returns how often a used refresh token was sent again. Each
// time, a login was revoked. With a correct client it is zero.
func (p *Provider) DoubleSpends() int {
	p.grants.mu.Lock()
	defer p.grants.mu.Unlock()
	return p.grants.doubleSpends
}
