package tollgate_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// TestAuditExampleWritesEachEventToItsOwnFile runs the global options of examples/audit-log,
// causes each event, and reads the file.
func TestAuditExampleWritesEachEventToItsOwnFile(t *testing.T) {
	o := prepareOperated(t, "session {\nstore storage\n}\nrequire /vip {\nuser 99\n}")
	file := filepath.Join(o.Logs, "audit.log")
	example := manualtest.ReadFile(t, "examples/audit-log/Caddyfile")
	begin, end := strings.Index(example, "\tlog audit {"), strings.Index(example, "\t# And stay out")
	if begin < 0 || end < begin {
		t.Fatalf("the block `log audit` of the example begins at %d and ends at %d", begin, end)
	}
	block := strings.Replace(example[begin:end], "/var/log/caddy/tollgate-audit.log", file, 1)
	o.Caddyfile = strings.Replace(o.Caddyfile, "\tlog default {", block+"\tlog default {\n\t\texclude http.handlers.tollgate.audit", 1)
	o.Start()

	b := o.NewBrowser().SignIn()
	b.Get("/vip")
	refresh := func() {
		o.Provider.ExpireAccessTokens()
		b.Send(http.MethodPost, "/oauth/refresh", nil)
		time.Sleep(tollgate.RereadInterval)
	}
	refresh()
	o.Provider.SetFault(simulator.Refresh, simulator.Fault{Status: 503})
	refresh()
	o.Provider.ClearFaults()
	b.Visit("/oauth/callback")
	b.Send(http.MethodPost, "/oauth/logout", nil)
	o.NewBrowser().SignIn()
	o.ask("DELETE", "/tollgate/sessions?user="+gatewaytest.UserID, 200)
	if err := caddy.Stop(); err != nil { // the logs are written
		t.Fatal(err)
	}

	inRequest := map[string]bool{"client_ip": true, "request_id": true}
	ofSession := map[string]bool{"user_id": true, "session": true}
	// Which members of the first event of each kind have a value, and the reason.
	want := map[string]struct {
		request, session bool
		reason           string
	}{
		"login":           {true, true, ""},
		"denied":          {true, true, "user"},
		"refresh":         {false, true, ""},
		"refresh_failed":  {false, true, "temporarily_unavailable"},
		"login_failed":    {true, false, "missing_parameters"},
		"logout":          {true, true, ""},
		"session_revoked": {true, true, "admin"},
	}
	seen := map[string]bool{}
	for line := range strings.Lines(manualtest.ReadFile(t, file)) {
		event := map[string]any{}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		kind, _ := event["msg"].(string)
		if seen[kind] {
			continue
		}
		seen[kind] = true
		expected, known := want[kind]
		if !known || event["logger"] != "http.handlers.tollgate.audit" || event["reason"] != expected.reason {
			t.Errorf("got %s, want reason %q", line, expected.reason)
		}
		if event["site"] != o.URL {
			t.Errorf("%s: got site %v, want %s", kind, event["site"], o.URL)
		}
		for _, member := range []string{"user_id", "session", "client_ip", "request_id"} {
			value, is := event[member].(string)
			full := expected.request && inRequest[member] || expected.session && ofSession[member]
			if kind == "session_revoked" && member == "request_id" {
				full = false // Caddy's admin endpoint gives requests no id
			}
			if !is || (value != "") != full {
				t.Errorf("%s: got %s = %v, want a value: %v", kind, member, event[member], full)
			}
		}
	}
	if len(seen) != len(want) {
		t.Errorf("got events %v, want %d kinds", seen, len(want))
	}
	if n := strings.Count(manualtest.ReadFile(t, filepath.Join(o.Logs, "default.log")), `"http.handlers.tollgate.audit"`); n != 0 {
		t.Errorf("got %d audit events in the default log, want 0", n)
	}
}
