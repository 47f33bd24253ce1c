package spending

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// remote is a ledger that may be away, and may lose its data.
type remote struct {
	mu      sync.Mutex
	users   map[string]*State
	epoch   uint64
	away    bool
	damaged string // the user whose State cannot be read
	mumbles bool   // takes every call, and returns an error
	asked   []Amount
	// restoring, if it is not nil, is called before a lost hold is made again.
	restoring func()
}

var errAway = errors.New("away")

func newRemote() *remote { return &remote{users: map[string]*State{}, epoch: 1} }

func (r *remote) do(user string, f func(s *State, now int64)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away || user == r.damaged {
		return errAway
	}
	now := time.Now().UnixMilli()
	s := r.users[user]
	if s == nil {
		s = NewState(now)
		r.users[user] = s
	}
	s.Enter(r.epoch)
	f(s, now)
	if r.mumbles {
		return errAway
	}
	return nil
}

func (r *remote) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users = map[string]*State{}
	r.epoch++
}

func (r *remote) set(away, mumbles bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away, r.mumbles = away, mumbles
}

// damage makes the State of one user unreadable, and lets the ledger be there again.
func (r *remote) damage(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away, r.damaged = false, user
}

func (r *remote) Admit(_ context.Context, user string, q *Request) (result Result, _ uint64, err error) {
	err = r.do(user, func(s *State, now int64) { result = s.Admit(now, q, r.Lease()) })
	if err == nil && result.Outcome == Admitted {
		r.mu.Lock()
		r.asked = append(r.asked, q.Amount)
		r.mu.Unlock()
	}
	return result, r.epoch, err
}

func (r *remote) Settle(_ context.Context, user string, t *Settlement) (settled Settled, err error) {
	err = r.do(user, func(s *State, now int64) { settled = s.Settle(now, t) })
	return settled, err
}

func (r *remote) Renew(_ context.Context, holds []Hold, restore bool) ([]uint64, error) {
	if restore && r.restoring != nil {
		r.restoring()
	}
	epochs := make([]uint64, len(holds))
	for i := range holds {
		err := r.do(holds[i].User, func(s *State, now int64) {
			if s.Renew(now, &holds[i], r.Lease(), restore) {
				epochs[i] = r.epoch
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return epochs, nil
}

func (r *remote) BeginReading(_ context.Context, user string) (t Ticket, err error) {
	err = r.do(user, func(s *State, now int64) { t = s.BeginReading(now) })
	return t, err
}

func (r *remote) EndReading(_ context.Context, user string, t Ticket, b Balance) error {
	return r.do(user, func(s *State, now int64) { s.EndReading(now, t, b) })
}

func (r *remote) Lease() time.Duration { return DefaultLease }

// held is what the ledger holds for the user now.
func (r *remote) held(user string) (held Amount) {
	_ = r.do(user, func(s *State, now int64) { s.expire(now); held = s.held })
	return held
}

// asking asks for an amount. The provider always says the same balance, after a while.
func asking(k *Keeper, user string, amount Amount, balance string, reads *atomic.Int64) *Ask {
	d, _ := ParseRequired(balance)
	return &Ask{
		User:    user,
		Request: Request{Amount: amount, Reserve: true, MaxAge: time.Minute, RefusalAge: time.Second},
		Reread: func(ctx context.Context) error {
			end := k.BeginReading(ctx, user)
			time.Sleep(100 * time.Millisecond)
			if reads != nil {
				reads.Add(1)
			}
			end(ctx, Balance{d, true})
			return nil
		},
	}
}

func TestBurstOfAFreshUserReadsOnceAndPassesWhatIsThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(NewLocal(time.Now), nil)
		var reads, admitted, refused atomic.Int64
		var burst sync.WaitGroup
		for range 300 {
			burst.Go(func() {
				held, result, err := k.Admit(t.Context(), asking(k, "user", must(t, "0.50"), "8.50", &reads))
				switch {
				case err != nil:
					t.Error(err)
				case held != nil:
					admitted.Add(1)
				case result.Outcome == Insufficient:
					refused.Add(1)
				default:
					t.Errorf("%+v", result)
				}
			})
		}
		burst.Wait()
		if admitted.Load() != 17 || refused.Load() != 283 || reads.Load() != 1 || k.Running() != 17 {
			t.Errorf("admitted %d, refused %d, read %d times, %d run", admitted.Load(), refused.Load(), reads.Load(), k.Running())
		}
	})
}

func TestRequestsOfAUserGoOnInTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(time.Minute) // the goroutine of the Keeper ends
		r := newRemote()
		k := NewKeeper(r, nil)
		var done sync.WaitGroup
		for i := range int64(20) {
			done.Go(func() {
				held, _, err := k.Admit(t.Context(), asking(k, "user", Amount{i, 0}, "1000", nil))
				if err != nil || held == nil {
					t.Error(held, err)
					return
				}
				time.Sleep(time.Second)
				held.Settle(t.Context(), Free, Amount{})
			})
			synctest.Wait()
		}
		done.Wait()
		for i, amount := range r.asked {
			if amount.whole != int64(i) {
				t.Errorf("number %d was admitted as number %d", amount.whole, i)
			}
		}
		if len(r.asked) != 20 {
			t.Errorf("%d were admitted", len(r.asked))
		}
	})
}

