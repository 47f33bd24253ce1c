package tollgate

import (
	"cmp"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/audit"
	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/charging"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/respond"
	"github.com/caddy-tollgate/tollgate/web"
)

// responses writes the gateway's own pages. For requests that are not page navigations it has
// package respond or charging write a problem document.
type responses struct {
	settings *settings
	sessions *sessions
	audit    *audit.Log
}

// demandLogin responds to a request that needs a session and has none. A page navigation is
// redirected to the provider, or gets the sign-in page. Any other request gets 401.
func (rs *responses) demandLogin(w http.ResponseWriter, r *http.Request, v *visit) error {
	if v.sent.Duplicate {
		w.Header().Add("Set-Cookie", rs.settings.cookies.Remove(rs.settings.cookies.Name))
	}
	rs.sessions.deleteDead(w, v)
	w.Header().Add("Vary", "Accept, Sec-Fetch-Mode, Sec-Fetch-Dest, X-Requested-With")
	returnTo := rs.returnPathOf(r)
	switch {
	case !browser.IsNavigation(r):
		return respond.Unauthenticated(w, r, rs.settings.places.StartURL(returnTo))
	case rs.settings.loginPage:
		w.Header().Set("WWW-Authenticate", respond.Challenge)
		return rs.writePage(w, r, http.StatusUnauthorized, pageSignIn, pageData{returnTo: returnTo})
	default:
		return respond.Redirect(w, http.StatusFound, rs.settings.places.StartURL(returnTo))
	}
}

// returnPathOf returns the path to go back to after the sign-in of a request.
func (rs *responses) returnPathOf(r *http.Request) string {
	return rs.settings.places.ReturnPathOf(r, originalURL(r))
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
	pageBudget      = web.Budget
)

// pageData is the data of one page. renderPage adds the data that all pages have.
type pageData struct {
	returnTo   string // return path of the sign-in button
	cause      string // why the sign-in failed, or why the page is unavailable
	words      string // key of the explanation, if it is not that of the cause
	requestID  string
	home       string
	retryAfter int
	// signedIn is true if the error page links to the site instead of a sign-in.
	signedIn bool
	// ownForm is true if the request is a form of our own pages. Trying it again with GET
	// loses nothing.
	ownForm bool
	// signingIn is true if a sign-in could not continue. The user has no session then.
	signingIn bool
	// visit is the visit of the user who sees the page. nil: the page says nothing about the
	// user.
	visit *visit
	retry string // where "try again" leads. Default: home
	popup web.PopupMessage
	short account.Shortfall
	over  *charging.SpentBudget // nil except on the page of a budget
}

// renderPage renders one of the gateway's pages in the best language for the Accept-Language
// header.
func renderPage(s *settings, page web.Page, d pageData, acceptLanguage string) (web.Document, error) {
	return s.pages.Render(page, s.pageContent(d, acceptLanguage))
}

// pageContent returns the template data of a page.
func (s *settings) pageContent(d pageData, acceptLanguage string) web.Data {
	d.popup.Origin = s.origin
	home := cmp.Or(d.home, s.afterLogin)
	if home == d.retry {
		home = "" // the page that the user cannot see is no way back
	}
	start := s.places.StartURL(d.returnTo)
	if d.signedIn {
		start = ""
	}
	balance := ""
	if d.short.Balance != nil {
		balance = *d.short.Balance
	}
	data := web.Data{
		AcceptLanguage: acceptLanguage,
		Brand:          s.brand,
		Provider:       s.providerName,
		StartURL:       start,
		LogoutURL:      s.endpoints["logout"],
		HomeURL:        home,
		RetryURL:       cmp.Or(d.retry, home),
		SwitchURL:      s.switchURL(d.retry),
		Cause:          d.cause,
		Words:          d.words,
		RequestID:      d.requestID,
		RetryAfter:     d.retryAfter,
		SigningIn:      d.signingIn,
		Popup:          d.popup,
		TopupURL:       s.topupURL(),
		Balance:        balance,
		Required:       d.short.Required,
	}
	if d.visit != nil {
		data.SignedIn, data.User = d.visit.known, d.visit.userName()
	}
	if d.over != nil {
		data.Budget, data.Spent, data.ResetsAt = d.over.Text, d.over.Spent, d.over.ResetsAt
		data.RetryAfter = int(math.Ceil(d.over.RetryAfter.Seconds()))
	}
	return data
}

// userName returns the name of the signed-in user as pages show it: the user name, or else the
// e-mail address, or else the id. Returns "" if the visit has no session.
func (v *visit) userName() string {
	if v.session == nil {
		return ""
	}
	user := v.session.User
	return web.FirstVisible(user.Text(oauth.FieldUsername), user.Text(oauth.FieldEmail), user.ID())
}

// switchQuery marks the POST to `logout` that goes on to a sign-in with another account.
const switchQuery = "sign_in"

// switchURL returns the URL whose POST signs the user out and starts a sign-in with the given
// return path.
func (s *settings) switchURL(returnTo string) string {
	_, query, _ := strings.Cut(s.places.StartURL(returnTo), "?")
	return strings.TrimSuffix(s.endpoints["logout"]+"?"+switchQuery+"=1&"+query, "&")
}

