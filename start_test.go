package tollgate_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

// introductions are the lines about sites in a log.
func introductions(t *testing.T, log string) (lines []map[string]any) {
	t.Helper()
	for text := range strings.Lines(log) {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) == nil && line["msg"] == "site is configured" {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestSiteWritesOneLineAtItsStart(t *testing.T) {
	t.Setenv("TOLLGATE_TEST_SECRET", gatewaytest.Secret)
	file := filepath.Join(t.TempDir(), "secret")
	writeFile(t, file, gatewaytest.Secret)
	for _, c := range []struct{ lines, store, from, on string }{
		{"", "cookie", "storage", "topup pkce"},
		{"secret " + gatewaytest.Secret, "cookie", "config", "topup pkce"},
		{"secret {env.TOLLGATE_TEST_SECRET}\nlogin_page on\npublic /open\noptional /maybe", "cookie", "env", "public optional topup pkce login_page"},
		{
			"secret {file." + file + "}\nrequire /paid {\nbalance 1\nreserve\n}\nassertion\npass_access_token\nsession {\nstore redis {\naddress 127.0.0.1:1\n}\nidle_timeout 1h\n}", "redis", "file",
			"require reserve_or_budget topup pkce assertion pass_access_token retry_unauthorized idle_timeout",
		},
		{"secret " + gatewaytest.Secret + "\nforward_auth {\ntrusted_proxies 10.0.0.1\n}\nsession {\nstore storage\n}", "storage", "config", "topup pkce forward_auth"},
	} {
		log := startLog(t, "", "http:// {\ntollgate {\n"+minimalBlock+c.lines+"\n}\n}\n")
		lines := introductions(t, log)
		if len(lines) != 1 {
			t.Fatalf("%q: got %d lines, want 1:\n%s", c.lines, len(lines), log)
		}
		line := lines[0]
		on := []any{}
		for name := range strings.FieldsSeq(c.on) {
			on = append(on, name)
		}
		got, _ := line["on"].([]any)
		if line["logger"] != "http.handlers.tollgate" || line["level"] != "info" || line["site"] != "https://app.example.com" || line["provider"] != "AIHubMix" ||
			line["store"] != c.store || line["secret_from"] != c.from || !slices.Equal(got, on) {
			t.Errorf("%q: got %v", c.lines, line)
		}
		if strings.Contains(log, gatewaytest.Secret) {
			t.Errorf("%q: the log has the secret", c.lines)
		}
	}
}

func TestSiteWithTwoTollgatesWritesOneLine(t *testing.T) {
	block := "tollgate {\n" + minimalBlock + "\n}\n"
	log := startLog(t, "", "http:// {\nhandle /a/* {\n"+block+"}\nhandle {\n"+block+"}\n}\n")
	if lines := introductions(t, log); len(lines) != 1 {
		t.Errorf("got %d lines, want 1:\n%s", len(lines), log)
	}
}

func TestStartWarnsOfAStoreThatCannotBeReached(t *testing.T) {
	const warning = "the session store cannot be used"
	for _, reachable := range []bool{true, false} {
		session := ""
		if !reachable {
			session = "session {\nstore redis {\naddress " + porttest.Address() + "\n}\n}"
		}
		t.Run(map[bool]string{true: "reachable", false: "unreachable"}[reachable], func(t *testing.T) {
			r := gatewaytest.Prepare(t, gatewaytest.RunOptions{InTollgate: session})
			r.Start()
			if !reachable {
				gatewaytest.Eventually(t, "the warning is in the log", func() bool {
					return strings.Contains(manualtest.ReadFile(t, filepath.Join(r.Logs, "default.log")), warning)
				})
			}
			r.NewBrowser().Get("/oauth/ready")
			if log := manualtest.ReadFile(t, filepath.Join(r.Logs, "default.log")); strings.Contains(log, warning) == reachable {
				t.Errorf("the warning is there: %v", !reachable)
			}
		})
	}
	session := "session {\nstore redis {\naddress " + porttest.Address() + "\n}\n}"
	if log := startLog(t, "", "http:// {\ntollgate {\n"+minimalBlock+"secret "+gatewaytest.Secret+"\n"+session+"\n}\n}\n"); strings.Contains(log, warning) {
		t.Errorf("a provisioned site that did not start has looked at its store: %s", log)
	}
}

func TestStartWarnsOfASecretThatWasMade(t *testing.T) {
	const warning = "a secret was made"
	r := gatewaytest.Prepare(t, gatewaytest.RunOptions{})
	r.Caddyfile = strings.Replace(r.Caddyfile, "secret "+gatewaytest.Secret, "", 1)
	r.Start()
	log := filepath.Join(r.Logs, "default.log")
	gatewaytest.Eventually(t, "the warning is in the log", func() bool { return strings.Contains(manualtest.ReadFile(t, log), warning) })
	r.Reload()
	gatewaytest.Eventually(t, "the site is ready after the reload", func() bool { // the old server may have accepted a connection
		res, err := http.Get(r.URL + "/oauth/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	if got := strings.Count(manualtest.ReadFile(t, log), warning); got != 1 {
		t.Errorf("after a reload: got %d warnings, want 1", got)
	}
}
