package tollgate

import (
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// demoBrowser walks through the demo as a person does.
type demoBrowser struct {
	*visitor
	url string
}

// startDemoCommand starts the demo on a free port.
func startDemoCommand(t *testing.T, more ...string) (*commandtest.Running, *demoBrowser) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_DATA_HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Cleanup(func() {
		for _, folder := range []string{home, os.TempDir()} {
			if entries, err := os.ReadDir(folder); err != nil || len(entries) != 0 {
				t.Errorf("the demo left %v: %v", entries, err)
			}
		}
	})
	began := time.Now()
	r := commands.Start(t, "Ctrl-C stops the demo", append([]string{"demo", "--listen", "127.0.0.1:0"}, more...)...)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the demo took %v to start", took)
	}
	origin := r.Between("Open   ", "/\n")
	b := (&site{t: t, url: origin}).newBrowser()
	b.Transport = &http.Transport{}
	t.Cleanup(b.CloseIdleConnections)
	return r, &demoBrowser{b, origin}
}

// submit sends a form of a page as a browser does, and follows where it leads.
func (b *demoBrowser) submit(from *answer, action string, values url.Values) *answer {
	b.t.Helper()
	a := b.post(from, action, values)
	if a.StatusCode < 300 || a.StatusCode > 399 {
		return a
	}
	return b.follow(b.target(a))
}

// target is where an answer leads.
func (b *demoBrowser) target(a *answer) string {
	b.t.Helper()
	next, err := a.Request.URL.Parse(a.location())
	if err != nil {
		b.t.Fatal(err)
	}
	return next.String()
}

// post sends a form of a page as a browser does.
func (b *demoBrowser) post(from *answer, action string, values url.Values) *answer {
	b.t.Helper()
	target, err := from.Request.URL.Parse(action)
	if err != nil {
		b.t.Fatal(err)
	}
	external := origin.Of(from.Request.URL)
	return b.do(http.MethodPost, target.String(), strings.NewReader(values.Encode()),
		"Content-Type: application/x-www-form-urlencoded", "Origin: "+external, "Sec-Fetch-Site: same-origin",
		"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html")
}

var formAction = regexp.MustCompile(`<form method="post" action="([^"]*)"`)

// onlyForm is the action of the first form of a page.
func (b *demoBrowser) onlyForm(a *answer) string {
	b.t.Helper()
	found := formAction.FindStringSubmatch(a.text)
	if found == nil {
		b.t.Fatalf("%s has no form: status %d: %s", a.Request.URL, a.StatusCode, a.text)
	}
	return html.UnescapeString(found[1])
}

// signInAs opens a page and clicks on a user of the provider.
func (b *demoBrowser) signInAs(path, userID string) *answer {
	b.t.Helper()
	page := b.follow(b.url + path)
	if !strings.Contains(page.text, "Sign in as") {
		b.t.Fatalf("no sign-in page but status %d from %s: %s", page.StatusCode, page.Request.URL, page.text)
	}
	return b.submit(page, b.onlyForm(page), url.Values{"user": {userID}})
}

// aQuestion is what the tests ask.
var aQuestion = url.Values{"question": {" is 2 < 3 ?\n"}}

// ask sends the form with a question, and waits for the whole answer.
func (b *demoBrowser) ask(home *answer) *answer {
	b.t.Helper()
	return b.submit(home, "/ask", aQuestion)
}

// askAndLeave closes the page of the answer at its first byte: it is paid by then.
func (b *demoBrowser) askAndLeave(home *answer) (status int, page string) {
	b.t.Helper()
	page = b.target(b.post(home, "/ask", aQuestion))
	resp := b.Open(page)
	defer resp.Body.Close()
	return resp.StatusCode, page
}

