package origin_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

func TestOfWritesOriginsAsBrowsersDo(t *testing.T) {
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

func TestCanonicalHostRefusesHostsThatBrowsersReadDifferently(t *testing.T) {
	for _, host := range []string{
		"", "a b", "a%b", "a<b", "a|b", "127.1", "2130706433", "0x7f000001", "127.0.0.0x1", "1.2.3.256", "01.2.3.4", "app.example.1",
		"fe80::1%eth0", "1::2::3", "::g", "xn--a", "a\u200db", "\u00ad", "0\xbc0",
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
