package watch_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/session"
	"github.com/caddy-tollgate/tollgate/internal/watch"
)

// ready is a store that does nothing.
type ready struct{ session.Store }

func (ready) Ready(context.Context) error { return nil }

func TestCallsWithoutTracingAllocateNothingForTraces(t *testing.T) {
	set, ctx := metrics.New(), t.Context()
	store := watch.Store(ready{}, set, "redis")
	if got := testing.AllocsPerRun(100, func() { _ = store.Ready(ctx) }); got != 0 {
		t.Errorf("an operation of the store: got %v allocations, want 0", got)
	}
	provider := watch.Provider(set, map[string]string{"token": "https://provider.example/token"})
	got := testing.AllocsPerRun(100, func() {
		_, end := provider(ctx, "token", http.MethodPost)
		end(http.StatusOK, nil)
	})
	if got > 2 { // the function that is returned, and the label for the metrics
		t.Errorf("a request to the provider: got %v allocations, want 2", got)
	}
}
