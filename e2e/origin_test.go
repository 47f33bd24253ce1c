package e2e

import (
	"fmt"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// Cookies follow other rules on each of these origins: Secure over plain http, names
// with a prefix, and hosts that are an address.
func TestTheSessionCookieIsKeptOnEveryKindOfOrigin(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		for _, options := range []siteOptions{{host: "127.0.0.1"}, {host: "localhost"}, {host: "127.0.0.1", https: true}} {
			options.browser = in
			options.pages = map[string]string{"/account": document("", "The account")}
			t.Run(fmt.Sprintf("%s, https: %t", options.host, options.https), func(t *testing.T) {
				s := newSite(t, options)
				w := s.newPerson().open("/account")
				w.signIn(gatewaytest.UserID)
				w.shows("The account")
				w.goTo("/account?again")
				w.shows("The account")
				if got, want := evaluate[string](w, "location.href"), s.url+"/account?again"; got != want {
					t.Errorf("the second visit ends at %s, want %s", got, want)
				}
			})
		}
	})
}

// WebKit calls a request of a form cross-site if it opens a new window.
func TestAFormForANewWindowSignsOut(t *testing.T) {
	inEveryBrowser(t, func(t *testing.T, in browser) {
		s := newSite(t, siteOptions{browser: in, pages: map[string]string{
			"/account": document("", `<form method="post" action="/oauth/logout" target="_blank"><button>Sign out</button></form>`),
		}})
		w := s.newPerson().open("/account")
		w.signIn(gatewaytest.UserID)
		w.eventually(`location.pathname === "/account"`)
		w.popup(func() { w.click("button") }).shows("You are signed out")
		if got := evaluate[int](w, `fetch("/oauth/userinfo?optional=1").then(r => r.status)`); got != 204 {
			t.Errorf("afterwards userinfo answers %d, want 204", got)
		}
	})
}
