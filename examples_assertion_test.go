package tollgate_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

const (
	// retryOfVerifiers is how long the samples wait between two readings of the keys, in these
	// tests.
	retryOfVerifiers = 100 * time.Millisecond
	// refreshOfVerifiers is the age at which they read the keys again.
	refreshOfVerifiers = 500 * time.Millisecond
	// maxAgeOfHasty is how old the keys of the hasty ones may be.
	maxAgeOfHasty = 3 * time.Second
)

// TestExamplesOfVerifiers runs the samples as the upstream of a gateway, and attacks
// them past it (RFC 8725).
func TestExamplesOfVerifiers(t *testing.T) {
	// On a busy machine the keys come late, so most tests need verifiers that wait for them.
	patient := newVerifiers(t, time.Minute, 15*time.Minute)
	hasty := newVerifiers(t, 500*time.Millisecond, maxAgeOfHasty)
	tests := map[string]struct {
		verifiers map[string][]string
		test      func(*testing.T, *verifierSite)
	}{
		"knows who is there":                        {patient, believesTheGateway},
		"refuses every attack":                      {patient, refusesEveryAttack},
		"reads the keys once in a while":            {patient, readsTheKeysOnceInAWhile},
		"follows another secret":                    {patient, followsAnotherSecret},
		"waits for keys":                            {patient, waitsForKeys},
		"forgets keys that it cannot renew":         {hasty, forgetsOldKeys},
		"bounds the answer with the keys":           {hasty, boundsTheAnswer},
		"serves known keys while the gateway hangs": {patient, servesKnownKeysMeanwhile},
	}
	for name, c := range tests {
		for language, command := range c.verifiers {
			t.Run(language+" "+name, func(t *testing.T) {
				t.Parallel()
				c.test(t, newVerifierSite(t, command))
			})
		}
	}
	t.Run("node searches well-formed JSON only", func(t *testing.T) {
		t.Parallel()
		searchesWellFormedJSONOnly(t, patient["node"])
	})
	for language, command := range patient {
		t.Run(language+" needs its settings", func(t *testing.T) {
			t.Parallel()
			startsWithAllSettingsOnly(t, command)
		})
	}
}

// newVerifiers gives the commands that run the samples, with the times of these tests.
func newVerifiers(t *testing.T, fetchTimeout, maxAge time.Duration) map[string][]string {
	folder := t.TempDir()
	source, program, script := filepath.Join(folder, "verify.go"), filepath.Join(folder, "verify"), filepath.Join(folder, "verify.mjs")
	inGo := func(d time.Duration) string { return fmt.Sprintf("= %d * time.Millisecond", d.Milliseconds()) }
	inNode := func(d time.Duration) string { return fmt.Sprintf("= %d;", d.Milliseconds()) }
	writeFile(t, source, render(t, "examples/assertion/go/verify.go",
		"= 3 * time.Second", inGo(fetchTimeout), "= 5 * time.Second", inGo(retryOfVerifiers),
		"= 5 * time.Minute", inGo(refreshOfVerifiers), "= 15 * time.Minute", inGo(maxAge)))
	writeFile(t, script, render(t, "examples/assertion/node/verify.mjs",
		"= 3_000;", inNode(fetchTimeout), "= 5_000;", inNode(retryOfVerifiers), "= 300_000;", inNode(refreshOfVerifiers), "= 900_000;", inNode(maxAge)))
	if out, err := exec.Command("go", "build", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return map[string][]string{"go": {program}, "node": {"node", script}}
}

// verifierSite is a gateway whose upstream is a verifier, and the way on which that
// reads the gateway's keys.
type verifierSite struct {
	*gatewaytest.Site
	verifier string // its URL
	keys     *keysOnTheWay
	browser  *gatewaytest.Browser
	private  ed25519.PrivateKey // the gateway's
	kid      string
}

// keysOnTheWay hands jwks.json on, counts how often, and fails as a test wants.
type keysOnTheWay struct {
	*httptest.Server
	count   atomic.Int64
	failure atomic.Pointer[http.HandlerFunc]
}

func (k *keysOnTheWay) failWith(handler http.HandlerFunc) { k.failure.Store(&handler) }

func (k *keysOnTheWay) work() { k.failure.Store(nil) }

func newVerifierSite(t *testing.T, command []string) *verifierSite {
	address := porttest.Address()
	v := &verifierSite{verifier: "http://" + address, keys: &keysOnTheWay{}}
	v.Site = gatewaytest.New(t, gatewaytest.Options{
		InTollgate: "assertion {\naudience ledger\nlifetime 5m\n}",
		Handler:    httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address}).ServeHTTP,
	})
	gateway, _ := url.Parse(v.URL)
	handOn := httputil.NewSingleHostReverseProxy(gateway)
	v.keys.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.keys.count.Add(1)
		if failure := v.keys.failure.Load(); failure != nil {
			(*failure)(w, r)
			return
		}
		handOn.ServeHTTP(w, r)
	}))
	t.Cleanup(v.keys.Close)
	startProxy(t, address, "env", append([]string{
		"ISSUER=" + v.URL, "AUDIENCE=ledger", "JWKS_URL=" + v.keys.URL + "/oauth/jwks.json", "LISTEN=" + address,
	}, command...)...)
	v.browser = v.NewBrowser()

	v.private, v.kid = signingKey(v.Site, t)
	return v
}

