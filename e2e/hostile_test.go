package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// hostileMessages are messages of an attacker who pretends to be the popup, or wants the
// page to do something. NONCE is replaced by the nonce of the sign-in.
var hostileMessages = []string{
	`null`, `1`, `"tollgate:login"`, `[]`, `{}`, `{ type: "tollgate:login" }`, `{ type: "tollgate:login", ok: true }`,
	`{ type: "tollgate:login", ok: true, nonce: null }`, `{ type: "tollgate:login", ok: true, nonce: "" }`,
	`{ type: "tollgate:login", ok: true, nonce: "guessed" }`, `{ type: "tollgate:login", ok: false, nonce: "guessed", error: "access_denied" }`,
	`{ type: "tollgate:login", ok: true, nonce: ["NONCE"] }`, `{ type: "tollgate:login", ok: "true", nonce: "NONCE" }`,
	`{ type: ["tollgate:login"], ok: true, nonce: "NONCE" }`, `{ type: "tollgate:logout" }`, `{ type: "logout", user: null }`,
	`{ __proto__: { type: "tollgate:login", ok: true, nonce: "NONCE" } }`,
	`{ type: "tollgate:login", ok: true, nonce: "x".repeat(5_000_000) }`, `"x".repeat(5_000_000)`,
}

// pending opens a sign-in in a popup, and returns the popup and the sign-in's nonce.
func (w *tab) pending() (popup *tab, nonce string) {
	w.t.Helper()
	evaluate[any](w, `(window.realOpen = open, window.open = (url, ...rest) => { window.nonce = url.searchParams.get("nonce"); return realOpen(url, ...rest) }, null)`)
	popup = w.popup(func() { w.act("tollgate.login().then(user => user.username)") })
	popup.shows("Sign in as")
	return popup, evaluate[string](w, "nonce")
}

// isUnmoved checks that messages had no effect: no request, no event, and no end of the
// pending sign-in. It also checks that the sign-in then ends as it should.
func (w *tab) isUnmoved(popup *tab, asked int) {
	w.t.Helper()
	time.Sleep(300 * time.Millisecond) // time for events that must not happen
	if n := w.person.sent("GET /oauth/userinfo"); n != asked {
		w.t.Errorf("the messages caused %d requests to userinfo, want 0", n-asked)
	}
	if evaluate[bool](w, "Boolean(window.result)") || w.events() != "[]" {
		w.t.Fatalf("a forged message had an effect: events %s, want []", w.events())
	}
	popup.signIn(gatewaytest.UserID)
	popup.closed()
	if got := w.result(); got != `{"value":"user123"}` {
		w.t.Errorf("result: got %s, want %s", got, `{"value":"user123"}`)
	}
}

func TestMessagesFromOtherWindowsAreIgnored(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	p := s.newPerson()
	w := p.openSDK()
	other := p.open("/page")
	popup, nonce := w.pending()
	asked := p.sent("GET /oauth/userinfo")
	if len(nonce) != 32 {
		t.Errorf("the nonce is %q, want 32 characters", nonce)
	}
	for _, message := range hostileMessages {
		evaluate[any](w, fmt.Sprintf(`(postMessage((%s), "*"), null)`, withNonce(message, nonce)))
		evaluate[any](other, fmt.Sprintf(`{ const c = new BroadcastChannel("tollgate"); c.postMessage((%s)); c.close(); null }`, withNonce(message, nonce)))
	}
	// The right message from this origin, but from another window than the popup.
	evaluate[any](w, fmt.Sprintf(`(postMessage({ type: "tollgate:login", ok: true, nonce: %q }, "*"), null)`, nonce))
	w.isUnmoved(popup, asked)
}

func TestHostileFrameAndOpenerHaveNoEffect(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage, policy: strictPolicy + "; frame-src *"})
	// The page of another site opens ours, is also in a frame of it, and even knows the nonce.
	s.startOutside(`<button>Open</button><script>
		window.heard = [];
		addEventListener("message", e => heard.push(e.data));
		document.querySelector("button").onclick = () => { window.ours = open("` + s.url + `/") };
		window.attack = (target, nonce) => target.postMessage({ type: "tollgate:login", ok: true, nonce }, "*");
		if (parent !== window) onmessage = e => attack(parent, e.data);
	</script>`)
	p := s.newPerson()
	outside := p.open(s.outsideURL)
	w := outside.popup(func() { outside.click("button") })
	w.eventually("window.ready")
	w.isOut()
	evaluate[any](w, fmt.Sprintf(`new Promise(done => { const f = document.createElement("iframe"); f.onload = () => done(null); f.src = %q; document.body.append(f) })`, s.outsideURL))
	popup, nonce := w.pending()
	asked := p.sent("GET /oauth/userinfo")
	evaluate[any](outside, fmt.Sprintf(`(attack(ours, %q), null)`, nonce))
	evaluate[any](w, fmt.Sprintf(`(frames[0].postMessage(%q, "*"), null)`, nonce))
	// The popup itself sends the message while it shows a page of another origin.
	evaluate[any](popup, fmt.Sprintf(`(opener.postMessage({ type: "tollgate:login", ok: true, nonce: %q }, "*"), null)`, nonce))
	w.isUnmoved(popup, asked)
	if got := evaluate[string](outside, "JSON.stringify(heard)"); got != "[]" {
		t.Errorf("the opener was told %s, want %s", got, "[]")
	}
}

// Only pages of this origin can write to the channel. The page asks the gateway all the same.
func TestAMessageAloneSignsNobodyIn(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	p := s.newPerson()
	w := p.openSDK()
	other := p.open("/page")
	_, nonce := w.pending()
	evaluate[any](other, fmt.Sprintf(`{ const c = new BroadcastChannel("tollgate"); c.postMessage({ type: "tollgate:login", ok: true, nonce: %q }); null }`, nonce))
	if got := w.result(); got != `{"error":"not_signed_in","name":"TollgateError"}` {
		t.Errorf("result: got %s, want %s", got, `{"error":"not_signed_in","name":"TollgateError"}`)
	}
	w.isOut()
	if got := w.events(); got != "[]" {
		t.Errorf("events: got %s, want %s", got, "[]")
	}
}

// A message from another tab causes a request, but many messages cannot cause many requests.
func TestMessagesFromOtherTabsOnlyCauseARead(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	p := s.newPerson()
	w := p.openSDK()
	w.signInByClick()
	other := p.open("/page")
	asked, began := p.sent("GET /oauth/userinfo"), time.Now()
	evaluate[any](other, `{ const c = new BroadcastChannel("tollgate"); for (let i = 0; i < 2000; i++) c.postMessage({ type: "tollgate:changed", cause: ["logout", "expired", "login", {}][i % 4], user: null }); c.close(); null }`)
	gatewaytest.Eventually(t, "the messages cause a request", func() bool { return p.sent("GET /oauth/userinfo") > asked })
	w.run("waiting", chromedp.Sleep(1500*time.Millisecond))
	n, most := p.sent("GET /oauth/userinfo")-asked, 2+int(time.Since(began)/time.Second) // one a second
	if n > most {
		t.Errorf("two thousand messages caused %d requests, want %d at most", n, most)
	}
	w.isIn("user123", "750.00")
	w.heard(`[["login","user123","750.00"]]`)
}

func withNonce(message, nonce string) string { return strings.ReplaceAll(message, "NONCE", nonce) }
