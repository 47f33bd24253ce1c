package tollgate_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// cookieBytes is what the gateway's cookies take in a browser.
func cookieBytes(b *gatewaytest.Browser) int {
	total := 0
	for name, value := range b.Cookies() {
		total += len(name) + len(value)
	}
	return total
}

// pendingCookies counts the logins that wait in a browser.
func pendingCookies(b *gatewaytest.Browser) int {
	n := 0
	for name := range b.Cookies() {
		if strings.HasPrefix(name, "tollgate-login-") {
			n++
		}
	}
	return n
}

// tabPages are pages with addresses of about the given length.
func tabPages(n, length int) []string {
	pages := make([]string, n)
	for i := range pages {
		pages[i] = fmt.Sprintf("/tab%02d?q=", i) + strings.Repeat("x", max(0, length-9))
	}
	return pages
}

func TestTabsComeBackToTheirOwnPages(t *testing.T) {
	for name, pages := range map[string][]string{
		"12 tabs":                tabPages(12, 30),
		"6 links of 700 bytes":   tabPages(6, 700),
		"12 links of 1000 bytes": tabPages(12, 1000),
		"12 links of 4096 bytes": tabPages(12, 4096),
	} {
		s := gatewaytest.New(t, gatewaytest.Options{})
		b := s.NewBrowser()
		var callbacks []string
		for _, page := range pages {
			callbacks = append(callbacks, b.Visit(b.Visit(b.Visit(page).Location()).Location()).Location())
			s.Clock.Advance(time.Second)
			if n := pendingCookies(b); n > maxPendingLogins || cookieBytes(b) > maxLoginBytes+maxLoginBytes/4 {
				t.Errorf("%s: %d logins are pending, in %d bytes", name, n, cookieBytes(b))
			}
		}
		if n := pendingCookies(b); n != maxPendingLogins {
			t.Errorf("%s: %d logins are pending, want %d", name, n, maxPendingLogins)
		}
		// The person signs in in the last tab, and then goes through all others.
		for i := range callbacks {
			i = (i + len(callbacks) - 1) % len(callbacks)
			if a := b.Visit(callbacks[i]); a.StatusCode != http.StatusSeeOther || a.Location() != pages[i] {
				t.Errorf("%s: tab %d comes back with %d to %.40q", name, i, a.StatusCode, a.Location())
			}
			if cookieBytes(b) > maxAllBytes {
				t.Errorf("%s: the cookies take %d bytes", name, cookieBytes(b))
			}
		}
	}
}

var startLink = regexp.MustCompile(`href="(/oauth/start[^"]*)"`)

func TestDroppedTabReachesItsPageWithOneClick(t *testing.T) {
	for _, length := range []int{30, 700, 4096} {
		s := gatewaytest.New(t, gatewaytest.Options{})
		b := s.NewBrowser()
		pages := tabPages(6, length)
		var first string
		for i, page := range pages {
			callback := b.Visit(b.Visit(b.Visit(page).Location()).Location()).Location()
			if i == 0 {
				first = callback
			}
			s.Clock.Advance(time.Second)
		}
		b.Copy().Visit(first) // starts anew; with the second visit it is the person's turn
		a := b.Visit(first)
		link := startLink.FindStringSubmatch(a.Text)
		if a.StatusCode != http.StatusBadRequest || link == nil {
			t.Fatalf("%d bytes: got %d: %s", length, a.StatusCode, a.Text)
		}
		if got := b.Follow(html.UnescapeString(link[1])).Seen(t); got.URI != pages[0] {
			t.Errorf("%d bytes: one click leads to %.40q", length, got.URI)
		}
		// Whoever has another state learns nothing.
		other := strings.Replace(first, "state=", "state=x", 1)
		if a := s.NewBrowser().Visit(other); strings.Contains(a.Text, "tab00") {
			t.Errorf("%d bytes: another state finds the page: %s", length, a.Text)
		}
	}
}

func TestTabsThatStartAtOnceReturnToTheirPages(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser()
	pages := tabPages(12, 60)
	callbacks := make([]string, len(pages))
	var all sync.WaitGroup
	release := make(chan struct{})
	for i, page := range pages {
		// Each request leaves before any response is there: with the cookies of now.
		tab := b.Copy()
		all.Go(func() {
			<-release
			callbacks[i] = tab.Visit(tab.Visit("/oauth/start?return_to=" + url.QueryEscape(page)).Location()).Location()
			for name, value := range tab.Cookies() {
				b.SetCookie(name, value)
			}
		})
	}
	close(release)
	all.Wait()
	if n := pendingCookies(b); n != len(pages) {
		t.Fatalf("%d logins are pending", n)
	}
	for i, callback := range callbacks {
		if a := b.Visit(callback); a.StatusCode != http.StatusSeeOther || a.Location() != pages[i] {
			t.Errorf("tab %d comes back with %d to %q", i, a.StatusCode, a.Location())
		}
		if n := pendingCookies(b); n > maxPendingLogins || cookieBytes(b) > maxAllBytes {
			t.Errorf("after tab %d: %d logins are pending, in %d bytes", i, n, cookieBytes(b))
		}
	}
}

