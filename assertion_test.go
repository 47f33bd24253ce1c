package tollgate

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const assertionHeader = "X-Tollgate-Assertion"

// publicKeys reads the endpoint jwks.json as a verifier does.
func (s *site) publicKeys(t *testing.T) jose.JSONWebKeySet {
	t.Helper()
	a := s.newBrowser().get("/oauth/jwks.json")
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(a.text), &keys); err != nil || a.StatusCode != http.StatusOK || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("jwks.json: %d %q: %v", a.StatusCode, a.text, err)
	}
	for _, key := range keys.Keys {
		if !key.IsPublic() || !key.Valid() || key.KeyID == "" {
			t.Fatalf("jwks.json has the key %q", a.text)
		}
	}
	return keys
}

// verified verifies an assertion with the keys of jwks.json.
func (s *site) verified(t *testing.T, keys jose.JSONWebKeySet, text string) map[string]any {
	t.Helper()
	token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatalf("the assertion %q: %v", text, err)
	}
	if header := token.Headers[0]; header.ExtraHeaders[jose.HeaderType] != "tollgate+jwt" || len(keys.Key(header.KeyID)) != 1 {
		t.Fatalf("the assertion's header is %+v", header)
	}
	var claims map[string]any
	if err := token.Claims(keys, &claims); err != nil {
		t.Fatalf("verifying: %v", err)
	}
	return claims
}

func TestTheUpstreamVerifiesWhoTheUserIs(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "assertion\npublic /public\noptional /optional"})
	b := s.newBrowser().signIn()
	keys := s.publicKeys(t)
	for _, path := range []string{"/", "/optional"} {
		header := b.get(path, "X_Tollgate.Assertion: forged", assertionHeader+": forged").seen(t).Header
		if lines := header[assertionHeader]; len(lines) != 1 || strings.Contains(header.Get("X_Tollgate.Assertion"), "forged") {
			t.Fatalf("%s: got %q", path, header)
		}
		claims := s.verified(t, keys, header.Get(assertionHeader))
		for name, want := range map[string]any{
			"iss": s.url, "aud": s.url, "sub": testUserID, "name": header.Get("X-User-Name"),
			"balance": header.Get("X-User-Balance"), "balance_state": "fresh",
			"iat": float64(s.clock.now().Unix()), "exp": float64(s.clock.now().Add(time.Minute).Unix()),
		} {
			if claims[name] != want {
				t.Errorf("%s: %s is %v; want %v", path, name, claims[name], want)
			}
		}
		if claims["jti"] == "" || claims["sid"] == "" || claims["balance_time"] == nil {
			t.Errorf("%s: the claims are %v", path, claims)
		}
	}
	for path, who := range map[string]*browser{"/public": b, "/optional": s.newBrowser()} {
		header := who.get(path, "x_tollgate_assertion: forged", assertionHeader+": forged").seen(t).Header
		for name := range header {
			if foldName(name) == foldName(assertionHeader) {
				t.Errorf("%s as anonymous: %q", path, header)
			}
		}
	}
}

func TestAnAssertionIsUsedForHalfItsLifetimeWhileNothingChanges(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "assertion {\nheader X-Who\naudience ledger\nlifetime 40s\n}\nbalance {\nmax_age 10m\n}"})
	b := s.newBrowser().signIn()
	assertion := func() string { return b.get("/").seen(t).Header.Get("X-Who") }
	first := assertion()
	claims := s.verified(t, s.publicKeys(t), first)
	if claims["aud"] != "ledger" || claims["exp"].(float64)-claims["iat"].(float64) != 40 {
		t.Errorf("the claims are %v", claims)
	}
	s.clock.advance(19 * time.Second)
	if assertion() != first {
		t.Error("after 19s of 40s another one was signed")
	}
	s.clock.advance(2 * time.Second)
	if assertion() == first {
		t.Error("after 21s of 40s it is still the same")
	}
	if other := s.newBrowser().signIn().get("/").seen(t).Header.Get("X-Who"); other == assertion() {
		t.Error("two sessions have one assertion")
	}
}

func TestAnotherSecretIsTakenIntoUseWithoutAGap(t *testing.T) {
	const next = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	s := newSite(t, siteOptions{inTollgate: "assertion"})
	b := s.newBrowser().signIn()
	old := b.get("/").seen(t).Header.Get(assertionHeader)
	original := s.caddyfile

	s.caddyfile = strings.Replace(original, "secret "+testSecret, "secret "+testSecret+" "+next, 1)
	s.load()
	announced := s.publicKeys(t)
	s.verified(t, announced, b.get("/").seen(t).Header.Get(assertionHeader))

	s.caddyfile = strings.Replace(original, "secret "+testSecret, "secret "+next+" "+testSecret, 1)
	s.load()
	swapped := b.get("/").seen(t).Header.Get(assertionHeader)
	s.verified(t, announced, swapped)
	s.verified(t, s.publicKeys(t), old)
	if s.publicKeys(t).Keys[0].KeyID == announced.Keys[0].KeyID {
		t.Error("the new secret does not sign")
	}
}

func TestTwoSitesWithOneSecretSignWithDifferentKeys(t *testing.T) {
	one, other := newSite(t, siteOptions{inTollgate: "assertion"}), newSite(t, siteOptions{inTollgate: "assertion"})
	if one.publicKeys(t).Keys[0].KeyID == other.publicKeys(t).Keys[0].KeyID {
		t.Error("two sites have one key")
	}
}

func TestAnotherProxyIsToldTheAssertion(t *testing.T) {
	s := newSite(t, asked(noPeer, "assertion"))
	b := s.newBrowser()
	if lines := b.get("/oauth/auth").Header.Values(assertionHeader); len(lines) != 1 || lines[0] != "" {
		t.Errorf("nobody's assertion is %q", lines)
	}
	b.signIn()
	claims := s.verified(t, s.publicKeys(t), b.get("/oauth/auth").Header.Get(assertionHeader))
	if claims["sub"] != testUserID {
		t.Errorf("the claims are %v", claims)
	}
}

// BenchmarkAssertion compares signing with what a request costs that finds an
// assertion made before.
func BenchmarkAssertion(b *testing.B) {
	keys, err := newAssertionKeys([][]byte{[]byte(testSecret)}, testClientID, "https://app.example.com/oauth/callback")
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	id := &identity{session: newSession(now, tokens{}, userInfo{})}
	id.info = &userInfo{readAt: now}
	for name, lifetime := range map[string]time.Duration{"signed": 0, "reused": time.Hour} {
		b.Run(name, func(b *testing.B) {
			a := newAsserter(&assertionSettings{audience: "app", lifetime: lifetime}, "https://app.example.com")
			for b.Loop() {
				if _, err := a.assert(keys, id, now.Add(time.Hour), now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
