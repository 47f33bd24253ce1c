package simulator

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// tokenAnswer is the response of RFC 6749 section 5.1. Its fields are in the
// order of the provider's document.
type tokenAnswer struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int64  `json:"expires_in"`
	RefreshToken string `json:"refresh_token,omitempty"`
	Scope        string `json:"scope"`
}

// token serves both grants. It checks the form, then the client, then the
// grant. No code or token is used up before the client has authenticated.
func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	issued, err := p.grantTokens(r)
	if err != nil {
		writeOAuthError(w, err)
		return
	}
	w.Header().Set("Pragma", "no-cache") // RFC 6749 section 5.1
	writeJSON(w, http.StatusOK, tokenAnswer{
		AccessToken:  issued.access,
		TokenType:    "Bearer",
		ExpiresIn:    wholeSeconds(p.options.AccessLifetime),
		RefreshToken: issued.refresh,
		Scope:        issued.scope,
	})
}

func (p *Provider) grantTokens(r *http.Request) (tokens, error) {
	form, err := oauthForm(r)
	if err != nil {
		return tokens{}, err
	}
	client, err := p.authenticate(r, form)
	if err != nil {
		return tokens{}, err
	}
	switch form.Get("grant_type") {
	case "authorization_code":
		return p.exchange(client, form)
	case "refresh_token":
		return p.refresh(client, form)
	case "":
		return tokens{}, invalidRequest("grant_type is missing")
	default:
		return tokens{}, &oauthError{
			http.StatusBadRequest, "unsupported_grant_type",
			"grant_type must be authorization_code or refresh_token",
		}
	}
}

func (p *Provider) exchange(client Client, form url.Values) (tokens, error) {
	for _, name := range []string{"code", "redirect_uri"} {
		if form.Get(name) == "" {
			return tokens{}, invalidRequest(name + " is missing")
		}
	}
	return p.grants.exchange(client, form.Get("code"), form.Get("redirect_uri"), form.Get("code_verifier"))
}

func (p *Provider) refresh(client Client, form url.Values) (tokens, error) {
	if form.Get("refresh_token") == "" {
		return tokens{}, invalidRequest("refresh_token is missing")
	}
	return p.grants.rotate(client, form.Get("refresh_token"), form.Get("scope"))
}

// checkVerifier checks a code verifier against the code challenge of PKCE. It
// also refuses a verifier if there was no challenge, which is the sign of a
// downgrade attack (RFC 9700 section 4.8.2).
func checkVerifier(challenge, verifier string) error {
	switch {
	case challenge == "" && verifier == "":
		return nil
	case challenge == "":
		return invalidGrant("code_verifier for a code that has no code_challenge")
	case verifier == "":
		return invalidGrant("code_verifier is missing")
	case !wellFormedVerifier(verifier):
		return invalidGrant("code_verifier is malformed")
	}
	hash := sha256.Sum256([]byte(verifier))
	if !sameSecret(base64.RawURLEncoding.EncodeToString(hash[:]), challenge) {
		return invalidGrant("code_verifier does not match the code_challenge")
	}
	return nil
}

// wellFormedVerifier checks the grammar of RFC 7636 section 4.1.
func wellFormedVerifier(verifier string) bool {
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	return len(verifier) >= 43 && len(verifier) <= 128 &&
		strings.Trim(verifier, unreserved) == ""
}

// wholeSeconds rounds up to seconds: zero would mean that no expiry is given.
func wholeSeconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}
