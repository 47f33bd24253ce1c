package session

import (
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// EndedNames remembers the names of the records whose sessions this process has ended. If
// such a record comes back, for example from a backup, its session stays ended as long as
// the process lives.
//
// The Registry remembers ended sessions by their id. An operator who ends a session knows
// only the record's name, and the id cannot be read from the sealed record.
type EndedNames struct {
	table *otter.Cache[string, ending]
	// used is false until a session is ended: most processes never look into the table.
	used atomic.Bool
}

// NewEndedNames returns an empty EndedNames, which the caller must close.
func NewEndedNames(now func() time.Time) *EndedNames {
	return &EndedNames{table: otter.Must(&otter.Options[string, ending]{
		MaximumSize: maxEnded,
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, ending]) time.Duration {
			return e.Value.until.Sub(now())
		}),
	})}
}

// Add remembers that the session of a record ends at from. The session began at created.
// An earlier end stays.
func (e *EndedNames) Add(name string, from, created time.Time) {
	e.used.Store(true)
	e.table.Compute(name, func(old ending, found bool) (ending, otter.ComputeOp) {
		if found && old.from.Before(from) {
			return old, otter.CancelOp
		}
		return ending{from: from, until: created.Add(MaxLifetime)}, otter.WriteOp
	})
}

// Has reports whether the session of a record has ended.
func (e *EndedNames) Has(name string, now time.Time) bool {
	if !e.used.Load() {
		return false
	}
	end, ok := e.table.GetIfPresent(name)
	return ok && !now.Before(end.from)
}

// Close stops the table's background work. Add and Has still work afterwards.
func (e *EndedNames) Close() { e.table.StopAllGoroutines() }
