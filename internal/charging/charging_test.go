package charging

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

func TestDryRunIsAPreference(t *testing.T) {
	for _, test := range []struct {
		lines []string
		want  bool
	}{
		{nil, false},
		{[]string{"tollgate-dry-run"}, true},
		{[]string{"Tollgate-Dry-Run"}, true},
		{[]string{"respond-async, tollgate-dry-run"}, true},
		{[]string{"respond-async", "tollgate-dry-run; x=1"}, true},
		{[]string{"tollgate-dry-run=1"}, true},
		{[]string{"tollgate-dry-running"}, false},
		{[]string{"x=tollgate-dry-run"}, false},
	} {
		if got := WantsDryRun(http.Header{"Prefer": test.lines}); got != test.want {
			t.Errorf("Prefer %q: got %t, want %t", test.lines, got, test.want)
		}
	}
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	for _, test := range []struct {
		d    time.Duration
		want string
	}{{-time.Second, "1"}, {0, "1"}, {time.Millisecond, "1"}, {time.Second, "1"}, {1001 * time.Millisecond, "2"}, {time.Hour, "3600"}} {
		if got := WholeSeconds(test.d); got != test.want {
			t.Errorf("%v: got %s, want %s", test.d, got, test.want)
		}
	}
}

func TestStatusWithoutAResponseCountsWhatTheUpstreamMayHaveDone(t *testing.T) {
	handlerError := func(status int) error { return caddyhttp.HandlerError{StatusCode: status, Err: errors.New("x")} }
	dial := reverseproxy.DialError{}
	for _, test := range []struct {
		name string
		sent bool
		err  error
		want int
	}{
		{"the upstream was reached, and the transport failed", true, handlerError(502), 200},
		{"no connection", false, dial, 502},
		{"a connection before, and none at the retry", true, dial, 200},
		{"a directive behind tollgate refuses", false, handlerError(403), 403},
		{"the client left", false, handlerError(clientClosed), 200},
		{"a bad gateway", false, handlerError(502), 200},
		{"a timeout", false, handlerError(504), 200},
		{"an error without a status", false, handlerError(0), 200},
		{"a panic", false, ErrNoResponse, 200},
	} {
		c := &Call{}
		c.sent.Store(test.sent)
		if got := c.statusWithout(test.err); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

// amount parses an amount.
func amount(t *testing.T, text string) spending.Amount {
	t.Helper()
	a, err := spending.ParseRequired(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLackingAnswerNamesTheProvidersBalance(t *testing.T) {
	result := spending.Result{Available: amount(t, "0.25")}
	for _, test := range []struct {
		name, balance      string
		noAmount           bool
		wantBalance, wantA string
	}{
		{"an amount", `"1.50"`, false, "1.50", "0.25"},
		{"no amount any more", `"much"`, false, "0.25", "0.25"},
		{"no amount at the reading", `"much"`, true, "nil", "nil"},
	} {
		info := oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{oauth.FieldID: "1", oauth.FieldBalance: oauth.Scalar(test.balance)}, time.Now())
		id := &identity.Identity{View: account.View{Info: &info}}
		got := lacking(id, &policy.Charge{RequiredText: "2"}, result, test.noAmount)
		shown := func(text *string) string {
			if text == nil {
				return "nil"
			}
			return *text
		}
		if got.Verdict != Lacking || got.Short.Required != "2" || shown(got.Short.Balance) != test.wantBalance || shown(got.Available) != test.wantA {
			t.Errorf("%s: got verdict %d, required %s, balance %s, available %s; want %d, 2, %s, %s", test.name,
				got.Verdict, got.Short.Required, shown(got.Short.Balance), shown(got.Available), Lacking, test.wantBalance, test.wantA)
		}
	}
}

func TestOverBudgetNamesTheBudgetAsWritten(t *testing.T) {
	now := time.Date(2026, 11, 27, 20, 0, 0, 0, time.UTC)
	budgets := []policy.Budget{
		{Text: "5", Budget: spending.Budget{Limit: amount(t, "5"), Window: spending.Hour}},
		{Text: "9.00", Budget: spending.Budget{Limit: amount(t, "9"), Window: spending.Day}},
	}
	use := spending.BudgetUse{Budget: budgets[1].Budget, Spent: amount(t, "8.5"), Held: amount(t, "0.25"), ResetsAt: now.Add(4 * time.Hour)}
	got := overBudget(&policy.Charge{Budgets: budgets}, use, now)
	if got.Verdict != OverBudget || got.Over.Text != "9.00" || got.Over.Spent != "8.75" || got.Over.RetryAfter != 4*time.Hour {
		t.Errorf("got verdict %d, budget %q, spent %s, retry after %v; want %d, 9.00, 8.75, 4h", got.Verdict, got.Over.Text, got.Over.Spent, got.Over.RetryAfter, OverBudget)
	}
}

func TestProblemOfAnUnknownBalanceHasANull(t *testing.T) {
	balance := "0.10"
	for _, test := range []struct {
		name    string
		balance *string
		topup   string
		want    string
	}{
		{"too low", &balance, "/oauth/topup", `"title":"Insufficient balance"`},
		{"too low, with a top-up", &balance, "/oauth/topup", `"balance":"0.10","required":"0.50","topup_url":"/oauth/topup"}`},
		{"unknown", nil, "", `"title":"Unknown balance"`},
		{"unknown, without a top-up", nil, "", `"balance":null,"required":"0.50"}`},
	} {
		w := httptest.NewRecorder()
		if err := RefuseLacking(w, httptest.NewRequest(http.MethodGet, "/", nil), &account.Shortfall{Balance: test.balance, Required: "0.50"}, nil, test.topup); err != nil {
			t.Fatal(err)
		}
		if w.Code != http.StatusPaymentRequired || !strings.Contains(w.Body.String(), test.want) {
			t.Errorf("%s: got %d %s, want 402 with %s", test.name, w.Code, w.Body, test.want)
		}
	}
}
