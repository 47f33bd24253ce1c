// Package demo is the application behind the gateway in `caddy tollgate demo`. It shows the
// signed-in user, answers questions for a little of the user's money, and shows the headers
// that an application receives. It contains no OAuth code: it shows that none is needed.
//
// Begin with New and its handler.
package demo

import (
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// The paths of the application.
const (
	homePath     = "/{$}"
	askPath      = "/ask"
	answersPath  = "/answers/"
	modelPath    = "/model"
	refreshPath  = "/refresh-balance"
	publicPath   = "/public"
	optionalPath = "/optional"
	assetsPath   = "/assets/"
)

// The gateway's paths that the pages link to.
const (
	startPath    = "/oauth/start"
	topUpPath    = "/oauth/topup"
	logoutPath   = "/oauth/logout"
	userinfoPath = "/oauth/userinfo"
	rereadPath   = "/oauth/refresh"
)

// SpendCents is the price of one answer in cents.
const SpendCents = 50

// spendAmount is SpendCents in the unit of the balance.
var spendAmount = big.NewRat(SpendCents, 100)

// ErrInsufficient is the error of a SpendFunc if the balance is too low.
var ErrInsufficient = errors.New("insufficient balance")

// SpendFunc takes money from a user.
type SpendFunc func(userID string, cents int64) error

// headerBalance tells the gateway that the balance has changed. The gateway removes the
// header, and reads the balance at the provider before it passes the balance on again.
const headerBalance = "Tollgate-Balance"

// headerCost tells the gateway the cost of a response, as a header or as a trailer. The
// cost replaces the amount that the gateway held for the request.
const headerCost = "Tollgate-Cost"

// usualPace is the pause before each word of an answer.
const usualPace = 30 * time.Millisecond

// app is the application.
type app struct {
	spend     SpendFunc
	pace      time.Duration
	questions questions
}

// New returns the application.
func New(spend SpendFunc) http.Handler {
	return (&app{spend: spend, pace: usualPace}).handler()
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+homePath, a.home)
	mux.HandleFunc("POST "+askPath, a.ask)
	mux.HandleFunc("GET "+answersPath+"{id}", a.answer)
	mux.HandleFunc("POST "+modelPath, a.model)
	mux.HandleFunc("POST "+refreshPath, a.refreshBalance)
	mux.HandleFunc("GET "+publicPath, a.public)
	mux.HandleFunc("GET "+optionalPath, a.optional)
	mux.HandleFunc("GET "+assetsPath, serveAsset)

	// The gateway knows who the user is, but not whether the user wanted this. A page of
	// another site could send the form, and the browser would add the session cookie.
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		showMessage(w, r, http.StatusForbidden, "Refused", "This form was sent by another site.")
	}))
	return sameOrigin.Handler(mux)
}

// user is the signed-in user, with the balance, from the gateway's headers.
type user struct {
	ID, Name, Email string
	// Balance, Age and State are as the gateway wrote them.
	Balance, Age, State string
}

// userOf reads the gateway's headers. They can be trusted because only the gateway can
// reach this application, and the gateway removes these headers from the requests of
// clients.
func userOf(h http.Header) (user, bool) {
	u := user{
		ID:      decode(h.Get("X-User-Id")),
		Name:    decode(h.Get("X-User-Name")),
		Email:   decode(h.Get("X-User-Email")),
		Balance: h.Get("X-User-Balance"),
		Age:     h.Get("X-User-Balance-Age"),
		State:   h.Get("X-User-Balance-State"),
	}
	return u, u.ID != ""
}

// decode decodes the percent-encoding, which allows any name in a header.
func decode(value string) string {
	decoded, err := url.PathUnescape(value)
	if err != nil || !utf8.ValidString(decoded) {
		return value
	}
	return decoded
}

// UsedUp reports whether the balance is known and too low for one answer.
func (u user) UsedUp() bool {
	balance, ok := new(big.Rat).SetString(u.Balance)
	return ok && balance.Cmp(spendAmount) < 0
}

// Initial returns the first letter of the user's name, which is shown instead of a picture.
func (u user) Initial() string {
	for _, text := range []string{u.Name, u.Email, u.ID} {
		if r, size := utf8.DecodeRuneInString(text); size > 0 {
			return strings.ToUpper(string(r))
		}
	}
	return "?"
}

// Since returns the age of the balance in words.
func (u user) Since() string {
	switch u.Age {
	case "":
		return "of unknown age"
	case "0":
		return "read just now"
	case "1":
		return "read 1 second ago"
	default:
		return "read " + u.Age + " seconds ago"
	}
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	if _, ok := userOf(r.Header); !ok {
		showMessage(w, r, http.StatusForbidden, "You bypassed the gateway",
			"This is the application itself, and no identity header arrived. Only the gateway should be able to reach it.")
		return
	}
	// This is a cookie of the application. The gateway does not remove it.
	http.SetCookie(w, &http.Cookie{Name: "demo_app", Value: "own-cookie", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	showPage(w, r, http.StatusOK, "home.html", "Your account")
}

// refreshBalance redirects to the page. The gateway reads the balance again before it
// forwards the next request, so the page needs no script.
func (a *app) refreshBalance(w http.ResponseWriter, r *http.Request) {
	if _, ok := userOf(r.Header); !ok {
		showSignedOut(w, r)
		return
	}
	w.Header().Set(headerBalance, "changed")
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// showSignedOut responds to a form that was sent after signing out in another tab. It does
// not redirect to the sign-in: browsers would block the redirect to the provider, because
// of form-action in our own policy.
func showSignedOut(w http.ResponseWriter, r *http.Request) {
	showPage(w, r, http.StatusUnauthorized, "signedout.html", "You are signed out")
}

func (a *app) public(w http.ResponseWriter, r *http.Request) {
	if !wantsPage(r) {
		showText(w, r)
		return
	}
	showPage(w, r, http.StatusOK, "public.html", "A public page")
}

func (a *app) optional(w http.ResponseWriter, r *http.Request) {
	if !wantsPage(r) {
		showText(w, r)
		return
	}
	title := "Hello, stranger"
	if u, ok := userOf(r.Header); ok {
		title = fmt.Sprintf("Hello, %s", u.Name)
	}
	showPage(w, r, http.StatusOK, "optional.html", title)
}

// wantsPage reports whether the request is from a browser, and not from curl.
func wantsPage(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// headerField is one header field of the request.
type headerField struct{ Name, Value string }

// usualOrder is the order in which the page shows the headers.
var usualOrder = []string{
	"X-User-Id", "X-User-Name", "X-User-Email", "X-User-Balance", "X-User-Balance-State",
	"X-User-Balance-Age", "X-User-Quota", "X-User-Used-Quota",
}

// identityHeaders returns the X-User headers of a request.
func identityHeaders(h http.Header) []headerField {
	var fields []headerField
	for name, values := range h {
		if strings.HasPrefix(name, "X-User-") {
			fields = append(fields, headerField{name, strings.Join(values, ", ")})
		}
	}
	rank := func(f headerField) int {
		if i := slices.Index(usualOrder, f.Name); i >= 0 {
			return i
		}
		return len(usualOrder)
	}
	slices.SortFunc(fields, func(x, y headerField) int {
		if d := rank(x) - rank(y); d != 0 {
			return d
		}
		return strings.Compare(x.Name, y.Name)
	})
	return fields
}
