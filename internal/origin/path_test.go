package origin_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

func TestCleanPathStaysOnTheOrigin(t *testing.T) {
	for raw, want := range map[string]string{
		"/":                             "/",
		"/a/b?c=d&e=%2F#f":              "/a/b?c=d&e=%2F#f",
		"/search?q=a b":                 "/search?q=a%20b",
		"/café?q=é":                     "/caf%C3%A9?q=%C3%A9",
		"/a/./b/../c":                   "/a/c",
		"/a/%2e%2E/b":                   "/b",
		"/..":                           "/",
		"/a/..":                         "/",
		"/a/b/.":                        "/a/b/",
		"/.//evil.example":              "/evil.example",
		"/%2e//evil.example":            "/evil.example",
		"/a/..//evil.example":           "/evil.example",
		"/search?q=100%":                "/search?q=100%25",
		"/#%":                           "/#%25",
		"/?%4":                          "/?%254",
		"/a//b":                         "/a//b",
		"/?next=//evil.example":         "/?next=//evil.example",
		"/#//evil.example":              "/#//evil.example",
		"/a?x=\"<>":                     "/a?x=%22%3C%3E",
		"/a:b@c":                        "/a:b@c",
		"/%2F%2Fevil.example":           "/%2F%2Fevil.example",
		"/a;b=c":                        "/a;b=c",
		"":                              "",
		"a":                             "",
		"//evil.example":                "",
		"///evil.example":               "",
		"/\\evil.example":               "",
		"/a\\b":                         "",
		"/%5Cevil.example":              "",
		"\\/evil.example":               "",
		"https://evil.example/":         "",
		"javascript:alert(1)":           "",
		"/\tx":                          "",
		"/\t/evil.example":              "",
		"/a\r\nSet-Cookie: x=y":         "",
		"/a\x00b":                       "",
		"/a%0d%0ab":                     "",
		"/a%00b":                        "",
		"/%zz":                          "",
		" /a":                           "",
		"/\xff":                         "",
		"/" + strings.Repeat("a", 6144): "",
	} {
		got, ok := origin.CleanPath(raw)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", raw, got, ok, want)
		}
		if !ok {
			continue
		}
		again, ok := origin.CleanPath(got)
		if !ok || again != got {
			t.Errorf("%q: a second time %q becomes %q, %v", raw, got, again, ok)
		}
	}
}

func TestWithoutOwnOriginRemovesOnlyTheOwnOrigin(t *testing.T) {
	const external = "https://app.example"
	for raw, want := range map[string]string{
		"https://app.example":                "/",
		"https://app.example/":               "/",
		"https://app.example?a=b":            "/?a=b",
		"https://app.example#part":           "/#part",
		"https://app.example/a/b?c=d#e":      "/a/b?c=d#e",
		"https://APP.example:443/a":          "/a",
		"HTTPS://app.example/a":              "/a",
		"https://app.example/?u=http://x/":   "/?u=http://x/",
		"https://app.example/.//evil":        "/evil",
		"https://app.example//evil.example":  "",
		"https://app.example/\\evil.example": "",
		"https://app.example/a\r\nb":         "",
		"http://app.example/a":               "",
		"https://app.example:80/a":           "",
		"https://app.example:8443/a":         "",
		"https://app.example:0443/a":         "/a",
		"https://app.example:/a":             "/a",
		"https://app.example./a":             "",
		"https://app.example.evil/a":         "",
		"https://evil.app.example/a":         "",
		"https://xapp.example/a":             "",
		"https://app.example@evil/a":         "",
		"https://evil@app.example/a":         "",
		"https://app.example:x@evil/a":       "",
		"https://app.example\\@evil/a":       "",
		"https://app.example\\evil/a":        "",
		"https://app.example%2eevil/a":       "",
		"https://app%2eexample/a":            "",
		"https://app.example\t/a":            "",
		"https:// app.example/a":             "",
		" https://app.example/a":             "",
		"https:///app.example/a":             "",
		"https:/app.example/a":               "",
		"https:app.example/a":                "",
		"https:\\\\app.example/a":            "",
		"javascript://app.example/a":         "",
		"x:https://app.example/a":            "",
		"//app.example/a":                    "",
		"app.example/a":                      "",
		"https://app。example/a":              "/a",
	} {
		got, ok := origin.CleanPath(origin.WithoutOwnOrigin(raw, external))
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", raw, got, ok, want)
		}
	}
	for external, raw := range map[string]string{
		"http://127.0.0.1:8080":     "http://127.0.0.1:8080/a",
		"http://[::1]:8080":         "http://[::1]:8080/a",
		"https://app.example:8443":  "https://app.example:8443/a",
		"http://localhost":          "http://localhost:80/a",
		"https://xn--bcher-kva.com": "https://XN--bcher-kva.com/a",
	} {
		if got := origin.WithoutOwnOrigin(raw, external); got != "/a" {
			t.Errorf("%q at %s: got %q, want /a", raw, external, got)
		}
	}
}

// fullOwnURL are the spellings in ASCII of the origin that a return path may begin with.
var fullOwnURL = regexp.MustCompile(`^(?i:https)://(?i:app\.example)(:0*443|:)?([/?#]|$)`)

// FuzzReturnPath: what is accepted stays on the origin, is plain ASCII, and is
// accepted again as it is.
func FuzzReturnPath(f *testing.F) {
	for _, seed := range []string{
		"/", "//x", "/\\x", "/a/../b?c#d", "/%2e%2e//x", "/.//x", "/a%5cb", "/é?ü#ß", "/a?b=//c", "/;@:",
		"https://app.example/a", "https://APP.example:443?x", "https://app.example@x/", "https://app.example\\x", "https://app.example//x", "http://app.example/",
	} {
		f.Add(seed)
	}
	external, _ := url.Parse("https://app.example")
	f.Fuzz(func(t *testing.T, raw string) {
		got, ok := origin.CleanPath(origin.WithoutOwnOrigin(raw, "https://app.example"))
		if !ok {
			return
		}
		authority := strings.FieldsFunc(raw, func(r rune) bool { return strings.ContainsRune("/?#", r) })
		if raw[0] != '/' && !fullOwnURL.MatchString(raw) && (len(authority) < 2 || isASCII(authority[1])) {
			t.Fatalf("%q is no URL of this origin, and becomes %q", raw, got)
		}
		if got[0] != '/' || strings.HasPrefix(got, "//") || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }) {
			t.Fatalf("%q becomes %q", raw, got)
		}
		u, err := external.Parse(got)
		if err != nil || u.Host != "app.example" || u.Scheme != "https" {
			t.Fatalf("%q leads to %v, %v", raw, u, err)
		}
		if again, ok := origin.CleanPath(got); !ok || again != got {
			t.Fatalf("%q becomes %q, and then %q, %v", raw, got, again, ok)
		}
	})
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r > 0x7f })
}
