package command_test

import (
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/command"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/prometheustest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

var formAction = regexp.MustCompile(`<form method="post" action="([^"]*)"`)

// visit goes to the demo in a new browser, and signs in as a user of the provider if the
// provider shows its sign-in page.
func visit(t *testing.T, d command.Demo) *gatewaytest.Browser {
	t.Helper()
	b := (&gatewaytest.Site{T: t, URL: d.URL}).NewBrowser()
	page := b.Follow("/")
	if action := formAction.FindStringSubmatch(page.Text); action != nil && strings.HasPrefix(page.Request.URL.String(), d.ProviderURL) {
		target, err := page.Request.URL.Parse(html.UnescapeString(action[1]))
		if err != nil {
			t.Fatal(err)
		}
		a := b.Send(http.MethodPost, target.String(), strings.NewReader(url.Values{"user": {gatewaytest.UserID}}.Encode()),
			"Content-Type: application/x-www-form-urlencoded", "Origin: "+d.ProviderURL)
		next, err := a.Request.URL.Parse(a.Location())
		if err != nil {
			t.Fatal(err)
		}
		b.Follow(next.String())
	}
	return b
}

// TestAlertsSeeThatTheProviderOfTheDemoIsSwitchedOff reads the metrics of the demo with a real
// Prometheus. The demo keeps sessions in cookies, so the store's panels stay empty.
func TestAlertsSeeThatTheProviderOfTheDemoIsSwitchedOff(t *testing.T) {
	d := command.StartDemo(t, "127.0.0.1:0")
	use := func(what string, done func() bool) {
		t.Helper()
		b := visit(t, d)
		for until := time.Now().Add(time.Minute); !done(); {
			if time.Now().After(until) {
				t.Fatalf("timed out waiting until %s", what)
			}
			visit(t, d)
			b.Send(http.MethodPost, "/oauth/refresh", nil, "Origin: "+d.URL)
			time.Sleep(200 * time.Millisecond) // users pause; and a range needs two samples
		}
	}
	p := prometheustest.Start(t, strings.TrimSuffix(strings.TrimPrefix(d.MetricsURL, "http://"), "/metrics"))
	queries := prometheustest.AlertQueries(t)
	for name, query := range prometheustest.PanelQueries(t) {
		if !strings.Contains(query, "tollgate_store_request_duration_seconds_bucket") {
			queries[name] = query
		}
	}
	use("every query returns data", func() bool {
		for _, query := range queries {
			if !p.HasData(prometheustest.Shortened(query)) {
				return false
			}
		}
		return true
	})
	if names := p.Firing(); len(names) != 0 {
		t.Errorf("alerts fire although nothing is wrong: %q", names)
	}

	d.Provider.SetFault(simulator.Token, simulator.Fault{Status: http.StatusServiceUnavailable})
	d.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusServiceUnavailable})
	use("TollgateProviderDown fires", func() bool { return slices.Contains(p.Firing(), "TollgateProviderDown") })

	d.Provider.ClearFaults()
	use("TollgateProviderDown is over", func() bool { return !slices.Contains(p.Firing(), "TollgateProviderDown") })
}

func TestDemoServesMetricsAtAnotherAddressThanItsOwn(t *testing.T) {
	d := command.StartDemo(t, "127.0.0.2:0")
	res, err := http.Get(d.MetricsURL)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(text), "tollgate_") {
		t.Errorf("%s: got %d and %d bytes (%v), want metrics of tollgate", d.MetricsURL, res.StatusCode, len(text), err)
	}
}