// signInHere signs in, and says what the verifier answered.
func (v *verifierSite) signInHere(t *testing.T) *gatewaytest.Answer {
	t.Helper()
	a := v.browser.Follow("/")
	if a.StatusCode != http.StatusOK && a.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("signing in: status %d: %s", a.StatusCode, a.Text)
	}
	return a
}

// ask sends assertions past the gateway.
func (v *verifierSite) ask(t *testing.T, assertions ...string) *gatewaytest.Answer {
	t.Helper()
	var headers []string
	for _, assertion := range assertions {
		headers = append(headers, assertionHeader+": "+assertion)
	}
	return v.browser.Get(v.verifier, headers...)
}

func (v *verifierSite) expect(t *testing.T, want int, assertion string) {
	t.Helper()
	if a := v.ask(t, assertion); a.StatusCode != want {
		t.Errorf("status %d: %s; want %d", a.StatusCode, a.Text, want)
	}
}

// forgery is an assertion in its parts, before it is signed.
type forgery struct {
	header, claims string
	private        ed25519.PrivateKey
}

// good is what the gateway itself could have signed at that second.
func (v *verifierSite) good(now int64) forgery {
	return forgery{
		header:  withLooseBits(fmt.Sprintf(`{"alg":"EdDSA","kid":"%s","typ":"tollgate+jwt"}`, v.kid)),
		claims:  withLooseBits(fmt.Sprintf(`{"iss":"%s","aud":"ledger","sub":"12345","name":"a","iat":%d,"exp":%d}`, v.URL, now, now+60)),
		private: v.private,
	}
}

func encoded(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func (f forgery) signed() string { return f.sign(encoded(f.header) + "." + encoded(f.claims)) }

func (f forgery) sign(input string) string {
	return input + "." + encoded(string(ed25519.Sign(f.private, []byte(input))))
}

func believesTheGateway(t *testing.T, v *verifierSite) {
	began := time.Now()
	if a := v.signInHere(t); a.Text != gatewaytest.UserID+" is user123\n" {
		t.Errorf("signed in: status %d: %q", a.StatusCode, a.Text)
	}
	if a := v.browser.Get("/", assertionHeader+": forged"); a.StatusCode != http.StatusOK {
		t.Errorf("with a forged one beside it: status %d", a.StatusCode)
	}
	if a := v.ask(t); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without an assertion: status %d", a.StatusCode)
	}
	if n, most := v.keys.count.Load(), 1+int64(time.Since(began)/refreshOfVerifiers); n < 1 || n > most {
		t.Errorf("the keys were read %d times, want 1 to %d", n, most)
	}
}

