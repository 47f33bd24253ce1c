// Package e2e uses tollgate as people do: in a real Chromium, Firefox and WebKit, which
// go to a Caddy that really runs, and from there to a simulated provider on another site.
package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestMain keeps what Caddy stores by default out of the home of whoever runs the
// tests, and ends the browsers that they share.
func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "tollgate-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	caddy.DefaultStorage.Path = folder
	status := m.Run()
	chromium.close()
	firefox.close()
	webKit.close()
	os.RemoveAll(folder)
	os.Exit(status)
}
