package tollgate

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/policy"
)

// loadMatchers loads the matcher of the directive. None selects every request.
func (h *Handler) loadMatchers(ctx caddy.Context) error {
	if len(h.Match) == 0 {
		return nil
	}
	loaded, err := ctx.LoadModule(h, "Match")
	if err != nil {
		return err
	}
	return h.matchers.FromInterface(loaded)
}

// leavesOut reports whether the matcher leaves a request out, so that it passes like one
// for a public path. What cannot be evaluated is not left out.
func (h *Handler) leavesOut(r *http.Request) bool {
	if len(h.matchers) == 0 {
		return false
	}
	sent := *r
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		sent.Method, sent.URL = original.Method, original.URL
	}
	selected, err := policy.Selects(h.matchers.AnyMatchWithError, r, &sent)
	if err != nil {
		h.logger.Warn("the matcher of tollgate cannot be evaluated: the request is treated as protected", zap.Error(err))
	}
	return err == nil && !selected
}

// matchedPaths are the path patterns of matchers.
func matchedPaths(matchers caddyhttp.MatcherSets) (patterns []string) {
	for _, set := range matchers {
		for _, matcher := range set {
			switch matcher := matcher.(type) {
			case caddyhttp.MatchPath:
				patterns = append(patterns, matcher...)
			case *caddyhttp.MatchPath:
				patterns = append(patterns, *matcher...)
			}
		}
	}
	return patterns
}

// newRoutes makes the paths of the configuration ready to decide by.
func newRoutes(ctx caddy.Context, endpoints map[string]string, public, optional []string, required ...[]string) (*policy.Routes, error) {
	publicPaths, err := newPatterns(ctx, "public", public)
	if err != nil {
		return nil, err
	}
	optionalPaths, err := newPatterns(ctx, "optional", optional)
	if err != nil {
		return nil, err
	}
	var blocks []policy.Patterns
	for i, list := range required {
		block, err := newPatterns(ctx, fmt.Sprintf("require[%d]", i), list)
		if err != nil {
			return nil, err
		}
		blocks = append(blocks, block)
	}
	return policy.NewRoutes(endpoints, publicPaths, optionalPaths, blocks), nil
}

func newPatterns(ctx caddy.Context, setting string, list []string) (policy.Patterns, error) {
	matcher := caddyhttp.MatchPath(slices.Clone(list)) // Provision changes it in place
	if err := matcher.Provision(ctx); err != nil {
		return policy.Patterns{}, fmt.Errorf("%s: %w", setting, err)
	}
	return policy.Patterns{List: matcher, Match: matcher.MatchWithError}, nil
}

// originalURL is the URL as the client sent it, before any rewrite.
func originalURL(r *http.Request) *url.URL {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL
	}
	return r.URL
}
