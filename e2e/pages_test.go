package e2e

import (
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// The policy of a page allows everything that the page contains. The harness fails the test
// if the browser blocks something, or sends a request.
func TestPagesAreShownWithStylesScriptsAndLogo(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: `login_page on
		brand "Acme Studio"
		logo ../testdata/logo.svg
		accent 0a7d55
		pages ../testdata/pages`})
	p := s.newPerson()
	p.tolerate("the server responded with a status of 4") // of the pages themselves
	w := p.open("/oauth/logout")
	looksRight := func(path, words string) {
		t.Helper()
		w.goTo(path)
		w.shows(words)
		type look struct {
			Logo   int
			Button string
		}
		got := evaluate[look](w, `({Logo: document.querySelector("img.logo").naturalWidth, Button: getComputedStyle(document.querySelector(".button")).backgroundColor})`)
		if got.Logo == 0 || got.Button != "rgb(10, 125, 85)" {
			t.Errorf("%s: %+v", path, got)
		}
	}
	looksRight("/oauth/logout", "You are signed out")
	looksRight("/oauth/callback", "Something was missing")
	looksRight("/oauth/callback?error=access_denied&state=x", "This sign-in is no longer valid")

	w.goTo("/oauth/topup") // which needs a session
	w.shows("Members of the club use their account at AIHubMix.")
	w.click(".button")
	w.signIn(gatewaytest.UserID)
	w.shows("Balance of user123")
	looksRight("/oauth/logout", "Sign out of Acme Studio?")
}

// The page of a refused user leads to the provider, where the user chooses another account, and
// back to the page. form-action of our policy would block a redirect to the provider.
func TestARefusedUserSignsInWithAnotherAccount(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{
			browser:    in,
			inTollgate: "require {\nuser 67890\n}",
			pages:      map[string]string{"/private": document("", "Only for maria")},
		})
		p := s.newPerson()
		p.expect("403 (Forbidden)")
		w := p.open("/private?a=1")
		w.signIn(gatewaytest.UserID)
		w.shows("Signed in as user123")
		w.click("form .button")
		w.shows("Allow access?")
		w.click(`form[action*="logout"] button`)
		w.signIn("67890")
		w.shows("Signed in as maria.")
		w.click(`button[value="allow"]`)
		w.shows("Only for maria")
		if got := evaluate[string](w, "location.href"); got != s.url+"/private?a=1" {
			t.Errorf("came to %s", got)
		}
	})
}
