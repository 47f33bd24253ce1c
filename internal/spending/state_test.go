package spending

import (
	"testing"
	"time"
)

func reserve(n byte, amount Amount) *Request {
	return &Request{ID: ID{n}, Amount: amount, Reserve: true, MaxAge: time.Minute, RefusalAge: time.Second}
}

func TestFreshUserNeedsAReadingFirst(t *testing.T) {
	t.Parallel()
	s := NewState(0)
	if result := s.Admit(0, reserve(1, Amount{}), 0); result.Outcome != NeedsReading {
		t.Errorf("%+v", result)
	}
	r := reserve(1, must(t, "1"))
	if r.PassUnknown = true; s.Admit(0, r, 0).Outcome != Admitted {
		t.Error("an unknown balance does not pass where it may")
	}
	old := reserve(2, Amount{})
	s.EndReading(0, s.BeginReading(0), Balance{must(t, "1"), true})
	if result := s.Admit(time.Minute.Milliseconds()+1, old, 0); result.Outcome != NeedsReading {
		t.Errorf("with an old balance: %+v", result)
	}
}

func TestRefusalNeedsANewBalance(t *testing.T) {
	t.Parallel()
	s := NewState(0)
	s.EndReading(0, s.BeginReading(0), Balance{must(t, "1"), true})
	if result := s.Admit(1000, reserve(1, must(t, "1.01")), 0); result.Outcome != Insufficient || result.InFlight || result.Available != must(t, "1") {
		t.Errorf("after a second: %+v", result)
	}
	if result := s.Admit(1001, reserve(1, must(t, "1.01")), 0); result.Outcome != NeedsReading {
		t.Errorf("later: %+v", result)
	}
	s.Admit(1000, reserve(2, must(t, "0.50")), 0)
	if result := s.Admit(1000, reserve(3, must(t, "0.51")), 0); result.Outcome != Insufficient || !result.InFlight {
		t.Errorf("with another request running: %+v", result)
	}
}

func TestRequiredMoneyIsNotHeld(t *testing.T) {
	t.Parallel()
	s := NewState(0)
	s.EndReading(0, s.BeginReading(0), Balance{must(t, "0.60"), true})
	first := reserve(1, must(t, "0.10"))
	first.Required = must(t, "0.50")
	for n, want := range []Outcome{Admitted, Admitted, Insufficient} {
		next := *first
		next.ID = ID{byte(n)}
		if result := s.Admit(0, &next, 0); result.Outcome != want {
			t.Errorf("request %d: got %+v, want %d", n, result, want)
		}
	}
}

func TestBalanceFromTheFutureDoesNotDecide(t *testing.T) {
	t.Parallel()
	now := at("2026-11-27T12:00:00Z")
	s := NewState(now)
	s.EndReading(now, s.BeginReading(now), Balance{must(t, "1"), true})
	if result := s.Admit(now-2*time.Minute.Milliseconds(), reserve(1, must(t, "1")), 0); result.Outcome != NeedsReading {
		t.Errorf("%+v", result)
	}
}

// The costs of the time before the first reading came back count, too: it may have begun
// before them.
// TestClockStepsLoseNoHold: the clock of a ledger with leases is set back by an hour, or on by
// a day, while a request runs.
func TestClockStepsLoseNoHold(t *testing.T) {
	t.Parallel()
	budgets := []Budget{{"api", Hour, must(t, "9")}}
	for _, step := range []time.Duration{-time.Hour, -clockSlackTime, time.Hour, 24 * time.Hour} {
		now := at("2026-11-27T12:30:00Z")
		s := NewState(now)
		s.EndReading(now, s.BeginReading(now), Balance{must(t, "1"), true})
		r := &Request{ID: ID{1}, Amount: must(t, "1"), Reserve: true, MaxAge: time.Minute, Budgets: budgets}
		if result := s.Admit(now, r, DefaultLease); result.Outcome != Admitted {
			t.Fatalf("%+v", result)
		}
		now += step.Milliseconds()
		other := &Request{ID: ID{2}, Amount: must(t, "1"), Reserve: true, MaxAge: time.Minute}
		if result := s.Admit(now, other, DefaultLease); result.Outcome == Admitted {
			t.Errorf("after a step of %v the money is held by nobody: %+v", step, result)
		}
		// The gateway renews the hold within a third of the lease, and reads the balance.
		if !s.Renew(now, &Hold{ID: r.ID, Amount: r.Amount, Budgets: budgets}, DefaultLease, false) {
			t.Errorf("after a step of %v the hold is lost", step)
		}
		s.EndReading(now, s.BeginReading(now), Balance{must(t, "1"), true})
		if result := s.Admit(now, other, DefaultLease); result.Outcome != Insufficient {
			t.Errorf("after a step of %v and a reading: %+v", step, result)
		}
		for i, repeated := range []bool{false, true} {
			settled := s.Settle(now, &Settlement{ID: r.ID, Amount: r.Amount, Budgets: budgets, Word: Costs, Cost: must(t, "1")})
			if settled.Repeated != repeated {
				t.Errorf("after a step of %v, settlement %d: %+v", step, i+1, settled)
			}
		}
		dry := s.Admit(now, &Request{Budgets: budgets, Dry: true}, 0)
		if use := dry.Budgets[0]; use.Spent != must(t, "1") || !use.Held.IsZero() {
			t.Errorf("after a step of %v: %+v", step, use)
		}
	}
}

