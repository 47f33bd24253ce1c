package tollgate_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// userSays lets the provider say this of the user from now on, and lets it be read
// before the next use.
func userSays(s *gatewaytest.Site, members string) {
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":12345,"username":"user123","status":1,` + members + `}`})
	s.Clock.Advance(20 * time.Minute)
}

func TestBalanceIsComparedExactly(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require {\nbalance 0.50\n}"})
	b := s.NewBrowser().SignIn()
	const pass, tooLow, unknown = "pass", "too low", "unknown"
	for balance, want := range map[string]string{
		`"0.50"`: pass, `"0.5"`: pass, `"0.500000"`: pass, `0.5`: pass, `"0.50000000000000000001"`: pass, `"1,000.00"`: pass, `"$3.20"`: pass,
		`"+0.50"`: pass, `" 0.50 "`: pass, `"99999999999999999999999999999999.99"`: pass, `750`: pass, `"¥1,000.00"`: pass,
		`"0.49999999999999999999"`: tooLow, `"0.49"`: tooLow, `"0"`: tooLow, `"-0.01"`: tooLow, `"-$3.20"`: tooLow, `"-99999999999999999999.99"`: tooLow, `-7`: tooLow,
		`""`: unknown, `null`: unknown, `"unlimited"`: unknown, `"1,00"`: unknown, `"1e9"`: unknown, `"0x10"`: unknown, `"NaN"`: unknown, `true`: unknown,
		`"` + strings.Repeat("9", 400) + `"`: unknown, `{"a":1}`: unknown, `1e9`: unknown, `"3.20 USD"`: unknown,
	} {
		userSays(s, `"quota":1000000,"used_quota":0,"balance_formatted":`+balance)
		a := b.Get("/")
		if (a.StatusCode == http.StatusOK) != (want == pass) {
			t.Errorf("%s: got %d", balance, a.StatusCode)
			continue
		}
		if want == pass {
			continue
		}
		problem := a.JSON(t)
		said, isKnown := problem["balance"].(string)
		if isKnown != (want == tooLow) || a.StatusCode != http.StatusPaymentRequired || (isKnown && !strings.Contains(balance, said)) {
			t.Errorf("%s: got %d: %s", balance, a.StatusCode, a.Text)
		}
	}
}

func TestBalanceThatIsTooLowGets402(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "brand Shop\nrequire /paid/* {\nbalance 800.00\n}\noptional /optional"})
	b := s.NewBrowser().SignIn()
	before := s.Upstream.Requests.Load()
	for _, method := range []string{"GET", "POST", "DELETE"} {
		a := b.Send(method, "/paid/x", nil)
		got := a.JSON(t)
		if a.StatusCode != http.StatusPaymentRequired || a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("Cache-Control") != "no-store" ||
			got["error"] != "insufficient_balance" || got["balance"] != "750.00" || got["required"] != "800.00" || got["topup_url"] != "/oauth/topup" || !strings.Contains(a.Text, `"status":402`) {
			t.Errorf("%s: %d %s", method, a.StatusCode, a.Text)
		}
	}
	page := b.Visit("/paid/x?y=1")
	if page.StatusCode != http.StatusPaymentRequired || page.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("a person: %d", page.StatusCode)
	}
	for _, want := range []string{"<td>750.00</td>", "<td>800.00</td>", "Shop", "Signed in as ", `href="/">Back to the site`, `href="/oauth/topup" target="_blank" rel="noopener"`, `href="/paid/x?y=1"`} {
		if !strings.Contains(page.Text, want) {
			t.Errorf("the page does not say %s: %s", want, page.Text)
		}
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	for _, path := range []string{"/", "/paidx", "/optional"} {
		if a := b.Get(path); a.StatusCode != http.StatusOK || a.Seen(t).Header.Get("X-User-Id") != gatewaytest.UserID {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
	if a := s.NewBrowser().Get("/paid/x"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a session: %d", a.StatusCode)
	}
	s.Caddyfile = strings.Replace(s.Caddyfile, "client_id", "topup_endpoint off\n\t\t\tclient_id", 1)
	s.Load()
	if a := b.Get("/paid/x"); strings.Contains(a.Text, "topup_url") || a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("a script, without a top-up page: %s", a.Text)
	}
	if a := b.Visit("/paid/x"); strings.Contains(a.Text, "Top up") || !strings.Contains(a.Text, "Try again") {
		t.Errorf("a person, without a top-up page: %s", a.Text)
	}
}

func TestUnknownBalancePassesOnlyIfAllowed(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require {\nbalance 0\n}"})
	b := s.NewBrowser().SignIn()
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	s.Clock.Advance(10 * time.Minute)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("within max_stale: %d", a.StatusCode)
	}
	s.Clock.Advance(10 * time.Minute)
	a := b.Get("/")
	if balance, there := a.JSON(t)["balance"]; a.StatusCode != http.StatusPaymentRequired || !there || balance != nil {
		t.Errorf("beyond max_stale: %d %s", a.StatusCode, a.Text)
	}
	if page := b.Visit("/"); !strings.Contains(page.Text, "<title>Your balance is not known</title>") || !strings.Contains(page.Text, "<td>0</td>") {
		t.Errorf("the page says %s", page.Text)
	}
	s.Caddyfile = strings.Replace(s.Caddyfile, "require {", "balance {\non_unknown allow\n}\nrequire {", 1)
	s.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("with on_unknown allow: %d", a.StatusCode)
	}
	s.Provider.ClearFaults()
	userSays(s, `"balance_formatted":"-0.01"`)
	if a := b.Get("/"); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("a known one, with on_unknown allow: %d", a.StatusCode)
	}
}

