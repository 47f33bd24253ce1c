// Package web holds the pages that users see from the gateway, and the script for
// applications. A page is one self-contained document: it loads nothing, and its
// Content-Security-Policy allows only the bytes that it contains.
//
// It does not decide which page is shown or with which status. Begin with Pages.Render
// for the pages, and with NewSDK for the script.
package web

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Page names one of the gateway's pages.
type Page string

const (
	// SignIn asks for a click before the browser goes to the provider.
	SignIn Page = "sign_in"
	// SignedOut is shown after a logout.
	SignedOut Page = "signed_out"
	// Logout has the form whose POST signs the user out.
	Logout Page = "logout"
	// Popup has a script that reports the end of a login to the page that opened the
	// window.
	Popup Page = "popup"
	// Continue is shown for an instant. The caller sets a Refresh header, which continues.
	Continue Page = "continue"
	// Error explains why a login failed, by Data.Cause, and leads to StartURL. Without
	// one it leads back to HomeURL: the user is signed in.
	Error Page = "error"
	// Forbidden tells a signed-in user that the account is not accepted.
	Forbidden Page = "forbidden"
	// Unavailable asks the user to wait. The caller sets a Refresh header, which retries.
	Unavailable Page = "unavailable"
	// Balance tells a signed-in user that the balance is too low, and how to top up.
	Balance Page = "balance"
	// Budget tells a signed-in user that a budget of the application is used up, and
	// when it resets.
	Budget Page = "budget"
)

// Data is what a page may show. Each page uses the fields it needs.
//
// The URLs are paths on this origin. Any other URL is left out together with its
// link or button, so that a mistake in a caller does not become an open redirect.
type Data struct {
	// AcceptLanguage is the request's Accept-Language header, which decides the language.
	AcceptLanguage string

	// Brand is the operator's name of the application, shown as text.
	// Default: neutral wording.
	Brand string

	// Provider is the name of the identity provider.
	Provider string

	StartURL  string // sign in, start again
	LogoutURL string // action of the form that signs out (POST)
	HomeURL   string // where Continue goes, and the way back from the other pages
	SwitchURL string // action of the form of Forbidden that signs in with another account (POST)
	RetryURL  string // "try again" of Unavailable, Balance and Budget
	TopupURL  string // where Balance lets the user top up, in a new tab

	// Balance is the user's balance as the provider wrote it, and Required the amount that
	// the request needs. An empty Balance is unknown.
	Balance, Required string

	// Budget is how much the user may spend, and Spent how much the user has spent of
	// it. Both are amounts as text.
	Budget, Spent string

	// ResetsAt is when the budget resets. The zero time leaves the sentence out.
	ResetsAt time.Time

	// Cause is why a login failed, or why Unavailable is shown: a code of package cause.
	// Any other value gets the general text and is not shown itself.
	Cause string

	// Words is the key of the explanation, if it is not that of Cause: topup.
	Words string

	// RequestID finds the request in the logs. It is shown beside a Cause.
	RequestID string

	// RetryAfter is the number of seconds until Unavailable tries again, as in
	// the Refresh header that the caller sets. On Budget it is the number of seconds
	// until ResetsAt. Zero leaves the number out.
	RetryAfter int

	// SigningIn is true if Unavailable interrupted a sign-in. The page then must not say
	// that the user is still signed in.
	SigningIn bool

	// SignedIn is true if it is known that the user is signed in. User is then the name of
	// the user, or empty if nobody is signed in.
	SignedIn bool
	User     string

	Popup PopupMessage
}

// PopupMessage is what the popup page posts to its opener and on the
// BroadcastChannel "tollgate":
//
//	{"type":"tollgate:login","ok":true,"nonce":…}
//	{"type":"tollgate:login","ok":false,"nonce":…,"error":…}
type PopupMessage struct {
	OK    bool
	Nonce string

	// Error is a code like Data.Cause, and explains the page too. Any other
	// value is posted as server_error. Not used when OK.
	Error string

	// Origin is the exact target origin of the message, such as
	// https://app.example.com. It is required. Render refuses everything but one
	// http or https origin, "*" included.
	Origin string
}

var errOrigin = errors.New("popup needs the exact http or https origin of its opener")

// allPages lists all pages.
var allPages = []Page{SignIn, SignedOut, Logout, Popup, Continue, Error, Forbidden, Unavailable, Balance, Budget}

//go:embed templates/*.html
var templateFiles embed.FS

// Options are the operator's settings for the look of the pages.
type Options struct {
	Logo   Logo
	Accent Accent
	// Folder holds the operator's templates that replace ours: layout.html, style.css
	// and <page>.html. Default: none.
	Folder fs.FS
}

// Pages are the gateway's pages, ready to be shown.
type Pages struct {
	templates map[Page]*template.Template
	style     string
	logo      Logo

	policies map[Page]string
}

// New prepares the pages. It returns an error, which names the file, if a file in the
// folder cannot be used.
func New(o Options) (*Pages, error) {
	own, err := readFolder(o.Folder)
	if err != nil {
		return nil, err
	}
	style, err := own.style()
	if err != nil {
		return nil, err
	}
	p := &Pages{policies: map[Page]string{}, style: style + o.Accent.css, logo: o.Logo}
	for _, page := range allPages {
		p.policies[page] = contentSecurityPolicy(p.style, scripts[page])
	}
	if p.templates, err = own.templates(); err != nil {
		return nil, err
	}
	return p, p.rehearse(own)
}

