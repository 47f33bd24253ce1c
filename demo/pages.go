package demo

import (
	"bytes"
	"embed"
	"html/template"
	"io"
	"net/http"
	"strings"
)

//go:embed pages assets
var files embed.FS

// pages holds each page inside the common layout.
var pages = parsePages("home.html", "answer.html", "public.html", "optional.html", "signedout.html", "message.html")

func parsePages(names ...string) map[string]*template.Template {
	parsed := make(map[string]*template.Template, len(names))
	for _, name := range names {
		parsed[name] = template.Must(template.ParseFS(files, "pages/layout.html", "pages/"+name))
	}
	return parsed
}

// wordsComeHere is the place in the page of an answer where the words are inserted.
const wordsComeHere = "<slot></slot>"

// policy allows our own style sheet, icon and script, and forms and calls to this origin.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// page is the data of every template.
type page struct {
	Title string
	Text  string
	Path  string
	// Origin is the origin of the gateway in the user's browser.
	Origin string

	SignedIn bool
	User     user
	Headers  []headerField
	Cookie   string

	Ask, Answers, Model, Refresh, Public, Optional string // the application's paths
	SignIn, TopUp, SignOut, Userinfo, Reread       string // the gateway's
}

func newPage(r *http.Request, title string) page {
	u, signedIn := userOf(r.Header)
	return page{
		Title:    title,
		Path:     r.URL.Path,
		Origin:   "http://" + r.Host,
		SignedIn: signedIn,
		User:     u,
		Headers:  identityHeaders(r.Header),
		Cookie:   strings.Join(r.Header["Cookie"], "; "),
		Ask:      askPath,
		Answers:  answersPath,
		Model:    modelPath,
		Refresh:  refreshPath,
		Public:   publicPath,
		Optional: optionalPath,
		SignIn:   startPath,
		TopUp:    topUpPath,
		SignOut:  logoutPath,
		Userinfo: userinfoPath,
		Reread:   rereadPath,
	}
}

func showPage(w http.ResponseWriter, r *http.Request, status int, name, title string) {
	writePage(w, status, name, newPage(r, title))
}

func showMessage(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	p := newPage(r, title)
	p.Text = text
	writePage(w, status, "message.html", p)
}

func writePage(w http.ResponseWriter, status int, name string, p page) {
	if text, ok := render(w, name, p); ok {
		writeHeader(w, status)
		_, _ = io.WriteString(w, text)
	}
}

// render returns a whole page. If it returns false, it has written an error.
func render(w http.ResponseWriter, name string, p page) (text string, ok bool) {
	var b bytes.Buffer
	if err := pages[name].ExecuteTemplate(&b, "layout.html", p); err != nil {
		http.Error(w, "the page failed", http.StatusInternalServerError)
		return "", false
	}
	return b.String(), true
}

func writeHeader(w http.ResponseWriter, status int) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer: browsers would send "Origin: null" with our own forms.
	h.Set("Referrer-Policy", "same-origin")
	// The back button must not show an account after signing out.
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
}

// showText writes the identity headers as plain text, for requests from a terminal.
func showText(w http.ResponseWriter, r *http.Request) {
	var text strings.Builder
	fields := identityHeaders(r.Header)
	for _, field := range fields {
		text.WriteString(field.Name + ": " + field.Value + "\n")
	}
	if len(fields) == 0 {
		text.WriteString("No X-User header arrived here.\n")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, text.String())
}

func serveAsset(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, files, strings.TrimPrefix(r.URL.Path, "/"))
}