func TestEmailDomainNeedsAnAddressWithOneAt(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /team {\nemail_domain Example.com xn--bcher-kva.example\n}\noptional /team/optional\nrequire /team/optional {\nemail_domain example.com xn--bcher-kva.example\n}"})
	b := s.NewBrowser().SignIn()
	for email, want := range map[string]int{
		"user@example.com": 200, "USER@EXAMPLE.COM": 200, "a@xn--bcher-kva.example": 200,
		"": 403, "example.com": 403, "@example.com": 403, "a@b@example.com": 403, "a@example.com@evil.example": 403, "a@evil.example": 403,
		"a@sub.example.com": 403, "a@example.com.evil.example": 403, "a@notexample.com": 403, "a@example.com ": 403, "a@bücher.example": 403,
		"a@example.com.": 403, "a@exam\u212ale.com": 403,
	} {
		userSays(s, `"email":"`+email+`"`)
		a := b.Get("/team")
		if a.StatusCode != want || (want == 403 && a.JSON(t)["error"] != "refused") {
			t.Errorf("%q: %d %s", email, a.StatusCode, a.Text)
		}
		identity := map[int]string{200: gatewaytest.UserID}[want]
		if got := b.Get("/team/optional").Seen(t).Header.Get("X-User-Id"); got != identity {
			t.Errorf("%q at an optional path: %q", email, got)
		}
	}
	if a := b.Visit("/team"); a.StatusCode == http.StatusForbidden && !strings.Contains(a.Text, "<main") {
		t.Errorf("a person: %s", a.Text)
	}
}

func TestAllConditionsOfAllMatchingBlocksMustBeMet(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: strings.Join([]string{
		"public /open/*",
		"require {\nuser 7 12345\n}",
		"require /other/* {\nuser 7\n}",
		"require /idtext {\nuser 12345.0 012345 1234\n}",
		"require /both {\nuser 12345\nemail_domain other.example\n}",
		"require /poor/* {\nbalance 1\n}",
		"require /poor/very {\nbalance 900\n}",
		"require /poor/refused {\nbalance 900\nuser 7\n}",
		"require /open/* {\nuser 7\n}",
		"require /oauth/* {\nuser 7\nbalance 900\n}",
	}, "\n")})
	b := s.NewBrowser().SignIn()
	for path, want := range map[string]int{
		"/": 200, "/other/a": 403, "/idtext": 403, "/both": 403, "/poor/a": 200, "/poor/very": 402, "/poor/refused": 403,
		"/open/a": 200, "/oauth/userinfo": 200, "/oauth/topup": 303, "/oauth/logout": 200,
		"/OTHER/a": 403,
	} {
		if a := b.Get(path); a.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, a.StatusCode, want)
		}
	}
	if a := b.Get("/poor/very"); a.JSON(t)["required"] != "900" {
		t.Errorf("the highest of two: %s", a.Text)
	}
}

