package explain_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/command"
	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
	"github.com/caddy-tollgate/tollgate/internal/explain"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }

var commands = commandtest.Commands(command.AddCommands)

// examined is a site whose requests are explained.
type examined struct {
	*gatewaytest.Site
	config string
}

func newExamined(t *testing.T, options gatewaytest.Options) *examined {
	t.Helper()
	e := &examined{Site: gatewaytest.New(t, options)}
	e.config = write(t, "Caddyfile", e.Caddyfile)
	return e
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// explain explains a request for a path of the site.
func (e *examined) explain(path string, more ...string) *explain.Explanation {
	e.T.Helper()
	got := commands.Run(append([]string{"explain", "--config", e.config, "--json", "--url", e.URL + path}, more...)...)
	var explained explain.Explanation
	if err := json.Unmarshal([]byte(got.Out), &explained); err != nil || got.Err != nil {
		e.T.Fatalf("%v\n%s", err, got.All())
	}
	return &explained
}

// cookieOf is the flag with the cookies of a browser.
func (e *examined) cookieOf(b *gatewaytest.Browser) []string {
	return []string{"--cookie-file", write(e.T, "cookies", "Cookie: "+b.CookieLine()+"\n")}
}

func TestExplainNamesTheRuleThatDecides(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{
		Before: "rewrite /old/* /open{uri}\nuri strip_prefix /api",
		InTollgate: `public /open/* *.css
			optional /page
			require /paid/* {
				balance 0.50
				email_domain example.com
			}
			require /staff/* {
				user 777
			}
			require /rich/* {
				balance 100000
			}`,
	})
	b := e.NewBrowser().SignIn()
	requestsBefore := e.Provider.Counts()
	page := []string{"--header", "Accept: text/html"}
	for _, test := range []struct {
		path    string
		more    []string
		status  int
		outcome string
		access  string
		words   []string // of the text
	}{
		{"/open/x", nil, 0, "passes to the upstream as anonymous", "public", []string{"public by `public /open/*`"}},
		{"/style.css", e.cookieOf(b), 0, "passes to the upstream as anonymous", "public", []string{"`public *.css`"}},
		{"/page", nil, 0, "passes to the upstream as anonymous", "optional", []string{"`optional /page`"}},
		{"/page", e.cookieOf(b), 0, "passes to the upstream as user 12345", "optional", nil},
		{"/", nil, 401, "needs a sign-in: 401, because this is not a page navigation", "protected", nil},
		{"/", page, 302, "needs a sign-in: redirected to /oauth/start", "protected", nil},
		{"/", e.cookieOf(b), 0, "passes to the upstream as user 12345", "protected", nil},
		{"/paid/x", nil, 401, "needs a sign-in", "protected", []string{"require /paid/*: balance 0.50; email_domain example.com\n"}},
		{"/paid/x", e.cookieOf(b), 0, "passes to the upstream as user 12345", "protected", nil},
		{"/staff/x", e.cookieOf(b), 403, "refused: the user's id is not in the list", "protected", []string{"user 777. Lacks: the user's id is not in the list"}},
		{"/rich/x", e.cookieOf(b), 402, "insufficient balance", "protected", []string{"balance 100000. Lacks: the balance", "reads the balance from the provider again"}},
		{"/api/open/x", nil, 401, "needs a sign-in", "protected", []string{"path as sent       /api/open/x, protected", "path at tollgate   /open/x, public by"}},
		{"/old/x", nil, 401, "needs a sign-in", "protected", []string{"/open/old/x, public"}},
		{"/open/..%2fpaid/x", nil, 400, "refused: servers read this path in different ways", "", []string{"ambiguous", "servers may read", "/paid/x"}},
		{"/oauth/userinfo", e.cookieOf(b), 0, "the gateway's own endpoint `userinfo` responds", "", []string{"\nsession ", "12345 (user123, user@example.com)"}},
		{"/oauth/refresh", nil, 405, "the endpoint `refresh` accepts only POST", "", nil},
		{"/x", []string{"--method", "TRACE"}, 405, "refused before anything else", "", nil},
		{"/x", []string{"--method", "POST", "--header", "Early-Data: 1", e.cookieOf(b)[0], e.cookieOf(b)[1]}, 425, "early data", "protected", nil},
		{"/x", []string{"--header", "Upgrade: websocket", "--header", "Origin: https://other.example.com", e.cookieOf(b)[0], e.cookieOf(b)[1]}, 403, "another origin opens this WebSocket", "protected", nil},
		{"/", []string{"--cookie", "tollgate=1.nonsense"}, 401, "needs a sign-in", "protected", []string{"not sealed by this site"}},
		{"/", []string{"--cookie", "tollgate=1.a; tollgate=1.b"}, 401, "needs a sign-in", "protected", []string{"two cookies named tollgate"}},
	} {
		got := e.explain(test.path, test.more...)
		if got.Status != test.status || !strings.Contains(got.Outcome, test.outcome) || got.Access != test.access || got.Site != e.URL {
			t.Errorf("%s: got %d %q, %q; want %d %q, %q", test.path, got.Status, got.Outcome, got.Access, test.status, test.outcome, test.access)
		}
		var text strings.Builder
		if err := got.Print(&text, time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, word := range test.words {
			if !strings.Contains(text.String(), word) {
				t.Errorf("%s: the text has no %q:\n%s", test.path, word, text.String())
			}
		}
	}
	if got := e.Provider.Counts(); !reflect.DeepEqual(got, requestsBefore) {
		t.Errorf("the provider was asked: %v before, %v after explain", requestsBefore, got)
	}
}

// TestExplainAgreesWithTheGateway sends the same requests to the gateway.
func TestExplainAgreesWithTheGateway(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{InTollgate: "public /open/*\noptional /page\nrequire /staff/* {\nuser 777\n}"})
	b := e.NewBrowser().SignIn()
	for _, path := range []string{"/", "/open/x", "/page", "/staff/x", "/open/%2e%2e/staff/x", "//staff/x", "/Open/X", "/oauth/topup", "/oauth/health"} {
		for _, signedIn := range []bool{false, true} {
			browser, more := e.NewBrowser(), []string(nil)
			if signedIn {
				browser, more = b, e.cookieOf(b)
			}
			got, want := e.explain(path, more...), browser.Get(path).StatusCode
			if got.Status != 0 && got.Status != want || got.Status == 0 && got.Endpoint == "" && want != 200 {
				t.Errorf("%s, signed in %v: explained as %d %q, and the gateway answers %d", path, signedIn, got.Status, got.Outcome, want)
			}
		}
	}
}

