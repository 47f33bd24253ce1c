// Package monitoring_test runs the alert rules and the queries of the dashboard in a real
// Prometheus, which reads the metrics of a running gateway.
package monitoring_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
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

// alertQueries are the expressions of the alert rules without their comparisons, by the names
// of the alerts.
func alertQueries(t *testing.T) map[string]string {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(manualtest.ReadFile(t, "alerts.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	comparison := regexp.MustCompile(` [<>] [0-9.]+$`)
	queries := map[string]string{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			if !comparison.MatchString(rule.Expr) {
				t.Errorf("%s does not end with a comparison: %s", rule.Alert, rule.Expr)
			}
			queries[rule.Alert] = comparison.ReplaceAllString(rule.Expr, "")
		}
	}
	return queries
}

// panelQueries are the expressions of the dashboard, by the panels' titles.
func panelQueries(t *testing.T) map[string]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(manualtest.ReadFile(t, "dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := map[string]string{}
	for _, panel := range dashboard.Panels {
		for i, target := range panel.Targets {
			queries[fmt.Sprintf("%s %d", panel.Title, i)] = target.Expr
		}
	}
	return queries
}

// shortened makes the ranges of a query short enough for a test.
func shortened(text string) string {
	text = strings.ReplaceAll(text, "$__rate_interval", "5m")
	text = regexp.MustCompile(`\[[0-9]+[mh]\]`).ReplaceAllString(text, "[4s]")
	return regexp.MustCompile(`for: [0-9]+m`).ReplaceAllString(text, "for: 1s")
}

func TestDocsNameEveryAlert(t *testing.T) {
	docs := manualtest.ReadFile(t, "../../docs/operations.md")
	var documented, want []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(Tollgate[A-Za-z]+)` \\| .+ \\|$").FindAllStringSubmatch(docs, -1) {
		documented = append(documented, row[1])
	}
	for alert := range alertQueries(t) {
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

// prometheus is a running Prometheus.
type prometheus struct {
	t   *testing.T
	url string
}

// startPrometheus starts a Prometheus that reads the metrics of target and evaluates the
// shortened alert rules.
func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"alerts.yaml": shortened(manualtest.ReadFile(t, "alerts.yaml")),
		"prometheus.yaml": "global: {scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms}\nrule_files: [alerts.yaml]\n" +
			"scrape_configs:\n  - job_name: tollgate\n    static_configs:\n      - targets: [\"" + target + "\"]\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := porttest.Address()
	process := exec.Command("prometheus", "--config.file="+filepath.Join(folder, "prometheus.yaml"),
		"--storage.tsdb.path="+filepath.Join(folder, "data"), "--web.listen-address="+address, "--log.level=warn")
	log := &strings.Builder{}
	process.Stdout, process.Stderr = log, log
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		process.Process.Kill()
		process.Wait()
		if t.Failed() {
			t.Logf("the log of Prometheus:\n%s", log)
		}
	})
	return &prometheus{t, "http://" + address}
}

// get asks the API. ok is false if Prometheus does not answer yet.
func (p *prometheus) get(path string, into any) (ok bool) {
	res, err := http.Get(p.url + "/api/v1/" + path)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK && json.NewDecoder(res.Body).Decode(into) == nil
}

// hasData reports whether a query has a value that is a number.
func (p *prometheus) hasData(query string) bool {
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	p.get("query?query="+url.QueryEscape(query), &answer)
	for _, sample := range answer.Data.Result {
		if sample.Value[1] != "NaN" {
			return true
		}
	}
	return false
}

// firing are the names of the alerts that fire.
func (p *prometheus) firing() (names []string) {
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels struct{ Alertname string }
			}
		}
	}
	p.get("alerts", &answer)
	for _, alert := range answer.Data.Alerts {
		if alert.State == "firing" {
			names = append(names, alert.Labels.Alertname)
		}
	}
	return names
}

// use repeats what users do until done, which is asked after each round.
func use(t *testing.T, s *gatewaytest.Running, what string, b *gatewaytest.Browser, done func() bool) {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); !done(); {
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

	p := startPrometheus(t, address)
	queries := alertQueries(t)
	for name, query := range panelQueries(t) {
		queries[name] = query
	}
	missing := ""
	use(t, s, "every query returns data", b, func() bool {
		for name, query := range queries {
			if !p.hasData(shortened(query)) {
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
	if names := p.firing(); len(names) != 0 {
		t.Errorf("alerts fire although nothing is wrong: %q", names)
	}

	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusServiceUnavailable})
	s.Provider.SetFault(simulator.Token, simulator.Fault{Status: http.StatusServiceUnavailable})
	use(t, s, "TollgateProviderDown fires", b, func() bool { return slices.Contains(p.firing(), "TollgateProviderDown") })
}
