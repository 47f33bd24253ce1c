package e2e

import "testing"

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
	for _, page := range []struct{ path, words string }{
		{"/oauth/logout", "Sign out of Acme Studio?"},
		{"/oauth/logout?done", "You are signed out"},
		{"/oauth/callback", "Something was missing"},
		{"/oauth/callback?error=access_denied&state=x", "This sign-in is no longer valid"},
	} {
		w.goTo(page.path)
		w.shows(page.words)
		type look struct {
			Logo   int
			Button string
		}
		got := evaluate[look](w, `({Logo: document.querySelector("img.logo").naturalWidth, Button: getComputedStyle(document.querySelector(".button")).backgroundColor})`)
		if got.Logo == 0 || got.Button != "rgb(10, 125, 85)" {
			t.Errorf("%s: %+v", page.path, got)
		}
	}

	w.goTo("/oauth/topup") // which needs a session
	w.shows("Members of the club use their account at AIHubMix.")
	w.click(".button")
	w.shows("Sign in as")
}
