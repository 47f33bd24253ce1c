package tollgate

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/respond"
	"github.com/caddy-tollgate/tollgate/web"
)

// responses writes the gateway's own pages and problem documents.
type responses struct {
	settings *settings
	sessions *sessions
	logger   *zap.Logger
}

// demandLogin answers a request that needs a session and has none: a person goes to
// the provider, or to the sign-in page; everything else gets a 401.
func (rs *responses) demandLogin(w http.ResponseWriter, r *http.Request, v *visit) error {
	if v.sent.Duplicate {
		w.Header().Add("Set-Cookie", rs.settings.cookies.Remove(rs.settings.cookies.Name))
	}
	rs.sessions.deleteDead(w, v)
	w.Header().Add("Vary", "Accept, Sec-Fetch-Mode, Sec-Fetch-Dest, X-Requested-With")
	returnTo := rs.returnPathOf(r)
	switch {
	case !browser.IsNavigation(r):
		return respond.Unauthenticated(w, r, rs.settings.startURL(returnTo))
	case rs.settings.loginPage:
		w.Header().Set("WWW-Authenticate", respond.Challenge)
		return rs.writePage(w, r, http.StatusUnauthorized, pageSignIn, pageData{returnTo: returnTo})
	default:
		return respond.Redirect(w, http.StatusFound, rs.settings.startURL(returnTo))
	}
}

// returnPathOf is where the person comes back to after signing in: the page they
// were going to. A script's request leads back to the page that it runs on, where
// the browser says which, so that nobody lands on JSON.
func (rs *responses) returnPathOf(r *http.Request) string {
	target := ""
	if browser.IsNavigation(r) {
		target = originalURL(r).RequestURI()
	} else if referer, err := url.Parse(r.Referer()); err == nil && origin.Of(referer) == rs.settings.origin {
		target = referer.RequestURI()
	}
	return rs.returnPath(target)
}

// returnPath gives a safe return path, or after_login. Going back to the endpoints
// that make up a sign-in would begin another one.
func (rs *responses) returnPath(raw string) string {
	cleaned, ok := origin.CleanPath(origin.WithoutOwnOrigin(raw, rs.settings.origin))
	if !ok {
		return rs.settings.afterLogin
	}
	path, _, _ := strings.Cut(cleaned, "?")
	path, _, _ = strings.Cut(path, "#")
	if path == rs.settings.endpoints["start"] || path == rs.settings.endpoints["callback"] {
		return rs.settings.afterLogin
	}
	return cleaned
}

// The pages, under the names that this package uses.
const (
	pageSignIn      = web.SignIn
	pageSignedOut   = web.SignedOut
	pageLogout      = web.Logout
	pagePopup       = web.Popup
	pageContinue    = web.Continue
	pageError       = web.Error
	pageForbidden   = web.Forbidden
	pageUnavailable = web.Unavailable
	pageBalance     = web.Balance
)

// pageData is what differs from one page to the next; renderPage adds what they
// have in common.
type pageData struct {
	returnTo   string // where the sign-in button leads back to
	cause      string
	home       string
	retryAfter int
	// signedIn: the error page leads back to the site, and not to a sign-in.
	signedIn bool
	// signingIn: a sign-in could not go on, so there is no session to keep.
	signingIn bool
	popup     web.PopupMessage
	short     account.Shortfall
}

// renderPage renders one of the gateway's pages in the language that suits the
// Accept-Language header.
func renderPage(s *settings, page web.Page, d pageData, acceptLanguage string) (web.Document, error) {
	return s.pages.Render(page, s.pageContent(d, acceptLanguage))
}

// pageContent is what a page is given.
func (s *settings) pageContent(d pageData, acceptLanguage string) web.Data {
	d.popup.Origin = s.origin
	home := d.home
	if home == "" {
		home = s.afterLogin
	}
	start := s.startURL(d.returnTo)
	if d.signedIn {
		start = ""
	}
	balance := ""
	if d.short.Balance != nil {
		balance = *d.short.Balance
	}
	return web.Data{
		AcceptLanguage: acceptLanguage,
		Brand:          s.brand,
		Provider:       s.providerName,
		StartURL:       start,
		LogoutURL:      s.endpoints["logout"],
		HomeURL:        home,
		RetryURL:       home,
		Cause:          d.cause,
		RetryAfter:     d.retryAfter,
		SigningIn:      d.signingIn,
		Popup:          d.popup,
		TopupURL:       s.topupURL(),
		Balance:        balance,
		Required:       d.short.Required,
	}
}

// maxStartQuery bounds the return path in the address of `start`, escaped, in bytes.
// Servers and proxies take addresses of 8 KiB, and a page that nobody can open is worse
// than a sign-in that leads to after_login.
const maxStartQuery = 7680

// escapeLess escapes what would end or change a value in a query. A clean return path
// has nothing else that may not stand there.
var escapeLess = strings.NewReplacer("%", "%25", "&", "%26", "#", "%23", "+", "%2B", ";", "%3B")

