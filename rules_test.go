package tollgate

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/account"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// userSays lets the provider say this of the user from now on, and lets it be read
// before the next use.
func (s *site) userSays(members string) {
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Body: `{"id":12345,"username":"user123","status":1,` + members + `}`})
	s.clock.advance(20 * time.Minute)
}

func TestABalanceIsComparedExactlyAsItIsWritten(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "require {\nbalance 0.50\n}"})
	b := s.newBrowser().signIn()
	const pass, tooLow, unknown = "pass", "too low", "unknown"
	for balance, want := range map[string]string{
		`"0.50"`: pass, `"0.5"`: pass, `"0.500000"`: pass, `0.5`: pass, `"0.50000000000000000001"`: pass, `"1,000.00"`: pass, `"$3.20"`: pass,
		`"+0.50"`: pass, `" 0.50 "`: pass, `"99999999999999999999999999999999.99"`: pass, `750`: pass, `"¥1,000.00"`: pass,
		`"0.49999999999999999999"`: tooLow, `"0.49"`: tooLow, `"0"`: tooLow, `"-0.01"`: tooLow, `"-$3.20"`: tooLow, `"-99999999999999999999.99"`: tooLow, `-7`: tooLow,
		`""`: unknown, `null`: unknown, `"unlimited"`: unknown, `"1,00"`: unknown, `"1e9"`: unknown, `"0x10"`: unknown, `"NaN"`: unknown, `true`: unknown,
		`"` + strings.Repeat("9", 400) + `"`: unknown, `{"a":1}`: unknown, `1e9`: unknown, `"3.20 USD"`: unknown,
	} {
		s.userSays(`"quota":1000000,"used_quota":0,"balance_formatted":` + balance)
		a := b.Get("/")
		if (a.StatusCode == http.StatusOK) != (want == pass) {
			t.Errorf("%s: got %d", balance, a.StatusCode)
			continue
		}
		if want == pass {
			continue
		}
		problem := a.json(t)
		said, isKnown := problem["balance"].(string)
		if isKnown != (want == tooLow) || a.StatusCode != http.StatusPaymentRequired || (isKnown && !strings.Contains(balance, said)) {
			t.Errorf("%s: got %d: %s", balance, a.StatusCode, a.text)
		}
	}
}

func TestABalanceThatIsTooLowIsAnsweredWith402(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "brand Shop\nrequire /paid/* {\nbalance 800.00\n}\noptional /optional"})
	b := s.newBrowser().signIn()
	before := s.upstream.requests.Load()
	for _, method := range []string{"GET", "POST", "DELETE"} {
		a := b.do(method, "/paid/x", nil)
		got := a.json(t)
		if a.StatusCode != http.StatusPaymentRequired || a.Header.Get("Content-Type") != "application/problem+json" || a.Header.Get("Cache-Control") != "no-store" ||
			got["error"] != "insufficient_balance" || got["balance"] != "750.00" || got["required"] != "800.00" || got["topup_url"] != "/oauth/topup" || !strings.Contains(a.text, `"status":402`) {
			t.Errorf("%s: %d %s", method, a.StatusCode, a.text)
		}
	}
	page := b.visit("/paid/x?y=1")
	if page.StatusCode != http.StatusPaymentRequired || page.Header.Get("Content-Security-Policy") == "" {
		t.Errorf("a person: %d", page.StatusCode)
	}
	for _, want := range []string{"You have 750.00", "at least 800.00", "Shop", `href="/oauth/topup" target="_blank" rel="noopener"`, `href="/paid/x?y=1"`} {
		if !strings.Contains(page.text, want) {
			t.Errorf("the page does not say %s: %s", want, page.text)
		}
	}
	if n := s.upstream.requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	for _, path := range []string{"/", "/paidx", "/optional"} {
		if a := b.Get(path); a.StatusCode != http.StatusOK || a.seen(t).Header.Get("X-User-Id") != testUserID {
			t.Errorf("%s: %d", path, a.StatusCode)
		}
	}
	if a := s.newBrowser().Get("/paid/x"); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a session: %d", a.StatusCode)
	}
	s.caddyfile = strings.Replace(s.caddyfile, "client_id", "topup_endpoint off\n\t\t\tclient_id", 1)
	s.Load()
	if a := b.Get("/paid/x"); strings.Contains(a.text, "topup_url") || a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("a script, without a top-up page: %s", a.text)
	}
	if a := b.visit("/paid/x"); strings.Contains(a.text, "Top up") || !strings.Contains(a.text, "Try again") {
		t.Errorf("a person, without a top-up page: %s", a.text)
	}
}