func TestLaterRequestDoesNotTakeTheMoneyOfAnEarlierOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(NewLocal(time.Now), nil)
		k.BeginReading(t.Context(), "user")(t.Context(), Balance{must(t, "1"), true})
		time.Sleep(5 * time.Second)
		first := make(chan *Held, 1)
		go func() {
			held, _, _ := k.Admit(t.Context(), asking(k, "user", must(t, "2"), "2", nil))
			first <- held
		}()
		synctest.Wait()
		later, result, _ := k.Admit(t.Context(), asking(k, "user", must(t, "1"), "2", nil))
		if later != nil || <-first == nil {
			t.Errorf("the later request was admitted first: %+v", result)
		}
	})
}

func TestSlowProviderIsAskedOnceBeforeARefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(NewLocal(time.Now), nil)
		var reads atomic.Int64
		ask := asking(k, "user", must(t, "2"), "1", &reads)
		ask.Reread = func(ctx context.Context) error {
			end := k.BeginReading(ctx, "user")
			reads.Add(1)
			time.Sleep(2 * time.Second) // the balance is older than RefusalAge when it comes
			end(ctx, Balance{must(t, "1"), true})
			return nil
		}
		if _, result, _ := k.Admit(t.Context(), ask); result.Outcome != Insufficient || reads.Load() != 1 {
			t.Errorf("%+v after %d readings", result, reads.Load())
		}
	})
}

func TestOneUsersLineHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(NewLocal(time.Now), nil)
		slow := asking(k, "slow", Amount{1, 0}, "1", nil)
		slow.Reread = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for range 100 {
			go k.Admit(ctx, slow)
		}
		synctest.Wait()
		begun := time.Now()
		for i := range 200 {
			user := fmt.Sprint("user", i)
			if held, _, _ := k.Admit(t.Context(), asking(k, user, Amount{1, 0}, "1", nil)); held == nil {
				t.Errorf("%s was refused", user)
			}
		}
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestCanceledRequestLeavesTheLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(NewLocal(time.Now), nil)
		first := asking(k, "user", Amount{1, 0}, "2", nil)
		reread := first.Reread
		first.Reread = func(ctx context.Context) error { time.Sleep(time.Minute); return reread(ctx) }
		go k.Admit(t.Context(), first)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if held, result, err := k.Admit(ctx, first); held != nil || err != nil || result.Outcome != NeedsReading {
			t.Errorf("%v %+v %v", held, result, err)
		}
		if held, _, _ := k.Admit(t.Context(), asking(k, "user", Amount{1, 0}, "2", nil)); held == nil {
			t.Error("the line did not go on")
		}
		synctest.Wait()
		if k.lines.exists("user") {
			t.Error("the line stays")
		}
	})
}

