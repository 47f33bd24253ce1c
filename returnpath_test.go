package tollgate

import (
	"net/url"
	"strings"
	"testing"
)

func TestReturnPathsAreWhatABrowserStaysOnTheOriginFor(t *testing.T) {
	for raw, want := range map[string]string{
		"/":                                      "/",
		"/a/b?c=d&e=%2F#f":                       "/a/b?c=d&e=%2F#f",
		"/search?q=a b":                          "/search?q=a%20b",
		"/café?q=é":                              "/caf%C3%A9?q=%C3%A9",
		"/a/./b/../c":                            "/a/c",
		"/a/%2e%2E/b":                            "/b",
		"/..":                                    "/",
		"/a/..":                                  "/",
		"/a/b/.":                                 "/a/b/",
		"/.//evil.example":                       "/evil.example",
		"/%2e//evil.example":                     "/evil.example",
		"/a/..//evil.example":                    "/evil.example",
		"/search?q=100%":                         "/search?q=100%25",
		"/#%":                                    "/#%25",
		"/?%4":                                   "/?%254",
		"/a//b":                                  "/a//b",
		"/?next=//evil.example":                  "/?next=//evil.example",
		"/#//evil.example":                       "/#//evil.example",
		"/a?x=\"<>":                              "/a?x=%22%3C%3E",
		"/a:b@c":                                 "/a:b@c",
		"/%2F%2Fevil.example":                    "/%2F%2Fevil.example",
		"/a;b=c":                                 "/a;b=c",
		"":                                       "",
		"a":                                      "",
		"//evil.example":                         "",
		"///evil.example":                        "",
		"/\\evil.example":                        "",
		"/a\\b":                                  "",
		"/%5Cevil.example":                       "",
		"\\/evil.example":                        "",
		"https://evil.example/":                  "",
		"javascript:alert(1)":                    "",
		"/\tx":                                   "",
		"/\t/evil.example":                       "",
		"/a\r\nSet-Cookie: x=y":                  "",
		"/a\x00b":                                "",
		"/a%0d%0ab":                              "",
		"/a%00b":                                 "",
		"/%zz":                                   "",
		" /a":                                    "",
		"/\xff":                                  "",
		"/" + strings.Repeat("a", maxReturnPath): "",
	} {
		got, ok := cleanReturnPath(raw)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", raw, got, ok, want)
		}
		if !ok {
			continue
		}
		again, ok := cleanReturnPath(got)
		if !ok || again != got {
			t.Errorf("%q: a second time %q becomes %q, %v", raw, got, again, ok)
		}
	}
}

// FuzzReturnPath: what is accepted stays on the origin, is plain ASCII, and is
// accepted again as it is.
func FuzzReturnPath(f *testing.F) {
	for _, seed := range []string{"/", "//x", "/\\x", "/a/../b?c#d", "/%2e%2e//x", "/.//x", "/a%5cb", "/é?ü#ß", "/a?b=//c", "/;@:"} {
		f.Add(seed)
	}
	origin, _ := url.Parse("https://app.example")
	f.Fuzz(func(t *testing.T, raw string) {
		got, ok := cleanReturnPath(raw)
		if !ok {
			return
		}
		if got[0] != '/' || strings.HasPrefix(got, "//") || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }) {
			t.Fatalf("%q becomes %q", raw, got)
		}
		u, err := origin.Parse(got)
		if err != nil || u.Host != "app.example" || u.Scheme != "https" {
			t.Fatalf("%q leads to %v, %v", raw, u, err)
		}
		if again, ok := cleanReturnPath(got); !ok || again != got {
			t.Fatalf("%q becomes %q, and then %q, %v", raw, got, again, ok)
		}
	})
}
