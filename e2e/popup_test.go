package e2e

import (
	"net/http"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// opener is a page without the SDK. It opens the popup by itself, and collects the messages
// that it receives.
var opener = map[string]string{
	"/": document(`<script src="/page.js" type="module"></script>`, `<button>Sign in</button>`),
	"/page.js": `window.posted = []; window.heard = [];
		addEventListener("message", e => posted.push({ ...e.data, origin: e.origin, fromPopup: e.source === window.popup }));
		new BroadcastChannel("tollgate").onmessage = e => heard.push(e.data);
		document.querySelector("button").onclick = () => {
			window.popup = open("/oauth/start?popup=1&nonce=n-123", "_blank", "popup,width=500,height=600");
		};`,
}

const signedInMessage = `{ type: "tollgate:login", ok: true, nonce: "n-123" }`

func TestPopupReportsToItsOpenerAndCloses(t *testing.T) {
	s := newSite(t, siteOptions{pages: opener})
	w := s.newPerson().open("/")
	popup := w.popup(func() { w.click("button") })
	popup.signIn(gatewaytest.UserID)
	popup.closed()
	w.eventually(`posted.length && heard.length`)
	if got, want := evaluate[string](w, `JSON.stringify([posted, heard])`), evaluate[string](w,
		`JSON.stringify([[{ ...`+signedInMessage+`, origin: location.origin, fromPopup: true }], [`+signedInMessage+`]])`); got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}

// isolate makes the provider isolate its pages, which cuts a popup off from the window that
// opened it.
func (s *site) isolate() {
	s.provider.SetFault(simulator.Authorize, simulator.Fault{Header: http.Header{"Cross-Origin-Opener-Policy": {"same-origin"}}})
}

func TestPopupWithoutAnOpenerReportsOnTheChannel(t *testing.T) {
	s := newSite(t, siteOptions{pages: opener})
	s.isolate()
	w := s.newPerson().open("/")
	popup := w.popup(func() { w.click("button") })
	popup.shows("Sign in as")
	if !evaluate[bool](w, "window.popup.closed") || evaluate[bool](popup, "Boolean(window.opener)") {
		t.Fatal("the provider's page did not cut the popup off from its opener, so the test proves nothing")
	}
	popup.signIn(gatewaytest.UserID)
	popup.closed()
	w.eventually(`heard.length`)
	if got, want := evaluate[string](w, `JSON.stringify([posted, heard])`), evaluate[string](w, `JSON.stringify([[], [`+signedInMessage+`]])`); got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}

// A page of another site may open the window, but receives nothing from it.
func TestHostileOpenerReceivesNoMessage(t *testing.T) {
	s := newSite(t, siteOptions{pages: map[string]string{"/": document("", "The page")}})
	s.startOutside(`<button>Win a prize</button><script>
		window.posted = []; window.heard = [];
		addEventListener("message", e => posted.push(e.data));
		new BroadcastChannel("tollgate").onmessage = e => heard.push(e.data);
		document.querySelector("button").onclick = () => { window.popup = open("` + s.url + `/oauth/start?popup=1&nonce=n-123&return_to=/") };
	</script>`)
	p := s.newPerson()
	// The browser says so where it keeps a message from a page, in a window that closes.
	p.tolerate("Failed to execute 'postMessage' on 'DOMWindow': The target origin provided")
	w := p.open(s.outsideURL)
	popup := w.popup(func() { w.click("button") })
	popup.signIn(gatewaytest.UserID)
	popup.closed()
	w.eventually("popup.closed")
	if got := evaluate[string](w, `JSON.stringify([posted, heard])`); got != "[[],[]]" {
		t.Errorf("the page of another site was told %s, want %s", got, "[[],[]]")
	}
	if p.open("/").shows("The page"); s.provider.Count(simulator.Exchange) != 1 {
		t.Error("nobody signed in, so the test proves nothing")
	}
}
