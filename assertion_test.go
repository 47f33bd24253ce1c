package tollgate_test

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/wire"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const assertionHeader = "X-Tollgate-Assertion"

// publicKeys reads the endpoint jwks.json as a verifier does.
func publicKeys(s *gatewaytest.Site, t *testing.T) jose.JSONWebKeySet {
	t.Helper()
	a := s.NewBrowser().Get("/oauth/jwks.json")
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(a.Text), &keys); err != nil || a.StatusCode != http.StatusOK || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("jwks.json: %d %q: %v", a.StatusCode, a.Text, err)
	}
	for _, key := range keys.Keys {
		if !key.IsPublic() || !key.Valid() || key.KeyID == "" {
			t.Fatalf("jwks.json has the key %q", a.Text)
		}
	}
	return keys
}

// verified verifies an assertion with the keys of jwks.json.
func verified(s *gatewaytest.Site, t *testing.T, keys jose.JSONWebKeySet, text string) map[string]any {
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

// signingKey gives the key that signs with the tests' secret, and its name.
func signingKey(s *gatewaytest.Site, t *testing.T) (private ed25519.PrivateKey, kid string) {
	t.Helper()
	secret, err := keys.ParseSecret(gatewaytest.Secret)
	if err != nil {
		t.Fatal(err)
	}
	site := wire.AppendText(wire.AppendText(nil, gatewaytest.ClientID), s.URL+"/oauth/callback")
	seed, err := hkdf.Key(sha256.New, secret, site, "tollgate assertion 1", ed25519.SeedSize)
	if err != nil {
		t.Fatal(err)
	}
	private = ed25519.NewKeyFromSeed(seed)
	published := publicKeys(s, t).Keys[0]
	if got := private.Public().(ed25519.PublicKey); !got.Equal(published.Key) {
		t.Fatalf("the documented steps derive the public key %x, the gateway publishes %x", got, published.Key)
	}
	return private, published.KeyID
}

func TestTheUpstreamVerifiesWhoTheUserIs(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion\npublic /public\noptional /optional"})
	b := s.NewBrowser().SignIn()
	keys := publicKeys(s, t)
	for _, path := range []string{"/", "/optional"} {
		fields := b.Get(path, "X_Tollgate.Assertion: forged", assertionHeader+": forged").Seen(t).Header
		if lines := fields[assertionHeader]; len(lines) != 1 || strings.Contains(fields.Get("X_Tollgate.Assertion"), "forged") {
			t.Fatalf("%s: got %q", path, fields)
		}
		claims := verified(s, t, keys, fields.Get(assertionHeader))
		for name, want := range map[string]any{
			"iss": s.URL, "aud": s.URL, "sub": gatewaytest.UserID, "name": fields.Get("X-User-Name"),
			"balance": fields.Get("X-User-Balance"), "balance_state": "fresh",
			"iat": float64(s.Clock.Now().Unix()), "exp": float64(s.Clock.Now().Add(time.Minute).Unix()),
		} {
			if claims[name] != want {
				t.Errorf("%s: %s is %v; want %v", path, name, claims[name], want)
			}
		}
		if claims["jti"] == "" || claims["sid"] == "" || claims["balance_time"] == nil {
			t.Errorf("%s: the claims are %v", path, claims)
		}
	}
	for path, who := range map[string]*gatewaytest.Browser{"/public": b, "/optional": s.NewBrowser()} {
		fields := who.Get(path, "x_tollgate_assertion: forged", assertionHeader+": forged").Seen(t).Header
		for name := range fields {
			if header.Fold(name) == header.Fold(assertionHeader) {
				t.Errorf("%s as anonymous: %q", path, fields)
			}
		}
	}
}

func TestAssertionIsReusedForHalfItsLifetime(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion {\nheader X-Who\naudience ledger\nlifetime 40s\n}\nbalance {\nmax_age 10m\n}"})
	b := s.NewBrowser().SignIn()
	assertion := func() string { return b.Get("/").Seen(t).Header.Get("X-Who") }
	first := assertion()
	claims := verified(s, t, publicKeys(s, t), first)
	if claims["aud"] != "ledger" || claims["exp"].(float64)-claims["iat"].(float64) != 40 {
		t.Errorf("the claims are %v", claims)
	}
	s.Clock.Advance(19 * time.Second)
	if got := assertion(); got != first {
		t.Errorf("after 19s of 40s: got the new assertion %s, want the first one, %s", got, first)
	}
	s.Clock.Advance(2 * time.Second)
	if got := assertion(); got == first {
		t.Errorf("after 21s of 40s: got the first assertion %s, want a new one", got)
	}
	if other := s.NewBrowser().SignIn().Get("/").Seen(t).Header.Get("X-Who"); other == assertion() {
		t.Errorf("two sessions got the same assertion: %s", other)
	}
}

// TestSecretIsRotatedWithoutAGap goes through the documented steps. At each
// of them some gateways are a step ahead of the others, and a verifier may have the
// keys of either.
func TestSecretIsRotatedWithoutAGap(t *testing.T) {
	const next = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion"})
	b := s.NewBrowser().SignIn()
	original := s.Caddyfile
	type gateway struct {
		keys jose.JSONWebKeySet
		text string
	}
	var steps []gateway
	for _, secrets := range []string{gatewaytest.Secret, gatewaytest.Secret + " " + next, next + " " + gatewaytest.Secret, next} {
		s.Caddyfile = strings.Replace(original, "secret "+gatewaytest.Secret, "secret "+secrets, 1)
		s.Load()
		step := gateway{publicKeys(s, t), b.Get("/").Seen(t).Header.Get(assertionHeader)}
		token, err := jwt.ParseSigned(step.text, []jose.SignatureAlgorithm{jose.EdDSA})
		if err != nil || token.Headers[0].KeyID != step.keys.Keys[0].KeyID || len(step.keys.Keys) != len(strings.Fields(secrets)) {
			t.Fatalf("step %d: %v: %+v is signed, the keys are %+v", len(steps), err, token.Headers, step.keys)
		}
		steps = append(steps, step)
	}
	for i := range steps[1:] {
		for _, signs := range steps[i : i+2] {
			for _, verifies := range steps[i : i+2] {
				verified(s, t, verifies.keys, signs.text)
			}
		}
	}
	if signer := steps[2].keys.Keys[0].KeyID; len(steps[0].keys.Key(signer)) != 0 {
		t.Errorf("the keys of the first step include the new key %s: the test cannot see a verifier with old keys", signer)
	}
}

func TestAssertionIsNeverOutdated(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion {\nlifetime 5m\n}\nbalance {\nmax_age 10m\n}"})
	b := s.NewBrowser().SignIn()
	keys := publicKeys(s, t)
	first := b.Get("/").Seen(t).Header
	if err := s.Provider.TopUp(12345, 500); err != nil {
		t.Fatal(err)
	}
	b.Send("POST", "/oauth/refresh", nil)
	second := b.Get("/").Seen(t).Header
	before, after := verified(s, t, keys, first.Get(assertionHeader)), verified(s, t, keys, second.Get(assertionHeader))
	if before["balance"] != "750.00" || after["balance"] != "755.00" || before["jti"] == after["jti"] {
		t.Errorf("the claims were %v and are %v", before, after)
	}

	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	s.Clock.Advance(16 * time.Minute) // more than max_stale
	header := b.Get("/").Seen(t).Header
	claims := verified(s, t, keys, header.Get(assertionHeader))
	if claims["balance_state"] != "unknown" || header.Get("X-User-Balance-State") != "unknown" {
		t.Errorf("the claims are %v", claims)
	}
	for _, name := range []string{"balance", "balance_time"} {
		if value, there := claims[name]; there {
			t.Errorf("%s of an unknown balance is %v", name, value)
		}
	}
}

func TestAssertionKeepsUnicodeAndOmitsEmptyClaims(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Provider: simulator.Options{AutoLogin: "张伟"}, InTollgate: "assertion"})
	b := s.NewBrowser()
	claims := verified(s, t, publicKeys(s, t), b.Follow("/").Seen(t).Header.Get(assertionHeader))
	if claims["name"] != "张伟" || claims["sub"] != "24680" || claims["balance"] != "0.00" {
		t.Errorf("the claims are %v", claims)
	}
	if email, there := claims["email"]; there {
		t.Errorf("the unknown email is %q", email)
	}
}

