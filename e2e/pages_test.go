package e2e

import (
	"fmt"
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
		w.shows("This account cannot be used here")
		w.click("form .button")
		w.shows("Allow access?")
		w.click(`form[action*="logout"] button`)
		w.signIn("67890")
		w.shows("Signed in as maria.")
		w.click(`button[value="allow"]`)
		w.shows("Only for maria")
		if got := evaluate[string](w, "location.href"); got != s.url+"/private?a=1" {
			t.Errorf("ended at %s, want %s", got, s.url+"/private?a=1")
		}
	})
}

// balancePage opens a page that needs this balance, as a user with 750.
func balancePage(t *testing.T, in browser, needed string) *tab {
	t.Helper()
	s := newSite(t, siteOptions{
		browser:    in,
		inTollgate: "require {\nbalance " + needed + "\n}",
		pages:      map[string]string{"/private": document("", "Paid")},
	})
	p := s.newPerson()
	p.expect("402 (Payment Required)")
	w := p.open("/private?a=1")
	w.signIn(gatewaytest.UserID)
	w.shows("Your balance is too low")
	evaluate[any](w, `(location.hash = "part", null)`)
	return w
}

// topUp adds 50 on the provider's page.
func (w *tab) topUp() {
	w.t.Helper()
	w.shows("Balance of user123")
	w.click(`button[value="50"]`)
	w.shows("$50 added")
}

func TestTheBalancePageLoadsAgainAfterATopUp(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		w := balancePage(t, in, "790")
		money := w.popup(func() { w.click("#topup") })
		money.topUp()
		money.shut()
		w.toFront()
		w.shows("Paid")
		if got := evaluate[string](w, "location.href"); got != w.person.site.url+"/private?a=1#part" {
			t.Errorf("ended at %s, want %s", got, w.person.site.url+"/private?a=1#part")
		}
	})
}

func TestTheBalancePageLoadsAgainAfterEachTopUp(t *testing.T) {
	w := balancePage(t, chromium, "1000")
	money := w.popup(func() { w.click("#topup") })
	money.topUp()
	w.toFront()
	w.shows("800.00")
	loaded := evaluate[float64](w, "performance.timeOrigin")
	money.toFront()
	w.toFront()
	w.eventually(fmt.Sprintf("performance.timeOrigin > %f", loaded))
}