// attacks change the good assertion in one place each.
func (v *verifierSite) attacks(evil string) map[string]string {
	_, stranger, _ := ed25519.GenerateKey(nil)
	public := v.private.Public().(ed25519.PublicKey)
	now := time.Now().Unix()
	good := v.good(now)
	token := good.signed()
	parts := strings.Split(token, ".")
	attacks := map[string]string{
		"nothing":             "",
		"no segments":         "..",
		"four segments":       token + ".",
		"two segments":        parts[0] + "." + parts[1],
		"segments of another": token + "." + token,
		"encrypted form":      token + "." + parts[1] + "." + parts[2],
		"no signature":        parts[0] + "." + parts[1] + ".",
		"truncated signature": token[:len(token)-4],
		"longer signature":    token + "AAAA",
		"padded":              token + "==",
		"space inside":        parts[0] + ". " + parts[1] + "." + parts[2],
		"tab inside":          parts[0] + "." + parts[1] + "\t." + parts[2],
		"bearer":              "Bearer " + token,
		"standard alphabet":   parts[0] + "." + parts[1] + "." + parts[2][:84] + "+/",
		"two with a comma":    token + ", " + token,
		"flattened JSON":      fmt.Sprintf(`{"protected":"%s","payload":"%s","signature":"%s"}`, parts[0], parts[1], parts[2]),
		"general JSON":        fmt.Sprintf(`{"payload":"%s","signatures":[{"protected":"%s","signature":"%s"}]}`, parts[1], parts[0], parts[2]),
		"other claims":        parts[0] + "." + encoded(strings.Replace(good.claims, "12345", "54321", 1)) + "." + parts[2],
	}
	for name, secret := range map[string][]byte{
		"bytes": public, "text": []byte(base64.RawURLEncoding.EncodeToString(public)), "PEM": publicPEM(public),
	} {
		f := good
		input := encoded(strings.Replace(f.header, "EdDSA", "HS256", 1)) + "." + encoded(f.claims)
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(input))
		attacks["HS256 with the public key as "+name] = input + "." + encoded(string(mac.Sum(nil)))
	}
	for _, alg := range []string{"none", "None", ""} {
		f := good
		f.header = strings.Replace(f.header, "EdDSA", alg, 1)
		attacks["alg "+alg+" without a signature"] = encoded(f.header) + "." + encoded(f.claims) + "."
		attacks["alg "+alg+" with a signature"] = f.signed()
	}
	f := good
	f.private = stranger
	attacks["another key under the same name"] = f.signed()
	for i, name := range []string{"header", "claims", "signature"} {
		loose := strings.Split(token, ".")
		loose[i] = loosely(loose[i])
		attacks["loose bits in the "+name] = strings.Join(loose, ".")
		if i < 2 {
			attacks["loose bits in the "+name+", signed so"] = good.sign(loose[0] + "." + loose[1])
		}
	}

	const header, claims, strangers = 0, 1, 2
	key, _ := json.Marshal(jose.JSONWebKey{Key: stranger.Public(), KeyID: "evil", Algorithm: "EdDSA", Use: "sig"})
	for name, change := range map[string]struct {
		where    int
		old, new string
	}{
		"alg HS256, signed well":  {header, `"EdDSA"`, `"HS256"`},
		"alg Ed25519":             {header, `"EdDSA"`, `"Ed25519"`},
		"alg in small letters":    {header, `"EdDSA"`, `"eddsa"`},
		"alg as a list":           {header, `"EdDSA"`, `["EdDSA"]`},
		"no alg":                  {header, `"alg":"EdDSA",`, ``},
		"another typ":             {header, `tollgate+jwt`, `JWT`},
		"typ of an access token":  {header, `tollgate+jwt`, `at+jwt`},
		"typ as a media type":     {header, `tollgate+jwt`, `application/tollgate+jwt`},
		"no typ":                  {header, `,"typ":"tollgate+jwt"`, ``},
		"typ null":                {header, `"tollgate+jwt"`, `null`},
		"kid with a path":         {header, v.kid, `../../../../dev/null`},
		"kid with an address":     {strangers, v.kid, evil + `/evil.json`},
		"kid with a quote":        {header, v.kid, `' OR '1'='1`},
		"kid of an object":        {header, v.kid, `__proto__`},
		"kid of nothing":          {header, v.kid, ``},
		"kid as a number":         {header, `"` + v.kid + `"`, `1`},
		"kid as a list":           {header, `"` + v.kid + `"`, `["` + v.kid + `"]`},
		"no kid":                  {header, `"kid":"` + v.kid + `",`, ``},
		"unknown kid":             {header, v.kid, `unknown`},
		"embedded key":            {strangers, `"kid":"` + v.kid + `"`, `"kid":"evil","jwk":` + string(key)},
		"embedded key, kid known": {strangers, `{`, `{"jwk":` + string(key) + `,`},
		"embedded key, no kid":    {strangers, `"kid":"` + v.kid + `"`, `"jwk":` + string(key)},
		"jku":                     {strangers, `"kid":"` + v.kid + `"`, `"kid":"evil","jku":"` + evil + `/jwks.json"`},
		"jku, signed well":        {header, `{`, `{"jku":"` + evil + `/jwks.json",`},
		"x5u":                     {strangers, `{`, `{"x5u":"` + evil + `/chain.pem",`},
		"x5u, signed well":        {header, `{`, `{"x5u":"` + evil + `/chain.pem",`},
		"x5c":                     {header, `{`, `{"x5c":["AAAA"],`},
		"crit":                    {header, `{`, `{"crit":["exp"],`},
		"crit of b64":             {header, `{`, `{"crit":["b64"],"b64":true,`},
		"crit of nothing":         {header, `{`, `{"crit":[],`},
		"one more member":         {header, `{`, `{"cty":"JWT",`},
		"alg twice":               {header, `{`, `{"alg":"none",`},
		"kid twice":               {header, `{`, `{"kid":"evil",`},
		"typ twice, escaped":      {header, `{`, `{"\u0074yp":"JWT",`},
		"header as a list":        {header, good.header, `[` + good.header + `]`},
		"header null":             {header, good.header, `null`},
		"header with more behind": {header, good.header, good.header + `{}`},

		"another iss":                {claims, v.URL, `https://evil.example`},
		"iss with a slash":           {claims, v.URL, v.URL + `/`},
		"iss as a list":              {claims, `"` + v.URL + `"`, `["` + v.URL + `"]`},
		"no iss":                     {claims, `"iss":"` + v.URL + `",`, ``},
		"another aud":                {claims, `ledger`, `shop`},
		"aud as a list":              {claims, `"ledger"`, `["ledger"]`},
		"aud as a list of two":       {claims, `"ledger"`, `["shop","ledger"]`},
		"aud of nothing":             {claims, `ledger`, ``},
		"no aud":                     {claims, `"aud":"ledger",`, ``},
		"sub as a number":            {claims, `"12345"`, `12345`},
		"sub of nothing":             {claims, `12345`, ``},
		"sub null":                   {claims, `"12345"`, `null`},
		"sub as an object":           {claims, `"12345"`, `{"id":"12345"}`},
		"no sub":                     {claims, `"sub":"12345",`, ``},
		"sub in capitals":            {claims, `"sub"`, `"SUB"`},
		"sub twice":                  {claims, `{`, `{"sub":"1",`},
		"sub twice, escaped":         {claims, `{`, `{"\u0073ub":"1",`},
		"iss twice":                  {claims, `{`, `{"iss":"https://evil.example",`},
		"exp twice":                  {claims, `{`, fmt.Sprintf(`{"exp":%d,`, now+120)},
		"expired":                    {claims, fmt.Sprint(now + 60), fmt.Sprint(now - 10)},
		"exp a year from now":        {claims, fmt.Sprint(now + 60), fmt.Sprint(now + 365*86400)},
		"exp a little too far":       {claims, fmt.Sprint(now + 60), fmt.Sprint(now + 320)},
		"exp as text":                {claims, fmt.Sprint(now + 60), fmt.Sprintf(`"%d"`, now+60)},
		"exp without end":            {claims, fmt.Sprint(now + 60), `1e400`},
		"exp null":                   {claims, fmt.Sprint(now + 60), `null`},
		"no exp":                     {claims, fmt.Sprintf(`,"exp":%d`, now+60), ``},
		"issued in a far future":     {claims, fmt.Sprintf(`"iat":%d,"exp":%d`, now, now+60), `"iat":9223372036854775807,"exp":9223372036854775807`},
		"issued before the epoch":    {claims, fmt.Sprintf(`"iat":%d`, now), `"iat":-9223372036854775808`},
		"issued an hour ago":         {claims, fmt.Sprintf(`"iat":%d`, now), fmt.Sprintf(`"iat":%d`, now-3600)},
		"iat as text":                {claims, fmt.Sprintf(`"iat":%d`, now), fmt.Sprintf(`"iat":"%d"`, now)},
		"no iat":                     {claims, fmt.Sprintf(`"iat":%d,`, now), ``},
		"claims as a list":           {claims, good.claims, `[` + good.claims + `]`},
		"a huge name":                {claims, `"name":"a"`, `"name":"` + strings.Repeat("a", 9000) + `"`},
		"deeply nested claims":       {claims, `"name":"a"`, `"name":"a","deep":` + strings.Repeat("[", 2000) + strings.Repeat("]", 1999)},
		"claims of another JWT":      {claims, `{`, `{"nonce":1,"aud":["ledger"],`},
		"claims with more behind":    {claims, `}`, `}{}`},
		"claims that are no JSON":    {claims, `{`, `<`},
		"a member twice in a member": {claims, `{`, `{"sub":{"a":1,"a":2},`},
	} {
		f := good
		part := &f.header
		if change.where == claims {
			part = &f.claims
		}
		if change.where == strangers {
			f.private = stranger
		}
		if !strings.Contains(*part, change.old) {
			panic(name + ": " + *part + " holds no " + change.old)
		}
		*part = strings.Replace(*part, change.old, change.new, 1)
		attacks[name] = f.signed()
	}
	return attacks
}

