package tollgate_test

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// demoBrowser walks through the demo as a person does.
type demoBrowser struct {
	*gatewaytest.Browser
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
	r := commands.Start(t, "Ctrl-C stops the demo", append([]string{"demo", "--listen", "127.0.0.1:0"}, more...)...)
	origin := r.Between("Open   ", "/\n")
	b := (&gatewaytest.Site{T: t, URL: origin}).NewBrowser()
	b.Transport = &http.Transport{}
	t.Cleanup(b.CloseIdleConnections)
	return r, &demoBrowser{b, origin}
}

// submit sends a form of a page as a browser does, and follows where it leads.
func (b *demoBrowser) submit(from *gatewaytest.Answer, action string, values url.Values) *gatewaytest.Answer {
	b.T.Helper()
	a := b.post(from, action, values)
	if a.StatusCode < 300 || a.StatusCode > 399 {
		return a
	}
	return b.Follow(b.target(a))
}

// target is where an answer leads.
func (b *demoBrowser) target(a *gatewaytest.Answer) string {
	b.T.Helper()
	next, err := a.Request.URL.Parse(a.Location())
	if err != nil {
		b.T.Fatal(err)
	}
	return next.String()
}

// post sends a form of a page as a browser does.
func (b *demoBrowser) post(from *gatewaytest.Answer, action string, values url.Values) *gatewaytest.Answer {
	b.T.Helper()
	target, err := from.Request.URL.Parse(action)
	if err != nil {
		b.T.Fatal(err)
	}
	external := origin.Of(from.Request.URL)
	return b.Send(http.MethodPost, target.String(), strings.NewReader(values.Encode()),
		"Content-Type: application/x-www-form-urlencoded", "Origin: "+external, "Sec-Fetch-Site: same-origin",
		"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html")
}

var formAction = regexp.MustCompile(`<form method="post" action="([^"]*)"`)

// onlyForm is the action of the first form of a page.
func (b *demoBrowser) onlyForm(a *gatewaytest.Answer) string {
	b.T.Helper()
	found := formAction.FindStringSubmatch(a.Text)
	if found == nil {
		b.T.Fatalf("%s has no form: status %d: %s", a.Request.URL, a.StatusCode, a.Text)
	}
	return html.UnescapeString(found[1])
}

// signInAs opens a page and clicks on a user of the provider.
func (b *demoBrowser) signInAs(path, userID string) *gatewaytest.Answer {
	b.T.Helper()
	page := b.Follow(b.url + path)
	if !strings.Contains(page.Text, "Sign in as") {
		b.T.Fatalf("no sign-in page but status %d from %s: %s", page.StatusCode, page.Request.URL, page.Text)
	}
	return b.submit(page, b.onlyForm(page), url.Values{"user": {userID}})
}

// aQuestion is what the tests ask.
var aQuestion = url.Values{"question": {" is 2 < 3 ?\n"}}

// ask sends the form with a question, and waits for the whole answer.
func (b *demoBrowser) ask(home *gatewaytest.Answer) *gatewaytest.Answer {
	b.T.Helper()
	return b.submit(home, "/ask", aQuestion)
}

// askAndLeave closes the page of the answer at its first byte: it is paid by then.
func (b *demoBrowser) askAndLeave(home *gatewaytest.Answer) (status int, page string) {
	b.T.Helper()
	page = b.target(b.post(home, "/ask", aQuestion))
	resp := b.Open(page)
	defer resp.Body.Close()
	return resp.StatusCode, page
}

// waitUntilNothingIsHeld waits until the gateway has noticed that the browser left the last
// answer. Until then the answer holds its price, although the demo has charged it.
func (b *demoBrowser) waitUntilNothingIsHeld() {
	b.T.Helper()
	gatewaytest.Eventually(b.T, "nothing is held", func() bool {
		var user struct {
			Available string
			Balance   struct{ Value string }
		}
		if err := json.Unmarshal([]byte(b.Follow(b.url+"/oauth/userinfo").Text), &user); err != nil {
			b.T.Fatal(err)
		}
		return user.Available == user.Balance.Value
	})
}

