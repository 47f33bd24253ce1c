package simulator_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/simulator"
)

// topUpURL gets the URL of the top-up page from the API.
func (w *world) topUpURL(access string) string {
	w.t.Helper()
	answer := w.browser().send("GET", simulator.TopUpPath, bearer(access), "")
	w.wantStatus(answer, http.StatusOK)
	object := answer.json(w.t)
	text, ok := object["topup_url"].(string)
	if !ok || len(object) != 1 {
		w.t.Fatalf("answer %v", object)
	}
	return text
}

func TestTopUpURLUsesTheHostOfTheRequestOrTheBaseURL(t *testing.T) {
	w := start(t, autoLogin())
	if got := w.topUpURL(w.login().access); !strings.HasPrefix(got, w.url+"/topup?") || !strings.Contains(got, "user=12345") {
		t.Errorf("top-up URL %s", got)
	}

	options := autoLogin()
	options.BaseURL = "https://aihubmix.example/"
	w = start(t, options)
	if got := w.topUpURL(w.login().access); !strings.HasPrefix(got, "https://aihubmix.example/topup?") {
		t.Errorf("top-up URL %s", got)
	}
}

func TestTopUpLinkRaisesTheBalanceWithoutASignIn(t *testing.T) {
	w := start(t, simulator.Options{AllowLoginHint: true})
	access := w.login("login_hint", "maria").access
	b := w.browser()
	page := b.get(w.topUpURL(access))
	w.wantStatus(page, http.StatusOK)
	for _, want := range []string{"maria", "$3.20", "Add $5", "Add $10", "Add $50"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}

	answer := b.submit(formAction(t, page.body, simulator.TopUpPagePath), url.Values{"amount": {"10"}})
	w.wantStatus(answer, http.StatusSeeOther)
	after := b.get(answer.Header.Get("Location"))
	if !strings.Contains(after.body, "$10 added.") || !strings.Contains(after.body, "$13.20") {
		t.Errorf("after the top-up:\n%s", after.body)
	}
	if info := w.userInfo(access).json(t); info["balance_formatted"] != "13.20" || info["quota"] != 6600000.0 {
		t.Errorf("user information %v", info)
	}
}

func TestReloadingTheTopUpPageAddsNothing(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.signedInBrowser("67890")
	path := b.submit(simulator.TopUpPagePath, url.Values{"amount": {"5"}}).Header.Get("Location")
	for range 3 {
		if page := b.get(path); !strings.Contains(page.body, "$8.20") {
			t.Fatalf("%s", page.body)
		}
	}
}

func TestTopUpPageNeedsASignInOrATicket(t *testing.T) {
	c := newClock()
	options := simulator.Options{AllowLoginHint: true, Now: c.Now}
	w := start(t, options)
	good, err := url.Parse(w.topUpURL(w.login("login_hint", "maria").access))
	if err != nil {
		t.Fatal(err)
	}
	ticket := good.Query().Get("ticket")

	for name, test := range map[string]struct {
		b     *browser
		query string
		want  int
	}{
		"nobody":                     {w.browser(), "", 403},
		"only a user id":             {w.browser(), "?user=67890", 403},
		"invented ticket":            {w.browser(), "?user=67890&ticket=x", 403},
		"ticket of another user":     {w.browser(), "?user=12345&ticket=" + ticket, 403},
		"ticket alone":               {w.browser(), "?ticket=" + ticket, 200},
		"signed in":                  {w.signedInBrowser("12345"), "", 200},
		"signed in as another":       {w.signedInBrowser("12345"), "?user=67890", 403},
		"signed in, invented ticket": {w.signedInBrowser("12345"), "?ticket=x", 403},
		"signed in, other's ticket":  {w.signedInBrowser("12345"), "?user=67890&ticket=" + ticket, 200},
	} {
		if got := test.b.get(simulator.TopUpPagePath + test.query); got.StatusCode != test.want {
			t.Errorf("%s: %s", name, got.Status)
		}
		if test.want == http.StatusOK {
			continue
		}
		post := test.b.submit(simulator.TopUpPagePath+test.query, url.Values{"amount": {"50"}})
		w.wantStatus(post, http.StatusForbidden)
	}

	c.advance(10 * time.Minute)
	w.wantStatus(w.browser().get(good.String()), http.StatusForbidden)
}

func TestTopUpPageTakesOnlyTheOfferedAmounts(t *testing.T) {
	w := start(t, simulator.Options{})
	b := w.signedInBrowser("67890")
	for _, amount := range []string{"", "1", "-5", "5.00", "1000000", "five"} {
		w.wantStatus(b.submit(simulator.TopUpPagePath, url.Values{"amount": {amount}}), http.StatusBadRequest)
		if page := b.get(simulator.TopUpPagePath + "?added=" + amount); strings.Contains(page.body, "added.") {
			t.Errorf("the page claims that %q was added", amount)
		}
	}
	if user, _ := w.User(67890); user.Balance() != "3.20" {
		t.Errorf("balance %s", user.Balance())
	}
}