// withLooseBits makes the last character of text's base64url have unused bits. It adds a space if
// there are none.
func withLooseBits(text string) string {
	if len(text)%3 == 0 {
		return text + " "
	}
	return text
}

// loosely writes the same bytes otherwise, by bits that say nothing.
func loosely(part string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(part) - 1
	other := part[:last] + string(alphabet[strings.IndexByte(alphabet, part[last])+1])
	one, _ := base64.RawURLEncoding.DecodeString(part)
	two, err := base64.RawURLEncoding.DecodeString(other)
	if err != nil || !bytes.Equal(one, two) {
		panic(part + " has no loose bits")
	}
	return other
}

func publicPEM(key ed25519.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func refusesEveryAttack(t *testing.T, v *verifierSite) {
	var led atomic.Int64
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { led.Add(1) }))
	t.Cleanup(evil.Close)
	v.expect(t, http.StatusOK, v.good(time.Now().Unix()).signed())
	for name, assertion := range v.attacks(evil.URL) {
		if a := v.ask(t, assertion); a.StatusCode != http.StatusUnauthorized || a.Text != "not from the gateway\n" {
			t.Errorf("%s: status %d: %s", name, a.StatusCode, a.Text)
		}
	}
	good := v.good(time.Now().Unix()).signed()
	if a := v.ask(t, good, good); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("two at once: status %d", a.StatusCode)
	}
	v.expect(t, http.StatusOK, good)
	now := time.Now().Unix() // just now, because a busy machine takes long for all attacks
	future := v.good(now)
	future.claims = strings.Replace(future.claims, fmt.Sprintf(`"iat":%d`, now), fmt.Sprintf(`"iat":%d`, now+30), 1)
	v.expect(t, http.StatusUnauthorized, future.signed())
	if n := led.Load(); n > 0 {
		t.Errorf("the verifier followed an address in an assertion %d times", n)
	}
	v.expect(t, http.StatusOK, v.good(time.Now().Unix()+3).signed())
	v.expect(t, http.StatusOK, v.good(time.Now().Unix()-61).signed())
	if a := v.signInHere(t); a.StatusCode != http.StatusOK {
		t.Errorf("after all that: status %d: %s", a.StatusCode, a.Text)
	}
}

