package tollgate_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// TestBalanceThatIsNotANumberIsUnknown: its text passes as it came, and nothing
// that speaks of its state calls it fresh.
func TestBalanceThatIsNotANumberIsUnknown(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "assertion\nidentity default {\nheader X-State {http.auth.user.balance_state}\nheader X-Text {http.auth.user.balance}\n}"})
	b := s.NewBrowser().SignIn()
	for balance, want := range map[string]struct{ text, state string }{
		`"abc"`:       {"abc", "unknown"},
		`"NaN"`:       {"NaN", "unknown"},
		`"1e308"`:     {"1e308", "unknown"},
		`1e308`:       {"1e308", "unknown"},
		`"50%"`:       {"50%25", "unknown"},
		`"unlimited"`: {"unlimited", "unknown"},
		`"(5.00)"`:    {"(5.00)", "unknown"},
		`""`:          {"", "unknown"},
		`null`:        {"", "unknown"},
		`"-5.00"`:     {"-5.00", "fresh"},
		`"$1,000.00"`: {"$1,000.00", "fresh"},
	} {
		userSays(s, `"quota":7,"balance_formatted":`+balance)
		seen := b.Get("/").Seen(t).Header
		for name, want := range map[string]string{"X-User-Balance": want.text, "X-Text": want.text, "X-User-Balance-State": want.state, "X-State": want.state} {
			if got := seen.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", balance, name, got, want)
			}
		}
		if got := seen.Get("X-User-Quota") != "" && seen.Get("X-User-Balance-Age") != ""; got != (want.text != "") {
			t.Errorf("%s: the quota and the age of the balance are passed: %v", balance, got)
		}
		if got := claimsOf(t, seen.Get("X-Tollgate-Assertion"))["balance_state"]; got != want.state {
			t.Errorf("%s: the assertion's state is %v, want %s", balance, got, want.state)
		}
		answer := b.Get("/oauth/userinfo").JSON(t)
		got, formatted := answer["balance"].(map[string]any), answer["balance_formatted"]
		text, _ := got["value"].(string)
		if got["state"] != want.state || strings.ReplaceAll(text, "%", "%25") != want.text {
			t.Errorf("%s: userinfo says %v, want %v", balance, got, want)
		}
		if raw, _ := json.Marshal(formatted); balance != "1e308" && string(raw) != balance {
			t.Errorf("%s: userinfo's balance_formatted is %s", balance, raw)
		}
	}
}

// claimsOf reads a JWT's claims. Its signature is another test's matter.
func claimsOf(t *testing.T, assertion string) map[string]any {
	t.Helper()
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		t.Fatalf("no assertion: %q", assertion)
	}
	var claims map[string]any
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(raw, &claims) != nil {
		t.Fatalf("no claims: %q", parts[1])
	}
	return claims
}

// TestNegativeBalanceInAnyNotationDoesNotPass: `on_unknown allow` is for a balance that nobody
// knows, and not for a user who plainly owes money.
func TestNegativeBalanceInAnyNotationDoesNotPass(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require {\nbalance 0\n}\nbalance {\non_unknown allow\n}"})
	b := s.NewBrowser().SignIn()
	for balance, want := range map[string]int{
		"(5.00)":          http.StatusPaymentRequired,
		"($5.00)":         http.StatusPaymentRequired,
		"\u22125.00":      http.StatusPaymentRequired,
		"\u2212 \u20ac 5": http.StatusPaymentRequired,
		"5.00-":           http.StatusPaymentRequired,
		"- 5.00":          http.StatusPaymentRequired,
		"EUR -5,00":       http.StatusPaymentRequired,
		"5,00":            http.StatusOK,
		"5.00 (USD)":      http.StatusOK,
		"unlimited":       http.StatusOK,
		"pay-as-you-go 1": http.StatusOK,
		"":                http.StatusOK,
	} {
		userSays(s, `"balance_formatted":"`+balance+`"`)
		a := b.Get("/")
		if a.StatusCode != want {
			t.Errorf("%q: got %d, want %d", balance, a.StatusCode, want)
		}
		if want == http.StatusPaymentRequired {
			if told, there := a.JSON(t)["balance"]; !there || told != nil {
				t.Errorf("%q: the problem document is %s, want \"balance\": null", balance, a.Text)
			}
		}
	}
}
