package spending

import (
	"math"
	"slices"
	"time"
)

const (
	// maxClosed is the maximum number of concurrent readings of one user that have a sum of
	// their own. It bounds the sums of a State: see maxWholeDigits.
	maxClosed = 5
	// lapsedMemory is how long a hold is remembered whose lease ran out. A gateway that was
	// frozen settles such a hold late, and its cost must not get lost.
	lapsedMemory = int64(time.Hour / time.Millisecond)
	// idleMemory is how long a State without holds is kept for its balance.
	idleMemory = int64(10 * time.Minute / time.Millisecond)
	// clockSlack is how far in the future a balance may have been read.
	clockSlack = int64(time.Minute / time.Millisecond)
)

// State is what is known of one user's money. Times are Unix milliseconds of the ledger's
// clock. Use NewState.
type State struct {
	epoch uint64
	// seq is the newest number given out. applied is the ticket of the newest reading that
	// has come back.
	seq, applied uint64

	balance Amount
	known   bool
	readAt  int64 // when the reading began

	// holds are the running requests, and held is the sum of their amounts.
	holds map[ID]hold
	held  Amount
	// lease is the earliest time at which a lease may end, or 0 if there are none.
	lease int64

	// open is what was settled since the newest reading began. closed is what was settled
	// before that, in order of the numbers.
	open   Amount
	closed []settledBefore

	// lapsed has the holds whose lease ran out, and the time until which each is remembered.
	lapsed map[ID]int64

	accounts []account
	// keepUntil is the time from which the State may be forgotten, if nothing is held.
	keepUntil int64
}

// hold is a running request.
type hold struct {
	amount  Amount
	expires int64 // 0 if it has no lease
	budgets []Budget
}

// settledBefore is what was settled between the begin of the previous reading and the begin
// of the reading with this number.
type settledBefore struct {
	number uint64
	sum    Amount
}

// NewState returns the State of an unknown user. Its numbers begin with the time, so that a
// ticket of an earlier State of this user, which was forgotten, is not valid here.
func NewState(now int64) *State {
	first := uint64(now) * 1000
	return &State{seq: first, applied: first}
}

// Enter sets the epoch of the State. If the epoch changes, the ledger may have lost
// settlements, so the balance is unknown until a reading that begins now.
func (s *State) Enter(epoch uint64) {
	if s.epoch == epoch {
		return
	}
	s.epoch, s.applied, s.known, s.balance, s.readAt = epoch, s.seq, false, Amount{}, 0
	s.open, s.closed = Amount{}, nil
}

// Admit decides about a request, and takes its hold. With lease 0 the hold lives until it
// is settled. Admit takes constant time, except when a lease has ended.
func (s *State) Admit(now int64, r *Request, lease time.Duration) Result {
	s.expire(now)
	s.keep(now)
	result := s.decide(now, r)
	if result.Outcome == Admitted && !r.Dry {
		s.take(now, r, lease)
	}
	return result
}

// decide is Admit without the hold.
func (s *State) decide(now int64, r *Request) Result {
	result := s.view(now, r)
	if _, repeated := s.holds[r.ID]; repeated {
		result.Outcome = Admitted
		return result
	}
	switch {
	case len(s.holds) >= maxHolds:
		result.Outcome = Busy
	case s.isOverBudget(now, r, &result):
		result.Outcome = OverBudget
	case !r.Reserve:
		result.Outcome = Admitted
	default:
		s.decideByBalance(r, &result)
	}
	return result
}

// view fills in what does not depend on the decision.
func (s *State) view(now int64, r *Request) Result {
	result := Result{Known: s.known}
	if s.known {
		result.Unread = s.unread()
		result.Available = s.balance.Sub(s.held).Sub(result.Unread)
		result.Age = s.age(now)
	}
	if r.Dry {
		for _, b := range r.Budgets {
			result.Budgets = append(result.Budgets, s.use(now, b))
		}
	}
	return result
}

// age returns the age of the balance. A balance from the future is infinitely old: the
// clock was set back.
func (s *State) age(now int64) time.Duration {
	age := now - s.readAt
	if age < -clockSlack {
		return math.MaxInt64
	}
	return time.Duration(max(age, 0)) * time.Millisecond
}

