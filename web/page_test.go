package web

import (
	"bytes"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// standard are the pages without any option.
var standard = mustNew(Options{})

func mustNew(o Options) *Pages {
	p, err := New(o)
	if err != nil {
		panic(err)
	}
	return p
}

func fullData() Data {
	return Data{
		Brand:      "Acme Studio",
		Provider:   "AIHubMix",
		StartURL:   "/oauth/start?return_to=%2Fa&popup=1",
		LogoutURL:  "/oauth/logout",
		HomeURL:    "/home",
		RetryURL:   "/again",
		TopupURL:   "/oauth/topup",
		SwitchURL:  "/oauth/logout?sign_in=1",
		SignedIn:   true,
		User:       "Alice",
		Balance:    "0.30",
		Required:   "0.50",
		Budget:     "5.00",
		Spent:      "4.80",
		ResetsAt:   time.Date(2026, time.November, 28, 0, 0, 0, 0, time.UTC),
		Cause:      "invalid_state",
		RetryAfter: 5,
		Popup:      PopupMessage{OK: true, Nonce: "n1", Origin: "https://app.example.com"},
	}
}

func mustRender(t *testing.T, page Page, d Data) (*document, string) {
	t.Helper()
	rendered, err := standard.Render(page, d)
	if err != nil {
		t.Fatalf("rendering %s: %v", page, err)
	}
	return parse(t, rendered), rendered.Policy
}

func parse(t *testing.T, rendered Document) *document {
	t.Helper()
	root, err := html.Parse(bytes.NewReader(rendered.Body))
	if err != nil {
		t.Fatal(err)
	}
	return &document{root: root, body: string(rendered.Body)}
}

// document is a page as a browser understands it.
type document struct {
	root *html.Node
	body string
}

func (d *document) all(tag string) []*html.Node {
	var found []*html.Node
	for n := range d.root.Descendants() {
		if n.Type == html.ElementNode && (tag == "*" || n.Data == tag) {
			found = append(found, n)
		}
	}
	return found
}

func (d *document) one(t *testing.T, tag string) *html.Node {
	t.Helper()
	found := d.all(tag)
	if len(found) != 1 {
		t.Fatalf("page has %d <%s>, want 1:\n%s", len(found), tag, d.body)
	}
	return found[0]
}

// shape lists every element with the names of its attributes, in order.
func (d *document) shape() string {
	var b strings.Builder
	for _, n := range d.all("*") {
		b.WriteString(n.Data)
		for _, a := range n.Attr {
			b.WriteString(" " + a.Key)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// links are the places a click leads to.
func (d *document) links() []string {
	var found []string
	for _, n := range d.all("*") {
		for _, name := range []string{"href", "action"} {
			if v, ok := attr(n, name); ok && n.Data != "link" {
				found = append(found, v)
			}
		}
	}
	return found
}

func (d *document) visibleText() string {
	var b strings.Builder
	for n := range d.root.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "script" {
			b.WriteString(n.Data)
		}
	}
	return b.String()
}

func attr(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}

func text(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

func TestEveryPageIsOneCompleteDocument(t *testing.T) {
	for _, page := range allPages {
		t.Run(string(page), func(t *testing.T) {
			doc, _ := mustRender(t, page, fullData())
			if !strings.HasPrefix(doc.body, "<!doctype html>\n") {
				t.Error("no doctype")
			}
			if lang, _ := attr(doc.one(t, "html"), "lang"); lang != "en" {
				t.Errorf("lang = %q, want en", lang)
			}
			doc.one(t, "main")
			if text(doc.one(t, "h1")) == "" {
				t.Error("h1 is empty")
			}
			if title := text(doc.all("title")[0]); !strings.HasSuffix(title, " · Acme Studio") {
				t.Errorf("title = %q, want the brand at its end", title)
			}
			for _, want := range []string{
				`<meta charset="utf-8">`,
				`<meta name="viewport" content="width=device-width, initial-scale=1">`,
				`<meta name="color-scheme" content="light dark">`,
				`<meta name="robots" content="noindex">`,
				`<link rel="icon" href="data:,">`,
			} {
				if !strings.Contains(doc.body, want) {
					t.Errorf("no %s", want)
				}
			}
			if i := strings.Index(doc.body, "<meta charset"); i > 100 {
				t.Errorf("charset at byte %d, a browser wants it early", i)
			}
		})
	}
}

func TestEachPageHasItsLinksAndForms(t *testing.T) {
	d := fullData()
	for page, want := range map[Page][]string{
		SignIn:      {d.StartURL},
		SignedOut:   {d.StartURL},
		Logout:      {d.LogoutURL, d.HomeURL},
		Popup:       {d.HomeURL},
		Continue:    {d.HomeURL},
		Error:       {d.StartURL},
		Forbidden:   {d.SwitchURL, d.HomeURL},
		Unavailable: {d.RetryURL, d.StartURL},
		Balance:     {d.TopupURL, d.RetryURL, d.HomeURL},
		Budget:      {d.RetryURL, d.HomeURL},
	} {
		doc, _ := mustRender(t, page, d)
		if got := doc.links(); !slices.Equal(got, want) {
			t.Errorf("%s leads to %q, want %q", page, got, want)
		}
		for _, form := range doc.all("form") {
			if method, _ := attr(form, "method"); method != "post" {
				t.Errorf("%s: form method %q, want post: signing out by GET is refused", page, method)
			}
		}

		doc, _ = mustRender(t, page, Data{Popup: d.Popup})
		if got := doc.links(); len(got) != 0 {
			t.Errorf("%s without URLs leads to %q", page, got)
		}
	}
}

func TestWithoutABrandTheWordingIsNeutral(t *testing.T) {
	d := fullData()
	d.Brand = " \t\n"
	for _, page := range allPages {
		doc, _ := mustRender(t, page, d)
		if title := text(doc.all("title")[0]); title == "" || strings.Contains(title, "·") {
			t.Errorf("%s: title = %q", page, title)
		}
		if s := doc.visibleText(); strings.ContainsAny(s, "{}") {
			t.Errorf("%s: a placeholder is left in %q", page, s)
		}
	}
	doc, _ := mustRender(t, Logout, d)
	if got := text(doc.one(t, "h1")); got != "Sign out?" {
		t.Errorf("heading = %q", got)
	}
	doc, _ = mustRender(t, Logout, fullData())
	if got := text(doc.one(t, "h1")); got != "Sign out of Acme Studio?" {
		t.Errorf("heading = %q", got)
	}
}

var hostile = []string{
	`<script>alert(1)</script>`,
	`</title><img src=x onerror=alert(1)>`,
	`</style></script><svg onload=alert(1)>`,
	`" onmouseover="alert(1)" x="`,
	`' autofocus onfocus='alert(1)`,
	"` onclick=alert(1) `",
	`{{.Brand}} {brand} {seconds} {code}`,
	`&lt;b&gt;&#34;&quot;`,
	`javascript:alert(1)`,
	`--><h1>x</h1><!--`,
	"a\x00b\x01c\r\nd\te\x7f\u0085\u2028f",
	"left\u202eright\u2066to\u2069left\u200f",
	"broken \xff\xfe utf-8",
	`]]>*/;}`,
}

func TestHostileTextIsEscaped(t *testing.T) {
	for _, page := range allPages {
		for _, ok := range []bool{true, false} {
			benign := fullData()
			benign.Cause = "anything"
			benign.Popup.OK = ok
			want, wantCSP := mustRender(t, page, benign)

			for _, h := range hostile {
				d := benign
				d.Brand, d.Provider, d.Cause, d.Balance, d.Required, d.Budget, d.Spent, d.User, d.AcceptLanguage = h, h, h, h, h, h, h, h, h
				d.Popup.Nonce, d.Popup.Error = h, h
				doc, csp := mustRender(t, page, d)
				if doc.shape() != want.shape() {
					t.Errorf("%s: %q changed the elements:\n%s", page, h, doc.body)
				}
				if csp != wantCSP {
					t.Errorf("%s: %q changed the policy to %s", page, h, csp)
				}
				brand := text(brandOf(t, doc))
				if brand != oneLine(h) {
					t.Errorf("%s: brand reads %q, want %q", page, brand, oneLine(h))
				}
			}
		}
	}
}

func brandOf(t *testing.T, doc *document) *html.Node {
	t.Helper()
	for _, n := range doc.all("p") {
		if class, _ := attr(n, "class"); class == "brand" {
			return n
		}
	}
	t.Fatalf("no brand:\n%s", doc.body)
	return nil
}

func TestABrandThatLooksLikeAPlaceholderIsNotFilled(t *testing.T) {
	d := fullData()
	d.Brand = "{seconds}{title}{brand}"
	doc, _ := mustRender(t, Logout, d)
	if got := text(doc.one(t, "h1")); got != "Sign out of {seconds}{title}{brand}?" {
		t.Errorf("heading = %q", got)
	}
	if got := text(doc.all("title")[0]); got != "Sign out · {seconds}{title}{brand}" {
		t.Errorf("title = %q", got)
	}
}

func TestLinksStayOnThisOrigin(t *testing.T) {
	outside := append([]string{
		"", "home", "?x", "#x", "//evil.example", `/\evil.example`, `\/evil.example`, "/\t/evil.example",
		"/a\nb", "/\r/evil.example", "/a\x00", " /x", "https://evil.example/", "JavaScript:alert(1)",
		"data:text/html,x", "/.\\evil.example", "\u2028/x", "/a\u0085b",
	}, hostile...)
	for _, page := range allPages {
		for _, u := range outside {
			d := fullData()
			d.StartURL, d.LogoutURL, d.HomeURL, d.RetryURL, d.TopupURL, d.SwitchURL = u, u, u, u, u, u
			doc, _ := mustRender(t, page, d)
			if got := doc.links(); len(got) != 0 {
				t.Errorf("%s: %q became the link %q", page, u, got)
			}
		}

		want, _ := mustRender(t, page, fullData())
		for _, u := range []string{
			"/", "/a/b?c=%2Fd&e=f#g", "/?u=https://x.example//y", "/ä/ö", "/a b", "/%2F%2Fevil", "/~a/(b)/*",
			`/"><script>alert(1)</script>`, `/' onclick='alert(1)`, "/{brand}{{.}}", "/a\xff",
		} {
			d := fullData()
			d.StartURL, d.LogoutURL, d.HomeURL, d.RetryURL, d.TopupURL, d.SwitchURL = u, u, u, u, u, u
			doc, _ := mustRender(t, page, d)
			if doc.shape() != want.shape() {
				t.Errorf("%s: %q changed the elements:\n%s", page, u, doc.body)
			}
			for _, got := range doc.links() {
				if !strings.HasPrefix(got, "/") || strings.HasPrefix(got, "//") {
					t.Errorf("%s: %q became the link %q", page, u, got)
				}
			}
		}
	}
}

// A page must not load, or point to, anything outside.
func TestPagesLoadNothingFromElsewhere(t *testing.T) {
	reference := regexp.MustCompile(`(?i)https?:|url\(|@import|srcset|=\s*"?//`)
	for _, page := range allPages {
		doc, _ := mustRender(t, page, fullData())
		body := strings.Replace(doc.body, `data-origin="https://app.example.com"`, "", 1)
		if m := reference.FindString(body); m != "" {
			t.Errorf("%s contains %q", page, m)
		}
		for _, tag := range []string{"img", "iframe", "object", "embed", "base", "video", "audio"} {
			if len(doc.all(tag)) != 0 {
				t.Errorf("%s has a <%s>", page, tag)
			}
		}
	}
}

func TestEqualDataRendersEqualBytes(t *testing.T) {
	for _, page := range allPages {
		first, err := standard.Render(page, fullData())
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				again, err := standard.Render(page, fullData())
				if err != nil || !reflect.DeepEqual(again, first) {
					t.Errorf("%s: another answer for the same data (error %v)", page, err)
				}
			})
		}
		wg.Wait()
	}
}

func TestAnUnknownPageIsAnError(t *testing.T) {
	for _, page := range []Page{"", "layout", "../style", "SIGN_IN"} {
		if rendered, err := standard.Render(page, fullData()); err == nil || rendered.Body != nil || rendered.Policy != "" {
			t.Errorf("page %q: %+v, error %v", page, rendered, err)
		}
	}
}

func TestUnavailableSaysWhenItTriesAgain(t *testing.T) {
	for seconds, want := range map[int]string{
		5:  "This page tries again by itself in 5 seconds.",
		1:  "This page tries again by itself in 1 second.",
		0:  "This page tries again by itself.",
		-3: "This page tries again by itself.",
	} {
		d := fullData()
		d.RetryAfter = seconds
		doc, _ := mustRender(t, Unavailable, d)
		if !strings.Contains(doc.body, "<p>"+want+"</p>") {
			t.Errorf("%d seconds: no %q in %s", seconds, want, doc.visibleText())
		}
	}
}

func TestUnavailablePromisesASessionOnlyToSignedInUsers(t *testing.T) {
	sentences := map[string]string{"signed in": "You are still signed in.", "not known": "If you were signed in, you still are.", "signing in": "Please try again in a moment."}
	for state, want := range sentences {
		d := fullData()
		d.SignedIn, d.SigningIn = state == "signed in", state == "signing in"
		doc, _ := mustRender(t, Unavailable, d)
		for _, sentence := range sentences {
			if got := strings.Contains(doc.visibleText(), sentence); got != (sentence == want) {
				t.Errorf("%s: the page has %q: %t, want only %q", state, sentence, got, want)
			}
		}
	}
}

func TestLogoutOffersToStaySignedInOnlyToSignedInUsers(t *testing.T) {
	for signedIn, want := range map[bool]string{true: "Stay signed in", false: "Back to the site"} {
		d := fullData()
		d.SignedIn = signedIn
		doc, _ := mustRender(t, Logout, d)
		if got := text(doc.one(t, "a")); got != want {
			t.Errorf("signed in: %t: the link is %q, want %q", signedIn, got, want)
		}
	}
}

// TestEachPageHasOnePrimaryAction has the states in which the pages show other buttons.
func TestEachPageHasOnePrimaryAction(t *testing.T) {
	for _, shown := range shownPages() {
		doc, _ := mustRender(t, shown.page, shown.data)
		var primary []string
		for _, n := range doc.all("*") {
			if class, _ := attr(n, "class"); class == "button" {
				primary = append(primary, text(n))
			}
		}
		want := 1
		if shown.page == Popup || shown.page == Continue {
			want = 0 // they go on by themselves
		}
		if len(primary) != want {
			t.Errorf("%s: got the primary actions %q, want %d", shown.name, primary, want)
		}
	}
}
