package web

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func folder(files map[string]string) fs.FS {
	f := fstest.MapFS{}
	for name, text := range files {
		f[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return f
}

const ownSignIn = `{{define "main"}}<main><h1>Hello from {{.Brand}}</h1>
<a href="{{.StartURL}}">{{.T "sign_in.button"}}</a></main>{{end}}`

func TestOwnTemplateReplacesOnlyItsPage(t *testing.T) {
	p := mustNew(Options{Folder: folder(map[string]string{"sign_in.html": ownSignIn, ".DS_Store": "\x00"})})
	for _, page := range allPages {
		own, err := p.Render(page, fullData())
		if err != nil {
			t.Fatal(err)
		}
		ours, _ := standard.Render(page, fullData())
		if page != SignIn {
			if string(own.Body) != string(ours.Body) || own.Policy != ours.Policy {
				t.Errorf("%s is another page than before", page)
			}
			continue
		}
		doc := parse(t, own)
		if got := text(doc.one(t, "h1")); got != "Hello from Acme Studio" {
			t.Errorf("heading %q", got)
		}
		if got := text(doc.one(t, "a")); got != "Sign in with AIHubMix" {
			t.Errorf("link %q", got)
		}
	}
}

func TestOwnLayoutAndStyleApplyToEveryPage(t *testing.T) {
	p := mustNew(Options{Accent: mustParseAccent(t, "0a7d55"), Folder: folder(map[string]string{
		"layout.html": `<!doctype html><html lang="{{.Lang}}"><title>{{.Title}}</title><style>{{.Style}}</style><body class="own">{{template "main" .}}`,
		"style.css":   "body { color: red }\r\n",
	})})
	for _, page := range allPages {
		rendered, err := p.Render(page, fullData())
		if err != nil {
			t.Fatal(err)
		}
		doc := parse(t, rendered)
		if class, _ := attr(doc.one(t, "body"), "class"); class != "own" {
			t.Errorf("%s: not the own layout", page)
		}
		style := text(doc.one(t, "style"))
		if !strings.HasPrefix(style, "body { color: red }\n") || !strings.Contains(style, "--accent: #0a7d55") {
			t.Errorf("%s: style %q", page, style)
		}
		if !strings.Contains(rendered.Policy, hashOf(style)) {
			t.Errorf("%s: the policy does not allow the own style", page)
		}
	}
}

func TestOwnTemplatesEscapeHostileText(t *testing.T) {
	p := mustNew(Options{Folder: folder(map[string]string{"sign_in.html": ownSignIn})})
	want, _ := p.Render(SignIn, fullData())
	for _, h := range hostile {
		d := fullData()
		d.Brand, d.Provider, d.AcceptLanguage = h, h, h
		got, err := p.Render(SignIn, d)
		if err != nil {
			t.Fatal(err)
		}
		if parse(t, got).shape() != parse(t, want).shape() || got.Policy != want.Policy {
			t.Errorf("%q changed the page:\n%s", h, got.Body)
		}
	}
}

func TestErrorInAnOwnTemplateNamesFileAndLine(t *testing.T) {
	in := func(main string) string {
		return "{{define \"main\"}}\n<a href=\"{{.StartURL}}\">x</a>\n" + main + "\n{{end}}"
	}
	for name, c := range map[string]struct{ file, text, want string }{
		"broken":            {"sign_in.html", in("{{if}}"), "sign_in.html:3: missing value for if"},
		"not closed":        {"sign_in.html", "{{define \"main\"}}\n{{if .Brand}}", "sign_in.html:2: unexpected EOF"},
		"unknown function":  {"sign_in.html", in("{{shout .Brand}}"), `sign_in.html:3: function "shout" not defined`},
		"unknown field":     {"sign_in.html", in("{{.Brnad}}"), "sign_in.html:3:2"},
		"in a rare branch":  {"error.html", in(`{{if eq .Code "invalid_grant"}}{{.Nope}}{{end}}`), "error.html:3:"},
		"without a brand":   {"signed_out.html", in(`{{if not .Brand}}{{.Nope}}{{end}}`), "signed_out.html:3:"},
		"unknown text":      {"sign_in.html", in(`{{.T "sign_in.nope"}}`), `sign_in.html:3:2: executing "main" at <.T>: error calling T: language en has no text "sign_in.nope"`},
		"bad markup":        {"sign_in.html", in(`<a href="{{if .Brand}}/x{{else}}" id="{{end}}">`), "sign_in.html:3"},
		"no main":           {"sign_in.html", "<main>hello</main>", `sign_in.html: defines no "main"`},
		"a script":          {"sign_in.html", in("<p>\n<script>alert(1)</script>"), "sign_in.html:4: <script> is not {{.Script}}"},
		"a script in all":   {"layout.html", "<style>{{.Style}}</style>\n{{template \"main\" .}}<script src=\"/x.js\"></script>", "layout.html:2: <script> loads a file"},
		"an event handler":  {"sign_in.html", in(`<button onclick="go()">`), "sign_in.html:3: <button> has the attribute onclick"},
		"a style":           {"sign_in.html", in("<style>p { color: red }</style>"), "sign_in.html:3: <style> is not {{.Style}}, and browsers ignore it: write the style into style.css"},
		"a style attribute": {"sign_in.html", in(`<p>a</p><p class="x" style="color: red">b</p>`), "sign_in.html:3: <p> has a style attribute"},
		"a picture":         {"sign_in.html", in(`<img src="/logo.png" alt="">`), "sign_in.html:3: <img> loads a file"},
		"a style sheet":     {"layout.html", "<!doctype html>\n<link rel=\"stylesheet\" href=\"/x.css\">{{template \"main\" .}}", "layout.html:2: <link> loads a file"},
		"a frame":           {"sign_in.html", in("<iframe></iframe>"), "sign_in.html:3: <iframe> is not allowed"},
		"no way in":         {"sign_in.html", `{{define "main"}}<h1>Hello</h1>{{end}}`, "sign_in.html: has no link to {{.StartURL}}"},
		"no way out":        {"logout.html", `{{define "main"}}<a href="{{.LogoutURL}}">x</a>{{end}}`, "logout.html: has no form that posts to {{.LogoutURL}}"},
		"a mute popup":      {"popup.html", `{{define "main"}}<main id="login"></main>{{end}}`, "popup.html: needs id=\"login\""},
		"an early popup":    {"popup.html", `{{define "main"}}<script>{{.Script}}</script><main id="login" data-ok="{{.Popup.OK}}" data-nonce="{{.Popup.Nonce}}" data-error="{{.Popup.Error}}" data-origin="{{.Popup.Origin}}"></main>{{end}}`, "popup.html: needs"},
		"a layout for none": {"layout.html", `<!doctype html><title>{{.Title}}</title>`, "layout.html: has no "},
		"a style that ends": {"style.css", "p {}\n</STYLE><script>", "style.css:2: </style would end the style sheet"},
	} {
		_, err := New(Options{Folder: folder(map[string]string{c.file: c.text})})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s:\n got  %v\n want %s", name, err, c.want)
		}
	}
}

func TestUnknownFileInTheFolderIsRefused(t *testing.T) {
	for _, name := range []string{"signin.html", "sign_in.htm", "parts.html", "SIGN_IN.html", "images/logo.png", "layout.html~"} {
		_, err := New(Options{Folder: folder(map[string]string{name: ownSignIn})})
		unknown, ok := errors.AsType[*UnknownFileError](err)
		if first, _, _ := strings.Cut(name, "/"); !ok || unknown.Name != first || len(unknown.Known) != len(allPages)+2 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Options{Folder: folder(nil)}); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
}

// Whoever begins with a copy of ours has something that works.
func TestCopiesOfOurOwnTemplatesAreAccepted(t *testing.T) {
	files := map[string]string{"style.css": styleFile}
	for _, page := range append([]Page{"layout"}, allPages...) {
		raw, err := templateFiles.ReadFile("templates/" + page.file())
		if err != nil {
			t.Fatal(err)
		}
		files[page.file()] = string(raw)
	}
	p, err := New(Options{Folder: folder(files)})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range allPages {
		own, _ := p.Render(page, fullData())
		ours, _ := standard.Render(page, fullData())
		if string(own.Body) != string(ours.Body) {
			t.Errorf("%s: a copy renders differently", page)
		}
	}
}