func TestLargeSessionLeavesRoomForOneLogin(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	b.SetCookie("tollgate", "2."+strings.Repeat("x", 4000))
	b.SetCookie("tollgate-2", strings.Repeat("x", 3700))
	for i := range 4 {
		b.StartLogin(fmt.Sprintf("?return_to=/%s%d", strings.Repeat("x", 500), i))
		s.Clock.Advance(time.Second)
		if pendingCookies(b) != 1 || cookieBytes(b) > maxAllBytes {
			t.Errorf("%d logins are pending, all cookies take %d bytes", pendingCookies(b), cookieBytes(b))
		}
	}
}

// longestPath is the length of the longest return path in bytes: 6 KiB, as docs/access.md says.
const longestPath = 6144

func TestDeepLinksComeBack(t *testing.T) {
	for name, link := range map[string]string{
		"1,025 bytes":       "/" + strings.Repeat("a", 1024),
		"4 KiB":             "/report?q=" + strings.Repeat("a", 4096-10),
		"6 KiB":             "/report?q=" + strings.Repeat("a", longestPath-10),
		"many parameters":   "/report?" + strings.Repeat("a=1&", 1022),
		"escapes":           "/report?filter=" + strings.Repeat("%E4%BD%A0", 450),
		"escapes in a path": "/" + strings.Repeat("%E4%BD%A0", 450),
	} {
		for _, page := range []string{"off", "on"} {
			s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "login_page " + page})
			b := s.NewBrowser()
			a := b.Visit(link)
			start := a.Location()
			if found := startLink.FindStringSubmatch(a.Text); found != nil {
				start = html.UnescapeString(found[1])
			}
			if len(start) > 8000 {
				t.Errorf("%s: the address of start has %d bytes", name, len(start))
			}
			if got := b.Follow(start).Seen(t); got.URI != link {
				t.Errorf("%s, login_page %s: leads to %d bytes, %.60q", name, page, len(got.URI), got.URI)
			}
		}
	}
}

func TestALinkThatIsTooLongLeadsToAfterLogin(t *testing.T) {
	for name, link := range map[string]string{
		"too long":              "/" + strings.Repeat("a", longestPath),
		"too long when escaped": "/?" + strings.Repeat("&", 5000),
	} {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "after_login /home"})
		if got := s.NewBrowser().Follow(link).Seen(t); got.URI != "/home" {
			t.Errorf("%s: leads to %.60q", name, got.URI)
		}
	}
}

func TestOnlyShortReturnPathsSurviveARestart(t *testing.T) {
	for length, want := range map[int]string{maxLoginPath: "the page", maxLoginPath + 1: "/home"} {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "after_login /home"})
		b := s.NewBrowser()
		page := tabPages(1, length)[0]
		callback := b.Authorize("?return_to=" + url.QueryEscape(page))
		s.Restart()
		if want == "the page" {
			want = page
		}
		if a := b.Visit(callback); a.StatusCode != http.StatusSeeOther || a.Location() != want {
			t.Errorf("%d bytes: got %d to %.40q", length, a.StatusCode, a.Location())
		}
	}
}

func TestJunkCookiesDoNotHideALogin(t *testing.T) {
	for name, value := range map[string]string{"short": "x", "long": strings.Repeat("A", 300)} {
		s := gatewaytest.New(t, gatewaytest.Options{})
		b := s.NewBrowser()
		var junk []string
		for i := range 40 {
			junk = append(junk, fmt.Sprintf("tollgate-login-%012d=%s", i, value))
		}
		// A sibling domain's cookies with a longer path come first.
		planted := "Cookie: " + strings.Join(junk, "; ")
		start := b.Visit("/oauth/start?return_to=/page", planted)
		if n := len(start.Header.Values("Set-Cookie")); n != maxRemovals+1 {
			t.Errorf("%s: %d cookies are set or removed", name, n)
		}
		a := b.Visit(b.Visit(start.Location()).Location(), planted)
		if a.StatusCode != http.StatusSeeOther || a.Location() != "/page" {
			t.Errorf("%s: the callback answers %d to %q", name, a.StatusCode, a.Location())
		}
		if got := b.Visit("/page", planted).Seen(t); got.Header.Get("X-User-Id") != gatewaytest.UserID || got.Header.Get("Cookie") != "" {
			t.Errorf("%s: the upstream saw %v", name, got.Header)
		}
		if a := b.Send("POST", "/oauth/logout", nil, planted, "Origin: "+s.URL); a.StatusCode != http.StatusSeeOther || len(a.Header.Values("Set-Cookie")) > maxRemovals+4 {
			t.Errorf("%s: logout answers %d with %d cookies", name, a.StatusCode, len(a.Header.Values("Set-Cookie")))
		}
	}
}
