package e2e

import (
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const post = `tollgate.fetch("/api/send", { method: "POST", body: "x" }).then(async r => [r.status, await r.json()])`

func TestCallIsNotRepeatedForAnotherUser(t *testing.T) {
	var calls atomic.Int64
	s := newSite(t, siteOptions{pages: sdkPage, api: func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		echo(w, r)
	}})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")
	w := p.openSDK()
	w.signInByClick()
	s.signOutElsewhere(w)

	popup := w.popup(func() { w.act(post) })
	popup.shows("Use another account")
	evaluate[any](w, `(window.late = tollgate.fetch("/api/late").catch(error => error.code), null)`)
	popup.click("button.quiet")
	popup.signIn("67890")
	popup.shows("Signed in as maria")
	popup.click(`button[value="allow"]`)
	if got := w.result(); got != `{"error":"user_changed","name":"TollgateError"}` {
		t.Errorf("result: got %s, want %s", got, `{"error":"user_changed","name":"TollgateError"}`)
	}
	if got := evaluate[string](w, "late"); got != "user_changed" {
		t.Errorf("a call from before the sign-in: %s, want %s", got, "user_changed")
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls reached the application, want %d", n, 0)
	}
	w.isIn("maria", "3.20")
	w.heard(`[["login","user123","750.00"],["expired",null,null],["login","maria","3.20"]]`)
}

// signOutElsewhere ends the session without telling the page.
func (s *site) signOutElsewhere(w *tab) {
	s.t.Helper()
	if got := evaluate[int](w, `fetch("/oauth/logout", { method: "POST", headers: { Accept: "application/json" } }).then(r => r.status)`); got != http.StatusNoContent {
		s.t.Fatalf("signing out: %d, want %d", got, http.StatusNoContent)
	}
}

func TestAClosedPopupRejectsEveryCallThatWaits(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage, api: echo})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")
	w := p.openSDK()
	popup := w.popup(func() {
		w.act(`Promise.allSettled([1, 2, 3].map(i => tollgate.fetch("/api/" + i))).then(all => all.map(one => one.reason?.code))`)
	})
	popup.shows("Sign in as")
	popup.shut()
	w.click("body")
	if got := w.result(); got != `{"value":["popup_closed","popup_closed","popup_closed"]}` {
		t.Errorf("result: got %s, want %s", got, `{"value":["popup_closed","popup_closed","popup_closed"]}`)
	}
}

// A page in the background must not be left for a sign-in, with all that was typed there.
func TestCallWithoutAClickDoesNotLeaveThePage(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage, api: echo})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")
	w := p.open("/page")
	w.goTo("/")
	w.isOut()
	if got := evaluate[string](w, `tollgate.fetch("/api/").catch(error => error.code)`); got != "popup_blocked" {
		t.Errorf("got %s, want %s", got, "popup_blocked")
	}
	if got := evaluate[string](w, "location.pathname"); got != "/" {
		t.Errorf("the page went to %s, want %s", got, "/")
	}
}

func TestACallThatStaysUnauthorizedIsRepeatedOnce(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage, api: echo, inTollgate: "require /api/* {\nuser 67890\n}"})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")
	p.expect("403 (Forbidden)")
	w := p.openSDK()
	popup := w.popup(func() { w.act(`tollgate.fetch("/api/send", { method: "POST", body: "x" }).then(r => r.status)`) })
	popup.signIn(gatewaytest.UserID)
	if got := w.result(); got != `{"value":403}` {
		t.Errorf("result: got %s, want %s", got, `{"value":403}`)
	}
	if n := p.sent("POST /api/send"); n != 2 {
		t.Errorf("the call was sent %d times, want %d", n, 2)
	}
}

// Only the gateway's own answers are read: an application may say 401 and 402 itself.
func TestResponsesOfTheApplicationAreUnchanged(t *testing.T) {
	answers := map[string]func(w http.ResponseWriter){
		"/page-plain": func(w http.ResponseWriter) { w.WriteHeader(401); w.Write([]byte("x")) },
		"/page-problem": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(401)
			w.Write([]byte(`{"title":"x","login_url":"https://evil.example/oauth/start"}`))
		},
		"/page-broken": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(401)
			w.Write([]byte(`{"login_url":`))
		},
		"/page-pay": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(402)
			w.Write([]byte(`{"error":"pay_me"}`))
		},
	}
	s := newSite(t, siteOptions{pages: sdkPage, other: func(w http.ResponseWriter, r *http.Request) bool {
		answer, ok := answers[r.URL.Path]
		if ok {
			answer(w)
		}
		return ok
	}})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")
	p.expect("402 (Payment Required)")
	w := p.openSDK()
	for path := range answers {
		w.act(`tollgate.fetch("` + path + `").then(async r => [r.status, (await r.text()).length > 0])`)
		if got := w.result(); got != `{"value":[401,true]}` && got != `{"value":[402,true]}` {
			t.Errorf("%s: %s", path, got)
		}
	}
	if n := s.provider.Count(simulator.Authorize); n != 0 || w.events() != "[]" {
		t.Errorf("%d sign-ins were begun, events %s", n, w.events())
	}
}

