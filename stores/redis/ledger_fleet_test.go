package redis_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/spending"
	"github.com/caddy-tollgate/tollgate/stores/redis"
)

// clock is a clock that moves only when a test sets it.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Now().AddDate(0, 1, 0).UnixMilli())
	return c
}

func (c *clock) now() time.Time        { return time.UnixMilli(c.at.Load()) }
func (c *clock) pass(by time.Duration) { c.at.Add(by.Milliseconds()) }

func amount(t *testing.T, text string) spending.Amount {
	t.Helper()
	a, err := spending.ParseRequired(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// reserve is a request that needs a balance which is not older than an hour.
func reserve(n byte, a spending.Amount) *spending.Request {
	return &spending.Request{ID: spending.ID{n}, Amount: a, Reserve: true, MaxAge: time.Hour, RefusalAge: time.Hour}
}

func admit(t *testing.T, l spending.Ledger, r *spending.Request, want spending.Outcome) (result spending.Result, epoch uint64) {
	t.Helper()
	result, epoch, err := l.Admit(t.Context(), "user", r)
	if err != nil || result.Outcome != want {
		t.Fatalf("got %+v %v, want outcome %d", result, err, want)
	}
	return result, epoch
}

func read(t *testing.T, l spending.Ledger, balance string) {
	t.Helper()
	ticket, err := l.BeginReading(t.Context(), "user")
	if err == nil {
		err = l.EndReading(t.Context(), "user", ticket, spending.Balance{Amount: amount(t, balance), Known: true})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// provider holds a user's money, counted in the smallest amount of a test.
type provider struct {
	mu    sync.Mutex
	money int
	low   int
}

func (p *provider) spend(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.money -= n
	p.low = min(p.low, p.money)
}

func (p *provider) balance() spending.Balance {
	p.mu.Lock()
	defer p.mu.Unlock()
	return spending.Balance{Amount: spending.AmountOf(int64(p.money), 0), Known: true}
}

func TestThreeGatewaysAdmitOnlyWhatTheBalancePays(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	money := &provider{money: 17}
	var keepers []*spending.Keeper
	for range 3 {
		keepers = append(keepers, spending.NewKeeper(s.gateway(testLease, nil), nil))
	}
	var served, refused atomic.Int64
	var burst sync.WaitGroup
	for i := range 300 {
		burst.Go(func() {
			k := keepers[i%3]
			ask := &spending.Ask{User: "user", Request: spending.Request{Amount: spending.AmountOf(1, 0), Reserve: true, MaxAge: time.Minute, RefusalAge: time.Second}}
			ask.Reread = func(ctx context.Context) error {
				end := k.BeginReading(ctx, "user")
				end(ctx, money.balance())
				return nil
			}
			held, result, err := k.Admit(t.Context(), ask)
			switch {
			case err != nil:
				t.Error(err)
			case held != nil:
				served.Add(1)
				money.spend(1)
				time.Sleep(time.Duration(i%7) * time.Millisecond) // the upstream works
				held.Settle(t.Context(), spending.Costs, spending.AmountOf(1, 0))
			case result.Outcome == spending.Insufficient:
				refused.Add(1)
			default:
				t.Errorf("%+v", result)
			}
		})
	}
	burst.Wait()
	if served.Load() != 17 || refused.Load() != 283 || money.low != 0 {
		t.Errorf("%d were served and %d refused, and the balance fell to %d", served.Load(), refused.Load(), money.low)
	}
}

func TestGatewayThatDiesFreesItsHoldsWithItsLease(t *testing.T) {
	t.Parallel()
	s, c := startServer(t), newClock()
	dies, lives := s.gateway(testLease, c.now), s.gateway(testLease, c.now)
	read(t, dies, "3")
	for i := range byte(3) {
		admit(t, dies, reserve(i, amount(t, "1")), spending.Admitted)
	}
	admit(t, lives, reserve(9, amount(t, "1")), spending.Insufficient)
	c.pass(testLease - time.Millisecond)
	admit(t, lives, reserve(9, amount(t, "1")), spending.Insufficient)
	c.pass(time.Millisecond)
	admit(t, lives, reserve(9, amount(t, "1")), spending.NeedsReading)
	read(t, lives, "2") // one of the three was paid
	admit(t, lives, reserve(9, amount(t, "2")), spending.Admitted)
}

// loseData are the ways in which Redis loses data.
var loseData = map[string]func(s *server){
	"flushed":   func(s *server) { s.Must("FLUSHALL") },
	"restarted": func(s *server) { s.restartWith("") },
}

func TestLostDataAdmitsNobodyUntilEveryGatewayHasReported(t *testing.T) {
	t.Parallel()
	for name, lose := range loseData {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := startServer(t), newClock()
			one, two := s.gateway(testLease, c.now), s.gateway(testLease, c.now)
			read(t, one, "3")
			admit(t, one, reserve(1, amount(t, "1")), spending.Admitted)
			_, epoch := admit(t, two, reserve(2, amount(t, "2")), spending.Admitted)

			lose(s)
			if result, next := admit(t, one, reserve(3, amount(t, "1")), spending.Unavailable); result.RetryAfter != testLease || next <= epoch {
				t.Errorf("%+v, epoch %d after %d", result, next, epoch)
			}
			ticket, err := one.BeginReading(t.Context(), "user")
			if err != nil || ticket.Number != 0 {
				t.Errorf("a reading begins while the ledger waits: %+v %v", ticket, err)
			}
			hold := spending.Hold{User: "user", ID: spending.ID{2}, Amount: amount(t, "2")}
			if epochs, err := two.Renew(t.Context(), []spending.Hold{hold}, false); err != nil || epochs[0] != 0 {
				t.Errorf("the lost hold is known: %v %v", epochs, err)
			}
			if epochs, err := two.Renew(t.Context(), []spending.Hold{hold}, true); err != nil || epochs[0] <= epoch {
				t.Errorf("the lost hold does not come back: %v %v", epochs, err)
			}
			c.pass(testLease - time.Second)
			admit(t, two, reserve(3, amount(t, "1")), spending.Unavailable)
			two.Renew(t.Context(), []spending.Hold{hold}, false)
			c.pass(time.Second)
			admit(t, one, reserve(3, amount(t, "1")), spending.NeedsReading)
			read(t, one, "2.5")
			admit(t, one, reserve(3, amount(t, "1")), spending.Insufficient)
			admit(t, one, reserve(3, amount(t, "0.5")), spending.Admitted)
		})
	}
}

// After a failover the clock may be that of another machine.
func TestClockSetBackDoesNotProlongTheWaitAfterALoss(t *testing.T) {
	t.Parallel()
	s, c := startServer(t), newClock()
	l := s.gateway(testLease, c.now)
	admit(t, l, reserve(1, amount(t, "1")), spending.NeedsReading)
	s.Must("FLUSHALL")
	admit(t, l, reserve(1, amount(t, "1")), spending.Unavailable)
	c.pass(-time.Hour)
	if result, _ := admit(t, l, reserve(1, amount(t, "1")), spending.Unavailable); result.RetryAfter != testLease {
		t.Errorf("RetryAfter is %v, want %v", result.RetryAfter, testLease)
	}
	c.pass(testLease)
	admit(t, l, reserve(1, amount(t, "1")), spending.NeedsReading)
}

// A Redis that comes back with older data, such as a replica that was behind, has lost
// settlements without having lost the user.
func TestOlderDataIsLostData(t *testing.T) {
	t.Parallel()
	s, c := startServer(t), newClock()
	l := s.gateway(testLease, c.now)
	read(t, l, "3")
	older := s.copyData()
	_, epoch := admit(t, l, reserve(1, amount(t, "2")), spending.Admitted)
	l.Settle(t.Context(), "user", &spending.Settlement{ID: spending.ID{1}, Amount: amount(t, "2"), Word: spending.Costs, Cost: amount(t, "2"), Epoch: epoch})
	before, err := l.BeginReading(t.Context(), "user")
	if err != nil {
		t.Fatal(err)
	}
	s.restartWith(older)
	if s.Must("DBSIZE") == "0" {
		t.Fatal("nothing was loaded")
	}
	admit(t, l, reserve(2, amount(t, "2")), spending.Unavailable)
	c.pass(testLease)
	admit(t, l, reserve(2, amount(t, "2")), spending.NeedsReading)

	after, err := l.BeginReading(t.Context(), "user")
	if err != nil || after.Number != before.Number {
		t.Fatalf("the test shows nothing: %+v after %+v, %v", after, before, err)
	}
	l.EndReading(t.Context(), "user", before, spending.Balance{Amount: amount(t, "3"), Known: true})
	admit(t, l, reserve(2, amount(t, "2")), spending.NeedsReading)
}

func TestOlderEpochIsLostData(t *testing.T) {
	t.Parallel()
	s, c := startServer(t), newClock()
	l := s.gateway(testLease, c.now)
	_, first := admit(t, l, reserve(1, amount(t, "2")), spending.NeedsReading)
	older := s.copyData()
	s.Must("FLUSHALL")
	_, second := admit(t, l, reserve(1, amount(t, "2")), spending.Unavailable)
	s.restartWith(older)
	c.pass(testLease)
	if _, third := admit(t, l, reserve(1, amount(t, "2")), spending.Unavailable); first >= second || second >= third {
		t.Errorf("epochs %d, %d, %d", first, second, third)
	}
}

func TestSettlementOfALostHoldIsBookedOnce(t *testing.T) {
	t.Parallel()
	s, c := startServer(t), newClock()
	l := s.gateway(testLease, c.now)
	read(t, l, "3")
	r := reserve(1, amount(t, "1"))
	r.Budgets = []spending.Budget{{Key: "api", Window: spending.Month, Limit: amount(t, "9")}}
	_, epoch := admit(t, l, r, spending.Admitted)
	s.Must("FLUSHALL")
	settlement := &spending.Settlement{ID: r.ID, Amount: r.Amount, Budgets: r.Budgets, Word: spending.Costs, Cost: amount(t, "1"), Epoch: epoch}
	if settled, err := l.Settle(t.Context(), "user", settlement); err != nil || settled.Repeated {
		t.Errorf("%+v %v", settled, err)
	}
	c.pass(testLease)
	r.Dry, r.Reserve = true, false
	if result, _ := admit(t, l, r, spending.Admitted); result.Budgets[0].Spent != amount(t, "1") {
		t.Errorf("%+v", result.Budgets)
	}
}

func TestFreshGatewayBeginsInAnEmptyRedisAtOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	admit(t, s.gateway(testLease, nil), reserve(1, amount(t, "1")), spending.NeedsReading)
	s.Must("FLUSHALL")
	admit(t, s.gateway(testLease, nil), reserve(1, amount(t, "1")), spending.NeedsReading)
}

func TestUnreachableRedisAdmitsNobody(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	l := s.gateway(testLease, nil)
	read(t, l, "3")
	s.Kill()
	result, _, err := l.Admit(t.Context(), "user", reserve(1, amount(t, "1")))
	if err == nil || result.Outcome == spending.Admitted {
		t.Errorf("%+v %v", result, err)
	}
}

func TestRunningRequestsComeBackAfterALoss(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	l := s.gateway(3*time.Second, nil) // a busy machine renews late
	k := spending.NewKeeper(l, nil)
	read(t, l, "3")
	held, _, err := k.Admit(t.Context(), &spending.Ask{User: "user", Request: *reserve(0, amount(t, "2"))})
	if held == nil {
		t.Fatal(err)
	}
	s.Must("FLUSHALL")
	deadline := time.Now().Add(30 * time.Second)
	for { // until the hold has come back and the ledger does not wait any more
		read(t, l, "3")
		result, _, err := l.Admit(t.Context(), "user", &spending.Request{Dry: true})
		if err == nil && result.Outcome != spending.Unavailable && result.Known {
			if result.Available != amount(t, "1") {
				t.Errorf("%+v", result)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v %v", result, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	held.Settle(t.Context(), spending.Free, spending.Amount{})
}

// TestEvictedHoldsBlockNobody: a Redis that evicts keys has lost the holds of a user, and not
// their leases.
func TestEvictedHoldsBlockNobody(t *testing.T) {
	t.Parallel()
	s, c := startServer(t), newClock()
	l := s.gateway(testLease, c.now)
	read(t, l, "3")
	admit(t, l, reserve(1, amount(t, "1")), spending.Admitted)
	admit(t, l, reserve(2, amount(t, "1")), spending.Admitted)
	for _, key := range strings.Split(s.Must("KEYS", "*:user:user"), "\n") {
		s.Must("DEL", key)
	}
	hold := spending.Hold{User: "user", ID: spending.ID{2}, Amount: amount(t, "1")}
	if epochs, err := l.Renew(t.Context(), []spending.Hold{hold}, true); err != nil || epochs[0] == 0 {
		t.Fatalf("the running request does not get its hold back: %v %v", epochs, err)
	}
	read(t, l, "3")
	c.pass(testLease)
	admit(t, l, reserve(3, amount(t, "3")), spending.NeedsReading)
	read(t, l, "3")
	admit(t, l, reserve(3, amount(t, "3")), spending.Admitted)
}

func TestEveryKeyOfTheLedgerExpires(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	l := s.gateway(testLease, nil)
	read(t, l, "3")
	r := reserve(1, amount(t, "1"))
	r.Budgets = []spending.Budget{{Key: "api", Window: spending.Month, Limit: amount(t, "9")}}
	admit(t, l, r, spending.Admitted)
	for i := range 50 {
		l.Settle(t.Context(), fmt.Sprint("user", i), &spending.Settlement{ID: spending.ID{9}, Word: spending.Costs, Cost: amount(t, "1"), Budgets: r.Budgets})
	}
	brief := s.gateway(time.Millisecond, nil) // whose leases have run out by the next call
	for i := range 100 {
		brief.Admit(t.Context(), fmt.Sprint("brief", i%50), &spending.Request{ID: spending.ID{byte(i)}})
	}
	names := strings.Split(s.Must("KEYS", "*"), "\n")
	if len(names) < 100 {
		t.Fatalf("%d keys", len(names))
	}
	for _, name := range names {
		if s.Must("PTTL", name) == "-1" {
			t.Errorf("%s has no end", name)
		}
	}
}

// A cluster refuses a script whose keys belong to different nodes.
func TestAllKeysOfAUserBelongToOneNode(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--cluster-enabled", "yes")
	s.Must("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	deadline := time.Now().Add(30 * time.Second)
	for s.Command("SET", "probe", "1").Error() != nil {
		if time.Now().After(deadline) {
			t.Fatal("the cluster does not begin")
		}
		time.Sleep(20 * time.Millisecond)
	}
	l := s.gateway(testLease, nil)
	for i := range 100 {
		if _, _, err := l.Admit(t.Context(), fmt.Sprint("user", i), reserve(1, amount(t, "1"))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEachStepIsOneRoundTrip: every step is one script, which Redis knows after the first time.
func TestEachStepIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	k := spending.NewKeeper(s.gateway(testLease, nil), nil)
	calls := func() int { return s.Calls("evalsha") + s.Calls("eval") + s.Calls("fcall") + s.Calls("script|load") }
	budgets := []spending.Budget{{Key: "api", Window: spending.Hour, Limit: amount(t, "9")}, {Key: "api", Window: spending.Month, Limit: amount(t, "9")}}
	ask := &spending.Ask{User: "user", Request: *reserve(0, amount(t, "1"))}
	ask.Request.Budgets = budgets
	var held *spending.Held
	steps := []struct {
		name string
		trip int
		do   func()
	}{
		{"a reading", 2, func() {
			k.BeginReading(t.Context(), "user")(t.Context(), spending.Balance{Amount: amount(t, "5"), Known: true})
		}},
		{"an admission", 1, func() { held, _, _ = k.Admit(t.Context(), ask) }},
		{"a settlement", 1, func() { held.Settle(t.Context(), spending.Costs, amount(t, "0.10")) }},
		{"a look", 1, func() { k.Look(t.Context(), "user", budgets) }},
	}
	for _, step := range steps {
		step.do()
	}
	for _, step := range steps {
		before := calls()
		step.do()
		if n := calls() - before; n != step.trip {
			t.Errorf("%s takes %d scripts, want %d", step.name, n, step.trip)
		}
	}
	if settled, err := held.Settle(t.Context(), spending.Free, spending.Amount{}); err != nil || !settled.Repeated {
		t.Errorf("the test shows nothing: the request was not admitted: %+v %v", settled, err)
	}
}

// BenchmarkLedger is an admission and a settlement with Redis, one at a time and with many
// requests under way, which share round trips.
func BenchmarkLedger(b *testing.B) {
	client := redis.NewClient(redis.Options{Addresses: []string{startServer(b).Address()}}, 0)
	b.Cleanup(client.Release)
	k := spending.NewKeeper(redis.NewLedger(client, "tollgate:", testLease, nil), nil)
	round := func(b *testing.B, user string) {
		held, _, err := k.Admit(b.Context(), &spending.Ask{User: user})
		if err != nil {
			b.Error(err)
			return
		}
		held.Settle(b.Context(), spending.Free, spending.Amount{})
	}
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			round(b, "user")
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(64)
		var n atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			user := fmt.Sprint("user", n.Add(1))
			for pb.Next() {
				round(b, user)
			}
		})
	})
}