func TestPathWithTwoReadingsUnderDifferentRulesIsRefused(t *testing.T) {
	s := gatewaytest.New(t, asked(anyPeer, "require /paid/* {\nbalance 800\n}"))
	b := s.NewBrowser().SignIn()
	before := s.Upstream.Requests.Load()
	for _, path := range []string{
		"/free/..%2fpaid/x", "/free/%2e%2e/paid/x", "/free/../paid/x", "//paid/x", "/paid%2fx", "/paid/../free", "/free/..;/paid/x", "/x/%252e%252e%252fpaid/x", "/paid;v=1/x", `/free/..%5cpaid/x`,
	} {
		res := rawRequest(t, s, "GET "+path+" HTTP/1.1", "Host: gateway", b.CookieLine(), "", "")
		if res.StatusCode != http.StatusBadRequest && res.StatusCode != http.StatusPaymentRequired {
			t.Errorf("%s: got %d", path, res.StatusCode)
		}
		if a := b.Get("/oauth/auth", "X-Forwarded-Uri: "+path); a.StatusCode != http.StatusUnauthorized && a.Header.Get("Tollgate-Reason") != "insufficient_balance" {
			t.Errorf("%s at auth: got %d", path, a.StatusCode)
		}
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestAuthReportsAnInsufficientBalance(t *testing.T) {
	s := gatewaytest.New(t, asked(anyPeer, "require /paid/* {\nbalance 800\n}\nrequire /other/* {\nuser 7\n}"))
	b := s.NewBrowser().SignIn()
	wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: /paid/x"), t, "too low", 403, "insufficient_balance", "")
	wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: /other/x"), t, "another user", 403, "refused", "")
	wantAuth(b.Get("/oauth/auth", "X-Forwarded-Uri: /x"), t, "elsewhere", 200, "", gatewaytest.UserID)
	// Nobody has said which path it is: every rule applies.
	wantAuth(b.Get("/oauth/auth"), t, "an unknown path", 403, "refused", "")
}

func TestStaleBalanceIsReReadBeforeA402(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require {\nbalance 750\n}"})
	b := s.NewBrowser().SignIn()
	s.Provider.Spend(12345, 100)
	s.Clock.Advance(2 * time.Minute)
	gatewaytest.Eventually(t, "the fall is known", func() bool { return b.Get("/").StatusCode == http.StatusPaymentRequired })
	reads := s.Provider.Count(simulator.UserInfo)
	for range 20 {
		b.Get("/")
	}
	if n := s.Provider.Count(simulator.UserInfo) - reads; n != 0 {
		t.Errorf("%d reads within a second", n)
	}
	s.Provider.TopUp(12345, 100)
	s.Clock.Advance(account.LackingAge + time.Millisecond)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("with money again: %d %s", a.StatusCode, a.Text)
	}
	// The provider does not answer: what is known decides, and nobody asks at once again.
	s.Provider.Spend(12345, 100)
	s.Clock.Advance(scarceAge + time.Second)
	b.Get("/")
	s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	s.Clock.Advance(time.Minute)
	if a := b.Get("/"); a.StatusCode != http.StatusPaymentRequired || a.JSON(t)["balance"] != "749.00" {
		t.Errorf("while the provider does not answer: %d %s", a.StatusCode, a.Text)
	}
}

func TestBalanceNearTheLimitIsReReadBeforeUse(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require {\nbalance 500\n}"})
	b := s.NewBrowser().SignIn()
	s.Provider.Spend(12345, 30000)
	s.Clock.Advance(scarceAge - time.Second)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("within five seconds: %d", a.StatusCode)
	}
	s.Clock.Advance(2 * time.Second)
	if a := b.Get("/"); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}

// TestOverspendWithParallelRequestsIsBounded: no request passes that began after the
// gateway had learnt, by `Tollgate-Balance: changed`, of the call that used the balance
// up. So of ten at a time, nine may pass too many.
func TestOverspendWithParallelRequestsIsBounded(t *testing.T) {
	const requests, atOnce, affordable = 100, 10, 10
	var s *gatewaytest.Site
	var passed, unpaid atomic.Int64
	s = gatewaytest.New(t, gatewaytest.Options{
		InTollgate: "require /call {\nbalance 0.50\n}",
		Handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/call" {
				w.Header().Set("X-User-Id", r.Header.Get("X-User-Id"))
				w.Write([]byte(`{"Header":{"X-User-Id":["12345"]}}`))
				return
			}
			passed.Add(1)
			if s.Provider.Spend(12345, 50) != nil {
				unpaid.Add(1)
			}
			w.Header().Set("Tollgate-Balance", "changed")
			time.Sleep(5 * time.Millisecond)
		},
	})
	b := s.NewBrowser().SignIn()
	s.Provider.UpdateUser(12345, func(u *simulator.User) { u.BalanceCents = affordable * 50 })
	b.Get("/oauth/topup") // the next use reads the balance
	var workers sync.WaitGroup
	var left atomic.Int64
	left.Store(requests)
	statuses := make([]atomic.Int64, 600)
	for range atOnce {
		workers.Go(func() {
			own := b.Copy()
			for left.Add(-1) >= 0 {
				statuses[own.Get("/call").StatusCode].Add(1)
			}
		})
	}
	workers.Wait()
	if ok, low := statuses[200].Load(), statuses[402].Load(); ok+low != requests || ok != passed.Load() {
		t.Errorf("%d passed, %d were turned away", ok, low)
	}
	if n := passed.Load(); n < affordable || unpaid.Load() > atOnce-1 {
		t.Errorf("%d passed, of which %d were not paid for", n, unpaid.Load())
	}
}