// TestClockSlackIsAMinute: clocks of several machines may differ by that.
func TestClockSlackIsAMinute(t *testing.T) {
	t.Parallel()
	now := at("2026-11-27T12:30:00Z")
	for _, c := range []struct {
		ahead time.Duration
		want  Outcome
	}{{clockSlackTime, Admitted}, {clockSlackTime + time.Millisecond, NeedsReading}} {
		s := NewState(now)
		s.EndReading(now, s.BeginReading(now), Balance{must(t, "1"), true})
		r := &Request{ID: ID{1}, Amount: must(t, "1"), Reserve: true, MaxAge: time.Hour}
		if result := s.Admit(now-c.ahead.Milliseconds(), r, 0); result.Outcome != c.want {
			t.Errorf("a balance that was read %v in the future: got %+v, want outcome %d", c.ahead, result, c.want)
		}
	}
}

// clockSlackTime is how far in the future a balance may have been read.
const clockSlackTime = time.Minute

func TestCostDuringTheFirstReadingCounts(t *testing.T) {
	t.Parallel()
	s := NewState(0)
	pass := reserve(1, must(t, "1"))
	pass.PassUnknown = true
	s.Admit(0, pass, 0)
	ticket := s.BeginReading(0)
	s.Settle(0, &Settlement{ID: pass.ID, Amount: pass.Amount, Word: Costs, Cost: must(t, "1")})
	s.EndReading(0, ticket, Balance{must(t, "1"), true})
	if result := s.Admit(0, reserve(2, must(t, "1")), 0); result.Outcome != NeedsReading {
		t.Errorf("%+v", result)
	}
}

func TestCostAboveTheHoldIsBookedInFull(t *testing.T) {
	t.Parallel()
	s := NewState(0)
	s.EndReading(0, s.BeginReading(0), Balance{must(t, "10"), true})
	r := reserve(1, must(t, "1"))
	s.Admit(0, r, 0)
	if settled := s.Settle(0, &Settlement{ID: r.ID, Amount: r.Amount, Word: Costs, Cost: must(t, "4")}); !settled.OverHold || !settled.NeedsReading {
		t.Errorf("%+v", settled)
	}
	if result := s.Admit(0, reserve(2, must(t, "6")), 0); result.Outcome != Admitted || result.Available != must(t, "6") {
		t.Errorf("%+v", result)
	}
}

func TestUserCannotRunMoreThanMaxHolds(t *testing.T) {
	t.Parallel()
	s := NewState(0)
	for i := range maxHolds {
		if result := s.Admit(0, &Request{ID: ID{byte(i), byte(i >> 8)}}, time.Second); result.Outcome != Admitted {
			t.Fatalf("%d: %+v", i, result)
		}
	}
	if result := s.Admit(0, &Request{ID: ID{0xff, 0xff}}, time.Second); result.Outcome != Busy {
		t.Errorf("%+v", result)
	}
	if result := s.Admit(1000, &Request{ID: ID{0xff, 0xff}}, time.Second); result.Outcome != Admitted {
		t.Errorf("after the leases: %+v", result)
	}
}

func TestHugeCostsNeitherOverflowNorAdmit(t *testing.T) {
	t.Parallel()
	s := NewState(0)
	s.EndReading(0, s.BeginReading(0), Balance{maxAmount, true})
	for i := range byte(100) {
		r := reserve(i, Amount{})
		r.PassUnknown, r.MaxAge = true, 0
		s.Admit(1, r, 0)
		s.Settle(1, &Settlement{ID: r.ID, Word: Costs, Cost: maxAmount})
		if i%5 == 0 {
			s.BeginReading(1)
		}
	}
	if result := s.Admit(1, reserve(200, Amount{}), 0); result.Outcome != NeedsReading || result.Available.whole > 0 || result.Available.whole < -(1<<53) {
		t.Errorf("%+v", result)
	}
}

func TestIdleStateIsForgotten(t *testing.T) {
	t.Parallel()
	s := NewState(0)
	r := reserve(1, Amount{})
	r.PassUnknown = true
	s.Admit(0, r, 0)
	if s.IsIdle(idleMemory) {
		t.Error("with a hold")
	}
	s.Settle(0, &Settlement{ID: r.ID})
	if s.IsIdle(idleMemory-1) || !s.IsIdle(idleMemory) {
		t.Error("without a hold")
	}
	spend(s, 0, 2, Amount{}, Amount{}, Budget{Key: "api", Window: Day, Limit: Amount{1, 0}})
	if s.IsIdle(24*time.Hour.Milliseconds()-1) || !s.IsIdle(24*time.Hour.Milliseconds()) {
		t.Error("with a budget")
	}
}

func FuzzParseState(f *testing.F) {
	s := NewState(5)
	s.Admit(5, &Request{ID: ID{1}, Budgets: []Budget{{"api", Hour, Amount{1, 0}}}}, time.Second)
	s.BeginReading(7)
	f.Add(s.AppendBinary(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := ParseState(b)
		if !ok {
			return
		}
		again, ok := ParseState(s.AppendBinary(nil))
		if !ok || len(again.holds) != len(s.holds) || again.held != s.held || again.seq != s.seq {
			t.Errorf("%+v became %+v", s, again)
		}
	})
}
