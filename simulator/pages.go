package simulator

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
)

//go:embed pages
var pageFiles embed.FS

// pages holds each page inside the common layout. The templates are parsed
// once, do not change, and may run in parallel.
var pages = map[string]*template.Template{
	"signin.html":  parsePage("signin.html"),
	"consent.html": parsePage("consent.html"),
	"topup.html":   parsePage("topup.html"),
	"index.html":   parsePage("index.html"),
	"message.html": parsePage("message.html"),
}

func parsePage(name string) *template.Template {
	return template.Must(template.ParseFS(pageFiles, "pages/layout.html", "pages/"+name))
}

// contentPolicy allows only our own style sheet: no scripts, frames or resources
// of other sites.
const contentPolicy = "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"

// showPage writes a page whose forms do not leave the simulator.
func showPage(w http.ResponseWriter, status int, name string, data map[string]any) {
	writePage(w, status, name, contentPolicy+"; form-action 'self'", data)
}

// showLoginPage writes a page whose forms end in a redirect to the client. Its
// policy has no form-action: browsers apply form-action to redirects, too, and
// we cannot know where the client redirects the user afterwards.
func showLoginPage(w http.ResponseWriter, name string, data map[string]any) {
	writePage(w, http.StatusOK, name, contentPolicy, data)
}

func writePage(w http.ResponseWriter, status int, name, policy string, data map[string]any) {
	var page bytes.Buffer
	if err := pages[name].ExecuteTemplate(&page, "layout.html", data); err != nil {
		http.Error(w, "the page failed", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	// Not no-referrer: browsers would then send "Origin: null" with our own
	// forms. Without https, Origin is the only header to check them with.
	h.Set("Referrer-Policy", "same-origin")
	w.WriteHeader(status)
	_, _ = w.Write(page.Bytes())
}

func serveStyle(w http.ResponseWriter, r *http.Request) {
	http.ServeFileFS(w, r, pageFiles, "pages/style.css")
}

// showMessage writes a page with one sentence, mostly an error. It must not
// contain text from a request.
func showMessage(w http.ResponseWriter, status int, title, text string) {
	showPage(w, status, "message.html", map[string]any{"Title": title, "Text": text})
}

func showTopUpRefusal(w http.ResponseWriter) {
	showMessage(w, http.StatusForbidden, "Not your account",
		"Sign in first, or open this page from the application again. The link is valid for ten minutes.")
}

func (p *Provider) showSignIn(w http.ResponseWriter, a authorization) {
	showLoginPage(w, "signin.html", map[string]any{
		"Title":  "Sign in as",
		"Client": a.client,
		"Users":  p.Users(),
		"Action": LoginPath + "?" + a.query,
	})
}

// scopeTexts describe the scopes on the consent page.
var scopeTexts = []struct{ scope, text string }{
	{scopeProfile, "see your username and e-mail address"},
	{scopeBalance, "see your account balance"},
}

func (p *Provider) showConsent(w http.ResponseWriter, a authorization, user User) {
	var scopes []string
	for _, s := range scopeTexts {
		if hasScope(a.scope, s.scope) {
			scopes = append(scopes, s.text)
		}
	}
	showLoginPage(w, "consent.html", map[string]any{
		"Title":     "Allow access?",
		"Client":    a.client,
		"User":      user,
		"Scopes":    scopes,
		"Consent":   ConsentPath + "?" + a.query,
		"Logout":    LogoutPath + "?" + a.query,
		"CanChange": p.options.AutoLogin == "",
	})
}