func TestExplainShowsTheSessionAndItsClocks(t *testing.T) {
	for name, test := range map[string]struct {
		store  string
		clocks []string
		first  string
	}{
		"cookie":  {"", []string{"lifetime"}, "lifetime"},
		"idle":    {"idle_timeout 2h", []string{"lifetime", "idle_timeout"}, "idle_timeout"},
		"storage": {"store storage", []string{"lifetime", "the store"}, "lifetime"},
		"Redis":   {"store redis {\naddress " + redistest.Start(t).Address() + "\n}", []string{"lifetime", "the store"}, "lifetime"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newExamined(t, gatewaytest.Options{InTollgate: "session {\n" + test.store + "\n}"})
			b := e.NewBrowser().SignIn()
			e.Restart() // what this process knows of the session is gone
			got := e.explain("/", e.cookieOf(b)...)
			s := got.Session
			if s == nil {
				t.Fatalf("no session: %s", got.Cookie)
			}
			var clocks []string
			for _, c := range s.Clocks {
				clocks = append(clocks, c.Name)
			}
			if s.UserID != gatewaytest.UserID || s.Generation != 1 || !slices.Equal(clocks, test.clocks) || s.First().Name != test.first ||
				time.Since(s.SignedInAt) > time.Minute || time.Until(s.AccessTokenEnds).Round(time.Hour) != 2*time.Hour {
				t.Errorf("got %+v, want the clocks %v and %s first", s, test.clocks, test.first)
			}
			if s.AccessToken[:11] != "800 bytes, " || strings.Contains(s.AccessToken, "access_") {
				t.Errorf("the access token is shown as %q", s.AccessToken)
			}
		})
	}
}

func TestExplainShowsNoControlCharacters(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{})
	e.Provider.SetFault(simulator.UserInfo, simulator.Fault{
		Body: `{"id":12345,"status":1,"username":"\u001b[2J\noutcome   passes","email":"\u009b31m\u202e@example.com"}`,
	})
	b := e.NewBrowser().SignIn()
	got := commands.Run(append([]string{"explain", "--config", e.config, "--url", e.URL + "/"}, e.cookieOf(b)...)...)
	if got.Err != nil || !strings.Contains(got.Out, "12345 (\uFFFD[2J\uFFFDoutcome   passes, \uFFFD31m\uFFFD@example.com)") {
		t.Errorf("%v: %q", got.Err, got.Out)
	}
}

