package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// newExampleSite runs an example as it stands, but for where things are.
func newExampleSite(t *testing.T, name string, options simulator.Options) *site {
	t.Helper()
	folder, err := filepath.Abs(filepath.Join("..", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(folder, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	address := porttest.Address()
	s := &site{t: t, url: "http://" + address}
	lines := s.startProvider(options)
	t.Setenv("OAUTH_CLIENT_ID", gatewaytest.ClientID)
	t.Setenv("OAUTH_CLIENT_SECRET", gatewaytest.ClientSecret)
	t.Setenv("OAUTH_REDIRECT_URI", s.url+"/oauth/callback")
	s.run(strings.NewReplacer(
		"app.example.com {", s.url+" {\nbind 127.0.0.1",
		"provider aihubmix {", "provider aihubmix {\n"+lines,
		"root * site", "root * "+filepath.Join(folder, "site"),
	).Replace(string(text)))
	return s
}

// What is seen of the page of the example.
const account = `["username", "email", "balance"].map(id => document.getElementById(id).textContent).join()`

func TestThePageOfTheProvidersDocumentWorks(t *testing.T) {
	s := newExampleSite(t, "provider-page", simulator.Options{})
	p := s.newPerson()
	p.expect("401 (Unauthorized) (" + s.url + "/api/user/info") // nobody is signed in at first
	w := p.open("/")
	w.click("#login")
	w.signIn(gatewaytest.UserID)
	w.eventually(account + ` === "user123,user@example.com,750.00"`)
	if got := evaluate[string](w, "location.href"); got != s.url+"/" {
		t.Errorf("came back to %s, want %s", got, s.url+"/")
	}

	if err := s.provider.Spend(12345, 50_00); err != nil {
		t.Fatal(err)
	}
	w.click("#refresh")
	w.eventually(account + ` === "user123,user@example.com,700.00"`)
	money := w.popup(func() { w.click(`document.querySelector("#user-info a")`) })
	money.shows("Balance of user123")
	money.shut()
	w.toFront()

	w.click("#logout")
	w.click("#login")
	w.shows("Allow access?") // since they have signed out
	w.click(`button[value="deny"]`)
	w.shows("That did not work: access_denied")
	w.click("#login")
	w.click(`button[value="allow"]`)
	w.eventually(account + ` === "user123,user@example.com,700.00"`)
	if evaluate[bool](w, `document.getElementById("error").checkVisibility()`) {
		t.Error("the error of the earlier sign-in is still visible")
	}
}

func TestThePageOfTheProvidersDocumentShowsErrorsAsText(t *testing.T) {
	s := newExampleSite(t, "provider-page", simulator.Options{})
	p := s.newPerson()
	p.expect("401 (Unauthorized) (" + s.url + "/api/user/info")
	const hostile = `<img src=x onerror="document.title='hacked'">`
	w := p.open("/")
	for address, want := range map[string]string{
		"/oauth/callback":                                    "missing_parameters",
		"/oauth/callback?code=x&state=x":                     "invalid_state",
		"/oauth/callback?error=x&state=x":                    "invalid_state",
		"/?error=" + strings.ReplaceAll(hostile, " ", "%20"): hostile,
	} {
		w.goTo(address)
		w.eventually(`document.getElementById("error")?.textContent.startsWith("That")`)
		if got := evaluate[string](w, `document.getElementById("error").textContent`); got != "That did not work: "+want {
			t.Errorf("%s: the page says %q, want %q", address, got, "That did not work: "+want)
		}
		if got := evaluate[string](w, "document.title"); got != "My application" {
			t.Errorf("%s: the title is %q, want %q", address, got, "My application")
		}
		w.eventually(`document.getElementById("login").checkVisibility()`)
	}
}
