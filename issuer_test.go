package tollgate_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestTheIssuerIsComparedAsConfigured(t *testing.T) {
	const issuer = "https://Issuer.example.com/tenant"
	for _, c := range []struct {
		setting, iss string
		ok           bool
	}{
		{"", "", true},
		{"", "{provider}", true},
		{"", "{provider}/any/path", true},
		{"", issuer, false},
		{"", "https://evil.example", false},
		{"", "not an issuer\r\n", false},
		{"issuer " + issuer, "", true},
		{"issuer " + issuer, issuer, true},
		{"issuer " + issuer, issuer + "/", false},
		{"issuer " + issuer, strings.ToLower(issuer), false},
		{"issuer " + issuer, "{provider}", false},
	} {
		s := gatewaytest.New(t, gatewaytest.Options{InProvider: c.setting})
		logs := observe(s)
		b := s.NewBrowser()
		provider := b.Visit(b.Visit("/oauth/start").Location())
		iss := strings.Replace(c.iss, "{provider}", s.ProviderURL, 1)
		target := provider.Location()
		if iss != "" {
			target += "&iss=" + url.QueryEscape(iss)
		}
		a := b.Visit(target, "Accept-Language: en")
		if c.ok {
			if a.StatusCode != http.StatusSeeOther {
				t.Errorf("%q, iss %q: got %d: %s", c.setting, iss, a.StatusCode, a.Text)
			}
			continue
		}
		if a.StatusCode != http.StatusBadRequest || !strings.Contains(a.Text, "Error code: invalid_response") || strings.Contains(a.Text, "took too long") {
			t.Errorf("%q, iss %q: got %d: %s", c.setting, iss, a.StatusCode, a.Text)
		}
		if n := s.Provider.Count(simulator.Exchange); n != 0 {
			t.Errorf("%q, iss %q: the code was spent", c.setting, iss)
		}
		lines := logs.FilterMessageSnippet("the callback's iss differs").All()
		if len(lines) != 1 {
			t.Errorf("%q, iss %q: %d warnings", c.setting, iss, len(lines))
		} else if got := lines[0].ContextMap()["iss"]; strings.HasPrefix(iss, "http") != (got == iss) {
			t.Errorf("%q: the warning names %q, want %q", c.setting, got, iss)
		}
	}
}

// TestLogLinesThatAnybodyCanCauseAreWrittenOnceAMinute: a client may replay its login cookie,
// and write the cookie that counts sign-ins.
func TestLogLinesThatAnybodyCanCauseAreWrittenOnceAMinute(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "error_redirect /denied\npublic /denied"})
	logs := observe(s)
	b := s.NewBrowser()
	provider := b.Visit(b.Visit("/oauth/start").Location())
	login, callback := b.CookieLine(), provider.Location()
	count := func(message string) int { return logs.FilterMessageSnippet(message).Len() }
	for range 2 {
		for range 5 {
			s.NewBrowser().Get(callback+"&iss=https%3A%2F%2Fevil.example%2F"+strings.Repeat("A", 200), login)
			for range 8 {
				b.Visit("/oauth/callback?code=a&state=b") // each of them fails, and is counted in a cookie
			}
		}
		s.Clock.Advance(time.Minute)
	}
	for _, message := range []string{"the callback's iss differs", "sign-in loop: sign-ins fail"} {
		if n := count(message); n != 2 {
			t.Errorf("%s: got %d lines in two minutes, want 2", message, n)
		}
	}
}
