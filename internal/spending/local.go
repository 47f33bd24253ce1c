package spending

import (
	"context"
	"hash/maphash"
	"sync"
	"time"
)

const (
	// shards is the number of parts of a Local ledger. Users in different parts do not wait
	// for each other, and a user's own requests wait for less than a microsecond each.
	shards = 64
	// sweepPause is how often a shard forgets idle users.
	sweepPause = int64(time.Minute / time.Millisecond)
)

// Local is the ledger of one process. It ends with the process: budgets begin again at zero
// then, and balances are read again. Its holds have no leases, because a hold cannot
// outlive the process that has to settle it.
//
// It should outlive a reload of the configuration, because requests of the old
// configuration settle in it.
type Local struct {
	now    func() time.Time
	seed   maphash.Seed
	shards [shards]shard
}

// shard has the States of some of the users.
type shard struct {
	mu      sync.Mutex // guards what follows
	users   map[string]*State
	sweepAt int64
}

// NewLocal returns an empty ledger with the given clock.
func NewLocal(now func() time.Time) *Local {
	l := &Local{now: now, seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].users = map[string]*State{}
	}
	return l
}

// lock returns the locked shard of a user, and the time.
func (l *Local) lock(user string) (s *shard, now int64) {
	s = &l.shards[maphash.String(l.seed, user)%shards]
	s.mu.Lock()
	now = l.now().UnixMilli()
	if now >= s.sweepAt {
		s.sweep(now)
	}
	return s, now
}

// sweep forgets idle users. So only users with holds, with a recent balance, or with a
// budget of a window that has not ended take memory.
func (s *shard) sweep(now int64) {
	s.sweepAt = now + sweepPause
	for user, state := range s.users {
		if state.IsIdle(now) {
			delete(s.users, user)
		}
	}
}

// state returns the State of a user. The caller holds mu.
func (s *shard) state(user string, now int64) *State {
	state, ok := s.users[user]
	if !ok {
		state = NewState(now)
		s.users[user] = state
	}
	return state
}

// Admit implements Ledger.
func (l *Local) Admit(_ context.Context, user string, r *Request) (Result, uint64, error) {
	s, now := l.lock(user)
	defer s.mu.Unlock()
	return s.state(user, now).Admit(now, r, 0), 0, nil
}

// Settle implements Ledger.
func (l *Local) Settle(_ context.Context, user string, t *Settlement) (Settled, error) {
	s, now := l.lock(user)
	defer s.mu.Unlock()
	return s.state(user, now).Settle(now, t), nil
}

// Renew implements Ledger. There is nothing to renew.
func (*Local) Renew(_ context.Context, holds []Hold, _ bool) ([]uint64, error) {
	return make([]uint64, len(holds)), nil
}

// BeginReading implements Ledger.
func (l *Local) BeginReading(_ context.Context, user string) (Ticket, error) {
	s, now := l.lock(user)
	defer s.mu.Unlock()
	return s.state(user, now).BeginReading(now), nil
}

// EndReading implements Ledger.
func (l *Local) EndReading(_ context.Context, user string, t Ticket, b Balance) error {
	s, now := l.lock(user)
	defer s.mu.Unlock()
	s.state(user, now).EndReading(now, t, b)
	return nil
}

// Lease implements Ledger.
func (*Local) Lease() time.Duration { return 0 }

// Users is how many users the ledger knows.
func (l *Local) Users() int {
	count := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		count += len(s.users)
		s.mu.Unlock()
	}
	return count
}

// Interface guard.
var _ Ledger = (*Local)(nil)