// topupURL returns the path of the top-up endpoint. Returns "" if the provider has no top-up.
func (s *settings) topupURL() string {
	if s.client.TopupEndpoint == "" {
		return ""
	}
	return s.endpoints["topup"]
}

// writePage responds with one of the gateway's pages.
func (rs *responses) writePage(w http.ResponseWriter, r *http.Request, status int, page web.Page, d pageData) error {
	d.requestID = audit.RequestID(r)
	language := strings.Join(r.Header.Values("Accept-Language"), ",")
	document, err := renderPage(rs.settings, page, d, language)
	if err != nil && rs.settings.builtinPages != nil {
		rs.audit.Rarely(zap.ErrorLevel, "a template of `pages` failed; showing the built-in page", string(page), zap.String("page", string(page)), zap.Error(err))
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
		// Not on the popup's page: it would lose its opener on the way back from the
		// provider.
		header.Set("Cross-Origin-Opener-Policy", "same-origin-allow-popups")
	}
	header.Set("Content-Length", strconv.Itoa(len(document.Body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(document.Body) // an error means that the client has gone away
	}
	return nil
}

// retrySeconds is the value of Retry-After, and the reload interval of the waiting page.
const retrySeconds = 5

// writeUnavailable responds that the provider or the store is unavailable. The user stays
// signed in: no cookie is changed. The page retries by itself.
func (rs *responses) writeUnavailable(w http.ResponseWriter, r *http.Request, v *visit, returnTo, code string) error {
	return rs.writeRetry(w, r, pageData{visit: v, returnTo: returnTo, home: returnTo, cause: code})
}

// writeSignInUnavailable is writeUnavailable for a sign-in that cannot continue. There is no
// session yet, so the page does not say that the user stays signed in.
func (rs *responses) writeSignInUnavailable(w http.ResponseWriter, r *http.Request, code string) error {
	return rs.writeRetry(w, r, pageData{signingIn: true, cause: code})
}

func (rs *responses) writeRetry(w http.ResponseWriter, r *http.Request, d pageData) error {
	w.Header().Set("Retry-After", strconv.Itoa(retrySeconds))
	if !browser.IsNavigation(r) && !d.ownForm {
		return respond.WriteProblem(w, r, respond.Problem{Title: "Sign-in service unavailable", Status: http.StatusServiceUnavailable, Error: "unavailable", Cause: d.cause})
	}
	w.Header().Set("Refresh", strconv.Itoa(retrySeconds))
	d.retryAfter = retrySeconds
	return rs.writePage(w, r, http.StatusServiceUnavailable, pageUnavailable, d)
}

// writeForbidden responds to a user whose status is not active, or whom the rules do not
// allow.
func (rs *responses) writeForbidden(w http.ResponseWriter, r *http.Request, v *visit) error {
	if !browser.IsNavigation(r) {
		return respond.WriteProblem(w, r, respond.Problem{Title: "This account cannot be used here", Status: http.StatusForbidden, Error: "refused"})
	}
	return rs.writePage(w, r, http.StatusForbidden, pageForbidden, pageData{visit: v, retry: rs.returnPathOf(r)})
}

// writeLacking responds to a user whose balance is too low. "Try again" is a plain link to the
// same page: an insufficient balance is re-read before each refusal, so no special button is
// needed.
func (rs *responses) writeLacking(w http.ResponseWriter, r *http.Request, v *visit, short *account.Shortfall, available *string) error {
	if !browser.IsNavigation(r) {
		return charging.RefuseLacking(w, r, short, available, rs.settings.topupURL())
	}
	shown := *short
	if available != nil {
		shown.Balance = available
	}
	return rs.writePage(w, r, http.StatusPaymentRequired, pageBalance, pageData{visit: v, retry: rs.returnPathOf(r), short: shown})
}

// writeOverBudget answers a user who has used up a budget.
func (rs *responses) writeOverBudget(w http.ResponseWriter, r *http.Request, v *visit, over *charging.SpentBudget) error {
	if !browser.IsNavigation(r) {
		return charging.RefuseOverBudget(w, r, over)
	}
	w.Header().Set("Retry-After", charging.WholeSeconds(over.RetryAfter))
	return rs.writePage(w, r, http.StatusPaymentRequired, pageBudget, pageData{visit: v, retry: rs.returnPathOf(r), over: over})
}

// writeUnchecked answers that nobody can tell now whether the request can be paid. The page
// tries again by itself.
func (rs *responses) writeUnchecked(w http.ResponseWriter, r *http.Request, v *visit, after time.Duration, code string) error {
	if browser.IsNavigation(r) {
		return rs.writeUnavailable(w, r, v, rs.returnPathOf(r), code)
	}
	w.Header().Set("Retry-After", charging.WholeSeconds(after))
	return respond.WriteProblem(w, r, respond.Problem{Title: "The balance cannot be checked now", Status: http.StatusServiceUnavailable, Error: "unavailable", Cause: code})
}

// writeNoContent answers a dry run of a request that would pass.
func (rs *responses) writeNoContent(w http.ResponseWriter) error {
	respond.SetOwnHeaders(w.Header())
	w.WriteHeader(http.StatusNoContent)
	return nil
}