func TestInsufficientBalanceSendsAnEventAndOffersATopUp(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage, api: echo, inTollgate: "require /api/* {\nbalance 1000\n}"})
	p := s.newPerson()
	p.expect("402 (Payment Required)")
	w := p.openSDK()
	w.signInByClick()
	evaluate[any](w, `(tollgate.addEventListener("balance", e => window.lack = e.detail.insufficient ?? window.lack), null)`)
	w.act(`tollgate.fetch("/api/send", { method: "POST", body: "x" }).then(async r => [r.status, (await r.json()).error])`)
	if got := w.result(); got != `{"value":[402,"insufficient_balance"]}` {
		t.Errorf("result: got %s, want %s", got, `{"value":[402,"insufficient_balance"]}`)
	}
	if got := evaluate[string](w, "JSON.stringify(lack)"); got != `{"balance":"750.00","required":"1000"}` {
		t.Errorf("lacking: %s, want %s", got, `{"balance":"750.00","required":"1000"}`)
	}
	w.eventually(part("message") + `.textContent === "Your balance is not enough"`)
	if !evaluate[bool](w, "!"+part("topup")+".hidden") {
		t.Error("the top-up button is hidden, want it visible after a 402")
	}
}

func TestSDKErrorsHaveCodes(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")
	p.expect("502 (Bad Gateway)")
	p.expect("503 (Service Unavailable)")
	w := p.openSDK()
	for _, c := range []struct{ act, want string }{
		{"tollgate.refreshBalance()", "not_signed_in"},
		{"tollgate.topUp()", "not_signed_in"},
	} {
		w.act(c.act)
		if got := w.result(); got != `{"error":"`+c.want+`","name":"TollgateError"}` {
			t.Errorf("%s: %s, want %s", c.act, got, `{"error":"`+c.want+`","name":"TollgateError"}`)
		}
	}
	w.signInByClick()
	for fault, status := range map[string]int{`{"topup_url":"javascript:alert(1)"}`: 200, "x": 503} {
		s.provider.SetFault(simulator.TopUp, simulator.Fault{Status: status, Body: fault})
		w.act("tollgate.topUp()")
		if got := w.result(); got != `{"error":"unavailable","name":"TollgateError"}` {
			t.Errorf("%s: %s, want %s", fault, got, `{"error":"unavailable","name":"TollgateError"}`)
		}
	}
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	w.act("tollgate.refreshBalance()")
	if got := w.result(); !strings.Contains(got, `"unavailable"`) {
		t.Errorf("result %s", got)
	}
	w.isIn("user123", "750.00") // nobody is signed out by that
}

// TestResponsesOfAnotherOriginStartNoSignIn: an address of this site that redirects
// elsewhere, an open redirect perhaps, hands the word to somebody else.
func TestResponsesOfAnotherOriginStartNoSignIn(t *testing.T) {
	documents := map[string]string{
		"401": `{"title":"x","status":401,"error":"not_authenticated","login_url":"/oauth/start?return_to=%2F"}`,
		"402": `{"title":"x","status":402,"error":"insufficient_balance","balance":"0.00","required":"9.00"}`,
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "application/problem+json")
		status := path.Base(r.URL.Path)
		code, _ := strconv.Atoi(status)
		w.WriteHeader(code)
		w.Write([]byte(documents[status]))
	}))
	defer elsewhere.Close()
	s := newSite(t, siteOptions{pages: sdkPage, policy: "connect-src *", other: func(w http.ResponseWriter, r *http.Request) bool {
		to, ok := strings.CutPrefix(r.URL.Path, "/page-to-")
		if ok {
			http.Redirect(w, r, elsewhere.URL+"/"+to, http.StatusFound)
		}
		return ok
	}})
	p := s.newPerson()
	p.expect("401 (Unauthorized)")
	p.expect("402 (Payment Required)")
	p.expect("request to another origin: " + elsewhere.URL)
	w := p.openSDK()
	for status := range documents {
		w.act(`tollgate.fetch("/page-to-` + status + `").then(async r => [r.status, r.redirected, (await r.json()).title])`)
		if got, want := w.result(), `{"value":[`+status+`,true,"x"]}`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if n := p.sent("GET /page-to-" + status); n != 1 {
			t.Errorf("the call for %s was sent %d times, want once", status, n)
		}
	}
	if n := s.provider.Count(simulator.Authorize); n != 0 || w.events() != "[]" {
		t.Errorf("%d sign-ins were begun, events %s; want none", n, w.events())
	}
}
