package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// sdkPage has the element, and a button with which a test does something in a click. It
// records every event, and the result of the click.
var sdkPage = map[string]string{
	"/":     document(`<script src="/page.js" type="module"></script>`, `<button id="act">Act</button> <tollgate-user></tollgate-user>`),
	"/page": document("", "Another page"),
	"/page.js": `import { tollgate } from "/oauth/sdk.js";
		window.events = [];
		for (const type of ["login", "logout", "balance", "expired"]) {
			tollgate.addEventListener(type, e => events.push([type, e.detail.user?.username ?? null, e.detail.user?.balance.value ?? null]));
		}
		window.act = () => {};
		document.querySelector("#act").onclick = () => {
			window.result = undefined;
			Promise.resolve(act()).then(value => window.result = { value }, error => window.result = { error: error.code ?? String(error), name: error.name });
		};
		window.ready = true;`,
}

// openSDK opens the page of the SDK and waits until it is ready for clicks.
func (p *person) openSDK() *tab {
	p.t.Helper()
	w := p.open("/")
	w.eventually("window.ready && !document.querySelector('tollgate-user').dataset.state.includes('loading')")
	return w
}

// act does something in a click on the page's button.
func (w *tab) act(script string) {
	w.t.Helper()
	evaluate[any](w, "(window.act = () => "+script+", null)")
	w.click("#act")
}

// part is a part of the page's <tollgate-user>.
func part(name string) string {
	return fmt.Sprintf(`document.querySelector("tollgate-user").shadowRoot.querySelector("[part~=%s]")`, name)
}

// isIn waits until the page shows a user with this balance.
func (w *tab) isIn(username, balance string) {
	w.t.Helper()
	w.eventually(fmt.Sprintf(`%s.textContent === %q && %s.textContent === %q && document.querySelector("tollgate-user").dataset.state === "in"`,
		part("name"), username, part("value"), balance))
}

func (w *tab) isOut() {
	w.t.Helper()
	w.eventually(`document.querySelector("tollgate-user").dataset.state === "out"`)
}

// signInByClick signs in with the element's button.
func (w *tab) signInByClick() {
	w.t.Helper()
	w.popup(func() { w.click(part("login")) }).signIn(gatewaytest.UserID)
	w.isIn("user123", "750.00")
}

// events returns the events that the page has received.
func (w *tab) events() string {
	w.t.Helper()
	return evaluate[string](w, "JSON.stringify(events)")
}

func (w *tab) heard(want string) {
	w.t.Helper()
	w.eventually("window.events?.length >= " + fmt.Sprint(strings.Count(want, "[")-1))
	if got := w.events(); got != want {
		w.t.Errorf("heard %s, want %s", got, want)
	}
}

// result returns the result of the last click.
func (w *tab) result() string {
	w.t.Helper()
	w.eventually("window.result")
	return evaluate[string](w, "JSON.stringify(result)")
}

func TestOneClickSignsInInAPopup(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, pages: sdkPage})
		w := s.newPerson().openSDK()
		w.isOut()
		popup := w.popup(func() { w.click(part("login")) })
		popup.shows("Sign in as")
		// The frame of a window may take a few pixels.
		if !evaluate[bool](popup, "Math.abs(innerWidth - 500) <= 2 && Math.abs(innerHeight - 600) <= 2") {
			t.Errorf("the popup measures %s", evaluate[string](popup, "innerWidth + 'x' + innerHeight"))
		}
		middle := evaluate[[2]float64](w, "[screenX + outerWidth / 2, screenY + outerHeight / 2]")
		at := evaluate[[2]float64](popup, "[screenX + outerWidth / 2, screenY + outerHeight / 2]")
		if math.Hypot(at[0]-middle[0], at[1]-middle[1]) > 50 {
			t.Errorf("the popup's centre is at %v, the page's at %v, want at most 50 pixels between them", at, middle)
		}
		popup.signIn(gatewaytest.UserID)
		popup.closed()
		w.isIn("user123", "750.00")
		w.heard(`[["login","user123","750.00"]]`)
		if got := evaluate[string](w, "location.pathname"); got != "/" {
			t.Errorf("the page went to %s, want %s", got, "/")
		}
	})
}

func TestAPopupThatIsOpenAlreadyIsNotOpenedAgain(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	w := s.newPerson().openSDK()
	popup := w.popup(func() {
		w.act("{ const [a, b] = [tollgate.login(), tollgate.login()]; window.same = a === b; return a.then(user => user.username) }")
	})
	popup.signIn(gatewaytest.UserID)
	if got := w.result(); got != `{"value":"user123"}` || !evaluate[bool](w, "window.same") {
		t.Errorf("result %s", got)
	}
	if n := s.provider.Count(simulator.Exchange); n != 1 {
		t.Errorf("got %d sign-ins, want %d", n, 1)
	}
}

