package flight_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/flight"
)

func TestCallersOfOneKeyShareOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[int]
		var calls atomic.Int64
		var waiting sync.WaitGroup
		for range 10 {
			waiting.Go(func() {
				got, err := group.Do(t.Context(), "a", func(context.Context) (int, error) {
					time.Sleep(time.Second)
					return int(calls.Add(1)), nil
				})
				if err != nil || got != 1 {
					t.Errorf("got %d, %v; want 1", got, err)
				}
			})
		}
		waiting.Wait()
		if n := calls.Load(); n != 1 {
			t.Errorf("got %d calls, want 1", n)
		}
	})
}

func TestKeysDoNotShareACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[string]
		var waiting sync.WaitGroup
		for _, key := range []string{"a", "b"} {
			waiting.Go(func() {
				got, _ := group.Do(t.Context(), key, func(context.Context) (string, error) {
					time.Sleep(time.Second)
					return key, nil
				})
				if got != key {
					t.Errorf("got %q, want %q", got, key)
				}
			})
		}
		waiting.Wait()
	})
}

func TestACallOutlivesItsFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[string]
		call := func(ctx context.Context) (string, error) {
			select {
			case <-time.After(time.Second):
				return "done", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		leaving, leave := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, err := group.Do(leaving, "a", call); !errors.Is(err, context.Canceled) {
				t.Errorf("the caller that left got %v, want %v", err, context.Canceled)
			}
		})
		synctest.Wait()
		waiting.Go(func() {
			if got, err := group.Do(t.Context(), "a", call); got != "done" {
				t.Errorf("the caller that stayed got %q, %v; want \"done\"", got, err)
			}
		})
		synctest.Wait()
		leave()
		waiting.Wait()
	})
}

func TestACallKeepsItsCallersValues(t *testing.T) {
	type key struct{}
	var group flight.Group[any]
	ctx := context.WithValue(t.Context(), key{}, "trace")
	got, _ := group.Do(ctx, "a", func(ctx context.Context) (any, error) { return ctx.Value(key{}), nil })
	if got != "trace" {
		t.Errorf("got %v, want \"trace\"", got)
	}
}

func TestAStartedCallNeedsNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var group flight.Group[int]
		group.Start("a", func() (int, error) { return 0, errors.New("nobody reads this") })
		synctest.Wait() // fails the test if a goroutine stays blocked
		if got := <-group.Start("a", func() (int, error) { return 2, nil }); got.Value != 2 || got.Err != nil {
			t.Errorf("got %+v, want 2", got)
		}
	})
}

func TestLazyObtainsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		lazy := flight.NewLazy(time.Now, time.Second, func(context.Context) (int, error) {
			time.Sleep(time.Second)
			calls++
			return 7, nil
		})
		var waiting sync.WaitGroup
		for range 5 {
			waiting.Go(func() {
				if got, err := lazy.Get(t.Context()); got != 7 || err != nil {
					t.Errorf("got %d, %v; want 7", got, err)
				}
			})
		}
		waiting.Wait()
		if got, err := lazy.Get(t.Context()); got != 7 || err != nil || calls != 1 {
			t.Errorf("got %d, %v after %d calls; want 7 after 1", got, err, calls)
		}
	})
}

func TestLazyPausesAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, down := 0, errors.New("down")
		lazy := flight.NewLazy(time.Now, time.Second, func(context.Context) (int, error) {
			if calls++; calls == 1 {
				return 0, down
			}
			return calls, nil
		})
		for range 3 {
			if _, err := lazy.Get(t.Context()); !errors.Is(err, down) {
				t.Errorf("got %v, want %v", err, down)
			}
		}
		if calls != 1 {
			t.Errorf("got %d calls within the pause, want 1", calls)
		}
		time.Sleep(time.Second)
		if got, err := lazy.Get(t.Context()); got != 2 || err != nil {
			t.Errorf("after the pause: got %d, %v; want 2", got, err)
		}
	})
}

func TestAClockThatWasSetBackEndsAPause(t *testing.T) {
	for _, c := range []struct {
		since time.Duration
		want  bool
	}{{-time.Second, false}, {0, true}, {time.Second - 1, true}, {time.Second, false}} {
		if got := flight.Within(c.since, time.Second); got != c.want {
			t.Errorf("%v after it began: got %v, want %v", c.since, got, c.want)
		}
	}
}