func TestAnAssertionEndsWithTheSession(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion\nsession {\nlifetime 90s\n}"})
	b := s.NewBrowser().SignIn()
	end := s.Clock.Now().Add(90 * time.Second).Unix()
	keys := publicKeys(s, t)
	for _, pause := range []time.Duration{60 * time.Second, 28 * time.Second} {
		s.Clock.Advance(pause)
		exp := int64(verified(s, t, keys, b.Get("/").Seen(t).Header.Get(assertionHeader))["exp"].(float64))
		if exp != end {
			t.Errorf("%ds before the session's end the assertion has %ds", end-s.Clock.Now().Unix(), exp-s.Clock.Now().Unix())
		}
	}
}

func TestAForgedAssertionNeverReachesTheUpstream(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /public/*\noptional /optional/*\nassertion"})
	b := s.NewBrowser().SignIn()
	paths := map[string]string{"/": b.CookieLine(), "/optional/a": "X: x", "/public/a": b.CookieLine(), "/public/b": "X: x"}
	for path, cookie := range paths {
		for _, name := range []string{
			assertionHeader, "x-tollgate-assertion", "X_TOLLGATE_ASSERTION", "X.Tollgate-Assertion", "X--Tollgate~Assertion", "x|tollgate'assertion",
		} {
			for _, method := range []string{"GET", "OPTIONS"} {
				before := s.Upstream.Requests.Load()
				rawRequest(t, s, method+" "+path+" HTTP/1.1", "Host: gateway", cookie, name+": forged", "", "")
				if s.Upstream.Requests.Load() == before {
					t.Fatalf("%s as %s never arrived", path, name)
				}
				wantNoForgery(s, t, path+" as "+name)
			}
		}
		rawRequest(t, s, "POST "+path+" HTTP/1.1", "Host: gateway", cookie, "Transfer-Encoding: chunked", "Trailer: "+assertionHeader, "",
			"3", "abc", "0", assertionHeader+": forged", "x_tollgate_assertion: forged", "", "")
		wantNoForgery(s, t, path+" as a trailer")
	}
	keys := publicKeys(s, t)
	for _, connection := range []string{assertionHeader, "close, x_tollgate_assertion, x-tollgate-assertion"} {
		rawRequest(t, s, "GET / HTTP/1.1", "Host: gateway", b.CookieLine(), "Connection: "+connection, "", "")
		verified(s, t, keys, s.Upstream.Last.Load().Header.Get(assertionHeader))
	}
}

func TestPathOfThePublicKeysIsConfigurable(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion\nendpoints {\njwks.json /.well-known/jwks.json\n}"})
	b := s.NewBrowser().SignIn()
	text := b.Get("/").Seen(t).Header.Get(assertionHeader)
	a := s.NewBrowser().Get("/.well-known/jwks.json")
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(a.Text), &keys); err != nil || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %q %q: %v", a.StatusCode, a.Header, a.Text, err)
	}
	verified(s, t, keys, text)
	if a := b.Send("HEAD", "/.well-known/jwks.json", nil); a.StatusCode != http.StatusOK || a.Text != "" {
		t.Errorf("HEAD: %d %q", a.StatusCode, a.Text)
	}
	if a := b.Send("POST", "/.well-known/jwks.json", nil); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", a.StatusCode)
	}
	if uri := b.Get("/oauth/jwks.json").Seen(t).URI; uri != "/oauth/jwks.json" {
		t.Errorf("the default path: the upstream saw %q", uri)
	}
}

func TestNothingIsSignedWithoutAnAssertionBlock(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	if a := s.NewBrowser().Get("/oauth/jwks.json"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the endpoint answers %d", a.StatusCode)
	}
	seen := b.Get("/oauth/jwks.json").Seen(t) // a path of the application's
	if _, there := seen.Header[assertionHeader]; there {
		t.Errorf("the upstream saw %v", seen.Header)
	}
}

func TestGeneratedSecretSignsAssertionsWithEveryStore(t *testing.T) {
	for _, store := range []string{"cookie", "storage"} {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion\nsession {\nstore " + store + "\n}"})
		configured := publicKeys(s, t)
		s.Caddyfile = strings.Replace(s.Caddyfile, "secret "+gatewaytest.Secret, "", 1)
		s.Load()
		b := s.NewBrowser().SignIn()
		text := b.Get("/").Seen(t).Header.Get(assertionHeader)
		keys := publicKeys(s, t)
		verified(s, t, keys, text)
		if keys.Keys[0].KeyID == configured.Keys[0].KeyID {
			t.Errorf("%s: the made secret has the configured one's key", store)
		}
		s.Load()
		verified(s, t, publicKeys(s, t), text)
	}
}

func TestWithoutTheSecretThePublicKeysAreUnavailable(t *testing.T) {
	s, storage, _ := newStoredSite(t, gatewaytest.Options{InTollgate: "assertion"})
	s.Caddyfile = strings.Replace(s.Caddyfile, "secret "+gatewaytest.Secret, "", 1)
	s.Load()
	storage.Broken.Store(true)
	if a := s.NewBrowser().Get("/oauth/jwks.json"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, %q", a.StatusCode, a.Header)
	}
}

// TestAssertionIsInNoLogExceptTheDocumentedOne: neither is its key. Caddy writes the headers of
// answers into the access log, and those of the auth endpoint carry the assertion; the
// manual names the filter that takes it out.
func TestAssertionIsInNoLogExceptTheDocumentedOne(t *testing.T) {
	r := gatewaytest.Prepare(t, gatewaytest.RunOptions{InTollgate: "assertion\nsession {\nstore storage\n}\nforward_auth"})
	const filter = "resp_headers>X-Tollgate-Assertion delete"
	if !strings.Contains(manualtest.ReadFile(t, "docs/headers.md"), "`"+filter+"`") {
		t.Fatal("docs/headers.md does not name the filter `" + filter + "`")
	}
	access := "output file " + filepath.Join(r.Logs, "access.log") + "\n"
	r.Caddyfile = strings.Replace(r.Caddyfile, access, access+"format filter {\n"+filter+"\n}\n", 1)
	r.Caddyfile = strings.Replace(r.Caddyfile, "level DEBUG", "level INFO", 1) // at DEBUG Caddy's proxy writes what it sends
	r.Start()
	b := r.NewBrowser().SignIn()
	texts := []string{b.Get("/page").Seen(t).Header.Get(assertionHeader), b.Get("/oauth/auth").Header.Get(assertionHeader)}
	private, _ := signingKey(r.Site, t)
	r.Upstream.Close()
	b.Get("/page") // an error that Caddy logs
	caddy.Stop()   // the logs are written
	for _, name := range []string{"default.log", "access.log"} {
		log := manualtest.ReadFile(t, filepath.Join(r.Logs, name))
		for _, want := range map[string][]string{
			"default.log": {`"msg":"login"`},
			"access.log":  {`"uri":"/page"`, `"uri":"/oauth/auth"`, `"X-User-Id":["12345"]`, `"status":502`},
		}[name] {
			if !strings.Contains(log, want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
		for _, secret := range append(texts, encoded(string(private)), encoded(string(private.Seed())), fmt.Sprintf("%x", private.Seed())) {
			if secret == "" || strings.Contains(log, secret) {
				t.Errorf("%s holds %q", name, secret)
			}
		}
	}
}

func TestTwoSitesWithOneSecretSignWithDifferentKeys(t *testing.T) {
	one, other := gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion"}), gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion"})
	if got := publicKeys(one, t).Keys[0].KeyID; got == publicKeys(other, t).Keys[0].KeyID {
		t.Errorf("two sites sign with the same key, %s", got)
	}
}

func TestAuthReturnsTheAssertionToAProxy(t *testing.T) {
	s := gatewaytest.New(t, asked(noPeer, "assertion"))
	b := s.NewBrowser()
	if lines := b.Get("/oauth/auth").Header.Values(assertionHeader); len(lines) != 1 || lines[0] != "" {
		t.Errorf("nobody's assertion is %q", lines)
	}
	b.SignIn()
	claims := verified(s, t, publicKeys(s, t), b.Get("/oauth/auth").Header.Get(assertionHeader))
	if claims["sub"] != gatewaytest.UserID {
		t.Errorf("the claims are %v", claims)
	}
}

// TestAssertionTooLargeForTheAuthResponseIsAnError: nginx would make 500 of a larger one.
func TestAssertionTooLargeForTheAuthResponseIsAnError(t *testing.T) {
	for email, fits := range map[string]bool{
		strings.Repeat("e", 300) + "@example.com": true,
		strings.Repeat("é", 200) + "@example.com": false, // and without an assertion it would fit
	} {
		for _, block := range []string{"assertion", ""} {
			options := asked(noPeer, block)
			options.Provider.Users = []simulator.User{{ID: 12345, Username: strings.Repeat("é", 150), Email: email, Status: simulator.StatusEnabled}}
			options.Provider.AutoLogin = options.Provider.Users[0].Username
			s := gatewaytest.New(t, options)
			b := s.NewBrowser().SignIn()
			logs := observe(s)
			a := b.Get("/oauth/auth")
			if fits || block == "" {
				wantAuth(a, t, block, 200, "", gatewaytest.UserID)
				continue
			}
			wantAuth(a, t, "an overlong identity", 403, "unavailable", "")
			if lines := a.Header.Values(assertionHeader); len(lines) != 1 || lines[0] != "" {
				t.Errorf("the assertion is %q", lines)
			}
			if found := logs.FilterField(zap.String("largest", assertionHeader)).All(); len(found) != 1 {
				t.Errorf("logged: %v", logs.All())
			}
		}
	}
}