func readsTheKeysOnceInAWhile(t *testing.T, v *verifierSite) {
	f := v.good(time.Now().Unix())
	v.expect(t, http.StatusOK, f.signed())
	time.Sleep(retryOfVerifiers + 50*time.Millisecond)
	began := time.Now()
	for i := range 100 {
		unknown := f
		unknown.header = strings.Replace(f.header, v.kid, fmt.Sprint("unknown-", i), 1)
		v.expect(t, http.StatusUnauthorized, unknown.signed())
		if n := v.keys.count.Load(); n < 2 {
			t.Fatalf("unknown key %d: the verifier has read the keys %d times, want at least 2", i, n)
		}
	}
	if n, most := v.keys.count.Load(), 2+int64(time.Since(began)/retryOfVerifiers); n > most {
		t.Errorf("the keys were read %d times; want %d at most", n, most)
	}
	v.expect(t, http.StatusOK, f.signed())
}

// servesKnownKeysMeanwhile: while the gateway hangs, an assertion with a known key is
// verified at once, whether a forged id or the age of the keys has the verifier ask. The
// verifier asks once at a time, however many forged ids there are.
func servesKnownKeysMeanwhile(t *testing.T, v *verifierSite) {
	var inside atomic.Int64
	good := func() int { return v.ask(t, v.good(time.Now().Unix()).signed()).StatusCode }
	forge := func() {
		forged := v.good(time.Now().Unix())
		forged.header = strings.Replace(forged.header, v.kid, "unknown", 1)
		req, _ := http.NewRequest(http.MethodGet, v.verifier, nil)
		req.Header.Set(assertionHeader, forged.signed())
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
		}
	}
	for cause, ask := range map[string]func(){
		"forged ids": func() { go forge() },
		"old keys":   func() { good() },
	} {
		if status := good(); status != http.StatusOK {
			t.Fatalf("before %s: status %d", cause, status)
		}
		hang, end := context.WithCancel(t.Context())
		v.keys.failWith(func(w http.ResponseWriter, _ *http.Request) {
			if inside.Add(1) > 1 {
				t.Errorf("%s: the keys are read twice at a time", cause)
			}
			<-hang.Done()
			inside.Add(-1)
			w.WriteHeader(http.StatusBadGateway)
		})
		gatewaytest.Eventually(t, "the verifier asks because of "+cause, func() bool {
			ask()
			return inside.Load() == 1
		})
		for range 20 {
			go forge()
			if status := good(); status != http.StatusOK {
				t.Errorf("%s: status %d while the gateway hangs", cause, status)
			}
		}
		v.keys.work()
		end()
		gatewaytest.Eventually(t, "the reading has ended", func() bool { return inside.Load() == 0 })
	}
}