func TestTopUpIsNoticedWithoutARefresh(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	b := s.NewBrowser().SignIn()
	b.Get("/oauth/topup")
	b.Get("/")
	s.Provider.TopUp(12345, 500) // it took the user a while
	s.Clock.Advance(topupAge + time.Second)
	gatewaytest.Eventually(t, "the money is seen", func() bool { return strings.HasPrefix(balanceSeen(b), "755.00") })
	s.Clock.Advance(topupWatch)
	b.Get("/")
	gatewaytest.Eventually(t, "that read is over", func() bool { return strings.HasPrefix(balanceSeen(b), "755.00 fresh 0") })
	s.Provider.TopUp(12345, 500)
	s.Clock.Advance(topupAge + time.Second)
	reads := s.Provider.Count(simulator.UserInfo)
	b.Get("/")
	if got := balanceSeen(b); got != "755.00 fresh 3" || s.Provider.Count(simulator.UserInfo) != reads {
		t.Errorf("after two minutes: %q", got)
	}
}

func TestRefusedUserTopsUpAndReturns(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /paid {\nbalance 751\n}"})
	b := s.NewBrowser().SignIn()
	if a := b.Visit("/paid"); a.StatusCode != http.StatusPaymentRequired {
		t.Fatalf("at first: %d", a.StatusCode)
	}
	s.Provider.SetFault(simulator.TopUp, simulator.Fault{Status: 503})
	if a := b.Visit("/oauth/topup"); a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.Text, "is not responding") {
		t.Errorf("a provider that fails: %d %s", a.StatusCode, a.Text)
	}
	s.Provider.ClearFaults()
	if a := b.Visit("/oauth/topup"); a.StatusCode != http.StatusSeeOther {
		t.Fatalf("topping up: %d", a.StatusCode)
	}
	s.Provider.TopUp(12345, 100)
	if a := b.Visit("/paid"); a.StatusCode != http.StatusOK {
		t.Errorf("trying again: %d", a.StatusCode)
	}
}

func TestRefusalIsAuditedWithItsReason(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require /b {\nbalance 800\n}\nrequire /d {\nemail_domain other.example\n}\nrequire /u {\nuser 7\n}"})
	b := s.NewBrowser().SignIn()
	logs := observe(s)
	for _, path := range []string{"/b", "/d", "/u"} {
		b.Get(path)
	}
	var reasons []string
	for _, entry := range logs.FilterMessage("denied").All() {
		fields := entry.ContextMap()
		reasons = append(reasons, fields["reason"].(string))
		if fields["user_id"] != gatewaytest.UserID || fields["session"] == "" {
			t.Errorf("the line is %v", fields)
		}
	}
	if !slices.Equal(reasons, []string{"balance", "domain", "user"}) {
		t.Errorf("the reasons are %q", reasons)
	}
}

func TestTheNumberOfReadsAtOnceIsBounded(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "require {\nbalance 1\n}"})
	b := s.NewBrowser().SignIn()
	users := s.Handlers[0].Internals().Users
	takeAll := func() (releases []func()) {
		for i := range maxReads {
			release, err := users.TakeSlot()
			if err != nil {
				t.Fatalf("%d of %d slots are free: %v", i, maxReads, err)
			}
			releases = append(releases, release)
		}
		return releases
	}
	releases := takeAll()
	reads := s.Provider.Count(simulator.UserInfo)
	s.Clock.Advance(20 * time.Minute)
	began := time.Now()
	done := make(chan *gatewaytest.Answer, 1)
	go func() { done <- b.Copy().Get("/") }()
	time.Sleep(300 * time.Millisecond)
	if n := s.Provider.Count(simulator.UserInfo) - reads; n != 0 {
		t.Errorf("%d reads beyond the bound", n)
	}
	releases[0]()
	if a := <-done; a.StatusCode != http.StatusOK || time.Since(began) > readTimeout {
		t.Errorf("with a slot free: %d after %v", a.StatusCode, time.Since(began))
	}
	for _, release := range releases[1:] {
		release()
	}
	takeAll() // none is still taken
}
