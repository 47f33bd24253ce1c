package e2e

import "testing"

// inEveryBrowser runs a flow in each of the browsers. Flows that users need run in all of
// them. The other tests are about the gateway's own script and pages. For those one browser
// that reports every error is enough.
func inEveryBrowser(t *testing.T, flow func(t *testing.T, in browser)) {
	for _, one := range []struct {
		name    string
		browser browser
	}{{"Chromium", chromium}, {"Firefox", firefox}, {"WebKit", webKit}} {
		t.Run(one.name, func(t *testing.T) { flow(t, one.browser) })
	}
}