func TestUnknownBalancePassesOnlyIfAllowed(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "require {\nbalance 0\n}"})
	b := s.newBrowser().signIn()
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	s.clock.advance(10 * time.Minute)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("within max_stale: %d", a.StatusCode)
	}
	s.clock.advance(10 * time.Minute)
	a := b.Get("/")
	if balance, there := a.json(t)["balance"]; a.StatusCode != http.StatusPaymentRequired || !there || balance != nil {
		t.Errorf("beyond max_stale: %d %s", a.StatusCode, a.text)
	}
	if page := b.visit("/"); !strings.Contains(page.text, "Your balance is not known") || !strings.Contains(page.text, "At least 0 is needed") {
		t.Errorf("the page says %s", page.text)
	}
	s.caddyfile = strings.Replace(s.caddyfile, "require {", "balance {\non_unknown allow\n}\nrequire {", 1)
	s.Load()
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("with on_unknown allow: %d", a.StatusCode)
	}
	s.provider.ClearFaults()
	s.userSays(`"balance_formatted":"-0.01"`)
	if a := b.Get("/"); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("a known one, with on_unknown allow: %d", a.StatusCode)
	}
}

func TestTheDomainIsThatOfAnAddressWithOneAt(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "require /team {\nemail_domain Example.com xn--bcher-kva.example\n}\noptional /team/optional\nrequire /team/optional {\nemail_domain example.com xn--bcher-kva.example\n}"})
	b := s.newBrowser().signIn()
	for email, want := range map[string]int{
		"user@example.com": 200, "USER@EXAMPLE.COM": 200, "a@xn--bcher-kva.example": 200,
		"": 403, "example.com": 403, "@example.com": 403, "a@b@example.com": 403, "a@example.com@evil.example": 403, "a@evil.example": 403,
		"a@sub.example.com": 403, "a@example.com.evil.example": 403, "a@notexample.com": 403, "a@example.com ": 403, "a@bücher.example": 403,
		"a@example.com.": 403, "a@exam\u212ale.com": 403,
	} {
		s.userSays(`"email":"` + email + `"`)
		a := b.Get("/team")
		if a.StatusCode != want || (want == 403 && a.json(t)["error"] != "refused") {
			t.Errorf("%q: %d %s", email, a.StatusCode, a.text)
		}
		identity := map[int]string{200: testUserID}[want]
		if got := b.Get("/team/optional").seen(t).Header.Get("X-User-Id"); got != identity {
			t.Errorf("%q at an optional path: %q", email, got)
		}
	}
	if a := b.visit("/team"); a.StatusCode == http.StatusForbidden && !strings.Contains(a.text, "<main") {
		t.Errorf("a person: %s", a.text)
	}
}