func TestABlockedPopupSignsInInThePageItself(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, pages: sdkPage})
		p := s.newPerson()
		w := p.open("/page")
		w.goTo("/?a=1#part")
		w.eventually("window.ready")
		evaluate[any](w, "(setTimeout(() => tollgate.login()), null)") // outside of a click
		w.signIn(gatewaytest.UserID)
		w.isIn("user123", "750.00")
		if got := evaluate[string](w, "location.href"); got != s.url+"/?a=1#part" {
			t.Errorf("came back to %s, want %s", got, s.url+"/?a=1#part")
		}
	})
}

func TestLoginWithoutAPopupReturnsToAnotherPath(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	w := s.newPerson().openSDK()
	w.act(`tollgate.login({ popup: false, returnTo: "/page" })`)
	w.signIn(gatewaytest.UserID)
	w.shows("Another page")
}

func TestPopupWithoutAnOpenerSignsIn(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, pages: sdkPage})
		s.isolate()
		w := s.newPerson().openSDK()
		popup := w.popup(func() { w.act("{ window.began = Date.now(); return tollgate.login().then(user => user.username) }") })
		popup.shows("Sign in as")
		// Longer than the timeout for a closed window.
		w.eventually("Date.now() - began > 1500")
		if evaluate[bool](w, "Boolean(window.result)") {
			t.Fatalf("the sign-in ended while its window was open: result %s", w.result())
		}
		popup.signIn(gatewaytest.UserID)
		popup.closed()
		if got := w.result(); got != `{"value":"user123"}` {
			t.Errorf("result: got %s, want %s", got, `{"value":"user123"}`)
		}
		w.isIn("user123", "750.00")
	})
}

func TestSignInThatIsFinishedLaterIsNoticed(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	s.isolate()
	w := s.newPerson().openSDK()
	popup := w.popup(func() { w.act("tollgate.login()") })
	popup.shows("Sign in as")
	w.click("body") // the user is back on the page, and the popup is still open
	if got := w.result(); got != `{"error":"popup_closed","name":"TollgateError"}` {
		t.Errorf("result: got %s, want %s", got, `{"error":"popup_closed","name":"TollgateError"}`)
	}
	popup.signIn(gatewaytest.UserID)
	w.isIn("user123", "750.00")
	w.heard(`[["login","user123","750.00"]]`)
}

func TestAPopupThatWasLostCanBeOpenedOnceMore(t *testing.T) {
	for i, name := range []string{"the first", "the second"} {
		s := newSite(t, siteOptions{pages: sdkPage})
		s.isolate()
		w := s.newPerson().openSDK()
		const act = "{ const user = tollgate.login(); (window.all ??= []).push(user); return Promise.all(all).then(users => users.map(user => user.username)) }"
		first := w.popup(func() { w.act(act) })
		first.shows("Sign in as")
		second := w.popup(func() { w.act(act) })
		second.shows("Sign in as")
		[]*tab{first, second}[i].signIn(gatewaytest.UserID)
		if got := w.result(); got != `{"value":["user123","user123"]}` {
			t.Errorf("signing in in %s window: %s, want %s", name, got, `{"value":["user123","user123"]}`)
		}
		w.isIn("user123", "750.00")
	}
}

func TestAPopupThatIsClosedRejects(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, pages: sdkPage})
		w := s.newPerson().openSDK()
		popup := w.popup(func() { w.act("tollgate.login()") })
		popup.shows("Sign in as")
		popup.shut()
		w.click("body") // the user is back on the page
		if got := w.result(); got != `{"error":"popup_closed","name":"TollgateError"}` {
			t.Errorf("result: got %s, want %s", got, `{"error":"popup_closed","name":"TollgateError"}`)
		}
		if got := w.events(); got != "[]" {
			t.Errorf("events: got %s, want %s", got, "[]")
		}
		w.signInByClick() // the rejected sign-in has no effect on the next one
	})
}

func TestDeniedSignInRejects(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	w := s.newPerson().openSDK()
	w.signInByClick()
	w.click(part("logout"))
	w.isOut()
	// After a sign-out the provider asks the user before it continues.
	popup := w.popup(func() { w.act("tollgate.login()") })
	w.person.tolerate("400 (Bad Request)") // is the status of the popup's page
	popup.shows("Allow access?")
	popup.click(`button[value="deny"]`)
	popup.closed()
	if got := w.result(); got != `{"error":"access_denied","name":"TollgateError"}` {
		t.Errorf("result: got %s, want %s", got, `{"error":"access_denied","name":"TollgateError"}`)
	}
}

func TestRefreshBalanceReadsTheBalanceAgain(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	w := s.newPerson().openSDK()
	w.signInByClick()
	if err := s.provider.Spend(12345, 50_00); err != nil {
		t.Fatal(err)
	}
	w.click(part("refresh"))
	w.isIn("user123", "700.00")
	w.eventually(part("message") + `.textContent === "Balance updated"`)
	w.heard(`[["login","user123","750.00"],["balance","user123","700.00"]]`)
}

