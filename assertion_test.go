package tollgate

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const assertionHeader = "X-Tollgate-Assertion"

// publicKeys reads the endpoint jwks.json as a verifier does.
func (s *site) publicKeys(t *testing.T) jose.JSONWebKeySet {
	t.Helper()
	a := s.newBrowser().Get("/oauth/jwks.json")
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

// signingKey gives the key that signs with the tests' secret, and its name.
func (s *site) signingKey(t *testing.T) (private ed25519.PrivateKey, kid string) {
	t.Helper()
	secret, err := keys.ParseSecret(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	seeds, err := keys.DeriveKeys([][]byte{secret}, testClientID, s.url+"/oauth/callback", keys.PurposeAssertion, ed25519.SeedSize)
	if err != nil {
		t.Fatal(err)
	}
	private = ed25519.NewKeyFromSeed(seeds[0])
	published := s.publicKeys(t).Keys[0]
	if !private.Public().(ed25519.PublicKey).Equal(published.Key) {
		t.Fatal("the gateway has another key")
	}
	return private, published.KeyID
}

func TestTheUpstreamVerifiesWhoTheUserIs(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "assertion\npublic /public\noptional /optional"})
	b := s.newBrowser().signIn()
	keys := s.publicKeys(t)
	for _, path := range []string{"/", "/optional"} {
		fields := b.Get(path, "X_Tollgate.Assertion: forged", assertionHeader+": forged").seen(t).Header
		if lines := fields[assertionHeader]; len(lines) != 1 || strings.Contains(fields.Get("X_Tollgate.Assertion"), "forged") {
			t.Fatalf("%s: got %q", path, fields)
		}
		claims := s.verified(t, keys, fields.Get(assertionHeader))
		for name, want := range map[string]any{
			"iss": s.url, "aud": s.url, "sub": testUserID, "name": fields.Get("X-User-Name"),
			"balance": fields.Get("X-User-Balance"), "balance_state": "fresh",
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
	for path, who := range map[string]*visitor{"/public": b, "/optional": s.newBrowser()} {
		fields := who.Get(path, "x_tollgate_assertion: forged", assertionHeader+": forged").seen(t).Header
		for name := range fields {
			if header.Fold(name) == header.Fold(assertionHeader) {
				t.Errorf("%s as anonymous: %q", path, fields)
			}
		}
	}
}

func TestAssertionIsReusedForHalfItsLifetime(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "assertion {\nheader X-Who\naudience ledger\nlifetime 40s\n}\nbalance {\nmax_age 10m\n}"})
	b := s.newBrowser().signIn()
	assertion := func() string { return b.Get("/").seen(t).Header.Get("X-Who") }
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
	if other := s.newBrowser().signIn().Get("/").seen(t).Header.Get("X-Who"); other == assertion() {
		t.Error("two sessions have one assertion")
	}
}

// TestAnotherSecretIsTakenIntoUseWithoutAGap goes through the documented steps. At each
// of them some gateways are a step ahead of the others, and a verifier may have the
// keys of either.
func TestAnotherSecretIsTakenIntoUseWithoutAGap(t *testing.T) {
	const next = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	s := newSite(t, siteOptions{inTollgate: "assertion"})
	b := s.newBrowser().signIn()
	original := s.caddyfile
	type gateway struct {
		keys jose.JSONWebKeySet
		text string
	}
	var steps []gateway
	for _, secrets := range []string{testSecret, testSecret + " " + next, next + " " + testSecret, next} {
		s.caddyfile = strings.Replace(original, "secret "+testSecret, "secret "+secrets, 1)
		s.Load()
		step := gateway{s.publicKeys(t), b.Get("/").seen(t).Header.Get(assertionHeader)}
		token, err := jwt.ParseSigned(step.text, []jose.SignatureAlgorithm{jose.EdDSA})
		if err != nil || token.Headers[0].KeyID != step.keys.Keys[0].KeyID || len(step.keys.Keys) != len(strings.Fields(secrets)) {
			t.Fatalf("step %d: %v: %+v is signed, the keys are %+v", len(steps), err, token.Headers, step.keys)
		}
		steps = append(steps, step)
	}
	for i := range steps[1:] {
		for _, signs := range steps[i : i+2] {
			for _, verifies := range steps[i : i+2] {
				s.verified(t, verifies.keys, signs.text)
			}
		}
	}
	if signer := steps[2].keys.Keys[0].KeyID; len(steps[0].keys.Key(signer)) != 0 {
		t.Error("a verifier that was not waited for knows the new key: this test sees no gap")
	}
}

