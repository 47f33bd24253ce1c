package browser

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

var testPlaces = Places{Origin: "https://app.example", Start: "/oauth/start", Callback: "/oauth/callback", AfterLogin: "/home"}

func TestReturnPathIsAPageOfTheSite(t *testing.T) {
	for _, test := range []struct{ raw, want string }{
		{"/page?x=1#top", "/page?x=1#top"},
		{"https://app.example/page", "/page"},
		{"https://other.example/page", "/home"},
		{"//other.example/page", "/home"},
		{"", "/home"},
		{"/oauth/start?return_to=%2F", "/home"},
		{"/oauth/callback#x", "/home"},
		{"/oauth/userinfo", "/oauth/userinfo"},
	} {
		if got := testPlaces.ReturnPath(test.raw); got != test.want {
			t.Errorf("%q: got %q, want %q", test.raw, got, test.want)
		}
	}
}

func TestReturnPathOfAScriptIsItsPage(t *testing.T) {
	for _, test := range []struct{ accept, referer, want string }{
		{"text/html", "https://app.example/other", "/sent"},
		{"application/json", "https://app.example/page", "/page"},
		{"application/json", "https://other.example/page", "/home"},
		{"application/json", "", "/home"},
	} {
		r := httptest.NewRequest("GET", "/now", nil)
		r.Header.Set("Accept", test.accept)
		r.Header.Set("Referer", test.referer)
		if got := testPlaces.ReturnPathOf(r, &url.URL{Path: "/sent"}); got != test.want {
			t.Errorf("Accept %q, Referer %q: got %q, want %q", test.accept, test.referer, got, test.want)
		}
	}
}

func TestStartURLKeepsTheReturnPathWhileItFits(t *testing.T) {
	long := "/" + strings.Repeat("ä", 1500) // three times as long when it is escaped fully
	for _, test := range []struct{ name, returnTo, want string }{
		{"none", "", "/oauth/start"},
		{"a path with a query", "/a?b=c&d=e", "/oauth/start?return_to=%2Fa%3Fb%3Dc%26d%3De"},
		{"a long one", long, "/oauth/start?return_to=" + long},
		{"one that is too long", "/" + strings.Repeat("a", maxStartQuery), "/oauth/start"},
	} {
		if got := testPlaces.StartURL(test.returnTo); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestRestartURLKeepsThePopup(t *testing.T) {
	for _, test := range []struct {
		gone Destination
		want string
	}{
		{Destination{ReturnPath: "/a", Nonce: "n"}, "/oauth/start?return_to=%2Fa"},
		{Destination{Popup: true}, "/oauth/start?popup=1"},
		{Destination{ReturnPath: "/a", Popup: true, Nonce: "n"}, "/oauth/start?return_to=%2Fa&popup=1&nonce=n"},
	} {
		if got := testPlaces.RestartURL(test.gone); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.gone, got, test.want)
		}
	}
}
