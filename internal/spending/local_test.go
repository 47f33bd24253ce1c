package spending

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

func TestLocalLedgerForgetsIdleUsers(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	now.Store(at("2026-11-27T12:00:00Z"))
	l := NewLocal(func() time.Time { return time.UnixMilli(now.Load()) })
	k := NewKeeper(l, nil)
	for i := range 1000 {
		held, _, _ := k.Admit(t.Context(), &Ask{User: fmt.Sprint("user", i)})
		if i > 0 {
			held.Settle(t.Context(), Unsaid, Amount{})
		}
	}
	if l.Users() != 1000 {
		t.Fatalf("%d users", l.Users())
	}
	now.Add(time.Hour.Milliseconds())
	for i := range 1000 { // every shard is used, and sweeps
		l.Settle(t.Context(), fmt.Sprint("other", i), &Settlement{})
	}
	if l.Users() != 1001 {
		t.Errorf("%d users, want the one with a hold and the new ones", l.Users())
	}
}

// BenchmarkAdmitAndSettle is an admission and a settlement in the process. They allocate
// once, and nothing of it stays.
func BenchmarkAdmitAndSettle(b *testing.B) {
	for _, budgets := range [][]Budget{nil, {{"api", Hour, Amount{1e9, 0}}, {"api", Month, Amount{1e9, 0}}}} {
		b.Run(fmt.Sprintf("%d budgets", len(budgets)), func(b *testing.B) {
			l := NewLocal(time.Now)
			k := NewKeeper(l, nil)
			k.BeginReading(b.Context(), "user")(b.Context(), Balance{Amount{1e12, 0}, true})
			ask := &Ask{User: "user", Request: Request{Amount: Amount{1, 0}, Reserve: true, MaxAge: time.Hour, Budgets: budgets}}
			b.ReportAllocs()
			for b.Loop() {
				held, _, _ := k.Admit(b.Context(), ask)
				held.Settle(b.Context(), Costs, Amount{0, 1})
			}
		})
	}
}

// BenchmarkManyUsers is the same with a thousand users, from several goroutines.
func BenchmarkManyUsers(b *testing.B) {
	l := NewLocal(time.Now)
	k := NewKeeper(l, nil)
	asks := make([]*Ask, 1000)
	for i := range asks {
		user := fmt.Sprint("user", i)
		k.BeginReading(b.Context(), user)(b.Context(), Balance{Amount{1e12, 0}, true})
		asks[i] = &Ask{User: user, Request: Request{Amount: Amount{1, 0}, Reserve: true, MaxAge: time.Hour}}
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			held, _, _ := k.Admit(b.Context(), asks[i%len(asks)])
			held.Settle(b.Context(), Costs, Amount{0, 1})
		}
	})
}
