package browser

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"time"

	"golang.org/x/oauth2"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/wire"
)

const (
	// LoginLifetime is how long a started login waits for its callback. The user may have
	// to register with the provider, find a password, or confirm an e-mail address.
	LoginLifetime = time.Hour

	// loginMemory is how long the browser keeps a started login. A user who returns to the
	// provider's page the next morning is too late for the sign-in, but the return path is
	// still known: one click starts a new login.
	loginMemory = 24 * time.Hour

	// maxLoginPath is the maximum length of a return path in a login's cookie, in bytes. A
	// longer one is kept in the process; see Destinations.
	maxLoginPath = 1024

	// maxNonce is the maximum length of the nonce of a popup's opener, in bytes.
	maxNonce = 128
)

// Login is one sign-in that was started and waits for its callback. Each login has its own
// sealed cookie. That binds it to the browser, and keeps tabs apart (RFC 9700 sections 2.1
// and 4.7.1).
type Login struct {
	State    string
	Verifier string
	// ReturnPath is empty if it does not fit into the cookie; see Destinations.
	ReturnPath string
	Popup      bool
	Nonce      string // of the popup's opener
	started    time.Time
}

// NewLogin returns a login with a new random state and code verifier. returnPath must be
// clean. nonce is empty unless a popup's opener sent one.
func NewLogin(returnPath string, popup bool, nonce string, now time.Time) *Login {
	state := make([]byte, 32)
	rand.Read(state) // never fails: the runtime ends the program instead
	return &Login{
		State:      base64.RawURLEncoding.EncodeToString(state),
		Verifier:   oauth2.GenerateVerifier(),
		ReturnPath: returnPath,
		Popup:      popup,
		Nonce:      nonce,
		started:    now,
	}
}

// FlowOf returns the part of a login cookie's name that belongs to a state. It is a hash, so
// the name does not reveal the state.
func FlowOf(state string) string {
	sum := sha256.Sum256([]byte("tollgate login flow\x00" + state))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// matches reports whether state, from the callback, is this login's. It takes constant time.
func (l *Login) matches(state string) bool {
	return subtle.ConstantTimeCompare([]byte(l.State), []byte(state)) == 1
}

// Expired reports whether the login is older than LoginLifetime at now, or started more than
// a minute after now.
func (l *Login) Expired(now time.Time) bool {
	return now.Sub(l.started) >= LoginLifetime || l.started.After(now.Add(time.Minute))
}

// loginVersion is the version of the login's binary form, and its first byte.
const loginVersion = 1

// appendBinary appends the login's binary form to b.
func (l *Login) appendBinary(b []byte) []byte {
	b = append(b, loginVersion)
	b = binary.AppendVarint(b, l.started.UnixMilli())
	popup := byte(0)
	if l.Popup {
		popup = 1
	}
	b = append(b, popup)
	for _, text := range []string{l.State, l.Verifier, l.ReturnPath, l.Nonce} {
		b = wire.AppendText(b, text)
	}
	return b
}

// Seal returns the value of the login's cookie. whole is false if the value does not contain
// the return path, because the path is longer than maxLoginPath or the value would be longer
// than room bytes. It fails if the value cannot be sealed.
func (l *Login) Seal(s *keys.Sealer, room int) (value string, whole bool, err error) {
	if len(l.ReturnPath) <= maxLoginPath {
		value, err = s.Seal(l.appendBinary(nil))
		if err != nil || len(value) <= room {
			return value, true, err
		}
	}
	pathless := *l
	pathless.ReturnPath = ""
	value, err = s.Seal(pathless.appendBinary(nil))
	return value, false, err
}

// parseLogin reads a login's binary form. ok is false if b is not a complete login of the
// current loginVersion.
func parseLogin(b []byte) (login *Login, ok bool) {
	r := wire.NewReader(b)
	if r.Byte() != loginVersion {
		return nil, false
	}
	l := &Login{started: time.UnixMilli(r.Varint()), Popup: r.Byte() == 1}
	for _, text := range []*string{&l.State, &l.Verifier, &l.ReturnPath, &l.Nonce} {
		*text = r.Text()
	}
	return l, r.Done()
}

// openLogin opens a login cookie's value. ok is false if s did not seal it or it holds no
// login. The login may have expired.
func openLogin(s *keys.Sealer, value string) (login *Login, ok bool) {
	plain, _, ok := s.Open(value)
	if !ok {
		return nil, false
	}
	return parseLogin(plain)
}

// IsNonce reports whether s is a valid nonce of a popup's opener. It must be short and
// consist of letters, digits, - and _: any page can open the popup and choose it.
func IsNonce(s string) bool {
	for i := range len(s) {
		if !header.IsAlphanumeric(s[i]) && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}
