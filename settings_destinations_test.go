package tollgate_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestPageThatCausesARedirectLoopIsRefused(t *testing.T) {
	const needsLogin = "needs a login, so a failed sign-in would start the next one: add the path to `public` or `optional`"
	for block, want := range map[string]string{
		"error_redirect /denied":                            "error_redirect: \"/denied\" " + needsLogin + ", at Caddyfile:9",
		"public /other\nerror_redirect /denied?lang=pt":     "error_redirect: \"/denied?lang=pt\" " + needsLogin + ", at Caddyfile:10",
		"error_redirect /oauth/start":                       "error_redirect: \"/oauth/start\" is the endpoint start, which would start the next sign-in",
		"error_redirect /oauth/callback":                    "is the endpoint callback",
		"after_login /oauth/start?x=1":                      "after_login: \"/oauth/start?x=1\" is the endpoint start",
		"after_logout /oauth/start":                         "after_logout: \"/oauth/start\" is the endpoint start",
		"endpoints {\nstart /in\n}\nafter_login /in":        "after_login: \"/in\" is the endpoint start",
		"public /denied\nerror_redirect /denied":            "",
		"optional /denied*\nerror_redirect /denied?lang=pt": "",
		"public /Denied\nerror_redirect /denied":            "",
		"public *\nerror_redirect /denied":                  "",
		"error_redirect /oauth/logout":                      "",
		"after_login /members\nafter_logout /oauth/logout":  "",
	} {
		_, err := adaptHandler(minimalBlock + block)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", block, err, want)
		}
	}
}

func TestRiskySettingsAreWarnings(t *testing.T) {
	for block, want := range map[string]string{
		"session {\nsame_site none\n}":      "session.same_site none",
		"session {\nsame_site lax\n}":       "",
		"after_logout /":                    "after_logout needs a login",
		"after_logout /\nlogin_page on":     "",
		"after_logout /bye\npublic /bye":    "",
		"after_logout /bye\noptional /b*":   "",
		"after_logout /oauth/logout?page=1": "",
		"pass_access_token":                 "",
		"pass_access_token X-Token":         "pass_access_token: Caddy hides",
	} {
		log := startLog(t, "", "http:// {\ntollgate {\n"+minimalBlock+block+"\n}\n}\n")
		for _, text := range []string{"session.same_site none", "after_logout needs a login", "pass_access_token: Caddy hides"} {
			if got := strings.Contains(log, text); got != (text == want) {
				t.Errorf("%s: warned of %q: %v", block, text, got)
			}
		}
	}
}

func TestFailedSignInShowsAPage(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "public /denied\nerror_redirect /denied"})
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":1,"status":2}`})
	b := s.NewBrowser()
	for i := 1; i <= loopLogins; i++ {
		// The page at /denied begins the next sign-in by itself, with another page each time.
		a := b.Visit(b.Authorize("?return_to=/page" + strings.Repeat("x", i)))
		switch {
		case i < loopLogins && (a.StatusCode != http.StatusSeeOther || a.Location() != "/denied?error=inactive_user"):
			t.Fatalf("sign-in %d: got %d to %q", i, a.StatusCode, a.Location())
		case i == loopLogins && (a.StatusCode != http.StatusForbidden || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html")):
			t.Errorf("sign-in %d: got %d to %q, want a page", i, a.StatusCode, a.Location())
		}
	}
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{})
	if a := b.Visit(b.Authorize("?return_to=/page")); a.StatusCode != http.StatusSeeOther || a.Location() != "/page" {
		t.Errorf("a sign-in that works: got %d to %q", a.StatusCode, a.Location())
	}
}

func TestATemplateThatFailsLogsNoURL(t *testing.T) {
	folder := t.TempDir()
	for _, page := range []string{"error.html", "forbidden.html", "unavailable.html"} {
		// It passes the rehearsal, whose addresses are long, and fails with the home page "/".
		if err := os.WriteFile(filepath.Join(folder, page), []byte(`{{define "main"}}{{if .HomeURL}}{{slice .HomeURL 0 5}}{{end}}{{end}}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := gatewaytest.Run(t, gatewaytest.RunOptions{InTollgate: "pages " + folder})
	b := r.NewBrowser()
	authorize := b.StartLogin("")
	state := authorize.Get("state")
	secrets := []string{state, "the_code_of_this_test"}
	for _, query := range []string{"?code=the_code_of_this_test&state=" + state, "?code=the_code_of_this_test", "?code=the_code_of_this_test&state=x" + state} {
		a := b.Visit("/oauth/callback" + query)
		if a.StatusCode < 400 || !strings.Contains(a.Text, "/oauth/start") || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
			t.Errorf("%.30s: no built-in page: %d: %s", query, a.StatusCode, a.Text)
		}
	}
	log := manualtest.ReadFile(t, filepath.Join(r.Logs, "default.log")) + manualtest.ReadFile(t, filepath.Join(r.Logs, "access.log"))
	if !strings.Contains(log, "a template of `pages` failed; showing the built-in page") {
		t.Errorf("the log does not say that a template failed: %s", log)
	}
	for _, secret := range append(secrets, "/oauth/callback?") {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestPageOutsideTheMatcherCausesNoWarning(t *testing.T) {
	log := startLog(t, "", "http:// {\ntollgate /app/* {\n"+minimalBlock+"error_redirect /denied\nafter_logout /\n}\n}\n")
	if strings.Contains(log, "after_logout needs a login") {
		t.Errorf("warned of a page that the matcher leaves out: %s", log)
	}
}
