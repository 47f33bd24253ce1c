package tollgate

import (
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// beginInTabs has each tab wait at the provider's page. It gives the addresses to which
// the provider sends the tabs back.
func (b *visitor) beginInTabs(pages []string) []string {
	var callbacks []string
	for _, page := range pages {
		callbacks = append(callbacks, b.authorize("?return_to="+url.QueryEscape(page)))
		b.site.clock.advance(time.Second)
	}
	return callbacks
}

func TestTwelveTabsReturnToTheirPages(t *testing.T) {
	for name, options := range map[string]string{
		"pages":          "",
		"error_redirect": "error_redirect /denied\npublic /denied",
	} {
		for _, order := range []string{"oldest first", "newest first"} {
			s := newSite(t, siteOptions{inTollgate: options})
			b := s.newBrowser()
			pages := tabPages(12, 30)
			callbacks := b.beginInTabs(pages)
			if order == "newest first" {
				slices.Reverse(pages)
				slices.Reverse(callbacks)
			}
			for i, callback := range callbacks {
				if got := b.follow(callback).seen(t); got.URI != pages[i] {
					t.Errorf("%s, %s: tab %d ends at %q, want %q", name, order, i, got.URI, pages[i])
				}
			}
		}
	}
}

// All tabs come back before any of them has a session.
func TestTabsThatReturnAtOnceEndAtTheirPages(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "error_redirect /denied\npublic /denied"})
	b := s.newBrowser()
	pages := tabPages(12, 30)
	callbacks := b.beginInTabs(pages)
	next := make([]*answer, len(pages))
	for i, callback := range callbacks {
		next[i] = b.copyOf().visit(callback)
	}
	for i, a := range next {
		target := a.location()
		if link := startLink.FindStringSubmatch(a.text); target == "" && link != nil {
			target = html.UnescapeString(link[1])
		}
		if got := b.follow(target).seen(t); got.URI != pages[i] {
			t.Errorf("tab %d ends at %q, want %q", i, got.URI, pages[i])
		}
	}
}

func TestADroppedLoginRestartsOnce(t *testing.T) {
	for name, options := range map[string]string{"pages": "", "error_redirect": "error_redirect /denied\npublic /denied"} {
		s := newSite(t, siteOptions{inTollgate: options})
		b := s.newBrowser()
		pages := tabPages(6, 30)
		first := b.beginInTabs(pages)[0]
		if a := b.copyOf().visit(first); a.StatusCode != http.StatusSeeOther || a.location() != "/oauth/start?return_to="+url.QueryEscape(pages[0]) {
			t.Errorf("%s: got %d to %q, want a new sign-in", name, a.StatusCode, a.location())
		}
		for range 8 {
			a := b.visit(first)
			link := startLink.FindStringSubmatch(a.text)
			if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.text, "expired") || link == nil || !strings.Contains(link[1], "tab00") {
				t.Fatalf("%s: got %d to %q: %s", name, a.StatusCode, a.location(), a.text)
			}
		}
	}
}

func TestADroppedLoginThatWasDeclinedDoesNotRestart(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser()
	first := b.beginInTabs(tabPages(6, 30))[0]
	state := queryIn(t, first).Get("state")
	a := b.visit("/oauth/callback?error=access_denied&state=" + state)
	if a.StatusCode != http.StatusBadRequest || startLink.FindStringSubmatch(a.text) == nil {
		t.Errorf("got %d to %q", a.StatusCode, a.location())
	}
}

func TestDroppedLoginsRestartFourTimesAtMost(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser()
	restarts := 0
	for _, callback := range b.beginInTabs(tabPages(14, 30))[:9] {
		if a := b.visit(callback); a.StatusCode == http.StatusSeeOther {
			restarts++
		}
	}
	if restarts != 4 {
		t.Errorf("got %d restarts, want 4", restarts)
	}
}

func TestADroppedPopupRestartsAsAPopup(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser()
	popup := b.authorize("?popup=1&nonce=abc&return_to=/page")
	s.clock.advance(time.Second)
	b.beginInTabs(tabPages(5, 30))
	if a := b.follow(popup); a.StatusCode != http.StatusOK || !strings.Contains(a.text, "abc") {
		t.Errorf("got %d: %s", a.StatusCode, a.text)
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