// unread is what was settled after the newest reading began.
func (s *State) unread() Amount {
	sum := s.open
	for _, c := range s.closed {
		sum = sum.Add(c.sum)
	}
	return sum
}

// decideByBalance refuses only if the balance is new and nothing was settled after it was
// read.
func (s *State) decideByBalance(r *Request, result *Result) {
	switch {
	case !s.known || result.Age > r.MaxAge:
		result.Outcome = NeedsReading
		if r.PassUnknown {
			result.Outcome = Admitted
		}
	case !result.Available.Less(r.need()):
		result.Outcome = Admitted
	default:
		result.InFlight = !result.Available.Add(s.held).Less(r.need())
		result.Outcome = Insufficient
		if result.Age > r.RefusalAge || !result.Unread.IsZero() {
			result.Outcome = NeedsReading
		}
	}
}

// isOverBudget finds the budget that refuses the request. Of several it is the one that
// resets last.
func (s *State) isOverBudget(now int64, r *Request, result *Result) (over bool) {
	for i := range r.Budgets {
		b := r.Budgets[i]
		a := s.account(&b)
		if a == nil {
			a = &account{key: b.Key, window: b.Window}
		}
		end := a.turn(now)
		exceeds, inFlight := a.isOver(b.Limit, r.Amount)
		if !exceeds {
			continue
		}
		if resets := time.UnixMilli(end); !over || resets.After(result.Over.ResetsAt) {
			result.Over = BudgetUse{Budget: b, Spent: a.spent, Held: a.held, ResetsAt: resets}
		}
		result.InFlight = inFlight && (!over || result.InFlight)
		over = true
	}
	return over
}

// use says how much of a budget is used.
func (s *State) use(now int64, b Budget) BudgetUse {
	a := account{window: b.Window}
	if known := s.account(&b); known != nil {
		a = *known
	}
	end := a.turn(now)
	return BudgetUse{Budget: b, Spent: a.spent, Held: a.held, ResetsAt: time.UnixMilli(end)}
}

// account returns the account of a budget, or nil if nothing was booked on it.
func (s *State) account(b *Budget) *account {
	for i := range s.accounts {
		if a := &s.accounts[i]; a.key == b.Key && a.window == b.Window {
			return a
		}
	}
	return nil
}

// accountFor returns the account of a budget in the current window, and makes it if there
// is none.
func (s *State) accountFor(now int64, b *Budget) *account {
	a := s.account(b)
	if a == nil {
		s.accounts = append(s.accounts, account{key: b.Key, window: b.Window})
		a = &s.accounts[len(s.accounts)-1]
	}
	end := a.turn(now)
	s.keepUntil = max(s.keepUntil, end)
	return a
}

// take takes the hold of an admitted request. A repeated request only renews it.
func (s *State) take(now int64, r *Request, lease time.Duration) {
	h := hold{amount: r.Amount, budgets: r.Budgets}
	if lease > 0 {
		h.expires = now + lease.Milliseconds()
	}
	s.put(now, r.ID, h)
}

// put adds a hold. If the hold exists, put restarts its lease.
func (s *State) put(now int64, id ID, h hold) {
	if h.expires > 0 && (s.lease == 0 || h.expires < s.lease) {
		s.lease = h.expires
	}
	if old, ok := s.holds[id]; ok {
		old.expires = h.expires
		s.holds[id] = old
		return
	}
	if s.holds == nil {
		s.holds = map[ID]hold{}
	}
	delete(s.lapsed, id)
	s.holds[id] = h
	s.held = s.held.Add(h.amount)
	for i := range h.budgets {
		a := s.accountFor(now, &h.budgets[i])
		a.held = a.held.Add(h.amount)
	}
}

// remove removes a hold.
func (s *State) remove(now int64, id ID, h hold) {
	delete(s.holds, id)
	s.held = s.held.Sub(h.amount)
	for i := range h.budgets {
		a := s.accountFor(now, &h.budgets[i])
		a.held = a.held.Sub(h.amount)
	}
}

