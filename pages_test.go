package tollgate_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
)

// parsedPage is a page as a browser reads it.
type parsedPage struct {
	shape []string // every element, with the names of its attributes
	words string   // the text that people see
	attrs map[string]string
}

func parsePage(t *testing.T, a *gatewaytest.Answer) parsedPage {
	t.Helper()
	root, err := html.Parse(strings.NewReader(a.Text))
	if err != nil {
		t.Fatal(err)
	}
	p := parsedPage{attrs: map[string]string{}}
	var words strings.Builder
	for n := range root.Descendants() {
		switch {
		case n.Type == html.ElementNode:
			element := n.Data
			for _, attribute := range n.Attr {
				element += " " + attribute.Key
				p.attrs[n.Data+" "+attribute.Key] = attribute.Val
			}
			p.shape = append(p.shape, element)
		case n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "script":
			words.WriteString(n.Data + " ")
		}
	}
	p.words = strings.Join(strings.Fields(words.String()), " ")
	return p
}

func TestAPageIsInTheBrowsersLanguageAndSaysSo(t *testing.T) {
	t.Parallel()
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "login_page on"})
	for header, want := range map[string]struct{ language, words string }{
		"":                        {"en", "Sign in to continue"},
		"ja,en;q=0.5":             {"ja", "続けるにはログインしてください"},
		"zh-TW":                   {"zh-Hant", "請登入後繼續"},
		"zh-CN,zh;q=0.9,en;q=0.8": {"zh-Hans", "请登录后继续"},
		"pt":                      {"pt-BR", "Entre para continuar"},
		"es-AR":                   {"es", "Inicie sesión para continuar"},
		"<b>, de;q=x":             {"en", "Sign in to continue"},
	} {
		a := s.NewBrowser().Visit("/page", "Accept-Language: "+header)
		page := parsePage(t, a)
		if !strings.Contains(page.words, want.words) {
			t.Errorf("%q: %s", header, page.words)
		}
		if page.attrs["html lang"] != want.language || page.attrs["html dir"] != "ltr" || a.Header.Get("Content-Language") != want.language {
			t.Errorf("%q: lang %q, dir %q, Content-Language %q, want %s", header,
				page.attrs["html lang"], page.attrs["html dir"], a.Header.Get("Content-Language"), want.language)
		}
		if vary := a.Header.Values("Vary"); !strings.Contains(strings.Join(vary, ", "), "Accept-Language") {
			t.Errorf("%q: Vary: %v", header, vary)
		}
		if got := a.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
			t.Errorf("%q: Content-Type: %s", header, got)
		}
	}

	// Two lines of one header are one list.
	a := s.NewBrowser().Visit("/page", "Accept-Language: de", "Accept-Language: ja")
	if got := a.Header.Get("Content-Language"); got != "ja" {
		t.Errorf("two lines: Content-Language: %s", got)
	}

	// Programs read titles, too.
	a = s.NewBrowser().Get("/page", "Accept-Language: ja")
	if !strings.Contains(a.Text, `"title":"Authentication required"`) || a.Header.Get("Content-Language") != "" {
		t.Errorf("a problem document in another language: %s %v", a.Text, a.Header)
	}
}

func TestPagesCallTheProviderByItsName(t *testing.T) {
	t.Parallel()
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "login_page on"})
	if page := parsePage(t, s.NewBrowser().Visit("/")); !strings.Contains(page.words, "Sign in with AIHubMix") {
		t.Errorf("aihubmix: %s", page.words)
	}
	s.Caddyfile = strings.Replace(s.Caddyfile, "provider aihubmix {", "provider oauth2 {\nauthorization_endpoint /a\ntoken_endpoint /t\nuserinfo_endpoint /u", 1)
	s.Load()
	host := strings.TrimPrefix(s.ProviderURL, "http://")
	if page := parsePage(t, s.NewBrowser().Visit("/")); !strings.Contains(page.words, "Sign in with "+host) || strings.Contains(page.words, "AIHubMix") {
		t.Errorf("oauth2: %s", page.words)
	}
}

