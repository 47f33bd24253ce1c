package web

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// balanceRun runs the script of the page with a document of its own, does the steps, and gives
// the number of reloads. The verbs are: the navigation's type, whether the page has the link,
// the script, and the steps.
const balanceRun = `(() => {
	const listeners = {};
	const listen = (to) => (type, call) => (listeners[to + " " + type] = call);
	const link = { addEventListener: listen("link") };
	const document = {
		visibilityState: "visible",
		getElementById: (id) => (id === "topup" && %[2]t ? link : null),
		addEventListener: listen("document"),
	};
	const performance = { getEntriesByType: (type) => (type === "navigation" ? [{ type: %[1]q }] : []) };
	const addEventListener = listen("window");
	let reloads = 0;
	const location = { reload: () => reloads++ };
	%[3]s
	for (const step of %[4]s) {
		if (step === "visible" || step === "hidden") {
			document.visibilityState = step;
			listeners["document visibilitychange"]();
		} else if (step === "focus") {
			listeners["window focus"]();
		} else {
			listeners["link " + step]();
		}
	}
	return reloads;
})()`

func TestTheBalancePageLoadsAgainOnlyAfterATopUp(t *testing.T) {
	b := newTab(t)
	for _, c := range []struct {
		navigation string
		noLink     bool
		steps      string
		want       int
	}{
		{"navigate", false, "visible focus", 0},
		{"navigate", false, "click", 0},
		{"navigate", false, "click hidden", 0},
		{"navigate", false, "click hidden visible", 1},
		{"navigate", false, "auxclick visible", 1},
		{"navigate", false, "click focus", 1},
		{"reload", false, "hidden", 0},
		{"reload", false, "visible", 1},
		{"reload", false, "focus", 0}, // or the page would load again for ever
		{"reload", false, "click focus", 1},
		{"navigate", true, "visible focus", 0}, // an operator's own page without a link
		{"reload", true, "visible", 1},
	} {
		steps, _ := json.Marshal(strings.Fields(c.steps))
		var got int
		b.eval(fmt.Sprintf(balanceRun, c.navigation, !c.noLink, scripts[Balance], steps), &got)
		if got != c.want {
			t.Errorf("after %s, link %t, %s: got %d reloads, want %d", c.navigation, !c.noLink, c.steps, got, c.want)
		}
	}
}
