// Package watch stands between the gateway and what it calls, the session store and the
// provider, and tells the metrics and the traces how long each call took and how it ended.
//
// It changes no call and no result. Begin with Store.
package watch

import (
	"context"
	"errors"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/spending"
	"github.com/caddy-tollgate/tollgate/internal/tracing"
)

// Store returns a store that does what next does, and measures and traces it. It is for stores
// outside of this process. name is the store's.
func Store(next session.Store, set *metrics.Set, name string) session.Store {
	return &store{next, meter{set, name}}
}

// Unwrap returns the store that Store was given, or the given store itself.
func Unwrap(s session.Store) session.Store {
	if watched, ok := s.(*store); ok {
		return watched.Store
	}
	return s
}

// store measures the operations of the embedded Store. Operations that it does not define do
// not leave this process.
type store struct {
	session.Store
	meter
}

// meter is what the calls of a store report to.
type meter struct {
	set   *metrics.Set
	store string // its name
}

// call is an operation that is under way.
type call struct {
	set   *metrics.Set
	op    metrics.Operation
	begun time.Time
	span  tracing.Span
}

func (m meter) begin(ctx context.Context, op metrics.Operation) (context.Context, call) {
	ctx, span := tracing.StartStore(ctx, m.store, op.String())
	return ctx, call{set: m.set, op: op, begun: time.Now(), span: span}
}

// end notes the end of an operation. Some errors are answers of the store, and no faults.
func (c call) end(err error) {
	result, failure := metrics.StoreError, tracing.ErrorOther
	switch {
	case err == nil, errors.Is(err, session.ErrMoved), errors.Is(err, session.ErrEnded), errors.Is(err, session.ErrTooLarge), errors.Is(err, session.ErrInCookies):
		result, failure = metrics.StoreOK, ""
	case errors.Is(err, context.Canceled):
		result, failure = metrics.StoreCanceled, tracing.ErrorCanceled
	case errors.Is(err, context.DeadlineExceeded):
		failure = tracing.ErrorTimeout
	}
	c.set.ObserveStore(c.op, result, time.Since(c.begun))
	c.span.End(failure)
}

// Load implements session.Store.
func (s *store) Load(ctx context.Context, value string) (found session.Found, err error) {
	ctx, c := s.begin(ctx, metrics.OpLoad)
	found, err = s.Store.Load(ctx, value)
	c.end(err)
	return found, err
}

// Create implements session.Store.
func (s *store) Create(ctx context.Context, of *session.Session) (created *session.Session, err error) {
	ctx, c := s.begin(ctx, metrics.OpCreate)
	created, err = s.Store.Create(ctx, of)
	c.end(err)
	return created, err
}

// Save implements session.Store.
func (s *store) Save(ctx context.Context, of *session.Session) (saved *session.Session, err error) {
	ctx, c := s.begin(ctx, metrics.OpSave)
	saved, err = s.Store.Save(ctx, of)
	c.end(err)
	return saved, err
}

// Reread implements session.Store.
func (s *store) Reread(ctx context.Context, of *session.Session) (standing *session.Session, err error) {
	ctx, c := s.begin(ctx, metrics.OpReread)
	standing, err = s.Store.Reread(ctx, of)
	c.end(err)
	return standing, err
}

// TryLock implements session.Store.
func (s *store) TryLock(ctx context.Context, of *session.Session, lease time.Duration) (lock session.Lock, ok bool, err error) {
	ctx, c := s.begin(ctx, metrics.OpLock)
	lock, ok, err = s.Store.TryLock(ctx, of, lease)
	c.end(err)
	return lock, ok, err
}

// End implements session.Store.
func (s *store) End(ctx context.Context, of *session.Session, from time.Time) (err error) {
	ctx, c := s.begin(ctx, metrics.OpEnd)
	err = s.Store.End(ctx, of, from)
	c.end(err)
	return err
}

// EndByName implements session.Store.
func (s *store) EndByName(ctx context.Context, name string, from time.Time) (found bool, err error) {
	ctx, c := s.begin(ctx, metrics.OpEnd)
	found, err = s.Store.EndByName(ctx, name, from)
	c.end(err)
	return found, err
}

// SessionsOf implements session.Store.
func (s *store) SessionsOf(ctx context.Context, userID string) (list []session.Summary, err error) {
	ctx, c := s.begin(ctx, metrics.OpList)
	list, err = s.Store.SessionsOf(ctx, userID)
	c.end(err)
	return list, err
}

// Ready implements session.Store.
func (s *store) Ready(ctx context.Context) (err error) {
	ctx, c := s.begin(ctx, metrics.OpReady)
	err = s.Store.Ready(ctx)
	c.end(err)
	return err
}

// Ledger implements session.Store.
func (s *store) Ledger(local spending.Ledger) spending.Ledger {
	next := s.Store.Ledger(local)
	if next == local {
		return local
	}
	return ledger{next, s.meter}
}

// ledger measures the operations of a ledger outside of this process. It is a value, so that
// the ledgers of two configurations are equal if what they measure is the same.
type ledger struct {
	spending.Ledger
	meter
}

// Hold keeps the ledger usable until release is called, if it needs that.
func (l ledger) Hold() (release func()) {
	if holder, ok := l.Ledger.(interface{ Hold() (release func()) }); ok {
		return holder.Hold()
	}
	return func() {}
}

// Admit implements spending.Ledger.
func (l ledger) Admit(ctx context.Context, user string, r *spending.Request) (result spending.Result, epoch uint64, err error) {
	ctx, c := l.begin(ctx, metrics.OpAdmit)
	result, epoch, err = l.Ledger.Admit(ctx, user, r)
	c.end(err)
	return result, epoch, err
}

// Settle implements spending.Ledger.
func (l ledger) Settle(ctx context.Context, user string, t *spending.Settlement) (settled spending.Settled, err error) {
	ctx, c := l.begin(ctx, metrics.OpSettle)
	settled, err = l.Ledger.Settle(ctx, user, t)
	c.end(err)
	return settled, err
}

// Renew implements spending.Ledger.
func (l ledger) Renew(ctx context.Context, holds []spending.Hold, restore bool) (epochs []uint64, err error) {
	ctx, c := l.begin(ctx, metrics.OpRenewHolds)
	epochs, err = l.Ledger.Renew(ctx, holds, restore)
	c.end(err)
	return epochs, err
}

// BeginReading implements spending.Ledger.
func (l ledger) BeginReading(ctx context.Context, user string) (ticket spending.Ticket, err error) {
	ctx, c := l.begin(ctx, metrics.OpBeginReading)
	ticket, err = l.Ledger.BeginReading(ctx, user)
	c.end(err)
	return ticket, err
}

// EndReading implements spending.Ledger.
func (l ledger) EndReading(ctx context.Context, user string, t spending.Ticket, b spending.Balance) (err error) {
	ctx, c := l.begin(ctx, metrics.OpEndReading)
	err = l.Ledger.EndReading(ctx, user, t, b)
	c.end(err)
	return err
}
