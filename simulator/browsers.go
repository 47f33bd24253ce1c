package simulator

import (
	"net/http"
	"strconv"
	"sync"
)

// cookieName is the name of the simulator's own session cookie. It identifies
// the user of a browser, and is independent of the tokens of clients.
const cookieName = "aihubmix_simulator"

const (
	// maxBrowsers is the maximum number of signed-in browsers.
	maxBrowsers = 10_000

	// maxConsents is the maximum number of consents: pairs of user and client.
	maxConsents = 10_000
)

// browserTable holds the users of signed-in browsers, and the consents of users.
type browserTable struct {
	mu       sync.Mutex // guards both tables
	users    *table[fingerprint, int64]
	consents *table[consentKey, string] // the scope that was allowed
}

type consentKey struct {
	userID   int64
	clientID string
}

func newBrowserTable() *browserTable {
	return &browserTable{
		users:    newTable[fingerprint, int64](maxBrowsers),
		consents: newTable[consentKey, string](maxConsents),
	}
}

func (t *browserTable) signIn(cookie string, userID int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users.put(fingerprintOf(cookie), userID)
}

func (t *browserTable) signOut(cookie string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.users.delete(fingerprintOf(cookie))
}

func (t *browserTable) user(cookie string) (int64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.users.get(fingerprintOf(cookie))
}

func (t *browserTable) allow(userID int64, clientID, scope string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.consents.put(consentKey{userID, clientID}, scope)
}

func (t *browserTable) allowed(userID int64, clientID, scope string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	given, ok := t.consents.get(consentKey{userID, clientID})
	return ok && includesScope(given, scope)
}

// forget deletes all consents of a user. Revoking does that.
func (t *browserTable) forget(userID int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.consents.all() {
		if key.userID == userID {
			t.consents.delete(key)
		}
	}
}

// signedIn returns the user of this browser, or the user named by AutoLogin.
func (p *Provider) signedIn(r *http.Request) (User, bool) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		if id, ok := p.browsers.user(cookie.Value); ok {
			return p.users.byID(id)
		}
	}
	if p.options.AutoLogin != "" {
		return p.users.byName(p.options.AutoLogin)
	}
	return User{}, false
}

// signIn signs the user in at this browser. It makes a new cookie value, so that
// a value that an attacker set before the sign-in is worthless (session fixation).
func (p *Provider) signIn(w http.ResponseWriter, r *http.Request, user User) {
	if old, err := r.Cookie(cookieName); err == nil {
		p.browsers.signOut(old.Value)
	}
	value := randomHex(32)
	p.browsers.signIn(value, user.ID)
	setCookie(w, r, value, 0)
}

// setCookie writes the cookie; nothing else does. SameSite is Lax, because
// users come from the client's site. Secure is set only over TLS, because not
// every browser keeps Secure cookies from http://127.0.0.1.
func setCookie(w http.ResponseWriter, r *http.Request, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name:     cookieName,
		Value:    value,
		Path:     "/",
		MaxAge:   maxAge,
		HttpOnly: true,
		Secure:   r.TLS != nil,
		SameSite: http.SameSiteLaxMode,
	})
}

// sameOrigin accepts only forms of the simulator's own pages. A request
// without Sec-Fetch-Site and Origin passes. No browser sends such a POST, so
// it cannot be a forged request with a user's cookie.
func (p *Provider) sameOrigin(work http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := p.crossOrigin.Check(r); err != nil {
			showMessage(w, http.StatusForbidden, "Refused", "This form was sent by another site.")
			return
		}
		work(w, r)
	}
}

// login handles the form of the "Sign in as" page. It redirects only to
// AuthorizePath, with the query of the form's own URL.
func (p *Provider) login(w http.ResponseWriter, r *http.Request) {
	form, err := readForm(r)
	if err != nil {
		showMessage(w, http.StatusBadRequest, "Cannot sign in", err.Error())
		return
	}
	id, err := strconv.ParseInt(form.Get("user"), 10, 64)
	user, known := p.users.byID(id)
	if err != nil || !known {
		showMessage(w, http.StatusBadRequest, "Cannot sign in", "There is no such user.")
		return
	}
	p.signIn(w, r, user)
	backToAuthorize(w, r)
}

// logout handles the button "Use another account".
func (p *Provider) logout(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(cookieName); err == nil {
		p.browsers.signOut(cookie.Value)
	}
	setCookie(w, r, "", -1)
	backToAuthorize(w, r)
}

// backToAuthorize continues the login that the form interrupted. If there is
// none, it redirects to the index page.
func backToAuthorize(w http.ResponseWriter, r *http.Request) {
	if r.URL.RawQuery == "" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	http.Redirect(w, r, AuthorizePath+"?"+r.URL.RawQuery, http.StatusSeeOther)
}
