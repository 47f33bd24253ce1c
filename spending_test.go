package tollgate_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// till is an upstream that charges for its responses. A request for /paid waits until it is
// told what to answer.
type till struct {
	reached atomic.Int64
	answers chan func(http.ResponseWriter)
}

func newTill() *till { return &till{answers: make(chan func(http.ResponseWriter))} }

func (u *till) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/paid") {
		fmt.Fprintf(w, `{"Header":{"X-User-Id":[%q]}}`, r.Header.Get("X-User-Id"))
		return
	}
	u.reached.Add(1)
	select {
	case answer := <-u.answers:
		answer(w)
	case <-r.Context().Done():
	}
}

// answer lets one waiting request end.
func (u *till) answer(lines ...string) {
	u.answers <- func(w http.ResponseWriter) {
		for _, line := range lines {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Add(name, value)
		}
	}
}

// costs is an upstream whose responses cost what the query says.
func costs(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	for _, cost := range query["cost"] {
		w.Header().Add("Tollgate-Cost", cost)
	}
	if query.Has("status") {
		var status int
		fmt.Sscan(query.Get("status"), &status)
		w.WriteHeader(status)
	}
	fmt.Fprintf(w, `{"Header":{"X-User-Id":[%q],"X-Left":[%q]}}`, r.Header.Get("X-User-Id"), r.Header.Get("X-Left"))
}

// setBalance makes the provider say another balance, and lets it be read before the next use.
func setBalance(s *gatewaytest.Site, balance string) {
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":12345,"username":"user123","status":1,"quota":1,"balance_formatted":"` + balance + `"}`})
	s.Clock.Advance(20 * time.Minute)
}

// wantMoney waits until userinfo says this of the available money and the first budget.
func wantMoney(t *testing.T, b *gatewaytest.Browser, available any, spent string) {
	t.Helper()
	got := ""
	want := fmt.Sprint(available, " ", spent)
	for end := time.Now().Add(gatewaytest.Patience); time.Now().Before(end); {
		answer := b.Get("/oauth/userinfo").JSON(t)
		first := ""
		if budgets, _ := answer["budgets"].([]any); len(budgets) > 0 {
			first, _ = budgets[0].(map[string]any)["spent"].(string)
		}
		if got = fmt.Sprint(answer["available"], " ", first); got == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("userinfo: available and spent: got %q, want %q", got, want)
}

func TestParallelRequestsPassOnlyIfTheyCanBePaid(t *testing.T) {
	u := newTill()
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /paid {\nbalance 0.50\nreserve\n}", Handler: u.ServeHTTP})
	b := s.NewBrowser().SignIn()
	setBalance(s, "8.99")
	statuses := make(chan int, 60)
	for range 60 {
		c := b.Copy()
		go func() { statuses <- c.Get("/paid").StatusCode }()
	}
	for range 43 {
		if status := <-statuses; status != http.StatusPaymentRequired {
			t.Errorf("a request without money left: %d", status)
		}
	}
	gatewaytest.Eventually(t, "17 requests reach the upstream", func() bool { return u.reached.Load() == 17 })
	problem := b.Get("/paid").JSON(t)
	if problem["error"] != "insufficient_balance" || problem["available"] != "0.49" || problem["required"] != "0.50" || problem["balance"] != "8.99" {
		t.Errorf("the 402: %v", problem)
	}
	setBalance(s, "8.48") // what is left when the first response has cost 0.51
	u.answer("Tollgate-Cost: 0.51")
	for range 16 {
		u.answer("Tollgate-Cost: 0")
	}
	for range 17 {
		if status := <-statuses; status != http.StatusOK {
			t.Errorf("an admitted request: %d", status)
		}
	}
	wantMoney(t, b, "8.48", "")
}

// TestRequestsAreSettledByTheirResponses counts with a budget, which shows what was booked.
func TestRequestsAreSettledByTheirResponses(t *testing.T) {
	for _, c := range []struct {
		query     string
		available string // as long as the balance is not read
		spent     string
	}{
		{"cost=0.25", "9.75", "0.25"},
		{"cost=3.00", "7.00", "3.00"}, // above the hold
		{"cost=0.001", "9.999", "0.001"},
		{"cost=1000", "-990.00", "1000.00"},
		{"cost=0", "10.00", "0.00"},
		{"", "9.00", "0.00"}, // nothing said: the hold stays
		{"status=404", "10.00", "0.00"},
		{"status=400", "10.00", "0.00"},
		{"status=302", "9.00", "0.00"},
		{"status=500&cost=0.10", "9.90", "0.10"},
		{"cost=-1", "9.00", "1.00"},
		{"cost=0.1&cost=0.1", "9.00", "1.00"},
		{"cost=abc", "9.00", "1.00"},
		{"cost=1e3", "9.00", "1.00"},
		{"cost=9999999999999999999", "9.00", "1.00"},
		{"cost=", "9.00", "1.00"},
	} {
		s := gatewaytest.New(t, gatewaytest.Options{
			InTollgate: "require /paid {\nbalance 0.50\nreserve 1.00\nbudget 5.00 per month\n}\nbalance {\nmax_age 1h\n}", Handler: costs,
		})
		b := s.NewBrowser().SignIn()
		setBalance(s, "10.00")
		b.Get("/oauth/refresh")
		wantMoney(t, b, "10.00", "0.00")
		s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusServiceUnavailable})
		a := b.Get("/paid?" + c.query)
		if a.Header["Tollgate-Cost"] != nil {
			t.Errorf("%s: the client sees Tollgate-Cost", c.query)
		}
		answer := b.Get("/oauth/userinfo").JSON(t)
		budget := answer["budgets"].([]any)[0].(map[string]any)
		if answer["available"] != c.available || budget["spent"] != c.spent {
			t.Errorf("%q: got %v available, %v spent; want %s and %s", c.query, answer["available"], budget["spent"], c.available, c.spent)
		}
	}
}

