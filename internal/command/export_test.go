package command

import (
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/simulator"
)

// Demo is a running demo, whose provider a test can steer.
type Demo struct {
	URL, ProviderURL, MetricsURL string
	Provider                     *simulator.Provider
}

// StartDemo starts the demo as the command does, with metrics at an address, until the end of
// the test.
func StartDemo(t *testing.T, metrics string) Demo {
	t.Helper()
	site, err := startDemo(demoOptions{listen: "127.0.0.1:0", metrics: metrics, accessLifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := site.Close(); err != nil {
			t.Error(err)
		}
	})
	return Demo{site.url, site.providerURL, site.metricsURL, site.provider.server.Handler.(*simulator.Provider)}
}
