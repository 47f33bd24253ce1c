package e2e

import "testing"

// inEveryBrowser runs a flow in each of the browsers. A flow that stands in such a test
// is one that people need; the other tests are about the gateway's own script and pages,
// and one browser that tells of every trouble shows what is wrong there.
func inEveryBrowser(t *testing.T, flow func(t *testing.T, in browser)) {
	for _, one := range []struct {
		name    string
		browser browser
	}{{"Chromium", chromium}, {"Firefox", firefox}, {"WebKit", webKit}} {
		t.Run(one.name, func(t *testing.T) { flow(t, one.browser) })
	}
}
