package tollgate_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// TestLoginOfAScriptReturnsToItsPageOnAnyHost: scripts name their page in Referer, and post
// with Origin, in the browser's form of the host and not in the operator's.
func TestLoginOfAScriptReturnsToItsPageOnAnyHost(t *testing.T) {
	for configured, browsers := range map[string]string{
		"https://bücher.example":        "https://xn--bcher-kva.example",
		"https://Bücher.Example:443":    "https://xn--bcher-kva.example",
		"https://[2001:DB8:0:0::0001]":  "https://[2001:db8::1]",
		"https://APP.example.com:443":   "https://app.example.com",
		"http://[0:0:0:0:0:0:0:1]:8080": "http://[::1]:8080",
	} {
		s := gatewaytest.New(t, gatewaytest.Options{Front: configured})
		b := s.NewBrowser()
		a := b.Get(s.GatewayURL+"/api", "Referer: "+browsers+"/page?x=1")
		if got, want := a.JSON(t)["login_url"], "/oauth/start?return_to=%2Fpage%3Fx%3D1"; got != want {
			t.Errorf("%s: login_url is %v, want %s", configured, got, want)
		}
		if a := b.Send("POST", s.GatewayURL+"/oauth/logout", nil, "Origin: "+browsers); a.StatusCode != http.StatusSeeOther {
			t.Errorf("%s: POST logout got %d, want 303", configured, a.StatusCode)
		}
		if a := b.Send("POST", s.GatewayURL+"/oauth/logout", nil, "Origin: https://xn--bcher-kva.example.evil.example"); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s: POST of another site got %d, want 403", configured, a.StatusCode)
		}
		location, err := url.Parse(b.Visit(s.GatewayURL+"/oauth/start", "Host: "+strings.SplitN(browsers, "/", 3)[2]).Location())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := location.Query().Get("redirect_uri"), configured+"/oauth/callback"; got != want {
			t.Errorf("%s: the provider is sent %q, want %q", configured, got, want)
		}
	}
}

func TestCookieDomainIsSentInASCII(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Front: "https://app.bücher.example", InTollgate: "session {\ncookie_domain .Bücher.example\n}"})
	a := s.NewBrowser().Visit(s.GatewayURL+"/oauth/start", "Host: app.xn--bcher-kva.example")
	if got := a.Header.Get("Set-Cookie"); !strings.Contains(got, "; Domain=xn--bcher-kva.example;") {
		t.Errorf("Set-Cookie is %q", got)
	}
}

func TestRedirectURIWithAnUnreadableHostIsRefused(t *testing.T) {
	for _, host := range []string{"https://127.1", "https://a b", "https://xn--a", "https://[fe80::1%25eth0]", "https://app.example.1"} {
		block := strings.Replace(minimalBlock, "https://app.example.com", host, 1)
		block = strings.Replace(block, "redirect_uri "+host+"/oauth/callback", `redirect_uri "`+host+`/oauth/callback"`, 1)
		if _, err := adaptHandler(block); err == nil || !strings.Contains(err.Error(), "redirect_uri: ") {
			t.Errorf("%s: got %v", host, err)
		}
	}
}