// Open goes to a page and reads none of it.
func (b *demoBrowser) Open(page string) *http.Response {
	b.T.Helper()
	req, err := http.NewRequestWithContext(b.T.Context(), http.MethodGet, page, nil)
	if err != nil {
		b.T.Fatal(err)
	}
	for _, line := range gatewaytest.Navigation {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := b.Client.Do(req)
	if err != nil {
		b.T.Fatal(err)
	}
	return resp
}

func (b *demoBrowser) wantBalance(a *gatewaytest.Answer, want string) {
	b.T.Helper()
	if a.StatusCode != http.StatusOK || !strings.Contains(a.Text, `id="balance">`+want+"</p>") {
		b.T.Fatalf("the page does not say %s: status %d from %s: %s", want, a.StatusCode, a.Request.URL, a.Text)
	}
}

func TestTheDemoFromSignInToSignOut(t *testing.T) {
	r, b := startDemoCommand(t)

	home := b.signInAs("/", gatewaytest.UserID)
	b.wantBalance(home, "750.00")
	for _, want := range []string{"user123", "user@example.com", "12345", "X-User-Balance-State", "fresh", `rel="noopener"`} {
		if !strings.Contains(home.Text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if policy := home.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}

	if answer := b.ask(home); answer.StatusCode != http.StatusOK || !strings.Contains(answer.Text, "You asked: “is 2 &lt; 3 ?” That makes 10 letters") {
		t.Fatalf("the answer: status %d: %s", answer.StatusCode, answer.Text)
	}
	home = b.Follow(b.url + "/")
	b.wantBalance(home, "749.50")
	if !strings.Contains(home.Text, "<code>demo_app=own-cookie</code>") {
		t.Errorf("the page does not show demo_app=own-cookie as the only cookie: %s", home.Text)
	}

	// The second tab has the same cookies, and goes to the provider to top up.
	topUp := b.Follow(b.url + "/oauth/topup")
	added := b.submit(topUp, b.onlyForm(topUp), url.Values{"amount": {"10"}})
	if !strings.Contains(added.Text, "$10 added") {
		t.Fatalf("topping up: status %d: %s", added.StatusCode, added.Text)
	}
	b.wantBalance(b.submit(home, "/refresh-balance", nil), "759.50")
	b.wantBalance(b.Follow(b.url+"/"), "759.50")

	if out := b.submit(home, "/oauth/logout", nil); out.StatusCode != http.StatusOK || out.Request.URL.Path != "/oauth/logout" {
		t.Errorf("signing out ended at %s with %d", out.Request.URL, out.StatusCode)
	}
	// The first tab still shows the page from before the sign-out, with its buttons.
	stale := b.ask(home)
	if stale.StatusCode != http.StatusUnauthorized || !strings.Contains(stale.Text, "You are signed out") {
		t.Errorf("asking after signing out: %d: %s", stale.StatusCode, stale.Text)
	}
	if asked := b.Follow(b.url + "/"); !strings.Contains(asked.Text, "Allow access?") {
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

func TestDemoShowsATopUpOnReload(t *testing.T) {
	_, b := startDemoCommand(t)
	b.wantBalance(b.signInAs("/", "67890"), "3.20")
	topUp := b.Follow(b.url + "/oauth/topup")
	b.wantBalance(b.Follow(b.url+"/"), "3.20")
	b.submit(topUp, b.onlyForm(topUp), url.Values{"amount": {"5"}})
	// No button: max_age is over soon.
	gatewaytest.Eventually(t, "a reload shows the new balance", func() bool {
		time.Sleep(100 * time.Millisecond)
		return strings.Contains(b.Follow(b.url+"/").Text, `id="balance">8.20</p>`)
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
		b.waitUntilNothingIsHeld()
	}
	closed := b.ask(home)
	if closed.StatusCode != http.StatusPaymentRequired || !strings.Contains(closed.Text, "0.20") || !strings.Contains(closed.Text, "0.50") {
		t.Fatalf("the seventh question: status %d: %s", closed.StatusCode, closed.Text)
	}
	b.wantBalance(b.Follow(b.url+"/"), "0.20")

	topUp := b.Follow(b.url + "/oauth/topup")
	b.submit(topUp, b.onlyForm(topUp), url.Values{"amount": {"5"}})
	again := b.Follow(closed.Request.URL.String()) // "Try again"
	if again.StatusCode != http.StatusOK || !strings.Contains(again.Text, "You asked: ") {
		t.Fatalf("after the top-up: status %d: %s", again.StatusCode, again.Text)
	}
	b.wantBalance(b.Follow(b.url+"/"), "4.70")
	b.Open(page).Body.Close() // a reload of an answer that was paid
	b.wantBalance(b.Follow(b.url+"/"), "4.70")
}

// callModel sends calls of the model at the same time, and counts the statuses.
func (b *demoBrowser) callModel(calls int) map[int]int {
	b.T.Helper()
	var mu sync.Mutex
	statuses := map[int]int{}
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			a := b.Send(http.MethodPost, b.url+"/model", nil, "Origin: "+b.url, "Sec-Fetch-Site: same-origin")
			mu.Lock()
			defer mu.Unlock()
			statuses[a.StatusCode]++
		})
	}
	all.Wait()
	return statuses
}

func TestTheDemoAnswersThreeOfTwentyCallsWithMoneyForThree(t *testing.T) {
	_, b := startDemoCommand(t)
	home := b.signInAs("/", "24680")
	topUp := b.Follow(b.url + "/oauth/topup")
	b.submit(topUp, b.onlyForm(topUp), url.Values{"amount": {"5"}})
	b.wantBalance(b.submit(home, "/refresh-balance", nil), "5.00")
	if got := b.callModel(7); got[http.StatusOK] != 7 {
		t.Fatalf("seven calls with money for ten: got %v", got)
	}
	b.wantBalance(b.submit(home, "/refresh-balance", nil), "1.50")
	if got := b.callModel(20); got[http.StatusOK] != 3 || got[http.StatusPaymentRequired] != 17 {
		t.Errorf("twenty calls with money for three: got %v", got)
	}
	b.wantBalance(b.submit(home, "/refresh-balance", nil), "0.00")
}

func TestDemoStreamsAnswersWordByWord(t *testing.T) {
	_, b := startDemoCommand(t)
	home := b.signInAs("/", gatewaytest.UserID)
	// A busy machine may see many words at once. If the answer is buffered, all of it is there
	// with its first byte, whenever one looks.
	gatewaytest.Eventually(t, "the first byte of an answer comes before its last word", func() bool {
		resp := b.Open(b.target(b.post(home, "/ask", aQuestion)))
		defer resp.Body.Close()
		if _, err := resp.Body.Read(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return time.Since(began) > time.Second
	})
}

func TestTheDemoSaysWhenTheBalanceIsUsedUp(t *testing.T) {
	_, b := startDemoCommand(t)
	home := b.signInAs("/", "24680")
	b.wantBalance(home, "0.00")
	if !strings.Contains(home.Text, "Your balance is used up") || !strings.Contains(home.Text, "张伟") || !strings.Contains(home.Text, "%E5%BC%A0%E4%BC%9F") {
		t.Errorf("the page says %s", home.Text)
	}
	if a := b.ask(home); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("asking without money: status %d: %s", a.StatusCode, a.Text)
	}
	b.wantBalance(b.Follow(b.url+"/"), "0.00")
}

func TestTheDemosPublicAndOptionalPages(t *testing.T) {
	_, b := startDemoCommand(t)
	if a := b.Visit("/public", "X-User-Id: 1", "X_User_Name: x"); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "header arrived") {
		t.Errorf("public: status %d: %s", a.StatusCode, a.Text)
	}
	if a := b.Get("/optional", "X-User-Id: 1"); a.Text != "No X-User header arrived here.\n" {
		t.Errorf("optional, as a script: status %d: %s", a.StatusCode, a.Text)
	}
	if a := b.Visit("/optional"); !strings.Contains(a.Text, "Hello, stranger") {
		t.Errorf("optional: status %d: %s", a.StatusCode, a.Text)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("home, as a script: status %d", a.StatusCode)
	}
	for _, asset := range []string{"/assets/style.css", "/assets/icon.svg"} {
		if a := b.Get(asset); a.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d", asset, a.StatusCode)
		}
	}
	if a := b.signInAs("/oauth/start?return_to=/optional", gatewaytest.UserID); !strings.Contains(a.Text, "Hello, user123") {
		t.Errorf("optional, signed in: status %d: %s", a.StatusCode, a.Text)
	}
}

func TestDemoRedirectsOtherLocalNamesToItsOwn(t *testing.T) {
	_, b := startDemoCommand(t)
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	if a := b.Visit(fmt.Sprintf("http://localhost:%s/optional?x=1", u.Port())); a.Location() != b.url+"/optional?x=1" {
		t.Errorf("localhost leads to %q: status %d", a.Location(), a.StatusCode)
	}
}

func TestTheDemoRefreshesShortTokens(t *testing.T) {
	_, b := startDemoCommand(t, "--access-lifetime", "1s")
	home := b.signInAs("/", gatewaytest.UserID)
	time.Sleep(1200 * time.Millisecond)
	b.askAndLeave(home)
	b.wantBalance(b.Follow(b.url+"/"), "749.50")
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