// Open goes to a page and reads none of it.
func (b *demoBrowser) Open(page string) *http.Response {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, page, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, line := range navigation {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := b.Client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp
}

func (b *demoBrowser) wantBalance(a *answer, want string) {
	b.t.Helper()
	if a.StatusCode != http.StatusOK || !strings.Contains(a.text, `id="balance">`+want+"</p>") {
		b.t.Fatalf("the page does not say %s: status %d from %s: %s", want, a.StatusCode, a.Request.URL, a.text)
	}
}

func TestTheDemoFromSignInToSignOut(t *testing.T) {
	r, b := startDemoCommand(t)

	home := b.signInAs("/", testUserID)
	b.wantBalance(home, "750.00")
	for _, want := range []string{"user123", "user@example.com", "12345", "X-User-Balance-State", "fresh", `rel="noopener"`} {
		if !strings.Contains(home.text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if policy := home.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}

	if answer := b.ask(home); answer.StatusCode != http.StatusOK || !strings.Contains(answer.text, "You asked: “is 2 &lt; 3 ?” That makes 10 letters") {
		t.Fatalf("the answer: status %d: %s", answer.StatusCode, answer.text)
	}
	home = b.follow(b.url + "/")
	b.wantBalance(home, "749.50")
	if !strings.Contains(home.text, "<code>demo_app=own-cookie</code>") {
		t.Error("the application's own cookie does not arrive, or not alone")
	}

	// The second tab has the same cookies, and goes to the provider to top up.
	topUp := b.follow(b.url + "/oauth/topup")
	added := b.submit(topUp, b.onlyForm(topUp), url.Values{"amount": {"10"}})
	if !strings.Contains(added.text, "$10 added") {
		t.Fatalf("topping up: status %d: %s", added.StatusCode, added.text)
	}
	b.wantBalance(b.submit(home, "/refresh-balance", nil), "759.50")
	b.wantBalance(b.follow(b.url+"/"), "759.50")

	if out := b.submit(home, "/oauth/logout", nil); out.StatusCode != http.StatusOK || out.Request.URL.Path != "/oauth/logout" {
		t.Errorf("signing out ended at %s with %d", out.Request.URL, out.StatusCode)
	}
	// The first tab still shows its buttons.
	stale := b.ask(home)
	if stale.StatusCode != http.StatusUnauthorized || !strings.Contains(stale.text, "You are signed out") {
		t.Errorf("asking after signing out: %d: %s", stale.StatusCode, stale.text)
	}
	if asked := b.follow(b.url + "/"); !strings.Contains(asked.text, "Allow access?") {
		t.Errorf("the next visit is not asked: status %d from %s", asked.StatusCode, asked.Request.URL)
	}

	r.Stop()
	if err := r.Ended(); err != nil {
		t.Error(err)
	}
	for _, origin := range []string{b.url, r.Between("simulated AIHubMix at ", ".\n")} {
		u, err := url.Parse(origin)
		if err != nil {
			t.Fatal(err)
		}
		if conn, err := net.DialTimeout("tcp", u.Host, time.Second); err == nil {
			conn.Close()
			t.Errorf("%s still listens", origin)
		}
	}
}

func TestTheDemoLetsATopUpShowOnReload(t *testing.T) {
	_, b := startDemoCommand(t)
	b.wantBalance(b.signInAs("/", "67890"), "3.20")
	topUp := b.follow(b.url + "/oauth/topup")
	b.wantBalance(b.follow(b.url+"/"), "3.20")
	b.submit(topUp, b.onlyForm(topUp), url.Values{"amount": {"5"}})
	// No button: max_age is over soon.
	eventually(t, "a reload shows the new balance", func() bool {
		time.Sleep(100 * time.Millisecond)
		return strings.Contains(b.follow(b.url+"/").text, `id="balance">8.20</p>`)
	})
}

func TestTheDemoStopsAtAnEmptyBalanceAndGoesOnAfterATopUp(t *testing.T) {
	_, b := startDemoCommand(t)
	home := b.signInAs("/", "67890")
	b.wantBalance(home, "3.20")
	page := ""
	for n := range 6 {
		var status int
		if status, page = b.askAndLeave(home); status != http.StatusOK {
			t.Fatalf("question %d: status %d", n+1, status)
		}
	}
	closed := b.ask(home)
	if closed.StatusCode != http.StatusPaymentRequired || !strings.Contains(closed.text, "0.20") || !strings.Contains(closed.text, "0.50") {
		t.Fatalf("the seventh question: status %d: %s", closed.StatusCode, closed.text)
	}
	b.wantBalance(b.follow(b.url+"/"), "0.20")

	topUp := b.follow(b.url + "/oauth/topup")
	b.submit(topUp, b.onlyForm(topUp), url.Values{"amount": {"5"}})
	again := b.follow(closed.Request.URL.String()) // "Try again"
	if again.StatusCode != http.StatusOK || !strings.Contains(again.text, "You asked: ") {
		t.Fatalf("after the top-up: status %d: %s", again.StatusCode, again.text)
	}
	b.wantBalance(b.follow(b.url+"/"), "4.70")
	b.Open(page).Body.Close() // a reload of an answer that was paid
	b.wantBalance(b.follow(b.url+"/"), "4.70")
}

func TestTheDemosAnswersComeWordByWord(t *testing.T) {
	_, b := startDemoCommand(t)
	home := b.signInAs("/", testUserID)
	page := b.target(b.post(home, "/ask", aQuestion))
	began := time.Now()
	resp := b.Open(page)
	defer resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	first := time.Since(began)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if whole := time.Since(began); whole < 3*first {
		t.Errorf("the first byte came after %v of %v: the answer did not come word by word", first, whole)
	}
}

func TestTheDemoSaysWhenTheBalanceIsUsedUp(t *testing.T) {
	_, b := startDemoCommand(t)
	home := b.signInAs("/", "24680")
	b.wantBalance(home, "0.00")
	if !strings.Contains(home.text, "Your balance is used up") || !strings.Contains(home.text, "张伟") || !strings.Contains(home.text, "%E5%BC%A0%E4%BC%9F") {
		t.Errorf("the page says %s", home.text)
	}
	if a := b.ask(home); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("asking without money: status %d: %s", a.StatusCode, a.text)
	}
	b.wantBalance(b.follow(b.url+"/"), "0.00")
}

func TestTheDemosPublicAndOptionalPages(t *testing.T) {
	_, b := startDemoCommand(t)
	if a := b.visit("/public", "X-User-Id: 1", "X_User_Name: x"); a.StatusCode != http.StatusOK || !strings.Contains(a.text, "header arrived") {
		t.Errorf("public: status %d: %s", a.StatusCode, a.text)
	}
	if a := b.Get("/optional", "X-User-Id: 1"); a.text != "No X-User header arrived here.\n" {
		t.Errorf("optional, as a script: status %d: %s", a.StatusCode, a.text)
	}
	if a := b.visit("/optional"); !strings.Contains(a.text, "Hello, stranger") {
		t.Errorf("optional: status %d: %s", a.StatusCode, a.text)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("home, as a script: status %d", a.StatusCode)
	}
	for _, asset := range []string{"/assets/style.css", "/assets/icon.svg"} {
		if a := b.Get(asset); a.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", asset, a.StatusCode)
		}
	}
	if a := b.signInAs("/oauth/start?return_to=/optional", testUserID); !strings.Contains(a.text, "Hello, user123") {
		t.Errorf("optional, signed in: status %d: %s", a.StatusCode, a.text)
	}
}

