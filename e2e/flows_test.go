package e2e

import (
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// The simulated provider redirects at once here, without a page. Browsers keep the fragment across
// redirects, so it must still be there after the sign-in, also for a protected page.
func TestFragmentSurvivesSignInWithoutAProviderPage(t *testing.T) {
	s := newSite(t, siteOptions{
		provider: simulator.Options{AutoLogin: "user123"},
		pages:    map[string]string{"/private": document("", "Only for users")},
	})
	w := s.newPerson().open("/private?a=1#part")
	w.shows("Only for users")
	if got := evaluate[string](w, "location.href"); got != s.url+"/private?a=1#part" {
		t.Errorf("ended at %s, want %s", got, s.url+"/private?a=1#part")
	}
}

// A browser keeps pages without caching headers, and shows them again without a request.
func TestBackAfterALogoutShowsNoDataOfTheUser(t *testing.T) {
	s := newSite(t, siteOptions{pages: map[string]string{
		"/private": document("", `Only for users <a href="/page">On</a> <a href="/oauth/logout">Sign out</a>`),
		"/page":    document("", "Another page"),
	}})
	w := s.newPerson().open("/private")
	w.signIn(gatewaytest.UserID)
	w.shows("Only for users")
	evaluate[any](w, "(window.kept = true, null)")
	w.click("a")
	w.shows("Another page")
	w.goBack(1)
	w.shows("Only for users")
	if !evaluate[bool](w, "window.kept === true") {
		t.Fatal("the browser did not keep the page, so the test proves nothing")
	}
	evaluate[any](w, `(document.querySelector('[href="/oauth/logout"]').click(), null)`)
	w.click(".button")
	w.shows("You are signed out")
	w.goBack(2)
	w.shows("Allow access?") // the gateway was asked, and asks the provider
}

// The page of one tab is not shown as one user's while another one is signed in.
func TestTwoTabsThatSignInAsTwoUsersShowTheLastOne(t *testing.T) {
	s := newSite(t, siteOptions{pages: sdkPage})
	p := s.newPerson()
	first := p.openSDK()
	second := p.open("/oauth/start?return_to=/")
	first.popup(func() { first.click(part("login")) }).signIn(gatewaytest.UserID)
	first.isIn("user123", "750.00")
	second.toFront()
	second.signIn("67890")
	second.isIn("maria", "3.20")
	first.toFront()
	first.isIn("maria", "3.20")
	first.heard(`[["login","user123","750.00"],["login","maria","3.20"]]`)
	if got := evaluate[string](first, `fetch("/oauth/userinfo").then(r => r.json()).then(user => user.username)`); got != "maria" {
		t.Errorf("signed in is %s, want %s", got, "maria")
	}
}
