package gatewaytest

import (
	"context"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

// JSON is the object in the body, with its numbers as json.Number.
func (a *Answer) JSON(t *testing.T) map[string]any {
	t.Helper()
	var document map[string]any
	d := json.NewDecoder(strings.NewReader(a.Text))
	d.UseNumber()
	if err := d.Decode(&document); err != nil {
		t.Fatalf("no JSON: %v: %s", err, a.Text)
	}
	return document
}

// Browser is a client with a cookie jar that follows no redirect by itself.
type Browser struct {
	T *testing.T
	*http.Client
	Site *Site
}

// NewBrowser returns a browser without cookies.
func (s *Site) NewBrowser() *Browser {
	jar, _ := cookiejar.New(nil)
	return &Browser{T: s.T, Site: s, Client: &http.Client{
		Jar:     jar,
		Timeout: 30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}}
}

// Answer is a response with its whole body in Text.
type Answer struct {
	*http.Response
	Text string
}

// Location is the value of the Location header, unparsed.
func (a *Answer) Location() string { return a.Header.Get("Location") }

// Seen is the request as the upstream received it. The test fails if the answer is not the
// upstream's.
func (a *Answer) Seen(t *testing.T) Received {
	t.Helper()
	var seen Received
	if err := json.Unmarshal([]byte(a.Text), &seen); err != nil {
		t.Fatalf("no answer of the upstream: status %d: %s", a.StatusCode, a.Text)
	}
	return seen
}

// Send sends a request to a path of the site, or to a URL. Headers come as "Name: value".
func (b *Browser) Send(method, target string, body io.Reader, headers ...string) *Answer {
	b.T.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.Site.URL + target
	}
	req, err := http.NewRequestWithContext(context.Background(), method, target, body)
	if err != nil {
		b.T.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value // Go's client leaves out a Host among the headers
			continue
		}
		req.Header.Add(name, value)
	}
	res, err := b.Client.Do(req)
	if err != nil {
		b.T.Fatalf("%s %s: %v", method, target, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.T.Fatalf("%s %s: %v", method, target, err)
	}
	return &Answer{res, string(text)}
}

// Navigation is what a browser says when a person goes to a page.
var Navigation = []string{"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Sec-Fetch-Site: none", "Accept: text/html,application/xhtml+xml,*/*;q=0.8"}

// Get sends a GET request as a script does.
func (b *Browser) Get(target string, headers ...string) *Answer {
	b.T.Helper()
	return b.Send(http.MethodGet, target, nil, headers...)
}

// Visit goes to a page as a person does.
func (b *Browser) Visit(target string, headers ...string) *Answer {
	b.T.Helper()
	return b.Send(http.MethodGet, target, nil, append(append([]string(nil), Navigation...), headers...)...)
}

// Follow visits a page and every redirect from there.
func (b *Browser) Follow(target string) *Answer {
	b.T.Helper()
	a := b.Visit(target)
	for range 10 {
		if a.StatusCode < 300 || a.StatusCode > 399 {
			return a
		}
		next, err := a.Request.URL.Parse(a.Location())
		if err != nil {
			b.T.Fatal(err)
		}
		a = b.Visit(next.String())
	}
	b.T.Fatalf("more than ten redirects from %s", target)
	return nil
}

// SignIn goes through a whole sign-in.
func (b *Browser) SignIn() *Browser {
	b.T.Helper()
	a := b.Follow("/")
	if a.StatusCode != http.StatusOK || a.Seen(b.T).Header.Get("X-User-Id") == "" {
		b.T.Fatalf("signing in: status %d: %s", a.StatusCode, a.Text)
	}
	return b
}

// Cookies are the gateway's cookies in the jar, by name, but for the one that counts
// recent sign-ins.
func (b *Browser) Cookies() map[string]string {
	u, _ := url.Parse(b.Site.URL)
	found := map[string]string{}
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasPrefix(c.Name, "tollgate") && c.Name != "tollgate-recent" {
			found[c.Name] = c.Value
		}
	}
	return found
}

// SetCookie puts a cookie into the jar.
func (b *Browser) SetCookie(name, value string) {
	u, _ := url.Parse(b.Site.URL)
	b.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

// Copy returns another browser with the same cookies.
func (b *Browser) Copy() *Browser {
	c := b.Site.NewBrowser()
	for name, value := range b.Cookies() {
		c.SetCookie(name, value)
	}
	return c
}

var consentForm = regexp.MustCompile(`(?s)<form method="post" action="([^"]+)">\s*<input type="hidden" name="user" value="([^"]+)">`)

// PressAllow agrees on the provider's consent page, and follows from there.
func (b *Browser) PressAllow(page *Answer) *Answer {
	b.T.Helper()
	form := consentForm.FindStringSubmatch(page.Text)
	if form == nil {
		b.T.Fatalf("no consent form: %s", page.Text)
	}
	action, err := page.Request.URL.Parse(html.UnescapeString(form[1]))
	if err != nil {
		b.T.Fatal(err)
	}
	body := url.Values{"user": {form[2]}, "decision": {"allow"}}
	a := b.Send(http.MethodPost, action.String(), strings.NewReader(body.Encode()),
		"Content-Type: application/x-www-form-urlencoded", "Origin: "+b.Site.ProviderURL)
	return b.Follow(a.Location())
}

// CookieLine is the header line with the browser's cookies, and one of the application's.
func (b *Browser) CookieLine() string {
	var pairs []string
	for name, value := range b.Cookies() {
		pairs = append(pairs, name+"="+value)
	}
	return "Cookie: other=1; " + strings.Join(pairs, "; ")
}

// StartLogin begins a sign-in and returns the parameters of the authorization URL.
func (b *Browser) StartLogin(query string) url.Values {
	b.T.Helper()
	a := b.Visit("/oauth/start" + query)
	if a.StatusCode != http.StatusFound {
		b.T.Fatalf("start: %d: %s", a.StatusCode, a.Text)
	}
	u, err := url.Parse(a.Location())
	if err != nil {
		b.T.Fatal(err)
	}
	return u.Query()
}

// Authorize begins a sign-in and returns the URL of its callback.
func (b *Browser) Authorize(query string) string {
	b.T.Helper()
	return b.Visit(b.Visit("/oauth/start" + query).Location()).Location()
}