func TestExplainSaysThatASessionHasEnded(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{InTollgate: "session {\nstore storage\n}"})
	b := e.NewBrowser().SignIn()
	cookies := e.cookieOf(b)
	if e.explain("/", cookies...).Session == nil {
		t.Error("no session before the logout")
	}
	b.Send("POST", "/oauth/logout", nil, "Origin: "+e.URL)
	if got := e.explain("/", cookies...); got.Session != nil || !strings.Contains(got.Cookie, "the session has ended") || got.Status != 401 {
		t.Errorf("after the logout: %+v", got)
	}
}

func TestExplainTellsWhatTheProviderHasToConfirm(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{Provider: simulator.Options{AccessLifetime: time.Second}})
	b := e.NewBrowser().SignIn()
	e.config = write(t, "Caddyfile", e.Caddyfile)
	cookies := e.cookieOf(b)
	for deadline := time.Now().Add(gatewaytest.Patience); ; {
		got := e.explain("/", cookies...)
		if text := strings.Join(got.Notes, "; "); strings.Contains(text, "the access token has ended") && got.Status == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("notes: %s", text)
		}
	}
	if n := e.Refreshes(); n != 0 {
		t.Errorf("explain refreshed %d times", n)
	}
}

func TestExplainReadsAWholeRequest(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{InTollgate: "public /open/*"})
	b := e.NewBrowser().SignIn()
	host := strings.TrimPrefix(e.URL, "http://")
	rest := "Host: " + host + "\nCookie: " + b.CookieLine() + "\n"
	for name, text := range map[string]string{
		"HTTP/1.1":       "GET /page?x=1 HTTP/1.1\n" + rest,
		"HTTP/2":         "\nGET /page?x=1 HTTP/2\r\n" + rest,
		"HTTP/3":         "GET /page?x=1 HTTP/3.0\n" + rest,
		"with a body":    "POST /page HTTP/2\n" + rest + "\n:path: /other\nmore",
		"pseudo headers": ":authority: " + host + "\n:method: GET\n:path: /page?x=1\n:scheme: http\nCookie: " + b.CookieLine(),
		"WebSocket":      ":authority: " + host + "\n:method: CONNECT\n:path: /page\n:protocol: websocket\n:scheme: http\nCookie: " + b.CookieLine(),
	} {
		got := commands.Run("explain", "--config", e.config, "--request", write(t, "request", text))
		if got.Err != nil || !strings.Contains(got.Out, "passes to the upstream as user 12345") || !strings.Contains(got.Out, "\nends by lifetime") ||
			!strings.Contains(got.Out, "/page, protected") {
			t.Errorf("%s: %s", name, got.All())
		}
		for _, token := range []string{b.CookieLine(), "access_", "refresh_"} {
			if strings.Contains(got.All(), token) {
				t.Errorf("%s: the explanation shows %q:\n%s", name, token, got.All())
			}
		}
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "name the request with --url, or with --request"},
		{[]string{"--url", "/page"}, "--url: must be a full URL"},
		{[]string{"--request", write(t, "request", "Cookie: secret_of_somebody\n")}, "--request: this is not an HTTP request"},
		{[]string{"--request", write(t, "request", "GET / HTTP/1.1\nHost: a\nCookie:\n secret_of_somebody\n")}, "--request: line 4 continues the header above it, which RFC 9112 section 5.2 forbids"},
		{[]string{"--request", write(t, "request", "GET / HTTP/1.1\r\nHost: a\r\nCookie:\r\n\tsecret_of_somebody\r\n")}, "--request: line 4 continues"},
		{[]string{"--request", write(t, "request", "\n\nGET / HTTP/1.1\nHost: a\nCookie:\nsecret_of_somebody\n")}, "--request: line 6 is not a whole header: write each header on one line, as 'Name: value'"},
		{[]string{"--request", write(t, "request", ":method: GET\n:path: /\n:authority:\na:443\nCookie: secret_of_somebody\n")}, "--request: line 3 is not a whole header"},
		{[]string{"--request", "-", "--cookie-file", "-"}, "cannot both read the standard input"},
		{[]string{"--url", e.URL, "--header", "nonsense"}, "--header: write it as 'Name: value'"},
		{[]string{"--url", e.URL, "--cookie-file", "/nonexistent"}, "--cookie-file: "},
	} {
		got := commands.Run(append([]string{"explain", "--config", e.config}, test.args...)...)
		commandtest.WantError(t, got, test.want)
		if strings.Contains(got.All(), "secret_of_somebody") {
			t.Errorf("the error shows a cookie: %s", got.All())
		}
	}
}