func TestHoldEndsHoweverTheResponseEnds(t *testing.T) {
	u := newTill()
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /paid {\nbalance 1.00\nreserve\n}\nbalance {\nmax_age 1h\n}", Handler: u.ServeHTTP})
	b := s.NewBrowser().SignIn()
	setBalance(s, "10.00")
	wantMoney(t, b, "10.00", "")
	s.Handlers[0].Internals().Ledgers.CutPause = time.Millisecond
	abort := func(answer func(http.ResponseWriter)) {
		c := b.Copy()
		done := make(chan struct{})
		go func() {
			defer close(done)
			req, _ := http.NewRequest(http.MethodPost, s.URL+"/paid", nil) // reverse_proxy sends a GET once more
			if res, err := c.Client.Do(req); err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}()
		gatewaytest.Eventually(t, "the request is there", func() bool { return u.reached.Load() > 0 })
		u.answers <- answer
		<-done
		u.reached.Store(0)
	}
	abort(func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }) // no response
	wantMoney(t, b, "10.00", "")
	abort(func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	wantMoney(t, b, "10.00", "")

	// A client that leaves does not get its call for nothing: its hold stays until the
	// balance was read.
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusServiceUnavailable})
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	left := make(chan error, 1)
	go func() {
		_, err := http.DefaultClient.Do(paidRequest(ctx, b, http.MethodGet, s.URL+"/paid"))
		left <- err
	}()
	gatewaytest.Eventually(t, "the request is there", func() bool { return u.reached.Load() > 0 })
	leave()
	if err := <-left; err == nil {
		t.Fatal("the request was answered, want its client to leave before")
	}
	wantMoney(t, b, "9.00", "")
	s.Upstream.Close()
	if a := b.Get("/paid"); a.StatusCode != http.StatusBadGateway {
		t.Errorf("without an upstream: %d", a.StatusCode)
	}
	wantMoney(t, b, "9.00", "") // nothing reached the upstream, so nothing is kept
}

// untilTomorrow is how long the site's day lasts.
func untilTomorrow(s *gatewaytest.Site) time.Duration {
	now := s.Clock.Now().UTC()
	return now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
}

