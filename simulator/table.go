package simulator

import (
	"container/list"
	"iter"
)

// table is a map with a maximum size: a full table drops its oldest entry. A
// simulator may run for weeks under a load test. Callers treat a dropped entry
// as an unknown one.
//
// It has no lock. Its owner holds one.
type table[K comparable, V any] struct {
	limit   int
	entries map[K]*list.Element
	order   *list.List // of entry[K, V], the oldest in front
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newTable[K comparable, V any](limit int) *table[K, V] {
	return &table[K, V]{
		limit:   limit,
		entries: make(map[K]*list.Element),
		order:   list.New(),
	}
}

func (t *table[K, V]) get(key K) (V, bool) {
	element, ok := t.entries[key]
	if !ok {
		var zero V
		return zero, false
	}
	return element.Value.(entry[K, V]).value, true
}

// put stores a value as the newest entry, also if the key exists already.
func (t *table[K, V]) put(key K, value V) {
	t.delete(key)
	if t.order.Len() >= t.limit {
		t.delete(t.order.Front().Value.(entry[K, V]).key)
	}
	t.entries[key] = t.order.PushBack(entry[K, V]{key, value})
}

func (t *table[K, V]) delete(key K) {
	element, ok := t.entries[key]
	if !ok {
		return
	}
	t.order.Remove(element)
	delete(t.entries, key)
}

func (t *table[K, V]) clear() {
	clear(t.entries)
	t.order.Init()
}

// all yields the entries, the oldest first. The body of the loop may delete the
// entry that was just yielded.
func (t *table[K, V]) all() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for element := t.order.Front(); element != nil; {
			next := element.Next()
			e := element.Value.(entry[K, V])
			if !yield(e.key, e.value) {
				return
			}
			element = next
		}
	}
}