// startURL is where a sign-in starts that leads back to the given return path.
func (s *settings) startURL(returnTo string) string {
	if returnTo == "" {
		return s.endpoints["start"]
	}
	escaped := url.QueryEscape(returnTo)
	if len(escaped) > maxStartQuery {
		escaped = escapeLess.Replace(returnTo)
	}
	if len(escaped) > maxStartQuery {
		return s.endpoints["start"]
	}
	return s.endpoints["start"] + "?return_to=" + escaped
}

// topupURL is where the user can top up, or nothing where the provider has no such page.
func (s *settings) topupURL() string {
	if s.client.TopupEndpoint == "" {
		return ""
	}
	return s.endpoints["topup"]
}

// writePage answers with one of the gateway's pages.
func (rs *responses) writePage(w http.ResponseWriter, r *http.Request, status int, page web.Page, d pageData) error {
	language := strings.Join(r.Header.Values("Accept-Language"), ",")
	document, err := renderPage(rs.settings, page, d, language)
	if err != nil && rs.settings.builtinPages != nil {
		rs.logger.Error("an own template failed, so the built-in page is shown", zap.String("page", string(page)), zap.Error(err))
		document, err = rs.settings.builtinPages.Render(page, rs.settings.pageContent(d, language))
	}
	if err != nil {
		return err
	}
	header := w.Header()
	respond.SetOwnHeaders(header)
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Language", document.Language)
	header.Add("Vary", "Accept-Language")
	header.Set("Content-Security-Policy", document.Policy)
	if page != pagePopup {
		// With the popup's page under this policy, its opener would be lost on the
		// way back from the provider.
		header.Set("Cross-Origin-Opener-Policy", "same-origin-allow-popups")
	}
	header.Set("Content-Length", strconv.Itoa(len(document.Body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(document.Body) // a client that went away is nobody's error
	}
	return nil
}

// retrySeconds is what Retry-After says, and how often the page that waits tries
// again.
const retrySeconds = 5

// writeUnavailable answers that the provider, or the store, does not answer. The
// session is kept: no cookie is touched. The page tries again by itself.
func (rs *responses) writeUnavailable(w http.ResponseWriter, r *http.Request, returnTo string) error {
	return rs.writeRetry(w, r, pageData{returnTo: returnTo, home: returnTo})
}

// writeSignInUnavailable is writeUnavailable for a sign-in that cannot go on. There is
// no session yet, and the page does not say that one is kept.
func (rs *responses) writeSignInUnavailable(w http.ResponseWriter, r *http.Request) error {
	return rs.writeRetry(w, r, pageData{signingIn: true})
}

func (rs *responses) writeRetry(w http.ResponseWriter, r *http.Request, d pageData) error {
	w.Header().Set("Retry-After", strconv.Itoa(retrySeconds))
	if !browser.IsNavigation(r) {
		return respond.WriteProblem(w, r, respond.Problem{Title: "Sign-in service unavailable", Status: http.StatusServiceUnavailable, Error: "unavailable"})
	}
	w.Header().Set("Refresh", strconv.Itoa(retrySeconds))
	d.retryAfter = retrySeconds
	return rs.writePage(w, r, http.StatusServiceUnavailable, pageUnavailable, d)
}

// writeForbidden answers a user whom the provider does not call active, or who is not
// among those that the rules let in.
func (rs *responses) writeForbidden(w http.ResponseWriter, r *http.Request) error {
	if !browser.IsNavigation(r) {
		return respond.WriteProblem(w, r, respond.Problem{Title: "This account cannot be used here", Status: http.StatusForbidden, Error: "refused"})
	}
	return rs.writePage(w, r, http.StatusForbidden, pageForbidden, pageData{})
}

// lackingProblem is the problem document of a balance that does not suffice.
type lackingProblem struct {
	respond.Problem
	Balance  *string `json:"balance"` // null when it is not known
	Required string  `json:"required"`
	TopupURL string  `json:"topup_url,omitempty"`
}

// writeLacking answers a user whose balance does not suffice. "Try again" is a plain
// link to the page itself: a balance that does not suffice is re-read before it refuses
// anybody, so that no button of ours has to ask for it.
func (rs *responses) writeLacking(w http.ResponseWriter, r *http.Request, short *account.Shortfall) error {
	if !browser.IsNavigation(r) {
		title := "Insufficient balance"
		if short.Balance == nil {
			title = "Unknown balance"
		}
		return respond.JSON(w, r, http.StatusPaymentRequired, respond.TypeProblem, lackingProblem{
			Problem:  respond.Problem{Type: "about:blank", Title: title, Status: http.StatusPaymentRequired, Error: "insufficient_balance"},
			Balance:  short.Balance,
			Required: short.Required,
			TopupURL: rs.settings.topupURL(),
		})
	}
	return rs.writePage(w, r, http.StatusPaymentRequired, pageBalance, pageData{home: rs.returnPathOf(r), short: *short})
}