// Document is a page as it is sent.
type Document struct {
	Body []byte
	// Policy is the exact value of its Content-Security-Policy header.
	Policy string
	// Language is the value of its Content-Language header. It depends on Accept-Language.
	Language string
}

// Render returns the whole document of a page. The caller sends it with the other
// headers and the status.
//
// The popup page must be sent without Cross-Origin-Opener-Policy. With that header
// a window that comes back from the provider would lose its opener. Every other page
// can have it.
func (p *Pages) Render(page Page, d Data) (Document, error) {
	t, ok := p.templates[page]
	if !ok {
		return Document{}, fmt.Errorf("rendering page: no page %q", page)
	}
	v := p.newView(page, d)
	if page == Popup && !origin.MatchString(v.Popup.Origin) {
		return Document{}, fmt.Errorf("rendering page popup: %w", errOrigin)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "layout.html", v); err != nil {
		return Document{}, fmt.Errorf("rendering page %s: %w", page, err)
	}
	return Document{Body: b.Bytes(), Policy: p.policies[page], Language: v.Lang()}, nil
}

// view is Data made safe to be shown. Templates see only this.
type view struct {
	Data
	Code   string // the cause if it is a known one
	Logo   template.URL
	Style  template.CSS
	Script template.JS

	page Page
	lang *translation
}

func (p *Pages) newView(page Page, d Data) view {
	for _, text := range []*string{&d.Brand, &d.Provider, &d.Balance, &d.Required, &d.Budget, &d.Spent, &d.RequestID, &d.User} {
		*text = oneLine(*text)
	}
	d.RetryAfter = max(d.RetryAfter, 0)
	for _, u := range []*string{&d.StartURL, &d.LogoutURL, &d.HomeURL, &d.RetryURL, &d.TopupURL, &d.SwitchURL} {
		if !isPath(*u) {
			*u = ""
		}
	}
	if page == Popup {
		d.Cause = d.Popup.Error
		d.Popup.Error = popupError(d.Popup)
	}
	return view{
		Data:   d,
		Code:   knownCode(d.Cause),
		Logo:   p.logo.url,
		Style:  template.CSS(p.style),      //nolint:gosec // the operator's, or our own embedded file
		Script: template.JS(scripts[page]), //nolint:gosec // our own embedded file
		page:   page,
		lang:   choose(d.AcceptLanguage),
	}
}

// Lang is the language tag of the page.
func (v view) Lang() string { return v.lang.tag.String() }

// Dir is the direction of the page's script: ltr or rtl.
func (v view) Dir() string { return v.lang.text["dir"] }

// T returns the text of key, or of its variant for a brand or a number.
func (v view) T(key string) (string, error) {
	date, err := v.lang.date(v.ResetsAt)
	if err != nil {
		return "", err
	}
	return v.lang.fill(v.lang.variant(key, v.Brand != "", v.RetryAfter),
		"brand", v.Brand, "provider", v.Provider, "code", v.Code, "request", v.RequestID,
		"seconds", v.lang.number(v.RetryAfter), "balance", v.Balance, "required", v.Required,
		"budget", v.Budget, "spent", v.Spent, "date", date, "user", v.User)
}

// Why returns one part of the explanation of the cause: title, text or next.
func (v view) Why(part string) (string, error) {
	return v.T("cause." + explanation(v.Words, v.Cause) + "." + part)
}

// Title is the title of the window.
func (v view) Title() (string, error) {
	title, err := v.pageTitle()
	if err != nil || v.Brand == "" {
		return title, err
	}
	return v.lang.fill("title_brand", "title", title, "brand", v.Brand)
}

func (v view) pageTitle() (string, error) {
	switch {
	case v.page == Error, v.page == Popup && !v.Popup.OK:
		return v.Why("title")
	case v.page == Balance && v.Balance == "":
		return v.T("balance.heading_unknown")
	}
	return v.T(string(v.page) + ".title")
}

func popupError(m PopupMessage) string {
	if m.OK {
		return ""
	}
	if code := knownCode(m.Error); code != "" {
		return code
	}
	return "server_error"
}

// oneLine makes a name valid text on one line, which cannot change the direction of the
// text around it.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r):
			return ' '
		case unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return strings.Join(strings.Fields(s), " ")
}

// FirstVisible returns the first text that has a visible character: a letter, a digit, a
// punctuation mark or a symbol. It returns "" if no text has one.
func FirstVisible(texts ...string) string {
	i := slices.IndexFunc(texts, func(text string) bool {
		return strings.ContainsFunc(oneLine(text), func(r rune) bool { return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S) })
	})
	if i < 0 {
		return ""
	}
	return texts[i]
}

// isPath reports whether a browser that follows s stays on this origin. A
// browser reads \ as / and ignores tabs and line breaks, so that /\evil
// and "/<tab>/evil" are other hosts.
func isPath(s string) bool {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r == '\\' || unicode.IsControl(r) })
}

// origin matches an origin as browsers write it in Origin and event.origin:
// without path, user and wildcard, and in one spelling.
var origin = regexp.MustCompile(`^https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`)