func TestFailedReadingUsesTheOldBalance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal(time.Now)
		k := NewKeeper(l, nil)
		ask := asking(k, "user", must(t, "1"), "3", nil)
		if held, _, _ := k.Admit(t.Context(), ask); held == nil {
			t.Fatal("refused")
		}
		time.Sleep(5 * time.Minute)
		ask.Reread = func(context.Context) error { return errAway }
		if held, result, _ := k.Admit(t.Context(), ask); held != nil || result.Outcome != NeedsReading {
			t.Errorf("admitted by a balance older than MaxStale: %+v", result)
		}
		ask.MaxStale = 15 * time.Minute
		held, result, _ := k.Admit(t.Context(), ask)
		if held == nil {
			t.Fatalf("%+v", result)
		}
		held.Settle(t.Context(), Costs, must(t, "1"))
		if held, result, _ := k.Admit(t.Context(), ask); held == nil {
			t.Errorf("the third: %+v", result)
		}
		if held, result, _ := k.Admit(t.Context(), ask); held != nil || result.Outcome != NeedsReading {
			t.Errorf("nobody knows whether the third is still there: %+v", result)
		}
		ask.Request.Amount = must(t, "1.5")
		if held, result, _ := k.Admit(t.Context(), ask); held != nil || result.Outcome != Insufficient {
			t.Errorf("two hold 2 of 3 for sure: %+v", result)
		}
		ask.User = "unknown"
		if held, result, _ := k.Admit(t.Context(), ask); held != nil || result.Outcome != NeedsReading {
			t.Errorf("unknown: %+v", result)
		}
		ask.PassUnknown = true
		if held, result, _ := k.Admit(t.Context(), ask); held == nil {
			t.Errorf("unknown, and may pass: %+v", result)
		}
	})
}

func TestRequestIsSettledOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := NewKeeper(NewLocal(time.Now), nil)
		held, _, _ := k.Admit(t.Context(), asking(k, "user", must(t, "1"), "3", nil))
		var booked atomic.Int64
		var settling sync.WaitGroup
		for range 20 {
			settling.Go(func() {
				if settled, _ := held.Settle(t.Context(), Costs, must(t, "1")); !settled.Repeated {
					booked.Add(1)
				}
			})
		}
		settling.Wait()
		result, _, _ := k.ledger.Admit(t.Context(), "user", &Request{Dry: true})
		if booked.Load() != 1 || result.Available != must(t, "2") || k.Running() != 0 {
			t.Errorf("booked %d times: %+v, %d run", booked.Load(), result, k.Running())
		}
	})
}

func TestHoldIsRenewedWhileItsRequestRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(time.Minute) // the goroutine of the Keeper ends
		r := newRemote()
		k := NewKeeper(r, nil)
		held, _, _ := k.Admit(t.Context(), asking(k, "user", must(t, "1"), "3", nil))
		time.Sleep(time.Hour)
		if r.held("user") != must(t, "1") {
			t.Errorf("after an hour %s is held", r.held("user"))
		}
		held.Settle(t.Context(), Free, Amount{})
		if !r.held("user").IsZero() {
			t.Error("the hold stays")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if k.active {
			t.Error("the goroutine goes on with nothing to do")
		}
	})
}

func TestRunningHoldsComeBackIntoALedgerThatLostThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(time.Minute) // the goroutine of the Keeper ends
		r := newRemote()
		k := NewKeeper(r, nil)
		first, _, _ := k.Admit(t.Context(), asking(k, "user", must(t, "1"), "5", nil))
		second, _, _ := k.Admit(t.Context(), asking(k, "user", must(t, "2"), "5", nil))
		r.lose()
		if settled, err := second.Settle(t.Context(), Costs, must(t, "2")); err != nil || settled.Repeated {
			t.Errorf("a settlement before the hold has come back: %+v %v", settled, err)
		}
		time.Sleep(DefaultLease / 2)
		if r.held("user") != must(t, "1") {
			t.Errorf("%s is held", r.held("user"))
		}
		first.Settle(t.Context(), Free, Amount{})
		if !r.held("user").IsZero() {
			t.Error("a hold stays")
		}
	})
}

