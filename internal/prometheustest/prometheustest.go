// Package prometheustest runs a real Prometheus in tests, with the alert rules and the queries
// of the dashboard in deploy/monitoring. Begin with Start.
package prometheustest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

// read reads a file of deploy/monitoring.
func read(t *testing.T, name string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(here), "../../deploy/monitoring", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// AlertQueries are the expressions of the alert rules without their comparisons, by the names
// of the alerts.
func AlertQueries(t *testing.T) map[string]string {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "alerts.yaml")), &file); err != nil {
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

// PanelQueries are the expressions of the dashboard, by the panels' titles.
func PanelQueries(t *testing.T) map[string]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "dashboard.json")), &dashboard); err != nil {
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

// Shortened makes the ranges of a query short enough for a test.
func Shortened(text string) string {
	text = strings.ReplaceAll(text, "$__rate_interval", "5m")
	text = regexp.MustCompile(`\[[0-9]+[mh]\]`).ReplaceAllString(text, "[4s]")
	return regexp.MustCompile(`for: [0-9]+m`).ReplaceAllString(text, "for: 1s")
}

// Prometheus is a running Prometheus.
type Prometheus struct {
	t   *testing.T
	url string
}

// Start starts a Prometheus that reads the metrics of target and evaluates the
// Shortened alert rules.
func Start(t *testing.T, target string) *Prometheus {
	t.Helper()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"alerts.yaml": Shortened(read(t, "alerts.yaml")),
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
	return &Prometheus{t, "http://" + address}
}

// get asks the API. ok is false if Prometheus does not answer yet.
func (p *Prometheus) get(path string, into any) (ok bool) {
	res, err := http.Get(p.url + "/api/v1/" + path)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusOK && json.NewDecoder(res.Body).Decode(into) == nil
}

// HasData reports whether a query has a value that is a number.
func (p *Prometheus) HasData(query string) bool {
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

// Firing are the names of the alerts that fire.
func (p *Prometheus) Firing() (names []string) {
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