func TestBudgetIsCountedInItsWindow(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /paid {\nbudget 1.00 per hour\nbudget 1.50 per day\n}", Handler: costs})
	s.Clock.Advance(untilTomorrow(s) + time.Minute)
	b := s.NewBrowser().SignIn()
	for range 2 {
		if a := b.Get("/paid?cost=0.50"); a.StatusCode != http.StatusOK {
			t.Fatalf("within the budget: %d %s", a.StatusCode, a.Text)
		}
	}
	a := b.Get("/paid?cost=0.50")
	problem := a.JSON(t)
	now := s.Clock.Now()
	resets := now.Truncate(time.Hour).Add(time.Hour)
	if a.StatusCode != http.StatusPaymentRequired || problem["error"] != "budget_exceeded" || problem["budget"] != "1.00" || problem["spent"] != "1.00" ||
		problem["per"] != "hour" || fmt.Sprint(problem["resets_at"]) != fmt.Sprint(resets.Unix()) || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("above the budget: %d %s", a.StatusCode, a.Text)
	}
	var after int
	if fmt.Sscan(a.Header.Get("Retry-After"), &after); after < 1 || now.Add(time.Duration(after)*time.Second).Before(resets) {
		t.Errorf("Retry-After is %q, and the budget resets in %s", a.Header.Get("Retry-After"), resets.Sub(now))
	}
	if page := b.Visit("/paid"); page.StatusCode != http.StatusPaymentRequired || !strings.Contains(page.Text, "1.00") || page.Header.Get("Content-Security-Policy") == "" || page.Header.Get("Retry-After") == "" {
		t.Errorf("the page: %d %s", page.StatusCode, page.Text)
	}
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("elsewhere: %d", a.StatusCode)
	}
	s.Load() // a reload keeps what was spent
	s.Clock.Advance(time.Hour)
	if a := b.Get("/paid?cost=0.50"); a.StatusCode != http.StatusOK {
		t.Errorf("in the next hour: %d", a.StatusCode)
	}
	if problem := b.Get("/paid").JSON(t); problem["budget"] != "1.50" || problem["per"] != "day" || problem["spent"] != "1.50" {
		t.Errorf("above the budget of the day: %v", problem)
	}
	budgets := b.Get("/oauth/userinfo").JSON(t)["budgets"].([]any)
	if first, second := budgets[0].(map[string]any), budgets[1].(map[string]any); len(budgets) != 2 || first["available"] != "0.50" || second["available"] != "0.00" || first["budget"] != "1.00" || second["per"] != "day" {
		t.Errorf("userinfo: %v", budgets)
	}
}

func TestDryRunNeedsNoUpstreamAndTakesNoHold(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{
		InTollgate: "require /paid {\nbalance 1.00\nreserve\n}\nrequire /plain {\nbalance 3.00\n}\noptional /optional\npublic /public", Handler: costs,
	})
	b := s.NewBrowser().SignIn()
	setBalance(s, "2.00")
	reached := s.Upstream.Requests.Load()
	for range 5 { // more than there is money for
		if a := b.Send(http.MethodPost, "/paid", nil, "Prefer: respond-async, Tollgate-Dry-Run;q=1"); a.StatusCode != http.StatusNoContent ||
			a.Header.Get("Cache-Control") != "no-store" || !strings.Contains(strings.Join(a.Header.Values("Vary"), ","), "Prefer") || a.Text != "" {
			t.Fatalf("got %d %v", a.StatusCode, a.Header)
		}
	}
	if a := b.Get("/plain", "Prefer: tollgate-dry-run"); a.StatusCode != http.StatusPaymentRequired || a.Header.Get("Vary") != "Prefer" || a.JSON(t)["error"] != "insufficient_balance" {
		t.Errorf("a plain balance: %d %s", a.StatusCode, a.Text)
	}
	setBalance(s, "0.99")
	if a := b.Get("/paid", "Prefer: tollgate-dry-run"); a.StatusCode != http.StatusPaymentRequired || a.JSON(t)["available"] != "0.99" {
		t.Errorf("without money: %d %s", a.StatusCode, a.Text)
	}
	if a := s.NewBrowser().Get("/paid", "Prefer: tollgate-dry-run"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a session: %d", a.StatusCode)
	}
	if n := s.Upstream.Requests.Load(); n != reached {
		t.Errorf("%d dry runs reached the upstream", n-reached)
	}
	for _, path := range []string{"/optional", "/public"} {
		if a := b.Get(path, "Prefer: tollgate-dry-run"); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
}

func TestUnknownBalanceDoesNotPass(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /paid {\nbalance 1.00\nreserve\n}", Handler: costs})
	b := s.NewBrowser().SignIn()
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: http.StatusServiceUnavailable})
	s.Clock.Advance(20 * time.Minute)
	if a := b.Get("/paid"); a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || a.JSON(t)["error"] != "unavailable" {
		t.Errorf("the provider does not answer: %d %s", a.StatusCode, a.Text)
	}
	setBalance(s, "unlimited")
	if a := b.Get("/paid"); a.StatusCode != http.StatusPaymentRequired || a.JSON(t)["balance"] != nil {
		t.Errorf("no amount: %d %s", a.StatusCode, a.Text)
	}
	s.Caddyfile = strings.Replace(s.Caddyfile, "require /paid", "balance {\non_unknown allow\n}\nrequire /paid", 1)
	s.Load()
	if a := b.Get("/paid"); a.StatusCode != http.StatusOK {
		t.Errorf("with on_unknown allow: %d %s", a.StatusCode, a.Text)
	}
	setBalance(s, "(5.00)")
	if a := b.Get("/paid"); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("plainly negative, with on_unknown allow: %d", a.StatusCode)
	}
}