func TestWhatIsAssertedIsNeverOutdated(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "assertion {\nlifetime 5m\n}\nbalance {\nmax_age 10m\n}"})
	b := s.newBrowser().signIn()
	keys := s.publicKeys(t)
	first := b.Get("/").seen(t).Header
	if err := s.provider.TopUp(12345, 500); err != nil {
		t.Fatal(err)
	}
	b.do("POST", "/oauth/refresh", nil)
	second := b.Get("/").seen(t).Header
	before, after := s.verified(t, keys, first.Get(assertionHeader)), s.verified(t, keys, second.Get(assertionHeader))
	if before["balance"] != "750.00" || after["balance"] != "755.00" || before["jti"] == after["jti"] {
		t.Errorf("the claims were %v and are %v", before, after)
	}

	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	s.clock.advance(16 * time.Minute) // more than max_stale
	header := b.Get("/").seen(t).Header
	claims := s.verified(t, keys, header.Get(assertionHeader))
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
	s := newSite(t, siteOptions{provider: simulator.Options{AutoLogin: "张伟"}, inTollgate: "assertion"})
	b := s.newBrowser()
	claims := s.verified(t, s.publicKeys(t), b.follow("/").seen(t).Header.Get(assertionHeader))
	if claims["name"] != "张伟" || claims["sub"] != "24680" || claims["balance"] != "0.00" {
		t.Errorf("the claims are %v", claims)
	}
	if email, there := claims["email"]; there {
		t.Errorf("the unknown email is %q", email)
	}
}

func TestAnAssertionEndsWithTheSession(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "assertion\nsession {\nlifetime 90s\n}"})
	b := s.newBrowser().signIn()
	end := s.clock.now().Add(90 * time.Second).Unix()
	keys := s.publicKeys(t)
	for _, pause := range []time.Duration{60 * time.Second, 28 * time.Second} {
		s.clock.advance(pause)
		exp := int64(s.verified(t, keys, b.Get("/").seen(t).Header.Get(assertionHeader))["exp"].(float64))
		if exp != end {
			t.Errorf("%ds before the session's end the assertion has %ds", end-s.clock.now().Unix(), exp-s.clock.now().Unix())
		}
	}
}

func TestAForgedAssertionNeverReachesTheUpstream(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "public /public/*\noptional /optional/*\nassertion"})
	b := s.newBrowser().signIn()
	paths := map[string]string{"/": b.cookieLine(), "/optional/a": "X: x", "/public/a": b.cookieLine(), "/public/b": "X: x"}
	for path, cookie := range paths {
		for _, name := range []string{
			assertionHeader, "x-tollgate-assertion", "X_TOLLGATE_ASSERTION", "X.Tollgate-Assertion", "X--Tollgate~Assertion", "x|tollgate'assertion",
		} {
			for _, method := range []string{"GET", "OPTIONS"} {
				before := s.upstream.requests.Load()
				rawRequest(t, s, method+" "+path+" HTTP/1.1", "Host: gateway", cookie, name+": forged", "", "")
				if s.upstream.requests.Load() == before {
					t.Fatalf("%s as %s never arrived", path, name)
				}
				s.wantNoForgery(t, path+" as "+name)
			}
		}
		rawRequest(t, s, "POST "+path+" HTTP/1.1", "Host: gateway", cookie, "Transfer-Encoding: chunked", "Trailer: "+assertionHeader, "",
			"3", "abc", "0", assertionHeader+": forged", "x_tollgate_assertion: forged", "", "")
		s.wantNoForgery(t, path+" as a trailer")
	}
	keys := s.publicKeys(t)
	for _, connection := range []string{assertionHeader, "close, x_tollgate_assertion, x-tollgate-assertion"} {
		rawRequest(t, s, "GET / HTTP/1.1", "Host: gateway", b.cookieLine(), "Connection: "+connection, "", "")
		s.verified(t, keys, s.upstream.last.Load().Header.Get(assertionHeader))
	}
}

