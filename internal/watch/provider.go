package watch

import (
	"context"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/metrics"
)

// Provider returns the Watch of an oauth.Client: it measures the requests to the provider.
func Provider(set *metrics.Set) func(ctx context.Context, endpoint, method string) (context.Context, func(int, error)) {
	return func(ctx context.Context, endpoint, _ string) (context.Context, func(int, error)) {
		begun := time.Now()
		return ctx, func(status int, err error) {
			set.ObserveProvider(endpoint, metrics.CodeOf(status, err), time.Since(begun))
		}
	}
}
