package session

import (
	"strings"

	"github.com/maypok86/otter/v2"
)

// OpenedValues caches opened cookie values, so that the next request of the same browser
// costs no cryptography. An entry does not say whether the session has ended or was
// renewed: every request checks that.
//
// The key is the end of the value, which is part of its authentication code: hashing the
// whole value would cost more than the rest. Get compares the whole value.
type OpenedValues[T any] struct {
	table *otter.Cache[string, *openedValue[T]]
}

// openedValue is a cookie value and the result of opening it.
type openedValue[T any] struct {
	value  string
	opened T
}

// maxOpenedBytes is the maximum weight of the table. A session of ordinary size weighs
// four kilobytes, and a ticket one.
const maxOpenedBytes = 64 << 20

// NewOpenedValues returns an empty cache, which the caller must close.
func NewOpenedValues[T any]() *OpenedValues[T] {
	return &OpenedValues[T]{otter.Must(&otter.Options[string, *openedValue[T]]{
		MaximumWeight: maxOpenedBytes,
		Weigher:       func(_ string, o *openedValue[T]) uint32 { return uint32(2*len(o.value)) + 512 },
	})}
}

// Get returns the cached result for a cookie value. ok is false if there is none.
func (o *OpenedValues[T]) Get(value string) (opened T, ok bool) {
	if known, ok := o.table.GetIfPresent(tailOf(value)); ok && known.value == value {
		return known.opened, true
	}
	return opened, false
}

// Put caches the result of opening a cookie value. It copies the value, so that the cache
// does not hold the whole Cookie header in memory.
func (o *OpenedValues[T]) Put(value string, opened T) {
	value = strings.Clone(value)
	o.table.Set(tailOf(value), &openedValue[T]{value, opened})
}

// Close stops the cache's background work. Get and Put still work afterwards.
func (o *OpenedValues[T]) Close() { o.table.StopAllGoroutines() }

const tailLength = 32

func tailOf(value string) string { return value[max(0, len(value)-tailLength):] }
