// Package e2e uses tollgate as users do: in a real Chromium, Firefox and WebKit, with a
// running Caddy, and a simulated provider on another site. Begin with newSite.
package e2e

import (
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// TestMain ends the browsers that the tests share.
func TestMain(m *testing.M) {
	gatewaytest.Main(m, chromium.close, firefox.close, webKit.close)
}