func TestToppingUpInANewTabChangesTheBalance(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, pages: sdkPage})
		w := s.newPerson().openSDK()
		w.signInByClick()
		money := w.popup(func() { w.click(part("topup")) })
		money.shows("Balance of user123")
		if evaluate[bool](money, "Boolean(window.opener)") {
			t.Error("the provider's page has window.opener, want null")
		}
		money.click(`button[value="50"]`)
		money.shows("$50 added")
		money.shut()
		w.toFront()
		w.isIn("user123", "800.00")
	})
}

func TestSigningOutInOneTabIsSeenInTheOther(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, pages: sdkPage})
		p := s.newPerson()
		first := p.openSDK()
		second := p.openSDK()
		first.signInByClick()
		second.isIn("user123", "750.00")
		second.heard(`[["login","user123","750.00"]]`)

		second.click(part("logout"))
		second.isOut()
		first.isOut()
		first.heard(`[["login","user123","750.00"],["logout",null,null]]`)
		second.heard(`[["login","user123","750.00"],["logout",null,null]]`)
	})
}

func TestTwoClicksOnSignOutAreOne(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	w := s.newPerson().openSDK()
	w.signInByClick()
	w.act("Promise.all([tollgate.logout(), tollgate.logout()])")
	w.result()
	if n := w.person.sent("POST /oauth/logout"); n != 1 {
		t.Errorf("signed out %d times, want %d", n, 1)
	}
	w.heard(`[["login","user123","750.00"],["logout",null,null]]`)
}

// A response may be sent before the sign-out and arrive after it. It is outdated.
func TestLateResponseDoesNotReplaceANewerOne(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	w := s.newPerson().openSDK()
	w.signInByClick()
	got := evaluate[string](w, `(async () => {
		const { promise: released, resolve: release } = Promise.withResolvers();
		const real = fetch;
		window.fetch = async (path, ...rest) => {
			const answer = await real(path, ...rest);
			if (path.includes("userinfo")) await released;
			return answer;
		};
		const reading = tollgate.user();
		await new Promise(done => setTimeout(done, 100));
		await tollgate.logout();
		release();
		return JSON.stringify(await reading);
	})()`)
	if got != "null" {
		t.Errorf("after signing out there is %s", got)
	}
	w.isOut()
	w.heard(`[["login","user123","750.00"],["logout",null,null]]`)
}

func TestTopUpURLWithAScriptIsNotFollowed(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	w := s.newPerson().openSDK()
	w.signInByClick()
	evaluate[any](w, `(window.fetch = async () => Response.json({ topup_url: "javascript:opener.stolen = document.cookie" }), null)`)
	w.act("tollgate.topUp()")
	if got := w.result(); got != `{"error":"unavailable","name":"TollgateError"}` || evaluate[bool](w, "'stolen' in window") {
		t.Errorf("result %s", got)
	}
}

// echo responds with the user of the request and the hash of its body.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	sum := sha256.Sum256(body)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]string{
		"method": r.Method, "user": r.Header.Get("X-User-Name"), "type": r.Header.Get("X-Own"), "sha256": hex.EncodeToString(sum[:]),
	})
}

func TestAPostIsRepeatedAfterTheSignIn(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage, api: echo})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")
	w := p.openSDK()
	body := strings.Repeat("körper ", 50_000)
	evaluate[any](w, fmt.Sprintf("(window.body = %q.repeat(50000), null)", "körper "))
	popup := w.popup(func() {
		w.act(`tollgate.fetch("/api/send", { method: "POST", body, headers: { "X-Own": "kept" } }).then(async r => [r.status, await r.json()])`)
	})
	popup.signIn(gatewaytest.UserID)
	sum := sha256.Sum256([]byte(body))
	want := fmt.Sprintf(`{"value":[200,{"method":"POST","sha256":"%x","type":"kept","user":"user123"}]}`, sum)
	if got := w.result(); got != want {
		t.Errorf("result %s, want %s", got, want)
	}
}

func TestManyCallsAtOnceOpenOnePopup(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	s := newSite(t, siteOptions{pages: sdkPage, api: func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.URL.RawQuery]++
		echo(w, r)
	}})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")
	w := p.openSDK()
	popup := w.popup(func() {
		w.act(`Promise.all(Array.from({ length: 20 }, (_, i) => tollgate.fetch("/api/call?" + i, { method: "PUT", body: "b" + i }).then(r => r.status)))
			.then(all => all.filter(status => status === 200).length)`)
	})
	popup.signIn(gatewaytest.UserID)
	if got := w.result(); got != `{"value":20}` {
		t.Errorf("result: got %s, want %s", got, `{"value":20}`)
	}
	if n := s.provider.Count(simulator.Authorize); n > 2 { // before and after the form
		t.Errorf("the authorization endpoint got %d requests, want at most 2", n)
	}
	mu.Lock()
	defer mu.Unlock()
	for call, n := range seen {
		if n != 1 {
			t.Errorf("call %s reached the application %d times, want once", call, n)
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d calls reached the application, want 20", len(seen))
	}
}
