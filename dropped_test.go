package tollgate_test

import (
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// beginInTabs has each tab wait at the provider's page. It gives the addresses to which
// the provider sends the tabs back.
func beginInTabs(b *gatewaytest.Browser, pages []string) []string {
	var callbacks []string
	for _, page := range pages {
		callbacks = append(callbacks, b.Authorize("?return_to="+url.QueryEscape(page)))
		b.Site.Clock.Advance(time.Second)
	}
	return callbacks
}

func TestTwelveTabsReturnToTheirPages(t *testing.T) {
	for name, options := range map[string]string{
		"pages":          "",
		"error_redirect": "error_redirect /denied\npublic /denied",
	} {
		for _, order := range []string{"oldest first", "newest first"} {
			s := gatewaytest.New(t, gatewaytest.Options{InTollgate: options})
			b := s.NewBrowser()
			pages := tabPages(12, 30)
			callbacks := beginInTabs(b, pages)
			if order == "newest first" {
				slices.Reverse(pages)
				slices.Reverse(callbacks)
			}
			for i, callback := range callbacks {
				if got := b.Follow(callback).Seen(t); got.URI != pages[i] {
					t.Errorf("%s, %s: tab %d ends at %q, want %q", name, order, i, got.URI, pages[i])
				}
			}
		}
	}
}

// All tabs come back before any of them has a session.
func TestTabsThatReturnTogetherReachTheirPages(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "error_redirect /denied\npublic /denied"})
	b := s.NewBrowser()
	pages := tabPages(12, 30)
	callbacks := beginInTabs(b, pages)
	next := make([]*gatewaytest.Answer, len(pages))
	for i, callback := range callbacks {
		next[i] = b.Copy().Visit(callback)
	}
	for i, a := range next {
		target := a.Location()
		if link := startLink.FindStringSubmatch(a.Text); target == "" && link != nil {
			target = html.UnescapeString(link[1])
		}
		if got := b.Follow(target).Seen(t); got.URI != pages[i] {
			t.Errorf("tab %d ends at %q, want %q", i, got.URI, pages[i])
		}
	}
}

func TestADroppedLoginRestartsOnce(t *testing.T) {
	for name, options := range map[string]string{"pages": "", "error_redirect": "error_redirect /denied\npublic /denied"} {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: options})
		b := s.NewBrowser()
		pages := tabPages(6, 30)
		first := beginInTabs(b, pages)[0]
		if a := b.Copy().Visit(first); a.StatusCode != http.StatusSeeOther || a.Location() != "/oauth/start?return_to="+url.QueryEscape(pages[0]) {
			t.Errorf("%s: got %d to %q, want a new sign-in", name, a.StatusCode, a.Location())
		}
		for range 8 {
			a := b.Visit(first)
			link := startLink.FindStringSubmatch(a.Text)
			if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "expired") || link == nil || !strings.Contains(link[1], "tab00") {
				t.Fatalf("%s: got %d to %q: %s", name, a.StatusCode, a.Location(), a.Text)
			}
		}
	}
}

func TestADroppedLoginThatWasDeclinedDoesNotRestart(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	first := beginInTabs(b, tabPages(6, 30))[0]
	state := queryIn(t, first).Get("state")
	a := b.Visit("/oauth/callback?error=access_denied&state=" + state)
	if a.StatusCode != http.StatusBadRequest || startLink.FindStringSubmatch(a.Text) == nil {
		t.Errorf("got %d to %q", a.StatusCode, a.Location())
	}
}

func TestDroppedLoginsRestartFourTimesAtMost(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	restarts := 0
	for _, callback := range beginInTabs(b, tabPages(14, 30))[:9] {
		if a := b.Visit(callback); a.StatusCode == http.StatusSeeOther {
			restarts++
		}
	}
	if restarts != 4 {
		t.Errorf("got %d restarts, want 4", restarts)
	}
}

func TestADroppedPopupRestartsAsAPopup(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	popup := b.Authorize("?popup=1&nonce=abc&return_to=/page")
	s.Clock.Advance(time.Second)
	beginInTabs(b, tabPages(5, 30))
	if a := b.Follow(popup); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, "abc") {
		t.Errorf("got %d: %s", a.StatusCode, a.Text)
	}
}

func queryIn(t *testing.T, address string) url.Values {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}