func TestLogoAndAccentAreOnThePagesAndAllowedByTheirPolicy(t *testing.T) {
	t.Parallel()
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "login_page on\nbrand Acme\nlogo testdata/logo.svg\naccent \"#0a7d55\""})
	a := s.NewBrowser().Visit("/")
	page := parsePage(t, a)
	logo := "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(manualtest.ReadFile(t, "testdata/logo.svg")))
	if page.attrs["img src"] != logo || page.attrs["img alt"] != "Acme" {
		t.Errorf("img src=%.60q alt=%q", page.attrs["img src"], page.attrs["img alt"])
	}
	_, style, _ := strings.Cut(a.Text, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	policy := a.Header.Get("Content-Security-Policy")
	if !strings.Contains(style, "--accent: #0a7d55;") || !strings.Contains(policy, base64.StdEncoding.EncodeToString(sum[:])) {
		t.Errorf("the accent is not in the style sheet that the policy allows: %s", policy)
	}
	if !strings.Contains(policy, "img-src data:;") {
		t.Errorf("the policy does not allow the logo: %s", policy)
	}
}

func TestOwnTemplatesAreReadAnewWithEveryReload(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sign_in.html", `{{define "main"}}<h1>First</h1><a href="{{.StartURL}}">in</a>{{end}}`)
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "login_page on\npages " + folder})
	heading := func() string {
		a := s.NewBrowser().Visit("/page")
		if a.StatusCode != http.StatusUnauthorized || !strings.Contains(a.Text, `<a href="/oauth/start?return_to=%2Fpage">in</a>`) {
			t.Errorf("status %d: %s", a.StatusCode, a.Text)
		}
		return parsePage(t, a).words
	}
	if got := heading(); !strings.Contains(got, "First") {
		t.Errorf("page: %s", got)
	}
	write("sign_in.html", `{{define "main"}}<h1>Second</h1><a href="{{.StartURL}}">in</a>{{end}}`)
	if got := heading(); !strings.Contains(got, "First") {
		t.Errorf("changed without a reload: %s", got)
	}
	s.Load()
	if got := heading(); !strings.Contains(got, "Second") {
		t.Errorf("after a reload: %s", got)
	}

	for name, want := range map[string]string{
		"sign_in.html": "pages: " + folder + ": template: sign_in.html:2: function \"nope\" not defined, at Caddyfile:",
		"logut.html":   "pages: " + folder + ": logut.html is not the name of a page; the names are layout.html, style.css, sign_in.html, ",
	} {
		write(name, "{{define \"main\"}}\n{{nope}}{{end}}")
		_, _, err := gatewaytest.Provision(s.Caddyfile)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got  %v\n want %s", name, err, want)
		}
		os.Remove(filepath.Join(folder, name))
	}
	write("logut.html", "")
	if _, _, err := gatewaytest.Provision(s.Caddyfile); err == nil || !strings.Contains(err.Error(), "did you mean 'logout.html'?, at Caddyfile:") {
		t.Errorf("the nearest name: %v", err)
	}
}

// hostileTexts are markup and control characters, as far as they go through HTTP.
var hostileTexts = []string{
	`<script>alert(1)</script>`,
	`"><img src=x onerror=alert(1)>`,
	`' autofocus onfocus='alert(1)`,
	`</title></style></main><h1>Enter your password</h1>`,
	`javascript:alert(1)`,
	`{{.Brand}}{brand}{seconds}`,
	`-->]]>*/}`,
	"\x00\x01\x1b[2J\r\nSet-Cookie: a=b\t\x7f\u0085\u2028",
	"\u202eright to left\u2066\u200f",
	"broken \xff utf-8",
}

// TestTextOfARequestNeverBecomesMarkup fills in everything that reaches a page:
// what the provider's answer says in its query, the path, the query, the referring page,
// the language.
// requestID is the id of a request on a page. It differs each time.
var requestID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// words gives the words of a page without the id of the request.
func words(text string) string { return requestID.ReplaceAllString(text, "ID") }