// TestSettledHoldIsNotRestored: a request ends while the holds that the ledger lost are made
// again. It has to wait: its hold would come back, and nobody would settle it.
func TestSettledHoldIsNotRestored(t *testing.T) {
	t.Parallel()
	r := newRemote()
	k := NewKeeper(r, nil)
	held, _, _ := k.Admit(t.Context(), asking(k, "user", must(t, "1"), "5", nil))
	r.lose()
	settled := make(chan struct{})
	r.restoring = func() {
		go func() {
			held.Settle(t.Context(), Costs, must(t, "1"))
			close(settled)
		}()
		select {
		case <-settled:
			t.Error("the settlement overtakes the hold that comes back")
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err := k.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-settled
	if !r.held("user").IsZero() {
		t.Errorf("%s is held by a request that has ended", r.held("user"))
	}
}

func TestSettlementIsRepeatedUntilTheLedgerTakesIt(t *testing.T) {
	t.Parallel()
	for _, mumbles := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			defer time.Sleep(time.Minute) // the goroutine of the Keeper ends
			r := newRemote()
			var late atomic.Int64
			k := NewKeeper(r, func(Hold, Settled) { late.Add(1) })
			budgets := []Budget{{"api", Day, must(t, "9")}}
			ask := asking(k, "user", must(t, "1"), "5", nil)
			ask.Request.Budgets = budgets
			held, _, _ := k.Admit(t.Context(), ask)
			r.set(!mumbles, mumbles)
			if _, err := held.Settle(t.Context(), Costs, must(t, "1")); err == nil {
				t.Fatal("no error")
			}
			time.Sleep(10 * time.Minute) // far beyond the lease
			r.set(false, false)
			time.Sleep(10 * time.Second)
			result, _, _ := r.Admit(t.Context(), "user", &Request{Dry: true, Budgets: budgets})
			if use := result.Budgets[0]; use.Spent != must(t, "1") || !use.Held.IsZero() || late.Load() != 1 {
				t.Errorf("mumbles %v: %+v, %d late", mumbles, use, late.Load())
			}
		})
	}
}

func TestSettlementThatFailsDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		k := NewKeeper(r, nil)
		var held []*Held
		for range maxFailures + 2 {
			h, _, _ := k.Admit(t.Context(), asking(k, "damaged", must(t, "1"), "100", nil))
			held = append(held, h)
		}
		h, _, _ := k.Admit(t.Context(), asking(k, "user", must(t, "1"), "100", nil))
		held = append(held, h)
		r.set(true, false)
		for _, h := range held {
			h.Settle(t.Context(), Costs, must(t, "1"))
		}
		r.damage("damaged")
		time.Sleep(DefaultLease - time.Second) // the hold would end with its lease
		if !r.held("user").IsZero() {
			t.Error("the settlements of another user, which fail, hold it up")
		}
		r.damage("")
		time.Sleep(time.Minute)
		synctest.Wait()
		if k.active {
			t.Error("the goroutine goes on with nothing to do")
		}
	})
}

func TestAdmissionWithoutAnAnswerLeavesNoHold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		defer time.Sleep(time.Minute) // the goroutine of the Keeper ends
		r := newRemote()
		k := NewKeeper(r, nil)
		r.set(false, true)
		if held, _, err := k.Admit(t.Context(), &Ask{User: "user", Request: Request{Amount: must(t, "1")}}); held != nil || err == nil {
			t.Fatal("a ledger that does not answer admits")
		}
		if r.held("user").IsZero() {
			t.Fatal("the test shows nothing")
		}
		r.set(false, false)
		time.Sleep(DefaultLease/3 + time.Second)
		if !r.held("user").IsZero() || k.Running() != 0 {
			t.Errorf("%s is held, %d run", r.held("user"), k.Running())
		}
	})
}