// searchesWellFormedJSONOnly: a search in text that is not JSON can take quadratic time,
// before any signature is looked at. What the verifier searches is written down by a
// module that Node loads before it.
func searchesWellFormedJSONOnly(t *testing.T, command []string) {
	folder := t.TempDir()
	spy, journal := filepath.Join(folder, "spy.mjs"), filepath.Join(folder, "searched")
	writeFile(t, journal, "")
	writeFile(t, spy, `import { appendFileSync } from 'node:fs';
const exec = RegExp.prototype.exec;
RegExp.prototype.exec = function (text) {
  const found = exec.call(this, text);
  if (!String(text).startsWith('{"alg":')) return found;
  let kind = 'JSON';
  try { JSON.parse(text); } catch { kind = 'other text'; }
  appendFileSync(`+strconv.Quote(journal)+`, kind + '\n');
  return found;
};
`)
	v := newVerifierSite(t, []string{command[0], "--import", spy, command[1]})
	v.expect(t, http.StatusOK, v.good(time.Now().Unix()).signed())
	if searched := manualtest.ReadFile(t, journal); !strings.HasPrefix(searched, "JSON\n") {
		t.Fatalf("a good assertion: searched %q; the test does not see the search any more", searched)
	}
	for _, header := range []string{
		`{"alg":` + strings.Repeat(`\"`, 2900),
		`{"alg":"` + strings.Repeat(`\"`, 2900),
		`{"alg":"` + strings.Repeat(`\"`, 2900) + "\n\"",
	} {
		v.expect(t, http.StatusUnauthorized, forgery{withLooseBits(header), `{}`, v.private}.signed())
	}
	if searched := manualtest.ReadFile(t, journal); strings.Contains(searched, "other text") {
		t.Errorf("the verifier has searched text that is not JSON: %q", searched)
	}
}

