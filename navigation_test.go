package tollgate_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

const acceptOfAPage = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

// passedOn are the headers of a navigation that a service worker passes on with
// `fetch(event.request)`, and with options of its own.
var passedOn = map[string][]string{
	"Chromium and WebKit": {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin", acceptOfAPage},
	"Firefox":             {"Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin", acceptOfAPage},
}

func TestAServiceWorkerPassesOnASignIn(t *testing.T) {
	for name, headers := range passedOn {
		s := gatewaytest.New(t, gatewaytest.Options{})
		b := s.NewBrowser()
		toStart := b.Get("/page?x=1", headers...)
		if toStart.StatusCode != http.StatusFound || toStart.Location() != "/oauth/start?return_to=%2Fpage%3Fx%3D1" {
			t.Fatalf("%s: the page answers %d to %q", name, toStart.StatusCode, toStart.Location())
		}
		toProvider := b.Get(toStart.Location(), headers...)
		if toProvider.StatusCode != http.StatusFound || !strings.HasPrefix(toProvider.Location(), s.ProviderURL) {
			t.Fatalf("%s: start answers %d to %q", name, toProvider.StatusCode, toProvider.Location())
		}
		toPage := b.Get(b.Visit(toProvider.Location()).Location(), headers...)
		if toPage.StatusCode != http.StatusSeeOther || toPage.Location() != "/page?x=1" {
			t.Fatalf("%s: the callback answers %d to %q", name, toPage.StatusCode, toPage.Location())
		}
		if got := b.Get(toPage.Location(), headers...).Seen(t); got.Header.Get("X-User-Id") != gatewaytest.UserID {
			t.Errorf("%s: the upstream saw %v", name, got.Header)
		}
	}
}

func TestAServiceWorkerPassesOnPages(t *testing.T) {
	isPage := func(a *gatewaytest.Answer, status int) bool {
		return a.StatusCode == status && strings.HasPrefix(a.Header.Get("Content-Type"), "text/html")
	}
	for name, headers := range passedOn {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "login_page on\nrequire /dear/* {\nbalance 1000\n}\nrequire /mine/* {\nuser 1\n}"})
		if a := s.NewBrowser().Get("/page", headers...); !isPage(a, http.StatusUnauthorized) {
			t.Errorf("%s: the sign-in page: got %d %s", name, a.StatusCode, a.Header.Get("Content-Type"))
		}
		b := s.NewBrowser()
		b.Follow("/oauth/start")
		for path, status := range map[string]int{"/dear/": http.StatusPaymentRequired, "/mine/": http.StatusForbidden} {
			if a := b.Get(path, headers...); !isPage(a, status) {
				t.Errorf("%s: %s: got %d %s", name, path, a.StatusCode, a.Header.Get("Content-Type"))
			}
		}
		s.Provider.SetFault(simulator.Refresh, simulator.Fault{Status: http.StatusServiceUnavailable})
		s.Clock.Advance(over)
		if a := b.Get("/page", headers...); !isPage(a, http.StatusServiceUnavailable) {
			t.Errorf("%s: with the provider down: got %d %s", name, a.StatusCode, a.Header.Get("Content-Type"))
		}
	}
}

func TestAServiceWorkerDoesNotMakeScriptsNavigations(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	for name, headers := range map[string][]string{
		"a script that fetches HTML": {"Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", acceptOfAPage},
		"a script that fetches JSON": {"Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty", "Accept: application/json, text/html;q=0.5"},
		"a script that fetches":      {"Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty", "Accept: */*"},
		"a library's request":        {"Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty", "X-Requested-With: XMLHttpRequest", acceptOfAPage},
		"an opaque request":          {"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: empty", acceptOfAPage},
		"an event stream":            {"Sec-Fetch-Mode: same-origin", "Sec-Fetch-Dest: empty", "Accept: text/event-stream"},
		"a prefetch":                 {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty", "Sec-Purpose: prefetch", acceptOfAPage},
		"a prerender":                {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: empty", "Sec-Purpose: prefetch;prerender", acceptOfAPage},
		"a frame":                    {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", acceptOfAPage},
		"a frame of a frameset":      {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: frame", acceptOfAPage},
		"an embed":                   {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: embed", acceptOfAPage},
		"an object":                  {"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: object", acceptOfAPage},
		"an image":                   {"Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image", acceptOfAPage},
		"a mode without destination": {"Sec-Fetch-Mode: same-origin", acceptOfAPage},
		"a destination without mode": {"Sec-Fetch-Dest: empty", acceptOfAPage},
	} {
		for _, path := range []string{"/page", "/oauth/start"} {
			a := s.NewBrowser().Get(path, headers...)
			if a.StatusCode != http.StatusUnauthorized || len(a.Header.Values("Set-Cookie")) != 0 || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s at %s: got %d %s, cookies %q", name, path, a.StatusCode, a.Header.Get("Content-Type"), a.Header.Values("Set-Cookie"))
			}
		}
	}
}
