package spending

import (
	"math/rand/v2"
	"testing"
	"time"
)

func must(t *testing.T, text string) Amount {
	t.Helper()
	a, err := ParseRequired(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func at(text string) int64 {
	parsed, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return parsed.UnixMilli()
}

func TestWindowsBeginAndEndInUTC(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		window          Window
		now, start, end string
	}{
		{Hour, "2026-11-27T12:59:59Z", "2026-11-27T12:00:00Z", "2026-11-27T13:00:00Z"},
		{Hour, "2026-11-27T13:00:00Z", "2026-11-27T13:00:00Z", "2026-11-27T14:00:00Z"},
		{Day, "2026-11-27T23:30:00-02:00", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z"},
		{Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
	} {
		if start, end := c.window.bounds(at(c.now)); start != at(c.start) || end != at(c.end) {
			t.Errorf("%s of %s: got %d to %d", c.window, c.now, start, end)
		}
	}
}

// spend admits and settles a request, and reports whether it was admitted.
func spend(s *State, now int64, n byte, amount, cost Amount, budgets ...Budget) bool {
	r := &Request{ID: ID{n}, Amount: amount, Budgets: budgets}
	if s.Admit(now, r, 0).Outcome != Admitted {
		return false
	}
	s.Settle(now, &Settlement{ID: r.ID, Amount: amount, Budgets: budgets, Word: Costs, Cost: cost})
	return true
}

func TestBudgetCountsHoldsAndCostsAndResets(t *testing.T) {
	t.Parallel()
	now := at("2026-11-27T12:30:00Z")
	s := NewState(now)
	b := Budget{Key: "api", Window: Hour, Limit: must(t, "1.00")}
	if !spend(s, now, 1, must(t, "0.50"), must(t, "0.40"), b) {
		t.Fatal("refused at the beginning")
	}
	running := &Request{ID: ID{2}, Amount: must(t, "0.50"), Budgets: []Budget{b}}
	if result := s.Admit(now, running, 0); result.Outcome != Admitted {
		t.Fatalf("%+v", result)
	}
	third := &Request{ID: ID{3}, Amount: must(t, "0.11"), Budgets: []Budget{b}}
	result := s.Admit(now, third, 0)
	if result.Outcome != OverBudget || !result.InFlight || result.Over.Spent != must(t, "0.40") || result.Over.Held != must(t, "0.50") || result.Over.ResetsAt.UnixMilli() != at("2026-11-27T13:00:00Z") {
		t.Errorf("0.90 of 1.00 is used: %+v", result)
	}
	s.Settle(now, &Settlement{ID: running.ID, Amount: running.Amount, Budgets: running.Budgets, Word: Unsaid})
	if result := s.Admit(now, third, 0); result.Outcome != Admitted {
		t.Errorf("a request without Tollgate-Cost counts: %+v", result)
	}
	s.Settle(now, &Settlement{ID: third.ID, Amount: third.Amount, Budgets: third.Budgets, Word: Costs, Cost: must(t, "5")})
	if result := s.Admit(now, third, 0); result.Outcome != OverBudget || result.InFlight || result.Over.Spent != must(t, "5.40") {
		t.Errorf("a cost above the hold is not booked in full: %+v", result)
	}
	now = at("2026-11-27T13:00:00Z")
	if !spend(s, now, 4, must(t, "1.00"), Amount{}, b) {
		t.Error("refused in the next hour")
	}
}

// A long request whose window turns counts where it ends. Its hold counts in both windows,
// so that neither is exceeded.
func TestWindowThatTurnsDuringACall(t *testing.T) {
	t.Parallel()
	now := at("2026-11-27T12:59:00Z")
	s := NewState(now)
	b := []Budget{{Key: "api", Window: Hour, Limit: must(t, "1.00")}}
	long := &Request{ID: ID{1}, Amount: must(t, "0.80"), Budgets: b}
	s.Admit(now, long, 0)
	now = at("2026-11-27T13:01:00Z")
	other := &Request{ID: ID{2}, Amount: must(t, "0.30"), Budgets: b}
	if result := s.Admit(now, other, 0); result.Outcome != OverBudget || !result.InFlight {
		t.Errorf("the hold is forgotten when the window turns: %+v", result)
	}
	s.Settle(now, &Settlement{ID: long.ID, Amount: long.Amount, Budgets: b, Word: Costs, Cost: must(t, "0.80")})
	if result := s.Admit(now, other, 0); result.Outcome != OverBudget || result.InFlight || result.Over.Spent != must(t, "0.80") {
		t.Errorf("the cost does not count where the request ended: %+v", result)
	}
}

func TestClockThatIsSetBackGivesNoSecondBudget(t *testing.T) {
	t.Parallel()
	now := at("2026-11-27T13:00:00Z")
	s := NewState(now)
	b := Budget{Key: "api", Window: Hour, Limit: must(t, "1.00")}
	spend(s, now, 1, must(t, "1"), must(t, "1"), b)
	for _, moved := range []string{"2026-11-27T12:59:59Z", "2026-11-27T13:00:01Z"} {
		if spend(s, at(moved), 2, must(t, "1"), must(t, "1"), b) {
			t.Errorf("the budget was given twice, at %s", moved)
		}
	}
	again := &Request{ID: ID{3}, Amount: must(t, "1"), Budgets: []Budget{b}}
	if result := s.Admit(at("2026-11-27T12:59:59Z"), again, 0); result.Over.ResetsAt.UnixMilli() != at("2026-11-27T14:00:00Z") {
		t.Errorf("got a budget that resets at %v, want the end of the window in which it was spent", result.Over.ResetsAt.UTC())
	}
	far := NewState(at("2099-01-01T00:00:00Z"))
	spend(far, at("2099-01-01T00:00:00Z"), 1, must(t, "1"), must(t, "1"), b)
	spend(far, now, 2, must(t, "1"), must(t, "1"), b)
	if !spend(far, at("2026-11-27T14:00:00Z"), 3, must(t, "1"), must(t, "1"), b) {
		t.Error("a clock that was in 2099 once blocks the budget until then")
	}
}

func TestSeveralBudgetsMustAllCover(t *testing.T) {
	t.Parallel()
	now := at("2026-11-27T12:30:00Z")
	s := NewState(now)
	hour, day := Budget{"api", Hour, must(t, "1")}, Budget{"api", Day, must(t, "1.5")}
	spend(s, now, 1, must(t, "1"), must(t, "1"), hour, day)
	r := &Request{ID: ID{2}, Amount: must(t, "1"), Budgets: []Budget{hour, day}}
	if result := s.Admit(now, r, 0); result.Outcome != OverBudget || result.Over.Budget != day {
		t.Errorf("the budget that resets last is not named: %+v", result.Over)
	}
	if result := s.Admit(at("2026-11-27T13:30:00Z"), r, 0); result.Outcome != OverBudget || result.Over.Budget != day {
		t.Errorf("the day's budget does not count: %+v", result)
	}
	dry := s.Admit(at("2026-11-27T13:30:00Z"), &Request{Budgets: []Budget{hour, day}, Dry: true}, 0)
	if dry.Outcome != Admitted || len(dry.Budgets) != 2 || !dry.Budgets[0].Spent.IsZero() || dry.Budgets[1].Spent != must(t, "1") {
		t.Errorf("%+v", dry)
	}
}

func TestRequestWithoutHoldNeedsSomethingLeft(t *testing.T) {
	t.Parallel()
	now := at("2026-11-27T12:30:00Z")
	s := NewState(now)
	b := Budget{"api", Hour, must(t, "1")}
	if !spend(s, now, 1, Amount{}, must(t, "0.99"), b) || !spend(s, now, 2, Amount{}, must(t, "0.01"), b) {
		t.Error("refused with something left")
	}
	if spend(s, now, 3, Amount{}, Amount{}, b) {
		t.Error("admitted with nothing left")
	}
}

// TestRandomSpendingStaysWithinEveryWindow: with costs within their holds, what is booked in
// any window never exceeds its limit.
func TestRandomSpendingStaysWithinEveryWindow(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 3))
	limits := []Budget{{"a", Hour, micro(3_000_000)}, {"a", Day, micro(9_000_000)}, {"a", Month, micro(40_000_000)}}
	for range 500 {
		now := at("2026-11-27T12:30:00Z") + r.Int64N(1e10)
		s := NewState(now)
		booked := map[Window]map[int64]int64{Hour: {}, Day: {}, Month: {}}
		var running []Request
		refused := 0
		for i := range 200 {
			now += r.Int64N(1_200_000)
			if r.IntN(2) == 0 {
				q := Request{ID: ID{byte(i), byte(i >> 8)}, Amount: micro(r.Int64N(1_500_000)), Budgets: limits[:1+r.IntN(3)]}
				if s.Admit(now, &q, 0).Outcome == Admitted {
					running = append(running, q)
				} else {
					refused++
				}
			} else if len(running) > 0 {
				q := running[0]
				running = running[1:]
				cost := q.Amount.parts/1_000_000 + q.Amount.whole*1_000_000
				s.Settle(now, &Settlement{ID: q.ID, Amount: q.Amount, Budgets: q.Budgets, Word: Costs, Cost: q.Amount})
				for _, b := range q.Budgets {
					start, _ := b.Window.bounds(now)
					if booked[b.Window][start] += cost; b.Limit.Less(micro(booked[b.Window][start])) {
						t.Fatalf("seed %d: %d in the %s", seed, booked[b.Window][start], b.Window)
					}
				}
			}
		}
		if refused == 0 {
			t.Fatalf("seed %d: nothing was refused", seed)
		}
	}
}
