package e2e

import (
	"maps"
	"testing"
)

// spendingPage is a page that replaces the gateway: "reply" is the response to the next call.
var spendingPage = map[string]string{
	"/": document(`<script src="/page.js"></script><script type="module" src="/oauth/sdk.js"></script>`, `<tollgate-user></tollgate-user>`),
	"/page.js": `window.heard = [];
		window.info = { id: 7, username: "maria", balance: { value: "3.20", state: "fresh", age: 0 }, available: "1.20", budgets: [{ budget: "5.00", per: "day", spent: "1.20", available: "3.80", resets_at: 1795824000 }] };
		window.reply = { status: 200, headers: {}, body: "{}", url: location.origin + "/api" };
		window.fetch = async (input) => {
			const from = (response, url) => Object.defineProperty(response, "url", { value: url });
			if (typeof input === "string") return from(Response.json(info, { headers: window.low ? { "Tollgate-Balance-Low": "1" } : {} }), location.origin + input);
			return from(new Response(reply.body, reply), reply.url);
		};
		addEventListener("DOMContentLoaded", () => setTimeout(() => {
			for (const type of ["balance", "low"]) tollgate.addEventListener(type, e => heard.push([type, e.detail.exceeded ?? e.detail.insufficient ?? null]));
			window.ready = true;
		}));`,
}

// openSpending opens the page, where maria is signed in.
func openSpending(t *testing.T) *tab {
	w := newSite(t, siteOptions{pages: spendingPage}).newPerson().open("/")
	w.eventually("window.ready && document.querySelector('tollgate-user').dataset.state === 'in'")
	return w
}

// call sends a call after change has prepared the response.
func (w *tab) call(change string) {
	w.t.Helper()
	evaluate[any](w, "("+change+", tollgate.fetch('/api').then(() => null))")
}

func (w *tab) hearsOf(want string) {
	w.t.Helper()
	if got := evaluate[string](w, "JSON.stringify(heard)"); got != want {
		w.t.Errorf("heard %s, want %s", got, want)
	}
}

func TestLowBalanceSendsOneEventAndShowsAWarning(t *testing.T) {
	w := openSpending(t)
	warning := part("low") + ".textContent"
	if got := evaluate[string](w, warning); got != "" {
		t.Errorf("before: the element warns %q, want %q", got, "")
	}
	w.call(`reply = { ...reply, url: "https://other.example/", headers: { "Tollgate-Balance-Low": "1" } }`)
	w.hearsOf(`[]`) // a response of another origin is not used for the balance
	w.call(`(window.low = true, reply.url = location.origin + "/api")`)
	w.call(`0`)
	w.hearsOf(`[["low",null]]`)
	if got := evaluate[string](w, warning); got != "Your balance is low" {
		t.Errorf("low: the element warns %q, want %q", got, "Your balance is low")
	}
	for _, c := range []struct{ low, heard, warning string }{
		{"true", `[["low",null]]`, "Your balance is low"},
		{"false", `[["low",null]]`, ""},
		{"true", `[["low",null],["low",null]]`, "Your balance is low"},
		{"true", `[["low",null],["low",null]]`, "Your balance is low"},
	} {
		evaluate[any](w, "(window.low = "+c.low+", tollgate.user().then(() => null))")
		w.hearsOf(c.heard)
		if got := evaluate[string](w, warning); got != c.warning {
			t.Errorf("userinfo says %s: the element warns %q, want %q", c.low, got, c.warning)
		}
	}
	evaluate[any](w, `(document.documentElement.lang = "ja", tollgate.user().then(() => null))`)
	if got := evaluate[map[string]string](w, visible)["low"]; got != "残高が少なくなっています" {
		t.Errorf("in Japanese: the element warns %q, want %q", got, "残高が少なくなっています")
	}
}

func TestUsedUpBudgetSendsAnEventAndShowsAMessage(t *testing.T) {
	w := openSpending(t)
	w.call(`reply = { ...reply, status: 402, headers: { "Content-Type": "application/problem+json" },
		body: '{"status":402,"error":"budget_exceeded","budget":"5.00","spent":"4.80","resets_at":1795824000}' }`)
	w.hearsOf(`[["balance",{"budget":"5.00","spent":"4.80","resets_at":1795824000}]]`)
	want := map[string]string{
		"name": "maria", "balance": "Balance 3.20", "message": "Your spending limit is reached",
		"refresh": "Refresh", "topup": "Top up", "logout": "Sign out",
	}
	if got := evaluate[map[string]string](w, visible); !maps.Equal(got, want) {
		t.Errorf("shows %v, want %v", got, want)
	}
	got := evaluate[string](w, `tollgate.user().then(user => JSON.stringify([user.available, user.budgets[0].available]))`)
	if got != `["1.20","3.80"]` {
		t.Errorf("user() gives %s", got)
	}
}
