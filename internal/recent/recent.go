// Package recent remembers values for a fixed time, in a bounded memory.
//
// A Table forgets an entry when its time is over, or earlier to make room for newer ones. So
// it is for what a process may forget: limits, back-offs, and what was just done. What must
// stay known until its end is in internal/session. Begin with Table.
package recent

import (
	"time"

	"github.com/maypok86/otter/v2"
)

// Table remembers a value by its key, for a fixed time after it was set.
type Table[K comparable, V any] struct {
	entries *otter.Cache[K, V]
}

// NewTable returns an empty table of at most size entries. Call Close when it is no longer
// used.
func NewTable[K comparable, V any](size int, lifetime time.Duration) *Table[K, V] {
	return &Table[K, V]{otter.Must(&otter.Options[K, V]{
		MaximumSize:      size,
		ExpiryCalculator: otter.ExpiryWriting[K, V](lifetime),
	})}
}

// Get returns the value of a key. ok is false if it is not remembered.
func (t *Table[K, V]) Get(key K) (value V, ok bool) { return t.entries.GetIfPresent(key) }

// Set remembers a value, and begins its time again.
func (t *Table[K, V]) Set(key K, value V) { t.entries.Set(key, value) }

// SetIfAbsent remembers a value if the key has none. Reports whether it had none.
func (t *Table[K, V]) SetIfAbsent(key K, value V) (first bool) {
	_, first = t.entries.SetIfAbsent(key, value)
	return first
}

// Forget removes the value of a key.
func (t *Table[K, V]) Forget(key K) { t.entries.Invalidate(key) }

// ForgetAll removes all values.
func (t *Table[K, V]) ForgetAll() { t.entries.InvalidateAll() }

// Close stops the table's background work. The other methods still work afterwards.
func (t *Table[K, V]) Close() { t.entries.StopAllGoroutines() }