func TestAllRulesOfAllBlocksThatApplyMustHold(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: strings.Join([]string{
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
	b := s.newBrowser().signIn()
	for path, want := range map[string]int{
		"/": 200, "/other/a": 403, "/idtext": 403, "/both": 403, "/poor/a": 200, "/poor/very": 402, "/poor/refused": 403,
		"/open/a": 200, "/oauth/userinfo": 200, "/oauth/topup": 303, "/oauth/logout": 200,
		"/OTHER/a": 403,
	} {
		if a := b.Get(path); a.StatusCode != want {
			t.Errorf("%s: got %d, want %d", path, a.StatusCode, want)
		}
	}
	if a := b.Get("/poor/very"); a.json(t)["required"] != "900" {
		t.Errorf("the highest of two: %s", a.text)
	}
}

func TestPathWithTwoReadingsUnderDifferentRulesIsRefused(t *testing.T) {
	s := newSite(t, asked(anyPeer, "require /paid/* {\nbalance 800\n}"))
	b := s.newBrowser().signIn()
	before := s.upstream.requests.Load()
	for _, path := range []string{
		"/free/..%2fpaid/x", "/free/%2e%2e/paid/x", "/free/../paid/x", "//paid/x", "/paid%2fx", "/paid/../free", "/free/..;/paid/x", "/x/%252e%252e%252fpaid/x", "/paid;v=1/x", `/free/..%5cpaid/x`,
	} {
		res := rawRequest(t, s, "GET "+path+" HTTP/1.1", "Host: gateway", b.cookieLine(), "", "")
		if res.StatusCode != http.StatusBadRequest && res.StatusCode != http.StatusPaymentRequired {
			t.Errorf("%s: got %d", path, res.StatusCode)
		}
		if a := b.Get("/oauth/auth", "X-Forwarded-Uri: "+path); a.StatusCode != http.StatusUnauthorized && a.Header.Get("Tollgate-Reason") != "insufficient_balance" {
			t.Errorf("%s at auth: got %d", path, a.StatusCode)
		}
	}
	if n := s.upstream.requests.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

func TestAuthSaysThatTheBalanceDoesNotSuffice(t *testing.T) {
	s := newSite(t, asked(anyPeer, "require /paid/* {\nbalance 800\n}\nrequire /other/* {\nuser 7\n}"))
	b := s.newBrowser().signIn()
	b.Get("/oauth/auth", "X-Forwarded-Uri: /paid/x").wantAuth(t, "too low", 403, "insufficient_balance", "")
	b.Get("/oauth/auth", "X-Forwarded-Uri: /other/x").wantAuth(t, "another user", 403, "refused", "")
	b.Get("/oauth/auth", "X-Forwarded-Uri: /x").wantAuth(t, "elsewhere", 200, "", testUserID)
	// Nobody has said which path it is: every rule applies.
	b.Get("/oauth/auth").wantAuth(t, "an unknown path", 403, "refused", "")
}

func TestStaleBalanceIsReReadBeforeA402(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "require {\nbalance 750\n}"})
	b := s.newBrowser().signIn()
	s.provider.Spend(12345, 100)
	s.clock.advance(2 * time.Minute)
	eventually(t, "the fall is known", func() bool { return b.Get("/").StatusCode == http.StatusPaymentRequired })
	reads := s.provider.Count(simulator.UserInfo)
	for range 20 {
		b.Get("/")
	}
	if n := s.provider.Count(simulator.UserInfo) - reads; n != 0 {
		t.Errorf("%d reads within a second", n)
	}
	s.provider.TopUp(12345, 100)
	s.clock.advance(account.LackingAge + time.Millisecond)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("with money again: %d %s", a.StatusCode, a.text)
	}
	// The provider does not answer: what is known decides, and nobody asks at once again.
	s.provider.Spend(12345, 100)
	s.clock.advance(account.ScarceAge + time.Second)
	b.Get("/")
	s.provider.SetFault(simulator.UserInfo, simulator.Fault{Status: 503})
	s.clock.advance(time.Minute)
	if a := b.Get("/"); a.StatusCode != http.StatusPaymentRequired || a.json(t)["balance"] != "749.00" {
		t.Errorf("while the provider does not answer: %d %s", a.StatusCode, a.text)
	}
}

func TestBalanceNearTheLimitIsReReadBeforeUse(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "require {\nbalance 500\n}"})
	b := s.newBrowser().signIn()
	s.provider.Spend(12345, 30000)
	s.clock.advance(account.ScarceAge - time.Second)
	if a := b.Get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("within five seconds: %d", a.StatusCode)
	}
	s.clock.advance(2 * time.Second)
	if a := b.Get("/"); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}

