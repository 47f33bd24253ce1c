package watch

import (
	"context"
	"net/http"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/tracing"
)

// Provider returns the Watch of an oauth.Client: it measures and traces the requests to the
// provider, whose endpoints have these URLs.
func Provider(set *metrics.Set, endpoints map[string]string) func(ctx context.Context, endpoint, method string) (context.Context, func(int, error)) {
	traces := tracing.NewProvider(endpoints)
	return func(ctx context.Context, endpoint, method string) (context.Context, func(int, error)) {
		ctx, span := traces.Start(ctx, endpoint, method)
		begun := time.Now()
		return ctx, func(status int, err error) {
			code := metrics.CodeOf(status, err)
			set.ObserveProvider(endpoint, code, time.Since(begun))
			if status != 0 && status < http.StatusBadRequest {
				code = "" // no error
			}
			span.EndRequest(status, code)
		}
	}
}
