package tollgate_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// maxSDK is what docs/browser.md promises: 8 KiB on the wire.
const maxSDK = 8 << 10

var sdkEndpoints = regexp.MustCompile(`(?m)^const endpoints = (.*);$`)

func TestTheSDKIsTheSameForEveryone(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	anybody := s.NewBrowser().Get("/oauth/sdk.js")
	for name, want := range map[string]string{
		"Content-Type":                 "text/javascript; charset=utf-8",
		"Cache-Control":                "no-store",
		"X-Content-Type-Options":       "nosniff",
		"Referrer-Policy":              "no-referrer",
		"Cross-Origin-Resource-Policy": "same-origin",
		"Vary":                         "Accept-Encoding",
		"Access-Control-Allow-Origin":  "",
		"Set-Cookie":                   "",
	} {
		if got := anybody.Header.Get(name); anybody.StatusCode != http.StatusOK || got != want {
			t.Errorf("status %d, %s: %q, want %q", anybody.StatusCode, name, got, want)
		}
	}
	if !strings.HasPrefix(anybody.Text, "// tollgate in the page") {
		t.Errorf("served %.100q", anybody.Text)
	}
	signedIn := s.NewBrowser().SignIn()
	for name, a := range map[string]*gatewaytest.Answer{
		"signed in":     signedIn.Get("/oauth/sdk.js"),
		"with a query":  signedIn.Get("/oauth/sdk.js?v=</script>"),
		"odd headers":   signedIn.Get("/oauth/sdk.js", "Host: evil.example", "X-Forwarded-Prefix: /evil", "Accept-Language: pt", "Origin: https://evil.example"),
		"a navigation":  s.NewBrowser().Visit("/oauth/sdk.js"),
		"a broken one":  s.NewBrowser().Get("/oauth/sdk.js", "Cookie: tollgate=broken"),
		"without gzip":  s.NewBrowser().Get("/oauth/sdk.js", "Accept-Encoding: identity"),
		"gzip refused":  s.NewBrowser().Get("/oauth/sdk.js", "Accept-Encoding: gzip;q=0"),
		"other methods": s.NewBrowser().Get("/oauth/sdk.js", "Accept-Encoding: br, zstd"),
	} {
		if a.Text != anybody.Text || a.StatusCode != http.StatusOK || a.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: status %d, %d bytes, Content-Encoding %q", name, a.StatusCode, len(a.Text), a.Header.Get("Content-Encoding"))
		}
	}
	if a := s.NewBrowser().Send(http.MethodHead, "/oauth/sdk.js", nil); a.StatusCode != http.StatusOK || a.Text != "" {
		t.Errorf("HEAD: %d, %d bytes", a.StatusCode, len(a.Text))
	}
}

func TestTheSDKIsSmallOnTheWire(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	a := s.NewBrowser().Get("/oauth/sdk.js", "Accept-Encoding: gzip")
	if a.Header.Get("Content-Encoding") != "gzip" || len(a.Text) >= maxSDK {
		t.Errorf("Content-Encoding %q, %d bytes", a.Header.Get("Content-Encoding"), len(a.Text))
	}
	r, err := gzip.NewReader(strings.NewReader(a.Text))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil || string(plain) != s.NewBrowser().Get("/oauth/sdk.js", "Accept-Encoding: identity").Text {
		t.Errorf("the compressed bytes are others, error %v", err)
	}
}

func TestSDKContainsThePathsOfTheEndpoints(t *testing.T) {
	for name, c := range map[string]struct{ path, inTollgate, inProvider, want string }{
		"by default": {
			"/oauth/sdk.js", "", "",
			`{"start":"/oauth/start","userinfo":"/oauth/userinfo","refresh":"/oauth/refresh","topup":"/oauth/topup","logout":"/oauth/logout"}`,
		},
		"moved": {
			"/assets/account.js", "path_prefix /gate\nendpoints {\nsdk.js /assets/account.js\nuserinfo /api/user/info\n}", "",
			`{"start":"/gate/start","userinfo":"/api/user/info","refresh":"/gate/refresh","topup":"/gate/topup","logout":"/gate/logout"}`,
		},
		"no way to top up": {
			"/oauth/sdk.js", "", "topup_endpoint off",
			`{"start":"/oauth/start","userinfo":"/oauth/userinfo","refresh":"/oauth/refresh","topup":"","logout":"/oauth/logout"}`,
		},
		"paths that could end the script": {
			"/oauth/sdk.js", "endpoints {\nstart /</script>\nlogout \"/x\u2028'`\"\n}", "",
			`{"start":"/\u003c/script\u003e","userinfo":"/oauth/userinfo","refresh":"/oauth/refresh","topup":"/oauth/topup","logout":"/x\u2028'` + "`" + `"}`,
		},
	} {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: c.inTollgate, InProvider: c.inProvider})
		line := sdkEndpoints.FindAllStringSubmatch(s.NewBrowser().Get(c.path).Text, -1)
		if len(line) != 1 || line[0][1] != c.want {
			t.Errorf("%s: %q, want %s", name, line, c.want)
		}
	}
}

// A browser writes every 401 into its console, and looking is no mistake.
func TestUserinfoAnswers401Or204WithoutASession(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	for path, want := range map[string]int{
		"/oauth/userinfo": 401, "/oauth/userinfo?optional=1": 204, "/oauth/userinfo?optional=0": 401, "/oauth/userinfo?optional": 401,
	} {
		if a := s.NewBrowser().Get(path); a.StatusCode != want || a.Header.Get("Cache-Control") != "no-store" || (want == 204 && a.Text != "") {
			t.Errorf("%s: status %d, want %d: %s", path, a.StatusCode, want, a.Text)
		}
	}
	b := s.NewBrowser().SignIn()
	if a := b.Get("/oauth/userinfo?optional=1"); a.JSON(t)["username"] != "user123" {
		t.Errorf("signed in: %d %s", a.StatusCode, a.Text)
	}
	b.Send("POST", "/oauth/logout", nil)
	if a := b.Get("/oauth/userinfo?optional=1"); a.StatusCode != 204 {
		t.Errorf("signed out: %d %s", a.StatusCode, a.Text)
	}
}