func TestTextOfARequestNeverBecomesMarkup(t *testing.T) {
	t.Parallel()
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "login_page on\nbrand \"Acme & Söhne <b>\"\nrequire {\nbalance 1000000\n}\nrequire /only* {\nuser nobody\n}"})
	signedIn := s.NewBrowser()
	signedIn.Follow("/oauth/start") // ends on the page with the balance

	pages := map[string]func(text, headerText string) *gatewaytest.Answer{
		"error": func(text, headerText string) *gatewaytest.Answer {
			q := url.Values{"error": {text}, "error_description": {text}, "state": {text}, "error_uri": {text}}
			return s.NewBrowser().Visit("/oauth/callback?"+q.Encode(), "Referer: "+headerText, "Accept-Language: "+headerText)
		},
		"sign-in": func(text, headerText string) *gatewaytest.Answer {
			return s.NewBrowser().Visit("/a"+url.PathEscape(text)+"?"+url.QueryEscape(text)+"="+url.QueryEscape(text),
				"Referer: "+headerText, "Accept-Language: "+headerText, "User-Agent: "+headerText)
		},
		"balance": func(text, headerText string) *gatewaytest.Answer {
			return signedIn.Visit("/a"+url.PathEscape(text)+"?q="+url.QueryEscape(text), "Referer: "+headerText, "Accept-Language: "+headerText)
		},
		"refused": func(text, headerText string) *gatewaytest.Answer {
			return signedIn.Visit("/only/"+url.PathEscape(text)+"?q="+url.QueryEscape(text), "Referer: "+headerText, "Accept-Language: "+headerText)
		},
		"signed out": func(text, headerText string) *gatewaytest.Answer {
			return s.NewBrowser().Visit("/oauth/logout?text="+url.QueryEscape(text), "Referer: "+headerText, "Accept-Language: "+headerText)
		},
		"logout": func(text, headerText string) *gatewaytest.Answer {
			return signedIn.Visit("/oauth/logout?q="+url.QueryEscape(text), "Referer: "+headerText, "Accept-Language: "+headerText)
		},
	}
	statuses := map[string]int{"error": 400, "sign-in": 401, "balance": 402, "refused": 403, "signed out": 200, "logout": 200}
	for name, open := range pages {
		// No link leads to a path that is not UTF-8, so its page has other elements.
		harmless := map[bool]parsedPage{true: parsePage(t, open("x", "en")), false: parsePage(t, open("\xff", "en"))}
		for _, text := range hostileTexts {
			benign := harmless[utf8.ValidString(text)]
			a := open(text, inHeader(text))
			if a.StatusCode == http.StatusBadRequest && name != "error" {
				continue // a path that can be read in two ways gets no page at all
			}
			if a.StatusCode != statuses[name] || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
				t.Errorf("%s, %q: status %d, %s", name, text, a.StatusCode, a.Header.Get("Content-Type"))
				continue
			}
			page := parsePage(t, a)
			if !slices.Equal(page.shape, benign.shape) {
				t.Errorf("%s: %q changed the elements:\n%s", name, text, a.Text)
			}
			if words(page.words) != words(benign.words) || !strings.Contains(page.words, "Acme & Söhne <b>") {
				t.Errorf("%s: %q changed the words to %q", name, text, page.words)
			}
			for attribute, value := range page.attrs {
				leads := strings.HasSuffix(attribute, " href") || strings.HasSuffix(attribute, " action")
				if leads && attribute != "link href" && (!strings.HasPrefix(value, "/") || strings.HasPrefix(value, "//")) {
					t.Errorf("%s: %q became %s=%q", name, text, attribute, value)
				}
			}
			if strings.ContainsFunc(a.Text, func(r rune) bool { return r < ' ' && r != '\n' }) {
				t.Errorf("%s: %q brought control characters onto the page", name, text)
			}
		}
	}
}

// inHeader takes out what an HTTP client refuses to send in a header.
func inHeader(text string) string {
	return strings.Map(func(r rune) rune {
		if (r < ' ' && r != '\t') || r == 0x7f {
			return '?'
		}
		return r
	}, text)
}
