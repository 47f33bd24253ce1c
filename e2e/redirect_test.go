package e2e

import (
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

func TestARedirectLoginComesBackToThePageAndItsFragment(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{
			browser: in,
			pages:   map[string]string{"/page-start": document("", `<a href="/oauth/start?return_to=%2Fpage%3Fa%3D1%23part">Sign in</a>`), "/page": document("", "The page")},
		})
		w := s.newPerson().open("/page-start")
		w.click("a")
		w.signIn(gatewaytest.UserID)
		w.shows("The page")
		if got := evaluate[string](w, "location.href"); got != s.url+"/page?a=1#part" {
			t.Errorf("came back to %s, want %s", got, s.url+"/page?a=1#part")
		}
	})
}

// TestSignInPageKeepsTheFragment: the provider's form would lose it.
func TestSignInPageKeepsTheFragment(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, inTollgate: "login_page on", pages: map[string]string{"/account": document("", "The account")}})
		p := s.newPerson()
		p.expect("the server responded with a status of 401")
		w := p.open("/account?a=1&b=%23#the%20part?x=y&z")
		w.click("a.button")
		w.signIn(gatewaytest.UserID)
		w.shows("The account")
		if got := evaluate[string](w, "location.href"); got != s.url+"/account?a=1&b=%23#the%20part?x=y&z" {
			t.Errorf("came back to %s, want %s", got, s.url+"/account?a=1&b=%23#the%20part?x=y&z")
		}
	})
}
