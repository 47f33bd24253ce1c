// Package monitoring_test runs the alert rules and the queries of the dashboard in a real
// Prometheus, which reads the metrics of a running gateway.
package monitoring_test

import (
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/internal/prometheustest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }

func TestPromtoolAcceptsTheAlertRules(t *testing.T) {
	for _, arguments := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		if output, err := exec.Command("promtool", arguments...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, output)
		}
	}
}

func TestDocsNameEveryAlert(t *testing.T) {
	docs := manualtest.ReadFile(t, "../../docs/operations.md")
	var documented, want []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(Tollgate[A-Za-z]+)` \\| .+ \\| .+ \\|$").FindAllStringSubmatch(docs, -1) {
		documented = append(documented, row[1])
	}
	for alert := range prometheustest.AlertQueries(t) {
		want = append(want, alert)
	}
	slices.Sort(documented)
	slices.Sort(want)
	if !slices.Equal(documented, want) {
		t.Errorf("alerts in docs/operations.md: got %q, want %q", documented, want)
	}
}

// ownAddress is the site for metrics and health checks of docs/operations.md, at an address of
// the test, in front of a site on plain http.
func ownAddress(t *testing.T, address, site string) string {
	t.Helper()
	block := regexp.MustCompile("(?s)```caddyfile\n(http://127.0.0.1:9180 .*?)```").FindStringSubmatch(manualtest.ReadFile(t, "../../docs/operations.md"))
	if block == nil {
		t.Fatal("docs/operations.md has no site at 127.0.0.1:9180")
	}
	text := strings.ReplaceAll(block[1], "127.0.0.1:9180", address)
	text = strings.ReplaceAll(text, "https://127.0.0.1:443", site)
	text = regexp.MustCompile(`(?s)transport http \{.*?\}`).ReplaceAllString(text, "")
	return strings.ReplaceAll(text, "app.example.com", site)
}

// use repeats what users do until done returns true. It calls done before each round.
func use(t *testing.T, s *gatewaytest.Running, what string, b *gatewaytest.Browser, done func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(until) {
			t.Fatalf("timed out waiting until %s", what)
		}
		s.NewBrowser().Follow("/")
		b.Get("/")
		b.Get("/paid")
		b.Send(http.MethodPost, "/oauth/refresh", nil)
		time.Sleep(200 * time.Millisecond) // users pause; and a range needs two samples
	}
}

func TestDashboardAndAlertsSeeARunningGateway(t *testing.T) {
	redis := redistest.Start(t)
	s := gatewaytest.Prepare(t, gatewaytest.RunOptions{InTollgate: "require /paid {\nbalance 1\nreserve\n}\nsession {\nstore redis {\naddress " + redis.Address() + "\n}\n}"})
	address := porttest.Address()
	s.Caddyfile += ownAddress(t, address, strings.TrimPrefix(s.URL, "http://"))
	s.Start()
	b := s.NewBrowser().SignIn()
	for path, want := range map[string]string{"/health": `{"status":"ok"}`, "/ready": `{"status":"ok"}`, "/metrics": "tollgate_requests_total"} {
		if a := b.Get("http://" + address + path); a.StatusCode != http.StatusOK || !strings.Contains(a.Text, want) {
			t.Errorf("%s at the address of its own: status %d: %.200s", path, a.StatusCode, a.Text)
		}
	}
	if a := b.Get("http://" + address + "/oauth/userinfo"); strings.Contains(a.Text, gatewaytest.UserID) {
		t.Errorf("the address for health checks serves other endpoints: %s", a.Text)
	}

	p := prometheustest.Start(t, address)
	queries := prometheustest.AlertQueries(t)
	for name, query := range prometheustest.PanelQueries(t) {
		queries[name] = query
	}
	missing := ""
	use(t, s, "every query returns data", b, func() bool {
		for name, query := range queries {
			if !p.HasData(prometheustest.Shortened(query)) {
				missing = name
				return false
			}
		}
		missing = ""
		return true
	})
	if missing != "" {
		t.Errorf("%s returns no data", missing)
	}
	if names := p.Firing(); len(names) != 0 {
		t.Errorf("alerts fire although nothing is wrong: %q", names)
	}

	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusServiceUnavailable})
	s.Provider.SetFault(simulator.Token, simulator.Fault{Status: http.StatusServiceUnavailable})
	use(t, s, "TollgateProviderDown fires", b, func() bool { return slices.Contains(p.Firing(), "TollgateProviderDown") })
}
