package tollgate

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

func TestOriginIsWrittenAsABrowserWritesIt(t *testing.T) {
	for raw, want := range map[string]string{
		"https://app.example.com/x":                    "https://app.example.com",
		"https://APP.Example.COM:443/x":                "https://app.example.com",
		"http://app.example.com:80":                    "http://app.example.com",
		"https://app.example.com:0443":                 "https://app.example.com",
		"https://app.example.com:":                     "https://app.example.com",
		"https://app.example.com:80":                   "https://app.example.com:80",
		"http://app.example.com:08080":                 "http://app.example.com:8080",
		"https://bücher.example/oauth":                 "https://xn--bcher-kva.example",
		"https://BÜCHER.example:8443":                  "https://xn--bcher-kva.example:8443",
		"https://b%C3%BCcher.example":                  "https://xn--bcher-kva.example",
		"https://xn--bcher-kva.example":                "https://xn--bcher-kva.example",
		"https://faß.example":                          "https://xn--fa-hia.example",
		"https://例え。テスト":                               "https://xn--r8jz45g.xn--zckzah",
		"https://my_app.example":                       "https://my_app.example",
		"https://app.example.":                         "https://app.example.",
		"http://[::1]:8080":                            "http://[::1]:8080",
		"http://[0:0:0:0:0:0:0:1]:8080":                "http://[::1]:8080",
		"https://[2001:DB8:0:0::0001]:443":             "https://[2001:db8::1]",
		"https://[2001:db8:0:1:1:1:1:1]":               "https://[2001:db8:0:1:1:1:1:1]",
		"http://[::ffff:127.0.0.1]":                    "http://[::ffff:7f00:1]",
		"http://127.0.0.1:9000":                        "http://127.0.0.1:9000",
		"http://127.0.0.1.:9000":                       "http://127.0.0.1:9000",
		"https://app.example.com.evil.example:443/a?b": "https://app.example.com.evil.example",
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if got := origin.Of(u); got != want {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
}

func TestHostThatBrowsersReadOtherwiseIsRefused(t *testing.T) {
	for _, host := range []string{
		"", "a b", "a%b", "a<b", "a|b", "127.1", "2130706433", "0x7f000001", "127.0.0.0x1", "1.2.3.256", "01.2.3.4", "app.example.1",
		"fe80::1%eth0", "1::2::3", "::g", "xn--a", "a\u200db", "\u00ad",
	} {
		if got, err := origin.CanonicalHost(host); err == nil {
			t.Errorf("%q: got %q", host, got)
		}
	}
}

func FuzzCanonicalHost(f *testing.F) {
	for _, seed := range []string{"app.example.com", "bücher.example", "[::1]", "2001:DB8::1", "127.1", "例え。テスト", "a_b", "xn--bcher-kva"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		once, err := origin.CanonicalHost(host)
		if err != nil {
			return
		}
		if strings.ContainsFunc(once, func(c rune) bool { return c <= 0x20 || c > 0x7e }) || strings.ContainsAny(once, `/\@?#%`) {
			t.Fatalf("%q becomes %q", host, once)
		}
		if twice, err := origin.CanonicalHost(once); err != nil || twice != once {
			t.Fatalf("%q becomes %q, and that %q, %v", host, once, twice, err)
		}
	})
}

// TestAScriptComesBackToItsPageOnAnyHost: scripts name their page in Referer, and post
// with Origin, in the browser's form of the host and not in the operator's.
func TestAScriptComesBackToItsPageOnAnyHost(t *testing.T) {
	for configured, browsers := range map[string]string{
		"https://bücher.example":        "https://xn--bcher-kva.example",
		"https://Bücher.Example:443":    "https://xn--bcher-kva.example",
		"https://[2001:DB8:0:0::0001]":  "https://[2001:db8::1]",
		"https://APP.example.com:443":   "https://app.example.com",
		"http://[0:0:0:0:0:0:0:1]:8080": "http://[::1]:8080",
	} {
		s := newSite(t, siteOptions{front: configured})
		b := s.newBrowser()
		a := b.Get(s.gatewayURL+"/api", "Referer: "+browsers+"/page?x=1")
		if got, want := a.json(t)["login_url"], "/oauth/start?return_to=%2Fpage%3Fx%3D1"; got != want {
			t.Errorf("%s: login_url is %v, want %s", configured, got, want)
		}
		if a := b.do("POST", s.gatewayURL+"/oauth/logout", nil, "Origin: "+browsers); a.StatusCode != http.StatusSeeOther {
			t.Errorf("%s: POST logout got %d, want 303", configured, a.StatusCode)
		}
		if a := b.do("POST", s.gatewayURL+"/oauth/logout", nil, "Origin: https://xn--bcher-kva.example.evil.example"); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s: POST of another site got %d, want 403", configured, a.StatusCode)
		}
		location, err := url.Parse(b.visit(s.gatewayURL+"/oauth/start", "Host: "+strings.SplitN(browsers, "/", 3)[2]).location())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := location.Query().Get("redirect_uri"), configured+"/oauth/callback"; got != want {
			t.Errorf("%s: the provider is sent %q, want %q", configured, got, want)
		}
	}
}

func TestAForwardedHostIsComparedInTheBrowsersForm(t *testing.T) {
	for forwarded, want := range map[string]string{
		"https://xn--bcher-kva.example/p?q=1": "/p?q=1", "https://bücher.example:443/p": "/p", "http://XN--BCHER-KVA.example:80/p": "/p",
		"https://bucher.example/p": "", "https://xn--bcher-kva.example:444/p": "",
	} {
		asked, err := url.Parse(forwarded)
		if err != nil {
			t.Fatal(err)
		}
		if got := policy.ForwardedPath(asked, "https://xn--bcher-kva.example"); got != want {
			t.Errorf("%s: got %q, want %q", forwarded, got, want)
		}
	}
	header := http.Header{"X-Forwarded-Uri": {"https://app.example.com:443/p"}, "X-Original-Url": {"https://APP.example.com/p"}}
	if _, ok := policy.ForwardedURL(header); !ok {
		t.Error("two spellings of one URL are taken for a contradiction")
	}
}

func TestCookieDomainIsSentInASCII(t *testing.T) {
	s := newSite(t, siteOptions{front: "https://app.bücher.example", inTollgate: "session {\ncookie_domain .Bücher.example\n}"})
	a := s.newBrowser().visit(s.gatewayURL+"/oauth/start", "Host: app.xn--bcher-kva.example")
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