func followsAnotherSecret(t *testing.T, v *verifierSite) {
	const next = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	v.signInHere(t)
	old := v.good(time.Now().Unix()).signed()
	original := v.Caddyfile
	useSecrets := func(secrets string) {
		v.Caddyfile = strings.Replace(original, "secret "+gatewaytest.Secret, "secret "+secrets, 1)
		v.Load()
	}

	useSecrets(gatewaytest.Secret + " " + next)
	gatewaytest.Eventually(t, "the verifier reads the keys again", func() bool {
		before := v.keys.count.Load()
		v.signInHere(t)
		return before > 1
	})
	useSecrets(next + " " + gatewaytest.Secret)
	v.keys.failWith(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if a := v.signInHere(t); a.StatusCode != http.StatusOK {
		t.Errorf("with the new secret: status %d: %s", a.StatusCode, a.Text)
	}
	header, _, _ := strings.Cut(v.Upstream.Last.Load().Header.Get(assertionHeader), ".")
	if header == encoded(fmt.Sprintf(`{"alg":"EdDSA","kid":"%s","typ":"tollgate+jwt"}`, v.kid)) {
		t.Errorf("with the new secret the header is still %s", header)
	}
	v.expect(t, http.StatusOK, old)
	v.keys.work()

	// Nobody announces this one, and still it is known after a moment.
	useSecrets(strings.ToUpper(next))
	gatewaytest.Eventually(t, "a secret that was not announced is used", func() bool {
		return v.browser.Follow("/").StatusCode == http.StatusOK
	})
	gatewaytest.Eventually(t, "a secret that was taken out is forgotten", func() bool {
		v.browser.Get("/")
		return v.ask(t, old).StatusCode == http.StatusUnauthorized
	})
}

func waitsForKeys(t *testing.T, v *verifierSite) {
	v.keys.failWith(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if a := v.signInHere(t); a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without keys: status %d: %s", a.StatusCode, a.Text)
	}
	v.keys.work()
	gatewaytest.Eventually(t, "the verifier has the keys", func() bool { return v.browser.Get("/").StatusCode == http.StatusOK })
}

func forgetsOldKeys(t *testing.T, v *verifierSite) {
	var read time.Time
	gatewaytest.Eventually(t, "the verifier has the keys", func() bool {
		read = time.Now()
		return v.ask(t, v.good(time.Now().Unix()).signed()).StatusCode == http.StatusOK
	})
	v.keys.failWith(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	serves := func() {
		if a := v.ask(t, v.good(time.Now().Unix()).signed()); a.StatusCode != http.StatusOK && time.Since(read) < maxAgeOfHasty {
			t.Errorf("with keys of %v: status %d", time.Since(read), a.StatusCode)
		}
	}
	before := v.keys.count.Load()
	gatewaytest.Eventually(t, "a reading of the keys fails", func() bool {
		serves()
		return v.keys.count.Load() > before
	})
	serves()
	gatewaytest.Eventually(t, "the keys are too old", func() bool {
		return v.ask(t, v.good(time.Now().Unix()).signed()).StatusCode == http.StatusServiceUnavailable
	})
}

// boundsTheAnswer gives the right keys in ways in which they are not to be taken.
func boundsTheAnswer(t *testing.T, v *verifierSite) {
	keys := v.NewBrowser().Get("/oauth/jwks.json").Text
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, keys) }))
	t.Cleanup(elsewhere.Close)
	for name, failure := range map[string]http.HandlerFunc{
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		},
		"too much": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "{"+strings.Repeat(" ", 1<<17)+keys[1:])
		},
		"an error": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, keys)
		},
		"no JSON":    func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") },
		"keys twice": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"keys":[],`+keys[1:]) },
		"a secret key": func(w http.ResponseWriter, _ *http.Request) {
			json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]string{"kty": "oct", "kid": v.kid, "k": "AAAA"}}})
		},
		"an answer without end": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		},
	} {
		before := v.keys.count.Load()
		v.keys.failWith(failure)
		gatewaytest.Eventually(t, name+" was read", func() bool {
			a := v.ask(t, v.good(time.Now().Unix()).signed())
			if a.StatusCode == http.StatusOK {
				t.Fatalf("%s was believed", name)
			}
			return v.keys.count.Load() > before
		})
	}
	v.keys.work()
	gatewaytest.Eventually(t, "the keys are right", func() bool {
		return v.ask(t, v.good(time.Now().Unix()).signed()).StatusCode == http.StatusOK
	})
}

// startsWithAllSettingsOnly: an audience that is empty would be met by an assertion
// without one.
func startsWithAllSettingsOnly(t *testing.T, command []string) {
	all := []string{"ISSUER=http://127.0.0.1", "AUDIENCE=ledger", "JWKS_URL=http://127.0.0.1/", "LISTEN=" + porttest.Address()}
	for i, left := range all {
		settings := append([]string(nil), all...)
		settings[i], _, _ = strings.Cut(left, "=")
		settings[i] += "="
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		out, err := exec.CommandContext(ctx, "env", append(settings, command...)...).CombinedOutput()
		cancel()
		if err == nil || !strings.Contains(string(out), settings[i][:len(settings[i])-1]+" is not set") {
			t.Errorf("without %s: %v: %s", settings[i], err, out)
		}
	}
}
