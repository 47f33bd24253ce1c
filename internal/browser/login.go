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
	// LoginLifetime is how long a started login waits for its callback: time to
	// register with the provider, to find a password, to confirm an e-mail address.
	LoginLifetime = time.Hour

	// loginMemory is how long a browser keeps where a started login was to lead to. Who
	// comes back to the provider's page in the morning is too late to be signed in by
	// that, and starts anew from there with one click.
	loginMemory = 24 * time.Hour

	// MaxLoginPath bounds the return path that travels in a login's cookie, in bytes. A
	// longer one is remembered in the process; see destinations.
	MaxLoginPath = 1024

	// maxNonce bounds the nonce that a popup's opener gives, in bytes.
	maxNonce = 128
)

// Login is one sign-in that was started and waits for its callback. It travels
// sealed in a cookie of its own, so that it is bound to the browser, and tabs
// cannot be mixed up (RFC 9700 sections 2.1 and 4.7.1).
type Login struct {
	State    string
	Verifier string
	// ReturnPath is empty in a cookie that it does not fit into: the process remembers it.
	ReturnPath string
	Popup      bool
	Nonce      string // of the popup's opener
	Started    time.Time
}

func NewLogin(returnPath string, popup bool, nonce string, now time.Time) *Login {
	state := make([]byte, 32)
	rand.Read(state) // never fails: the runtime ends the program instead
	return &Login{
		State:      base64.RawURLEncoding.EncodeToString(state),
		Verifier:   oauth2.GenerateVerifier(),
		ReturnPath: returnPath,
		Popup:      popup,
		Nonce:      nonce,
		Started:    now,
	}
}

// FlowOf is the part of a login cookie's name that finds the cookie of a state,
// without giving the state away.
func FlowOf(state string) string {
	sum := sha256.Sum256([]byte("tollgate login flow\x00" + state))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// Matches compares the state that came back, in constant time.
func (l *Login) Matches(state string) bool {
	return subtle.ConstantTimeCompare([]byte(l.State), []byte(state)) == 1
}

func (l *Login) Expired(now time.Time) bool {
	return now.Sub(l.Started) >= LoginLifetime || l.Started.After(now.Add(time.Minute))
}

// LoginVersion names the binary form below.
const LoginVersion = 1

func (l *Login) AppendBinary(b []byte) []byte {
	b = append(b, LoginVersion)
	b = binary.AppendVarint(b, l.Started.UnixMilli())
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

// Seal gives the value of the login's cookie. whole is false if the return path is not
// in it, because it is too long, or the value would take more than room bytes with it.
func (l *Login) Seal(s *keys.Sealer, room int) (value string, whole bool, err error) {
	if len(l.ReturnPath) <= MaxLoginPath {
		value, err = s.Seal(l.AppendBinary(nil))
		if err != nil || len(value) <= room {
			return value, true, err
		}
	}
	pathless := *l
	pathless.ReturnPath = ""
	value, err = s.Seal(pathless.AppendBinary(nil))
	return value, false, err
}

func ParseLogin(b []byte) (*Login, bool) {
	r := wire.NewReader(b)
	if r.Byte() != LoginVersion {
		return nil, false
	}
	l := &Login{Started: time.UnixMilli(r.Varint()), Popup: r.Byte() == 1}
	for _, text := range []*string{&l.State, &l.Verifier, &l.ReturnPath, &l.Nonce} {
		*text = r.Text()
	}
	return l, r.Done()
}

// OpenLogin opens a login cookie's value. The login may have expired.
func OpenLogin(s *keys.Sealer, value string) (*Login, bool) {
	plain, _, ok := s.Open(value)
	if !ok {
		return nil, false
	}
	return ParseLogin(plain)
}

// IsNonce reports whether a popup's nonce is one: short, and of plain characters,
// since it comes from any page that opens us.
func IsNonce(s string) bool {
	for i := range len(s) {
		if !header.IsAlphanumeric(s[i]) && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxNonce
}
