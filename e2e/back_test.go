package e2e

import (
	"net/http"
	"testing"

	"github.com/chromedp/cdproto/network"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// forgetCookies deletes all cookies, also those that no script can read.
func (w *tab) forgetCookies() {
	w.t.Helper()
	if driven, ok := w.window.(*drivenWindow); ok {
		_, err := driven.call(deleteCookies, parameters{})
		w.must("taking the cookies away", err)
		return
	}
	w.run("taking the cookies away", network.ClearBrowserCookies())
}

// A page that the browser has kept looks as it did when it was left. The session is lost
// here without a sign-out: at a sign-out browsers may delete their pages.
func TestBackReloadsAPageWhoseUserIsSignedOut(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		for name, script := range map[string]string{
			"that asked":       `import { tollgate } from "/oauth/sdk.js"; tollgate.user().then(() => { window.ready = true })`,
			"that never asked": `import "/oauth/sdk.js"; window.ready = true`,
		} {
			t.Run(name, func(t *testing.T) {
				s := newSite(t, siteOptions{browser: in, pages: map[string]string{
					"/account": document(`<script src="/page.js" type="module"></script>`, `Only for user123 <a href="/page">On</a>`),
					"/page.js": script + `; addEventListener("pageshow", event => { if (event.persisted) sessionStorage.kept = "yes" })`,
					"/page":    document("", "Another page"),
				}})
				w := s.newPerson().open("/account")
				w.signIn(gatewaytest.UserID)
				w.shows("Only for user123")
				w.eventually("window.ready")
				w.click("a")
				w.shows("Another page")
				w.forgetCookies()
				if got := evaluate[int](w, `fetch("/oauth/userinfo?optional=1").then(r => r.status)`); got != 204 {
					t.Fatalf("userinfo answers %d, want 204: the session is not lost", got)
				}
				w.goBack(1)
				// Loaded anew: the person is signed in again, or asked to.
				w.eventually(`location.origin === "` + s.providerURL + `" || performance.getEntriesByType("navigation")[0].type === "reload"`)
				// A Firefox that is driven takes the page from its cache.
				w.goTo("/page")
				if in != firefox && !evaluate[bool](w, `sessionStorage.kept === "yes"`) {
					t.Error("the browser did not keep the page, so the test proves nothing")
				}
			})
		}
	})
}

func TestBackKeepsAPageWhoseUserIsStillSignedIn(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, pages: sdkPage})
		w := s.newPerson().openSDK()
		w.signInByClick()
		evaluate[any](w, "(window.typed = true, null)")
		w.goTo("/page")
		w.goBack(1)
		w.isIn("user123", "750.00")
		if in != firefox && !evaluate[bool](w, "window.typed === true") {
			t.Error("going back loaded the page again, want the kept page")
		}
	})
}

// A page without our script uses no-store instead. Without a sign-out Chromium and WebKit
// show such a page from memory; see docs/browser.md.
func TestBackReloadsANoStorePageAfterASignOut(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{
			browser: in, header: http.Header{"Cache-Control": {"no-store"}},
			pages: map[string]string{
				"/account": document("", `Only for user123 <a href="/page">On</a>`),
				"/page":    document("", "Another page"),
			},
		})
		w := s.newPerson().open("/account")
		w.signIn(gatewaytest.UserID)
		w.shows("Only for user123")
		w.click("a")
		w.shows("Another page")
		signOut := `fetch("/oauth/logout", { method: "POST", headers: { Accept: "application/json" } }).then(r => r.status)`
		if got := evaluate[int](w, signOut); got != http.StatusNoContent {
			t.Fatalf("signing out: got %d, want 204", got)
		}
		w.goBack(1)
		w.eventually(`location.origin === "` + s.providerURL + `"`)
	})
}
