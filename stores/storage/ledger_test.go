package storage_test

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/caddy-tollgate/tollgate/internal/spending"
	"github.com/caddy-tollgate/tollgate/stores/storage"
)

// clock is a clock that stands still.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli())
	return c
}

func (c *clock) now() time.Time        { return time.UnixMilli(c.at.Load()) }
func (c *clock) pass(by time.Duration) { c.at.Add(by.Milliseconds()) }

// process returns the ledger of another process on the same folder.
func process(t *testing.T, folder string, c *clock) *storage.Ledger {
	records := storage.NewRecords(&certmagic.FileStorage{Path: folder})
	t.Cleanup(records.Close)
	return storage.NewLedger(records, 15*time.Second, c.now)
}

func amount(t *testing.T, text string) spending.Amount {
	t.Helper()
	a, err := spending.ParseRequired(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func read(t *testing.T, l spending.Ledger, user, balance string) {
	t.Helper()
	ticket, err := l.BeginReading(t.Context(), user)
	if err == nil {
		err = l.EndReading(t.Context(), user, ticket, spending.Balance{Amount: amount(t, balance), Known: true})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcessesShareHoldsInTheStorage(t *testing.T) {
	t.Parallel()
	folder, c := t.TempDir(), newClock()
	ledgers := []*storage.Ledger{process(t, folder, c), process(t, folder, c)}
	read(t, ledgers[0], "user", "1.00")
	var admitted atomic.Int64
	var asking sync.WaitGroup
	for i := range 40 {
		asking.Go(func() {
			r := &spending.Request{ID: spending.ID{byte(i)}, Amount: amount(t, "0.30"), Reserve: true, MaxAge: time.Minute, RefusalAge: time.Minute}
			result, _, err := ledgers[i%2].Admit(t.Context(), "user", r)
			if err != nil {
				t.Error(err)
			}
			if result.Outcome == spending.Admitted {
				admitted.Add(1)
			}
		})
	}
	asking.Wait()
	if admitted.Load() != 3 {
		t.Errorf("%d requests of 0.30 were admitted to 1.00", admitted.Load())
	}
}

func TestBudgetInTheStorageSurvivesARestart(t *testing.T) {
	t.Parallel()
	folder, c := t.TempDir(), newClock()
	budgets := []spending.Budget{{Key: "api", Window: spending.Day, Limit: amount(t, "1")}}
	r := &spending.Request{ID: spending.ID{1}, Amount: amount(t, "0.60"), Budgets: budgets}
	before := process(t, folder, c)
	if result, _, err := before.Admit(t.Context(), "user", r); err != nil || result.Outcome != spending.Admitted {
		t.Fatal(result, err)
	}
	if _, err := before.Settle(t.Context(), "user", &spending.Settlement{ID: r.ID, Amount: r.Amount, Budgets: budgets, Word: spending.Costs, Cost: r.Amount, Epoch: 1}); err != nil {
		t.Fatal(err)
	}
	after := process(t, folder, c)
	r.ID = spending.ID{2}
	if result, _, err := after.Admit(t.Context(), "user", r); err != nil || result.Outcome != spending.OverBudget || result.Over.Spent != amount(t, "0.60") {
		t.Errorf("%+v %v", result, err)
	}
	c.pass(24 * time.Hour)
	if result, _, err := after.Admit(t.Context(), "user", r); err != nil || result.Outcome != spending.Admitted {
		t.Errorf("on the next day: %+v %v", result, err)
	}
}

func TestHoldInTheStorageEndsWithItsLease(t *testing.T) {
	t.Parallel()
	c := newClock()
	l := process(t, t.TempDir(), c)
	read(t, l, "user", "1")
	r := &spending.Request{ID: spending.ID{1}, Amount: amount(t, "1"), Reserve: true, MaxAge: time.Hour, RefusalAge: time.Hour}
	if result, _, err := l.Admit(t.Context(), "user", r); err != nil || result.Outcome != spending.Admitted {
		t.Fatal(result, err)
	}
	hold := spending.Hold{User: "user", ID: r.ID, Amount: r.Amount}
	c.pass(10 * time.Second)
	if epochs, err := l.Renew(t.Context(), []spending.Hold{hold}, false); err != nil || epochs[0] == 0 {
		t.Fatal(epochs, err)
	}
	c.pass(10 * time.Second)
	r.ID = spending.ID{2}
	if result, _, _ := l.Admit(t.Context(), "user", r); result.Outcome != spending.Insufficient {
		t.Errorf("the renewed hold: %+v", result)
	}
	c.pass(10 * time.Second)
	if result, _, _ := l.Admit(t.Context(), "user", r); result.Outcome != spending.NeedsReading {
		t.Errorf("after the lease: %+v", result)
	}
	read(t, l, "user", "1")
	if result, _, _ := l.Admit(t.Context(), "user", r); result.Outcome != spending.Admitted {
		t.Errorf("after a reading: %+v", result)
	}
}

func TestSweepDeletesIdleUsersOnly(t *testing.T) {
	t.Parallel()
	folder, c := t.TempDir(), newClock()
	l := process(t, folder, c)
	read(t, l, "idle", "1")
	read(t, l, "busy", "1")
	c.pass(9 * time.Minute)
	read(t, l, "busy", "1")
	c.pass(2 * time.Minute)
	l.Sweep(t.Context())
	for user, stays := range map[string]bool{"idle": false, "busy": true} {
		_, err := os.Stat(filepath.Join(folder, storage.StorageSpending, user))
		if (err == nil) != stays {
			t.Errorf("%s: %v", user, err)
		}
	}
}

func TestBrokenStorageAdmitsNobody(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	os.WriteFile(filepath.Join(folder, "tollgate"), nil, 0o600) // a file where a folder has to be
	l := process(t, folder, newClock())
	result, _, err := l.Admit(t.Context(), "user", &spending.Request{})
	if err == nil || result.Outcome == spending.Admitted {
		t.Errorf("%+v %v", result, err)
	}
}

func TestDamagedStateAdmitsNobody(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l := process(t, folder, newClock())
	read(t, l, "user", "1")
	os.WriteFile(filepath.Join(folder, storage.StorageSpending, "user"), []byte("\x01damaged"), 0o600)
	result, _, err := l.Admit(t.Context(), "user", &spending.Request{})
	if err == nil || result.Outcome == spending.Admitted {
		t.Errorf("%+v %v", result, err)
	}
}
