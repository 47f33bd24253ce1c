package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"sync/atomic"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/flight"
	"github.com/caddy-tollgate/tollgate/internal/spending"
)

const (
	// StorageSpending is the place of the States in the storage. Each is named by its user,
	// who is a hash.
	StorageSpending = "tollgate/spending"
	// storageSpendingLock begins the names of the States' locks.
	storageSpendingLock = "tollgate_spending_"
	// storageLease is the lease of holds. It is longer than with Redis, because to renew one
	// takes a lock and two accesses, and because the clocks of several machines decide.
	storageLease = time.Minute
)

// Ledger keeps the State of each user in the storage that Caddy is configured with. Every
// call reads and writes it under the storage's lock of the user. So it is right for any
// number of processes that share the storage, and slow: with files about a millisecond for
// each call, and a call waits for the user's other calls.
//
// Times are those of the process that calls. The clocks of several processes must not differ
// by more than a small part of the lease.
type Ledger struct {
	records *Records
	lease   time.Duration
	now     func() time.Time
	swept   atomic.Int64 // when, in Unix milliseconds
}

// NewLedger returns a ledger in the storage of the records, with the given clock.
func NewLedger(records *Records, lease time.Duration, now func() time.Time) *Ledger {
	return &Ledger{records: records, lease: lease, now: now}
}

// Ledger implements records.Store.
func (s *Records) Ledger(lease time.Duration) spending.Ledger {
	return NewLedger(s, cmp.Or(lease, storageLease), time.Now)
}

// Lease implements spending.Ledger.
func (l *Ledger) Lease() time.Duration { return l.lease }

// epoch is the one epoch of the storage: it is not expected to lose data.
const epoch = 1

// change reads the State of a user, changes it, and writes it, under the user's lock.
func (l *Ledger) change(ctx context.Context, user string, apply func(s *spending.State, now int64)) (err error) {
	// The change goes on if the request ends: it must not be done by half.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.records.Timeout)
	defer cancel()
	unlock, err := l.records.lock(ctx, storageSpendingLock+user)
	if err != nil {
		return fmt.Errorf("locking what a user has spent in Caddy's storage: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	key := path.Join(StorageSpending, user)
	text, ok, err := l.records.Load(ctx, key)
	if err != nil {
		return fmt.Errorf("reading what a user has spent from Caddy's storage: %w", err)
	}
	now := l.now().UnixMilli()
	state := spending.NewState(now)
	if ok {
		if state, ok = spending.ParseState([]byte(text)); !ok {
			return fmt.Errorf("reading what a user has spent from Caddy's storage: %s is damaged; delete it", key)
		}
	}
	state.Enter(epoch)
	apply(state, now)
	if err := l.records.Storage.Store(ctx, key, state.AppendBinary(nil)); err != nil {
		return fmt.Errorf("writing what a user has spent to Caddy's storage: %w", err)
	}
	l.sweepWhenDue(now)
	return nil
}

// Admit implements spending.Ledger.
func (l *Ledger) Admit(ctx context.Context, user string, r *spending.Request) (result spending.Result, _ uint64, err error) {
	err = l.change(ctx, user, func(s *spending.State, now int64) { result = s.Admit(now, r, l.lease) })
	if err != nil {
		return spending.Result{}, 0, err
	}
	return result, epoch, nil
}

// Settle implements spending.Ledger.
func (l *Ledger) Settle(ctx context.Context, user string, t *spending.Settlement) (settled spending.Settled, err error) {
	err = l.change(ctx, user, func(s *spending.State, now int64) { settled = s.Settle(now, t) })
	return settled, err
}

// Renew implements spending.Ledger. The holds of one user are renewed together.
func (l *Ledger) Renew(ctx context.Context, holds []spending.Hold, restore bool) ([]uint64, error) {
	epochs := make([]uint64, len(holds))
	byUser := map[string][]int{}
	for i := range holds {
		byUser[holds[i].User] = append(byUser[holds[i].User], i)
	}
	var errs error
	for user, which := range byUser {
		err := l.change(ctx, user, func(s *spending.State, now int64) {
			for _, i := range which {
				if s.Renew(now, &holds[i], l.lease, restore) {
					epochs[i] = epoch
				}
			}
		})
		errs = errors.Join(errs, err)
	}
	if errs != nil {
		return nil, errs
	}
	return epochs, nil
}

// BeginReading implements spending.Ledger.
func (l *Ledger) BeginReading(ctx context.Context, user string) (t spending.Ticket, err error) {
	err = l.change(ctx, user, func(s *spending.State, now int64) { t = s.BeginReading(now) })
	return t, err
}

// EndReading implements spending.Ledger.
func (l *Ledger) EndReading(ctx context.Context, user string, t spending.Ticket, b spending.Balance) error {
	return l.change(ctx, user, func(s *spending.State, now int64) { s.EndReading(now, t, b) })
}

// sweepWhenDue deletes idle States in the background, if the last time was long ago. Nothing
// else deletes them.
func (l *Ledger) sweepWhenDue(now int64) {
	last := l.swept.Load()
	if flight.Within(time.Duration(now-last)*time.Millisecond, sweepInterval) || !l.swept.CompareAndSwap(last, now) {
		return
	}
	go func() { // ends with its timeout
		ctx, cancel := context.WithTimeout(context.Background(), sweepTimeout)
		defer cancel()
		l.Sweep(ctx)
	}()
}

// Sweep deletes the States of idle users. A State that cannot be read or deleted now is left
// for the next time.
func (l *Ledger) Sweep(ctx context.Context) {
	users, err := l.records.list(ctx, StorageSpending)
	if err != nil {
		return
	}
	for _, user := range users {
		l.sweepUser(ctx, user)
	}
}

// sweepUser looks without the lock first. Most of the States are in use.
func (l *Ledger) sweepUser(ctx context.Context, user string) {
	if !l.isIdle(ctx, user) {
		return
	}
	unlock, err := l.records.lock(ctx, storageSpendingLock+user)
	if err != nil {
		return
	}
	defer func() { _ = unlock() }() // if this fails, the storage ends the lock later
	if l.isIdle(ctx, user) {
		_ = l.records.delete(ctx, path.Join(StorageSpending, user)) // if this fails, the next sweep does it
	}
}

func (l *Ledger) isIdle(ctx context.Context, user string) bool {
	text, ok, err := l.records.Load(ctx, path.Join(StorageSpending, user))
	if err != nil || !ok {
		return false
	}
	state, ok := spending.ParseState([]byte(text))
	return ok && state.IsIdle(l.now().UnixMilli())
}

// Interface guard.
var _ spending.Ledger = (*Ledger)(nil)
