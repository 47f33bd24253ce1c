// Verify says who is there, and believes nothing but tollgate's signed assertion.
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // refuses a member that is there twice
)

const (
	skew         = 5       // seconds that two clocks may differ
	maxLifetime  = 300     // seconds; the gateway's own limit
	maxAssertion = 8 << 10 // bytes
	maxKeys      = 64 << 10
	fetchTimeout = 3 * time.Second
	retryAfter   = 5 * time.Second  // between two readings of the keys
	refreshAfter = 5 * time.Minute  // keys that are older are read again,
	maxAge       = 15 * time.Minute // and after this not believed any more
)

var (
	issuer, audience, jwksURL = setting("ISSUER"), setting("AUDIENCE"), setting("JWKS_URL")

	errRefused = errors.New("not from the gateway")
	errNoKeys  = errors.New("the gateway's keys cannot be read")
)

type claims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Subject  string `json:"sub"` // what to store
	Name     string `json:"name"`
	IssuedAt int64  `json:"iat"`
	Expires  int64  `json:"exp"`
}

func verify(text string) (c claims, err error) {
	parts := strings.Split(text, ".")
	if len(text) > maxAssertion || len(parts) != 3 {
		return c, errRefused
	}
	var raw [3][]byte
	for i, part := range parts {
		raw[i], err = base64.RawURLEncoding.DecodeString(part)
		if err != nil || base64.RawURLEncoding.EncodeToString(raw[i]) != part {
			return c, errRefused // there is one way to write it
		}
	}
	var header map[string]string
	err = json.Unmarshal(raw[0], &header)
	want := map[string]string{"alg": "EdDSA", "typ": "tollgate+jwt", "kid": header["kid"]}
	if err != nil || !maps.Equal(header, want) {
		return c, errRefused // crit, jwk, jku, x5u, x5c or anything else
	}
	key, err := keyOf(header["kid"])
	if err != nil {
		return c, err
	}
	if key == nil || !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), raw[2]) {
		return c, errRefused
	}
	now := time.Now().Unix()
	if json.Unmarshal(raw[1], &c) != nil || c.Issuer != issuer || c.Audience != audience || c.Subject == "" ||
		c.IssuedAt > now+skew || c.Expires <= now-skew || c.Expires > c.IssuedAt+maxLifetime {
		return c, errRefused
	}
	return c, nil
}

// keys are the gateway's, from the configured URL and nowhere else. The mutex is never
// held while the gateway is asked: it may hang, and known keys are served meanwhile.
var keys struct {
	sync.Mutex
	byID        map[string]ed25519.PublicKey
	read, asked time.Time     // when they were read, and when the last attempt ended
	reading     chan struct{} // closed when the attempt under way ends; nil if there is none
}

// keyOf returns the key with this id, or nil if the gateway does not know it either. Only
// a request without a usable key waits for the gateway: an attacker who makes up ids
// delays nobody else.
func keyOf(id string) (ed25519.PublicKey, error) {
	keys.Lock()
	defer keys.Unlock()
	usable := keys.byID[id] != nil && time.Since(keys.read) <= maxAge
	due := !usable || time.Since(keys.read) > refreshAfter
	if due && keys.reading == nil && time.Since(keys.asked) > retryAfter {
		keys.reading = make(chan struct{})
		go renewKeys(keys.reading)
	}
	if reading := keys.reading; !usable && reading != nil {
		keys.Unlock()
		<-reading
		keys.Lock()
	}
	if time.Since(keys.read) > maxAge {
		return nil, errNoKeys
	}
	return keys.byID[id], nil
}

func renewKeys(done chan struct{}) {
	found, err := readKeys()
	keys.Lock()
	defer keys.Unlock()
	if err != nil {
		log.Printf("reading the gateway's keys: %v", err)
	} else {
		keys.byID, keys.read = found, time.Now()
	}
	keys.asked, keys.reading = time.Now(), nil
	close(done)
}

var client = http.Client{Timeout: fetchTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
	return http.ErrUseLastResponse
}}

func readKeys() (map[string]ed25519.PublicKey, error) {
	res, err := client.Get(jwksURL)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxKeys)) // JSON that was cut is none
	if err != nil || res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d, %v", res.StatusCode, err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, err
	}
	found := map[string]ed25519.PublicKey{}
	for _, key := range set.Keys {
		if public, ok := key.Key.(ed25519.PublicKey); ok {
			found[key.KeyID] = public
		}
	}
	return found, nil
}

func serve(w http.ResponseWriter, r *http.Request) {
	c, err := verify(strings.Join(r.Header["X-Tollgate-Assertion"], ",")) // two of them are none
	switch {
	case errors.Is(err, errNoKeys):
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, err.Error(), http.StatusUnauthorized)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, "%s is %s\n", c.Subject, c.Name)
	}
}

func setting(name string) string {
	value := os.Getenv(name)
	if value == "" {
		log.Fatalf("%s is not set", name)
	}
	return value
}

func main() {
	server := &http.Server{Addr: setting("LISTEN"), Handler: http.HandlerFunc(serve), ReadHeaderTimeout: 10 * time.Second}
	log.Fatal(server.ListenAndServe())
}