// expire ends the holds whose lease has run out. Each is settled as
// Unsaid now: its amount stays until a reading that begins after this.
func (s *State) expire(now int64) {
	for id, until := range s.lapsed {
		if until <= now {
			delete(s.lapsed, id)
		}
	}
	if s.lease == 0 || now < s.lease {
		return
	}
	s.lease = 0
	for id, h := range s.holds {
		switch {
		case h.expires == 0:
		case h.expires <= now:
			s.remove(now, id, h)
			s.book(h.amount)
			s.remember(now, id)
		case s.lease == 0 || h.expires < s.lease:
			s.lease = h.expires
		}
	}
}

// remember notes that the lease of a hold ended before its gateway settled it. It keeps at
// most maxHolds of these.
func (s *State) remember(now int64, id ID) {
	if len(s.lapsed) >= maxHolds {
		return
	}
	if s.lapsed == nil {
		s.lapsed = map[ID]int64{}
	}
	s.lapsed[id] = now + lapsedMemory
	s.keepUntil = max(s.keepUntil, now+lapsedMemory)
}

// book adds what was settled now. If no balance is known and no reading is under way, the
// next reading begins later and includes it.
func (s *State) book(amount Amount) (booked bool) {
	if amount.IsZero() || !s.known && len(s.closed) == 0 {
		return false
	}
	s.open = s.open.addCapped(amount)
	return true
}

// Settle ends a request. A hold that the State does not know was settled before, unless its
// lease ran out, or the ledger lost it in an earlier epoch. Then the cost is booked
// without a hold.
func (s *State) Settle(now int64, t *Settlement) Settled {
	h, running := s.holds[t.ID]
	_, late := s.lapsed[t.ID]
	if running {
		s.remove(now, t.ID, h)
	}
	delete(s.lapsed, t.ID)
	s.expire(now)
	s.keep(now)
	if !running && !late && t.Epoch >= s.epoch {
		return Settled{Repeated: true}
	}
	switch t.Word {
	case Costs:
		for i := range t.Budgets {
			a := s.accountFor(now, &t.Budgets[i])
			a.spent = a.spent.addCapped(t.Cost)
		}
		return Settled{OverHold: t.Amount.Less(t.Cost), NeedsReading: s.book(t.Cost)}
	case Unsaid:
		return Settled{NeedsReading: s.book(t.Amount)}
	default:
		return Settled{}
	}
}

// Renew restarts the lease of a hold. A hold whose lease had run out is held again. With
// restore, a hold that the State does not know is made. Renew reports whether the hold is
// held now.
func (s *State) Renew(now int64, h *Hold, lease time.Duration, restore bool) bool {
	s.expire(now)
	s.keep(now)
	_, running := s.holds[h.ID]
	_, late := s.lapsed[h.ID]
	if !running && !late && !restore {
		return false
	}
	s.put(now, h.ID, hold{amount: h.Amount, budgets: h.Budgets, expires: now + lease.Milliseconds()})
	return true
}

// BeginReading notes that a reading of the balance begins now.
func (s *State) BeginReading(now int64) Ticket {
	s.expire(now)
	s.keep(now)
	s.seq++
	s.closed = append(s.closed, settledBefore{s.seq, s.open})
	s.open = Amount{}
	if len(s.closed) > maxClosed {
		// The result of the oldest reading then drops nothing. A newer one drops both.
		s.closed[1].sum = s.closed[1].sum.addCapped(s.closed[0].sum)
		s.closed = slices.Delete(s.closed, 0, 1)
	}
	return Ticket{Epoch: s.epoch, Number: s.seq, At: now}
}

// EndReading takes the result of a reading. It ignores a reading that began before the
// newest one that has come back, or before the State.
func (s *State) EndReading(now int64, t Ticket, b Balance) {
	s.expire(now)
	s.keep(now)
	if t.Epoch != s.epoch || t.Number <= s.applied || t.Number > s.seq {
		return
	}
	s.applied, s.known, s.balance, s.readAt = t.Number, b.Known, b.Amount, t.At
	for len(s.closed) > 0 && s.closed[0].number <= t.Number {
		s.closed = slices.Delete(s.closed, 0, 1)
	}
}

// keep extends the time until which the State is kept.
func (s *State) keep(now int64) { s.keepUntil = max(s.keepUntil, now+idleMemory) }

// IsIdle reports whether the State may be forgotten.
func (s *State) IsIdle(now int64) bool { return len(s.holds) == 0 && now >= s.keepUntil }