func TestThePublicKeysMayStandElsewhere(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "assertion\nendpoints {\njwks.json /.well-known/jwks.json\n}"})
	b := s.newBrowser().signIn()
	text := b.Get("/").seen(t).Header.Get(assertionHeader)
	a := s.newBrowser().Get("/.well-known/jwks.json")
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(a.text), &keys); err != nil || a.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %q %q: %v", a.StatusCode, a.Header, a.text, err)
	}
	s.verified(t, keys, text)
	if a := b.do("HEAD", "/.well-known/jwks.json", nil); a.StatusCode != http.StatusOK || a.text != "" {
		t.Errorf("HEAD: %d %q", a.StatusCode, a.text)
	}
	if a := b.do("POST", "/.well-known/jwks.json", nil); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", a.StatusCode)
	}
	if uri := b.Get("/oauth/jwks.json").seen(t).URI; uri != "/oauth/jwks.json" {
		t.Errorf("the path of before leads to %q", uri)
	}
}

func TestWithoutTheBlockNothingIsAsserted(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	if a := s.newBrowser().Get("/oauth/jwks.json"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the endpoint answers %d", a.StatusCode)
	}
	seen := b.Get("/oauth/jwks.json").seen(t) // a path of the application's
	if _, there := seen.Header[assertionHeader]; there {
		t.Errorf("the upstream saw %v", seen.Header)
	}
}

func TestTheMadeSecretSignsWithEveryStore(t *testing.T) {
	for _, store := range []string{"cookie", "storage"} {
		s := newSite(t, siteOptions{inTollgate: "assertion\nsession {\nstore " + store + "\n}"})
		configured := s.publicKeys(t)
		s.caddyfile = strings.Replace(s.caddyfile, "secret "+testSecret, "", 1)
		s.Load()
		b := s.newBrowser().signIn()
		text := b.Get("/").seen(t).Header.Get(assertionHeader)
		keys := s.publicKeys(t)
		s.verified(t, keys, text)
		if keys.Keys[0].KeyID == configured.Keys[0].KeyID {
			t.Errorf("%s: the made secret has the configured one's key", store)
		}
		s.Load()
		s.verified(t, s.publicKeys(t), text)
	}
}

func TestWithoutTheSecretThePublicKeysAreUnavailable(t *testing.T) {
	s, storage, _ := newStoredSite(t, siteOptions{inTollgate: "assertion"})
	s.caddyfile = strings.Replace(s.caddyfile, "secret "+testSecret, "", 1)
	s.Load()
	storage.Broken.Store(true)
	if a := s.newBrowser().Get("/oauth/jwks.json"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, %q", a.StatusCode, a.Header)
	}
}

