// Package flight runs a call once for all callers that need its result at the same time.
//
// A Group runs the call detached from its callers: a caller that goes away neither
// cancels the call nor loses its result for the others. A Lazy obtains a value once, and
// backs off after a failure. Begin with Group.Do.
package flight

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// Group runs one call per key at a time, detached from the callers that wait for it. The
// zero value is ready to use.
type Group[V any] struct {
	calls singleflight.Group
}

// Result is what a call returned.
type Result[V any] struct {
	Value V
	Err   error
}

// Start runs call, unless a call for this key is running already, and returns a channel
// that receives the result of the running call. The caller need not read from the channel.
func (g *Group[V]) Start(key string, call func() (V, error)) <-chan Result[V] {
	result := make(chan Result[V], 1)
	done := g.calls.DoChan(key, func() (any, error) { return call() })
	go func() { // ends with the call
		r := <-done
		value, _ := r.Val.(V)
		result <- Result[V]{value, r.Err}
	}()
	return result
}

// Do is Start, and waits for the result or for the end of ctx, whichever comes first. The
// call gets a context without the caller's deadline and cancellation: the first caller
// may leave, and others still want the result. The call has to bound its own time.
func (g *Group[V]) Do(ctx context.Context, key string, call func(context.Context) (V, error)) (V, error) {
	var none V
	detached := context.WithoutCancel(ctx) // with the values: a trace goes on in the call
	done := g.calls.DoChan(key, func() (any, error) { return call(detached) })
	select {
	case r := <-done:
		value, _ := r.Val.(V)
		return value, r.Err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Lazy obtains a value once, at first use, and keeps it. After a failure it returns the same
// error to every caller during a pause. After the pause it tries again.
type Lazy[V any] struct {
	pause  time.Duration
	obtain func(context.Context) (V, error)
	now    func() time.Time
	calls  Group[*V]

	// got and failed hold the last outcome.
	got    atomic.Pointer[V]
	failed atomic.Pointer[failure]
}

type failure struct {
	err error
	at  time.Time
}

// NewLazy returns a Lazy that has not obtained its value yet. pause is how long a failure
// lasts.
func NewLazy[V any](now func() time.Time, pause time.Duration, obtain func(context.Context) (V, error)) *Lazy[V] {
	return &Lazy[V]{pause: pause, obtain: obtain, now: now}
}

// Obtained returns a Lazy that has its value already.
func Obtained[V any](value V) *Lazy[V] {
	l := &Lazy[V]{}
	l.got.Store(&value)
	return l
}

// Get returns the value, and obtains it first if that is needed. Callers that come
// together share one attempt, which no caller's departure cancels.
func (l *Lazy[V]) Get(ctx context.Context) (V, error) {
	var none V
	if got := l.got.Load(); got != nil {
		return *got, nil
	}
	if failed := l.failed.Load(); failed != nil && Within(l.now().Sub(failed.at), l.pause) {
		return none, failed.err
	}
	got, err := l.calls.Do(ctx, "", func(ctx context.Context) (*V, error) {
		if got := l.got.Load(); got != nil {
			return got, nil // by the attempt that ended while this one began
		}
		value, err := l.obtain(ctx)
		if err != nil {
			l.failed.Store(&failure{err, l.now()})
			return nil, err
		}
		l.got.Store(&value)
		return &value, nil
	})
	if err != nil {
		return none, err
	}
	return *got, nil
}
