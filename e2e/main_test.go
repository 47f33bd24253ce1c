// Package e2e uses tollgate as people do: in a real Chromium, Firefox and WebKit, which
// go to a Caddy that really runs, and from there to a simulated provider on another site.
package e2e

import (
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// TestMain ends the browsers that the tests share.
func TestMain(m *testing.M) {
	gatewaytest.Main(m, chromium.close, firefox.close, webKit.close)
}