// TestTheAssertionIsInNoLogButWhereSaid: neither is its key. Caddy writes the headers of
// answers into the access log, and those of the auth endpoint carry the assertion; the
// manual names the filter that takes it out.
func TestTheAssertionIsInNoLogButWhereSaid(t *testing.T) {
	r := prepareCaddy(t, runningOptions{inTollgate: "assertion\nsession {\nstore storage\n}\nforward_auth"})
	const filter = "resp_headers>X-Tollgate-Assertion delete"
	if !strings.Contains(readFile(t, "docs/headers.md"), "`"+filter+"`") {
		t.Fatal("docs/headers.md does not name the filter `" + filter + "`")
	}
	access := "output file " + filepath.Join(r.logs, "access.log") + "\n"
	r.caddyfile = strings.Replace(r.caddyfile, access, access+"format filter {\n"+filter+"\n}\n", 1)
	r.caddyfile = strings.Replace(r.caddyfile, "level DEBUG", "level INFO", 1) // at DEBUG Caddy's proxy writes what it sends
	r.start()
	b := r.newBrowser().signIn()
	texts := []string{b.Get("/page").seen(t).Header.Get(assertionHeader), b.Get("/oauth/auth").Header.Get(assertionHeader)}
	private, _ := r.signingKey(t)
	r.upstream.Close()
	b.Get("/page") // an error that Caddy logs
	caddy.Stop()   // the logs are written
	for _, name := range []string{"default.log", "access.log"} {
		log := readFile(t, filepath.Join(r.logs, name))
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
	one, other := newSite(t, siteOptions{inTollgate: "assertion"}), newSite(t, siteOptions{inTollgate: "assertion"})
	if one.publicKeys(t).Keys[0].KeyID == other.publicKeys(t).Keys[0].KeyID {
		t.Error("two sites have one key")
	}
}

func TestAnotherProxyIsToldTheAssertion(t *testing.T) {
	s := newSite(t, asked(noPeer, "assertion"))
	b := s.newBrowser()
	if lines := b.Get("/oauth/auth").Header.Values(assertionHeader); len(lines) != 1 || lines[0] != "" {
		t.Errorf("nobody's assertion is %q", lines)
	}
	b.signIn()
	claims := s.verified(t, s.publicKeys(t), b.Get("/oauth/auth").Header.Get(assertionHeader))
	if claims["sub"] != testUserID {
		t.Errorf("the claims are %v", claims)
	}
}

// TestTheAuthAnswerHasRoomForTheAssertionOrSaysSo: nginx would make 500 of a larger one.
func TestTheAuthAnswerHasRoomForTheAssertionOrSaysSo(t *testing.T) {
	for email, fits := range map[string]bool{
		strings.Repeat("e", 300) + "@example.com": true,
		strings.Repeat("é", 200) + "@example.com": false, // and without an assertion it would fit
	} {
		for _, block := range []string{"assertion", ""} {
			options := asked(noPeer, block)
			options.provider.Users = []simulator.User{{ID: 12345, Username: strings.Repeat("é", 150), Email: email, Status: simulator.StatusEnabled}}
			options.provider.AutoLogin = options.provider.Users[0].Username
			s := newSite(t, options)
			b := s.newBrowser().signIn()
			logs := s.observe()
			a := b.Get("/oauth/auth")
			if fits || block == "" {
				a.wantAuth(t, block, 200, "", testUserID)
				continue
			}
			a.wantAuth(t, "an overlong identity", 403, "unavailable", "")
			if lines := a.Header.Values(assertionHeader); len(lines) != 1 || lines[0] != "" {
				t.Errorf("the assertion is %q", lines)
			}
			if found := logs.FilterField(zap.String("largest", assertionHeader)).All(); len(found) != 1 {
				t.Errorf("logged: %v", logs.All())
			}
		}
	}
}

// BenchmarkAssertion is what a request costs with an assertion that was made before,
// with one that has to be signed, and without any; the upstream answers at once.
func BenchmarkAssertion(b *testing.B) {
	for _, c := range []struct {
		name, block string
		pause       time.Duration // between two requests, on the handler's clock
	}{{"none", "", 0}, {"reused", "assertion", 0}, {"signed", "assertion", time.Second}} {
		b.Run(c.name, func(b *testing.B) {
			_, handlers, err := provision(fmt.Sprintf(`{
	admin off
	storage file_system %s
}
http:// {
	tollgate {
		provider aihubmix {
			client_id client
			client_secret secret
		}
		redirect_uri https://app.example.com/oauth/callback
		secret %s
		balance {
			max_age 720h
		}
		refresh_before 1s
		%s
	}
}`, b.TempDir(), testSecret, c.block))
			if err != nil {
				b.Fatal(err)
			}
			h := handlers[0]
			defer h.Cleanup()
			now := time.Now()
			h.now = func() time.Time { return now }
			h.sessions.now, h.tokens.now = h.now, h.now
			if h.asserter != nil && c.pause > 0 {
				h.asserter.Lifetime = time.Second // less than any configuration may say
			}
			s := session.NewSession(now, oauth.Tokens{Access: "a", Refresh: "r", Issued: now, Expires: now.Add(720 * time.Hour)},
				oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{oauth.FieldID: testUserID, oauth.FieldStatus: "1", oauth.FieldUsername: `"user123"`, oauth.FieldEmail: `"user@example.com"`, oauth.FieldBalance: `"750.00"`}, now))
			if s, err = h.Internals().Store.Create(b.Context(), s); err != nil {
				b.Fatal(err)
			}
			lines, err := h.sessions.cookies(b.Context(), s, false)
			if err != nil {
				b.Fatal(err)
			}
			cookie, _, _ := strings.Cut(lines[0], ";")
			passed := 0
			upstream := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				if (r.Header.Get(assertionHeader) != "") == (c.block != "") && r.Header.Get("X-User-Id") == testUserID {
					passed++
				}
				return nil
			})
			b.ReportAllocs()
			sent := 0
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/", http.NoBody)
				r.Header.Set("Cookie", cookie)
				if err := h.ServeHTTP(httptest.NewRecorder(), r, upstream); err != nil {
					b.Fatal(err)
				}
				now = now.Add(c.pause)
				sent++
			}
			if passed != sent {
				b.Fatalf("%d of %d requests passed as they should", passed, sent)
			}
		})
	}
}
