package simulator

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// authorization is an authorize request that passed all checks.
type authorization struct {
	client      Client
	redirectURI string
	state       string
	scope       string
	challenge   string // of PKCE; empty without PKCE
	automatic   bool   // true with auto_authorize=true: no consent page
	loginHint   string
	query       string // the query of the request, for the forms on our pages
}

// authorize shows the sign-in page or the consent page, or redirects to the
// client with a code.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	a, ok := p.readAuthorization(w, r)
	if !ok {
		return
	}
	if a.loginHint != "" && p.options.AllowLoginHint {
		p.authorizeHinted(w, r, a)
		return
	}
	user, ok := p.signedIn(r)
	if !ok {
		p.showSignIn(w, a)
		return
	}
	p.authorizeUser(w, r, a, user)
}

func (p *Provider) authorizeHinted(w http.ResponseWriter, r *http.Request, a authorization) {
	user, ok := p.users.byName(a.loginHint)
	if !ok {
		showMessage(w, http.StatusBadRequest, "Cannot sign in", "login_hint names no user.")
		return
	}
	p.signIn(w, r, user)
	p.authorizeUser(w, r, a, user)
}

func (p *Provider) authorizeUser(w http.ResponseWriter, r *http.Request, a authorization, user User) {
	if !a.automatic && !p.browsers.allowed(user.ID, a.client.ID, a.scope) {
		p.showConsent(w, a, user)
		return
	}
	p.giveCode(w, r, a, user)
}

// consent handles the form of the consent page. It checks the whole request
// again, because a form may send something else than its page has shown.
func (p *Provider) consent(w http.ResponseWriter, r *http.Request) {
	a, ok := p.readAuthorization(w, r)
	if !ok {
		return
	}
	form, err := readForm(r)
	if err != nil {
		showMessage(w, http.StatusBadRequest, "Cannot continue", err.Error())
		return
	}
	user, ok := p.signedIn(r)
	if !ok || form.Get("user") != formatID(user.ID) {
		// Another tab signed out or changed the account: the current user
		// has not seen the consent page yet.
		backToAuthorize(w, r)
		return
	}
	switch form.Get("decision") {
	case "allow":
		p.browsers.allow(user.ID, a.client.ID, a.scope)
		p.giveCode(w, r, a, user)
	case "deny":
		a.redirect(w, r, url.Values{"error": {"access_denied"}, "error_description": {"the user refused"}})
	default:
		showMessage(w, http.StatusBadRequest, "Cannot continue", "The decision is neither allow nor deny.")
	}
}

// giveCode ends the authorize request with a code. The code is bound to all
// values that the exchange must repeat.
func (p *Provider) giveCode(w http.ResponseWriter, r *http.Request, a authorization, user User) {
	code := p.grants.issueCode(codeGrant{
		clientID:    a.client.ID,
		redirectURI: a.redirectURI,
		challenge:   a.challenge,
		scope:       a.scope,
		userID:      user.ID,
	})
	a.redirect(w, r, url.Values{"code": {code}})
}

// redirect sends the browser back to the client.
func (a authorization) redirect(w http.ResponseWriter, r *http.Request, answer url.Values) {
	if a.state != "" {
		answer.Set("state", a.state)
	}
	separator := "?"
	if strings.Contains(a.redirectURI, "?") {
		separator = "&"
	}
	status := http.StatusFound
	if r.Method == http.MethodPost {
		status = http.StatusSeeOther // the browser must not POST again
	}
	http.Redirect(w, r, a.redirectURI+separator+answer.Encode(), status)
}

// readAuthorization checks an authorize request. If it returns false, it has
// written the response: a page if the redirect URI is not the client's (a
// redirect would make this an open redirector, RFC 6749 section 4.1.2.1), and
// an error redirect otherwise.
func (p *Provider) readAuthorization(w http.ResponseWriter, r *http.Request) (authorization, bool) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		showMessage(w, http.StatusBadRequest, "Cannot authorize", "The query is malformed.")
		return authorization{}, false
	}
	a := authorization{query: query.Encode()}
	if problem := p.readTarget(query, &a); problem != "" {
		showMessage(w, http.StatusBadRequest, "Cannot authorize", problem)
		return authorization{}, false
	}
	if err := a.readRequest(query); err != nil {
		a.redirect(w, r, url.Values{"error": {err.code}, "error_description": {err.description}})
		return authorization{}, false
	}
	return a, true
}

// readTarget finds the client and its redirect URI. problem says what is wrong,
// and is empty if nothing is wrong.
func (p *Provider) readTarget(query url.Values, a *authorization) (problem string) {
	if len(query["client_id"]) != 1 || len(query["redirect_uri"]) != 1 {
		return "client_id and redirect_uri must be given exactly once."
	}
	client, known := p.clients.get(query.Get("client_id"))
	if !known {
		return "The client_id is not registered."
	}
	// The strings must be equal: case, slashes and ports matter.
	if !slices.Contains(client.RedirectURIs, query.Get("redirect_uri")) {
		return "The redirect_uri is not the one registered for this client."
	}
	a.client, a.redirectURI = client, query.Get("redirect_uri")
	return ""
}

// readRequest checks the other parameters. It reads state first, because error
// redirects contain it. It ignores unknown parameters (RFC 6749 section 3.1).
func (a *authorization) readRequest(query url.Values) *oauthError {
	refuse := func(code, description string) *oauthError {
		return &oauthError{http.StatusBadRequest, code, description}
	}
	if len(query["state"]) == 1 {
		a.state = query.Get("state")
	}
	if name, twice := repeated(query); twice {
		return refuse("invalid_request", name+" is given more than once")
	}
	if a.state == "" {
		return refuse("invalid_request", "state is missing")
	}
	switch query.Get("response_type") {
	case "code":
	case "":
		return refuse("invalid_request", "response_type is missing")
	default:
		return refuse("unsupported_response_type", "response_type must be code")
	}
	scope, err := parseScope(query.Get("scope"), allScopes)
	if err != nil {
		return err
	}
	if problem := checkChallenge(query.Get("code_challenge"), query.Get("code_challenge_method")); problem != "" {
		return refuse("invalid_request", problem)
	}
	a.scope = scope
	a.challenge = query.Get("code_challenge")
	a.automatic = query.Get("auto_authorize") == "true"
	a.loginHint = query.Get("login_hint")
	return nil
}

// checkChallenge accepts a request without PKCE or with the method S256. It
// refuses the method plain, which is also the default if no method is given:
// plain does not protect against an attacker who can read the authorize
// request (RFC 9700 section 2.1.1).
func checkChallenge(challenge, method string) (problem string) {
	if challenge == "" {
		if method != "" {
			return "code_challenge_method without code_challenge"
		}
		return ""
	}
	if method != "S256" {
		return "code_challenge_method must be S256"
	}
	hash, err := base64.RawURLEncoding.Strict().DecodeString(challenge)
	if err != nil || len(hash) != len(fingerprint{}) {
		return "code_challenge is not a base64url SHA-256"
	}
	return ""
}
