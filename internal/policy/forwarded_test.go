package policy

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// FuzzForwardedURL: whatever a proxy's headers say, what comes of them is a path of
// this origin, decided as the same path of a request would be, or a refusal.
func FuzzForwardedURL(f *testing.F) {
	const external = "https://app.example.com"
	f.Add("/page?a=1&b=2", "", "", 1)
	f.Add("/public/..%2fadmin", "https://app.example.com/public/..%2fadmin", "", 3)
	f.Add("//evil.example", "https://evil.example/x", "/\\evil.example", 7)
	f.Add("*", "javascript:alert(1)", "https:/x", 5)
	f.Add("/a%zz", "http://app.example.com:80", "/.//x", 6)
	f.Add("", "http://app.example.com?x=/admin", "", 2)
	f.Add("", "http://app.example.com/public/x?/admin", "", 2)
	f.Add("/admin", "http://app.example.com/public/x?/admin", "http://app.example.com?/admin", 7)
	f.Fuzz(func(t *testing.T, uri, original, redirect string, sent int) {
		header := http.Header{}
		for i, value := range []string{uri, original, redirect} {
			if sent>>i&1 == 1 {
				header[originalURLHeaders[i]] = []string{value}
			}
		}
		u, ok := forwardedURL(header)
		if !ok {
			return
		}
		if u == nil {
			if len(header) > 0 {
				t.Fatalf("%q says nothing", header)
			}
			return
		}
		if u.Path == "" || u.Path[0] != '/' || u.User != nil || u.Opaque != "" || (u.Host != "" && u.Scheme != "https" && u.Scheme != "http") {
			t.Fatalf("%q becomes %q", header, u)
		}
		if !slices.ContainsFunc([]string{uri, original, redirect}, func(text string) bool { return strings.HasPrefix(text, "/") }) {
			t.Fatalf("%q: no header has the path alone", header)
		}
		for name, lines := range header {
			full, host := lines[0], ""
			if i := strings.Index(full, "://"); i > 0 && full[0] != '/' {
				full, host = full[i+3:], "x"
			}
			if at := strings.IndexAny(full, "/?"); host != "" && at >= 0 {
				full = full[at:]
			} else if host != "" {
				full = "/"
			}
			if path, _, _ := strings.Cut(full, "?"); path != u.EscapedPath() && path != "" && escapedAlike(path) != escapedAlike(u.EscapedPath()) {
				t.Fatalf("%s: %q is taken for %q", name, lines[0], u.EscapedPath())
			}
			if strings.HasPrefix(full, "?") {
				t.Fatalf("%s: %q has no path and is taken for %q", name, lines[0], u)
			}
		}
		page := forwardedPath(u, external)
		if page != "" && (page[0] != '/' || u.Host != "" && !strings.HasPrefix(strings.ToLower(u.Host), "app.example.com")) {
			t.Fatalf("%q leads to %q", header, page)
		}
		if cleaned, ok := origin.CleanPath(page); ok {
			read, err := url.Parse(external + "/")
			if err != nil {
				t.Fatal(err)
			}
			if target, err := read.Parse(strings.ReplaceAll(cleaned, `\`, "/")); err == nil && target.Host != "app.example.com" {
				t.Fatalf("%q leads to %q", header, cleaned)
			}
		}
	})
}

// escapedAlike is a path in one spelling, decoded where that can be done.
func escapedAlike(path string) string {
	if decoded, err := url.PathUnescape(path); err == nil {
		return decoded
	}
	return path
}

func TestForwardedHostIsComparedInTheBrowsersForm(t *testing.T) {
	for _, c := range []struct{ forwarded, want string }{
		{"https://xn--bcher-kva.example/p?q=1", "/p?q=1"},
		{"https://bücher.example:443/p", "/p"},
		{"http://XN--BCHER-KVA.example:80/p", "/p"},
		{"https://bucher.example/p", ""},
		{"https://xn--bcher-kva.example:444/p", ""},
	} {
		asked, err := url.Parse(c.forwarded)
		if err != nil {
			t.Fatal(err)
		}
		if got := forwardedPath(asked, "https://xn--bcher-kva.example"); got != c.want {
			t.Errorf("%s: got %q, want %q", c.forwarded, got, c.want)
		}
	}
	header := http.Header{"X-Forwarded-Uri": {"https://app.example.com:443/p"}, "X-Original-Url": {"https://APP.example.com/p"}, "X-Auth-Request-Redirect": {"/p"}}
	if _, ok := forwardedURL(header); !ok {
		t.Error("two spellings of one URL are taken for a contradiction")
	}
}

func TestFullURLAloneIsRefused(t *testing.T) {
	for _, c := range []struct {
		original, path string // path is X-Auth-Request-Redirect
		want           string
	}{
		{"http://app/p?q", "", ""},
		{"http://app/public/x?/admin", "", ""},
		{"http://app?x=/admin", "", ""},
		{"http://app", "", ""},
		{"http://app?x=/admin", "/?x=/admin", ""},
		{"http://app?", "/", ""},
		{"http://app/public/x?/admin", "/admin", ""},
		{"http://app/public/admin", "/admin", ""},
		{"http://app?/admin", "/admin", ""},
		{"http://app#/admin", "/admin", ""},
		{"http://app@/admin", "/admin", ""},
		{`http://app\/admin`, "/admin", ""},
		{"http://app/p?q", "http://app/p?q", ""},
		{"http://app/p?q", "/p?q", "/p?q"},
		{"http://app", "/", "/"},
		{"/p?q", "", "/p?q"},
		{"/p?q", "http://app/p?q", "/p?q"},
	} {
		header := http.Header{"X-Original-Url": {c.original}}
		if c.path != "" {
			header["X-Auth-Request-Redirect"] = []string{c.path}
		}
		got := ""
		if u, ok := forwardedURL(header); ok {
			got = u.RequestURI()
		}
		if got != c.want {
			t.Errorf("%q: got %q, want %q", header, got, c.want)
		}
	}
}