func TestTheDemoLeadsOtherNamesOfThisMachineToItsOwn(t *testing.T) {
	_, b := startDemoCommand(t)
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	if a := b.visit(fmt.Sprintf("http://localhost:%s/optional?x=1", u.Port())); a.location() != b.url+"/optional?x=1" {
		t.Errorf("localhost leads to %q: status %d", a.location(), a.StatusCode)
	}
}

func TestTheDemoRefreshesShortTokens(t *testing.T) {
	_, b := startDemoCommand(t, "--access-lifetime", "1s")
	home := b.signInAs("/", testUserID)
	time.Sleep(1200 * time.Millisecond)
	b.askAndLeave(home)
	b.wantBalance(b.follow(b.url+"/"), "749.50")
}

func TestTheDemoUnderTheNameLocalhost(t *testing.T) {
	r := commands.Start(t, "Ctrl-C stops the demo", "demo", "--listen", "localhost:0", "--verbose")
	if origin := r.Between("Open   ", "/\n"); !strings.HasPrefix(origin, "http://localhost:") {
		t.Errorf("it is at %s", origin)
	}
	if provider := r.Between("simulated AIHubMix at ", ".\n"); !strings.HasPrefix(provider, "http://127.0.0.1:") {
		t.Errorf("the provider is at %s, which shares its cookies", provider)
	}
}
