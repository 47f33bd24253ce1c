package tollgate

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"time"

	"golang.org/x/oauth2"
)

const (
	// loginLifetime is how long a started login waits for its callback: time to
	// register with the provider, to find a password, to confirm an e-mail address.
	loginLifetime = time.Hour

	// loginMemory is how long a browser keeps where a started login was to lead to. Who
	// comes back to the provider's page in the morning is too late to be signed in by
	// that, and starts anew from there with one click.
	loginMemory = 24 * time.Hour

	// maxLoginPath bounds the return path that travels in a login's cookie, in bytes. A
	// longer one is remembered in the process; see destinations.
	maxLoginPath = 1024

	// maxNonce bounds the nonce that a popup's opener gives, in bytes.
	maxNonce = 128
)

// login is one sign-in that was started and waits for its callback. It travels
// sealed in a cookie of its own, so that it is bound to the browser, and tabs
// cannot be mixed up (RFC 9700 sections 2.1 and 4.7.1).
type login struct {
	state    string
	verifier string
	// returnPath is empty in a cookie that it does not fit into: the process remembers it.
	returnPath string
	popup      bool
	nonce      string // of the popup's opener
	started    time.Time
}

func newLogin(returnPath string, popup bool, nonce string, now time.Time) *login {
	state := make([]byte, 32)
	rand.Read(state) // never fails: the runtime ends the program instead
	return &login{
		state:      base64.RawURLEncoding.EncodeToString(state),
		verifier:   oauth2.GenerateVerifier(),
		returnPath: returnPath,
		popup:      popup,
		nonce:      nonce,
		started:    now,
	}
}

// flowOf is the part of a login cookie's name that finds the cookie of a state,
// without giving the state away.
func flowOf(state string) string {
	sum := sha256.Sum256([]byte("tollgate login flow\x00" + state))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// matches compares the state that came back, in constant time.
func (l *login) matches(state string) bool {
	return subtle.ConstantTimeCompare([]byte(l.state), []byte(state)) == 1
}

func (l *login) expired(now time.Time) bool {
	return now.Sub(l.started) >= loginLifetime || l.started.After(now.Add(time.Minute))
}

// loginVersion names the binary form below.
const loginVersion = 1

func (l *login) appendBinary(b []byte) []byte {
	b = append(b, loginVersion)
	b = binary.AppendVarint(b, l.started.UnixMilli())
	popup := byte(0)
	if l.popup {
		popup = 1
	}
	b = append(b, popup)
	for _, text := range []string{l.state, l.verifier, l.returnPath, l.nonce} {
		b = appendText(b, text)
	}
	return b
}

// seal gives the value of the login's cookie. whole is false if the return path is not
// in it, because it is too long, or the value would take more than room bytes with it.
func (l *login) seal(s *sealer, room int) (value string, whole bool, err error) {
	if len(l.returnPath) <= maxLoginPath {
		value, err = s.seal(l.appendBinary(nil))
		if err != nil || len(value) <= room {
			return value, true, err
		}
	}
	pathless := *l
	pathless.returnPath = ""
	value, err = s.seal(pathless.appendBinary(nil))
	return value, false, err
}

func parseLogin(b []byte) (*login, bool) {
	r := recordReader{rest: b}
	if r.byte() != loginVersion {
		return nil, false
	}
	l := &login{started: time.UnixMilli(r.varint()), popup: r.byte() == 1}
	for _, text := range []*string{&l.state, &l.verifier, &l.returnPath, &l.nonce} {
		*text = r.text()
	}
	return l, !r.failed && len(r.rest) == 0
}

// openLogin opens a login cookie's value. The login may have expired.
func openLogin(s *sealer, value string) (*login, bool) {
	plain, _, ok := s.open(value)
	if !ok {
		return nil, false
	}
	return parseLogin(plain)
}

// isNonce reports whether a popup's nonce is one: short, and of plain characters,
// since it comes from any page that opens us.
func isNonce(s string) bool {
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}
