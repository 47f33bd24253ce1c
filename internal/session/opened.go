package session

import (
	"strings"

	"github.com/maypok86/otter/v2"
)

// OpenedValues remembers what cookie values were opened to, so that the same
// browser's next request costs no cryptography. An entry says nothing about whether
// the session is over, or renewed: that is asked with every request.
//
// The key is the value's tail, which is part of its authentication code, since
// hashing all of it would cost more than the rest; the whole value is compared.
type OpenedValues[T any] struct {
	table *otter.Cache[string, *openedValue[T]]
}

// openedValue is a cookie value and what it was opened to.
type openedValue[T any] struct {
	value  string
	opened T
}

// maxOpenedBytes bounds such a table. A session of ordinary size weighs four
// kilobytes there, a ticket one.
const maxOpenedBytes = 64 << 20

func NewOpenedValues[T any]() *OpenedValues[T] {
	return &OpenedValues[T]{otter.Must(&otter.Options[string, *openedValue[T]]{
		MaximumWeight: maxOpenedBytes,
		Weigher:       func(_ string, o *openedValue[T]) uint32 { return uint32(2*len(o.value)) + 512 },
	})}
}

func (o *OpenedValues[T]) Get(value string) (opened T, ok bool) {
	if known, ok := o.table.GetIfPresent(tailOf(value)); ok && known.value == value {
		return known.opened, true
	}
	return opened, false
}

// Put remembers what a value was opened to. The request's header is one long string;
// only our part of it is kept.
func (o *OpenedValues[T]) Put(value string, opened T) {
	value = strings.Clone(value)
	o.table.Set(tailOf(value), &openedValue[T]{value, opened})
}

func (o *OpenedValues[T]) Close() { o.table.StopAllGoroutines() }

const tailLength = 32

func tailOf(value string) string { return value[max(0, len(value)-tailLength):] }