func TestExplainFindsTheSite(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{})
	text := strings.Replace(e.Caddyfile, "http:// {", "http://127.0.0.1:8080 {", 1)
	text = strings.Replace(text, "tollgate {", "handle_path /app/* {\ntollgate {", 1)
	text = strings.Replace(text, "reverse_proxy", "}\nreverse_proxy", 1)
	e.config = write(t, "Caddyfile", text)
	got := commands.Run("explain", "--config", e.config, "--url", "http://127.0.0.1:8080/app/x")
	if got.Err != nil || !strings.Contains(got.Out, "path at tollgate   /x, protected") {
		t.Error(got.All())
	}
	for _, url := range []string{"http://127.0.0.1:8080/other?code=1", "http://localhost:8080/app/x"} {
		got := commands.Run("explain", "--config", e.config, "--url", url)
		commandtest.WantError(t, got, "no tollgate of this configuration receives ", strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "?code=1")+":")
	}
}

// changing matches what differs in each sample: times, names and hashes.
var changing = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \([^)]*\)|[0-9a-f]{32}|with [0-9a-f]{8}`)

// TestTheSampleInTheDocumentIsReal explains the request of the sample.
func TestTheSampleInTheDocumentIsReal(t *testing.T) {
	document, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sample, found := strings.Cut(string(document), "```\nsite               ")
	sample, _, ended := strings.Cut("site               "+sample, "```")
	if !found || !ended {
		t.Fatal("docs/doctor.md has no sample")
	}
	e := newExamined(t, gatewaytest.Options{Before: "uri strip_prefix /api", InTollgate: "require /staff/* {\nuser 777\n}"})
	got := commands.Run(append([]string{"explain", "--config", e.config, "--url", e.URL + "/api/staff/x"}, e.cookieOf(e.NewBrowser().SignIn())...)...)
	out := changing.ReplaceAllString(strings.ReplaceAll(got.Out, e.URL, "https://app.example.com"), "…")
	if want := changing.ReplaceAllString(sample, "…"); got.Err != nil || out != want {
		t.Errorf("%v\n%s\nwant\n%s", got.Err, out, want)
	}
}

func TestExplainAnswersForAProxyThatAsks(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{InTollgate: "public /open/*\nforward_auth {\ntrusted_proxies 192.0.2.0/24\n}\nsession {\nstore storage\n}"})
	asked := []string{"--header", "X-Forwarded-Uri: /open/x"}
	if got := e.explain("/oauth/auth", append(asked, "--remote", "192.0.2.1")...); got.Access != "public" || got.Status != 200 {
		t.Errorf("a trusted proxy: %+v", got)
	}
	if got := e.explain("/oauth/auth", asked...); got.Access != "protected" || got.Status != 401 {
		t.Errorf("another address: %+v", got)
	}
}

// TestExplainedRequestsAreNoEarlyData: a request in a file counts as one over TLS.
func TestExplainedRequestsAreNoEarlyData(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{})
	b := e.NewBrowser().SignIn()
	request := write(t, "request", "POST /x HTTP/1.1\r\nHost: "+strings.TrimPrefix(e.URL, "http://")+"\r\n"+b.CookieLine()+"\r\n\r\n")
	got := commands.Run("explain", "--config", e.config, "--request", request)
	if got.Err != nil || !strings.Contains(got.Out, "passes to the upstream as user 12345") {
		t.Errorf("%v\n%s", got.Err, got.All())
	}
}

// TestExplainShowsNoInvisibleCharacters: a request may come from anybody.
func TestExplainShowsNoInvisibleCharacters(t *testing.T) {
	e := newExamined(t, gatewaytest.Options{})
	config := strings.Replace(e.Caddyfile, "http:// {", "http://app.example.com {", 1)
	got := commands.Run("explain", "--config", write(t, "Caddyfile", config), "--request", write(t, "request", "GET /x HTTP/1.1\r\nHost: a\u202eb\r\n\r\n"))
	commandtest.WantError(t, got, "no tollgate of this configuration receives a\ufffdb/x")
}