// TestOverspendWithParallelRequestsIsBounded: no request passes that began after the
// gateway had learnt, by `Tollgate-Balance: changed`, of the call that used the balance
// up. So of ten at a time, nine may pass too many.
func TestOverspendWithParallelRequestsIsBounded(t *testing.T) {
	const requests, atOnce, affordable = 100, 10, 10
	var s *site
	var passed, unpaid atomic.Int64
	s = newSite(t, siteOptions{
		inTollgate: "require /call {\nbalance 0.50\n}",
		handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/call" {
				w.Header().Set("X-User-Id", r.Header.Get("X-User-Id"))
				w.Write([]byte(`{"Header":{"X-User-Id":["12345"]}}`))
				return
			}
			passed.Add(1)
			if s.provider.Spend(12345, 50) != nil {
				unpaid.Add(1)
			}
			w.Header().Set("Tollgate-Balance", "changed")
			time.Sleep(5 * time.Millisecond)
		},
	})
	b := s.newBrowser().signIn()
	s.provider.UpdateUser(12345, func(u *simulator.User) { u.BalanceCents = affordable * 50 })
	b.Get("/oauth/topup") // the next use reads the balance
	var workers sync.WaitGroup
	var left atomic.Int64
	left.Store(requests)
	statuses := make([]atomic.Int64, 600)
	for range atOnce {
		workers.Go(func() {
			own := b.copyOf()
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

func TestMoneyArrivesWithoutAButton(t *testing.T) {
	s := newSite(t, siteOptions{})
	b := s.newBrowser().signIn()
	b.Get("/oauth/topup")
	b.Get("/")
	s.provider.TopUp(12345, 500) // it took the user a while
	s.clock.advance(account.TopupAge + time.Second)
	eventually(t, "the money is seen", func() bool { return strings.HasPrefix(b.balanceSeen(), "755.00") })
	s.clock.advance(account.TopupWatch)
	b.Get("/")
	eventually(t, "that read is over", func() bool { return strings.HasPrefix(b.balanceSeen(), "755.00 fresh 0") })
	s.provider.TopUp(12345, 500)
	s.clock.advance(account.TopupAge + time.Second)
	reads := s.provider.Count(simulator.UserInfo)
	b.Get("/")
	if got := b.balanceSeen(); got != "755.00 fresh 3" || s.provider.Count(simulator.UserInfo) != reads {
		t.Errorf("after two minutes: %q", got)
	}
}

func TestTheWayFromTheRefusalToTheTopUpAndBack(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "require /paid {\nbalance 751\n}"})
	b := s.newBrowser().signIn()
	if a := b.visit("/paid"); a.StatusCode != http.StatusPaymentRequired {
		t.Fatalf("at first: %d", a.StatusCode)
	}
	s.provider.SetFault(simulator.TopUp, simulator.Fault{Status: 503})
	if a := b.visit("/oauth/topup"); a.StatusCode != http.StatusServiceUnavailable || !strings.Contains(a.text, "is not responding") {
		t.Errorf("a provider that fails: %d %s", a.StatusCode, a.text)
	}
	s.provider.ClearFaults()
	if a := b.visit("/oauth/topup"); a.StatusCode != http.StatusSeeOther {
		t.Fatalf("topping up: %d", a.StatusCode)
	}
	s.provider.TopUp(12345, 100)
	if a := b.visit("/paid"); a.StatusCode != http.StatusOK {
		t.Errorf("trying again: %d", a.StatusCode)
	}
}

func TestARefusalIsWrittenDownWithItsReason(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "require /b {\nbalance 800\n}\nrequire /d {\nemail_domain other.example\n}\nrequire /u {\nuser 7\n}"})
	b := s.newBrowser().signIn()
	logs := s.observe()
	for _, path := range []string{"/b", "/d", "/u"} {
		b.Get(path)
	}
	var reasons []string
	for _, entry := range logs.FilterMessage("denied").All() {
		fields := entry.ContextMap()
		reasons = append(reasons, fields["reason"].(string))
		if fields["user_id"] != testUserID || fields["session"] == "" {
			t.Errorf("the line is %v", fields)
		}
	}
	if !slices.Equal(reasons, []string{"balance", "domain", "user"}) {
		t.Errorf("the reasons are %q", reasons)
	}
}

func TestTheNumberOfReadsAtOnceIsBounded(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "require {\nbalance 1\n}"})
	b := s.newBrowser().signIn()
	users := s.handlers[0].Internals().Users
	for range account.MaxReads {
		users.Slots <- struct{}{}
	}
	reads := s.provider.Count(simulator.UserInfo)
	s.clock.advance(20 * time.Minute)
	began := time.Now()
	done := make(chan *answer, 1)
	go func() { done <- b.copyOf().Get("/") }()
	time.Sleep(300 * time.Millisecond)
	if n := s.provider.Count(simulator.UserInfo) - reads; n != 0 {
		t.Errorf("%d reads beyond the bound", n)
	}
	<-users.Slots
	if a := <-done; a.StatusCode != http.StatusOK || time.Since(began) > account.ReadTimeout {
		t.Errorf("with a slot free: %d after %v", a.StatusCode, time.Since(began))
	}
	for range account.MaxReads - 1 {
		<-users.Slots
	}
	if len(users.Slots) != 0 {
		t.Errorf("%d slots are still taken", len(users.Slots))
	}
}