func TestOptionalPathWithoutMoneyIsAnonymous(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{
		InTollgate: "optional /paid\nrequire /paid {\nbalance 1.00\nreserve\n}\nidentity default {\nheader X-Left {http.auth.user.available}\n}", Handler: costs,
	})
	b := s.NewBrowser().SignIn()
	setBalance(s, "2.00")
	if seen := b.Get("/paid?cost=0").Seen(t).Header; seen.Get("X-User-Id") != gatewaytest.UserID || seen.Get("X-Left") != "1.00" {
		t.Errorf("with money: %v", seen)
	}
	setBalance(s, "0.99")
	if a := b.Get("/paid?cost=0"); a.StatusCode != http.StatusOK || a.Seen(t).Header.Get("X-User-Id") != "" {
		t.Errorf("without money: %d %s", a.StatusCode, a.Text)
	}
}

func TestPagesAreToldOfALowBalance(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "balance {\nlow 2.00\n}"})
	b := s.NewBrowser().SignIn()
	for balance, want := range map[string]string{"1.99": "1", "2.00": "", "unlimited": ""} {
		setBalance(s, balance)
		b.Get("/oauth/userinfo")
		for name, a := range map[string]*gatewaytest.Answer{"a page": b.Visit("/"), "userinfo": b.Get("/oauth/userinfo")} {
			if got := a.Header.Get("Tollgate-Balance-Low"); got != want {
				t.Errorf("%s with %s: got %q, want %q", name, balance, got, want)
			}
		}
		if a := b.Get("/"); a.Header["Tollgate-Balance-Low"] != nil {
			t.Errorf("a script's request with %s has the header", balance)
		}
	}
}

// TestRefusalLastsASecondAtTheLimit: readings go back and forth around the required balance.
func TestRefusalLastsASecondAtTheLimit(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /paid {\nbalance 0.50\n}", Handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Tollgate-Balance", "changed")
		costs(w, r)
	}})
	b := s.NewBrowser().SignIn()
	say := func(balance string) {
		s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":12345,"username":"user123","status":1,"quota":1,"balance_formatted":"` + balance + `"}`})
		b.Get("/") // the balance is read before its next use
	}
	for _, c := range []struct {
		balance string
		status  int
	}{{"0.51", 200}, {"0.49", 402}, {"0.51", 402}, {"1.00", 200}} {
		say(c.balance)
		if a := b.Get("/paid"); a.StatusCode != c.status {
			t.Errorf("with %s: got %d, want %d", c.balance, a.StatusCode, c.status)
		}
	}
	say("0.49")
	b.Get("/paid")
	say("0.51")
	s.Clock.Advance(account.LackingAge)
	if a := b.Get("/paid"); a.StatusCode != http.StatusOK {
		t.Errorf("a second later: %d", a.StatusCode)
	}
}

func TestFreshUsersBurstReadsTheBalanceOnce(t *testing.T) {
	u := newTill()
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /paid {\nbalance 100.00\nreserve\n}", Handler: u.ServeHTTP})
	b := s.NewBrowser().SignIn()
	reads := s.Provider.Count(simulator.UserInfo)
	statuses := make(chan int, 50)
	for range 50 {
		c := b.Copy()
		go func() { statuses <- c.Get("/paid").StatusCode }()
	}
	for range 43 {
		if status := <-statuses; status != http.StatusPaymentRequired {
			t.Errorf("a request without money left: %d", status)
		}
	}
	gatewaytest.Eventually(t, "7 requests reach the upstream", func() bool { return u.reached.Load() == 7 })
	for range 7 {
		u.answer("Tollgate-Cost: 100")
	}
	for range 7 {
		<-statuses
	}
	if n := s.Provider.Count(simulator.UserInfo) - reads; n < 1 || n > 10 {
		t.Errorf("the balance was read %d times", n)
	}
}
