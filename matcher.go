package tollgate

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

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
	selected, err := selects(h.matchers, r)
	if err != nil {
		h.logger.Warn("the matcher of tollgate cannot be evaluated: the request is treated as protected", zap.Error(err))
	}
	return err == nil && !selected
}

// selects reports whether matchers select a request: as the client sent it, or as it
// stands here after `rewrite` and `uri`, in any way to read its path, its method and its
// host. A path that is not
// in its plain form is selected: a matcher cannot be asked how a server reads it that
// cleans nothing.
func selects(matchers caddyhttp.MatcherSets, r *http.Request) (selected bool, err error) {
	views, plain := viewsOf(r)
	if !plain {
		return true, nil
	}
	for _, v := range views {
		matched, failed := v.asked(matchers, r)
		selected = selected || matched
		if failed != nil {
			err = failed
		}
	}
	return selected, err
}

// view is one way to see a request.
type view struct {
	method string
	host   string
	header http.Header
	url    *url.URL
}

// viewsOf gives the ways to see a request. plain is false if a reading of a path is not
// in its plain form.
func viewsOf(r *http.Request) (views []view, plain bool) {
	here := view{r.Method, r.Host, r.Header, r.URL}
	sent := here
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		sent = view{original.Method, r.Host, r.Header, original.URL} // Caddy keeps no other Host
	}
	for _, v := range []view{sent, here} {
		forms, complete := policy.Readings(v.url)
		if !complete {
			return nil, false
		}
		for _, form := range forms {
			if policy.CleanPath(form) != form {
				return nil, false
			}
			read := *v.url
			read.Path, read.RawPath = form, ""
			v := v
			v.url = &read
			views = append(views, v)
		}
	}
	if sent.method == here.method && *sent.url == *here.url && len(views) == 2 {
		views = []view{here}
	} else {
		views = append(views, sent, here)
	}
	return respelled(respelled(respelled(views, asGET(r)), inUpperCase), withPlainHost), true
}

// respelled adds each view once more as an upstream may see it, where that is another.
func respelled(views []view, spell func(view) (respelled view, differs bool)) []view {
	for _, v := range views {
		if other, differs := spell(v); differs {
			views = append(views, other)
		}
	}
	return views
}

// asGET sees the CONNECT of a WebSocket as the request that reverse_proxy makes of it.
func asGET(r *http.Request) func(view) (view, bool) {
	if !policy.IsWebSocketConnect(r) {
		return func(v view) (view, bool) { return v, false }
	}
	upgrade := r.Header.Clone()
	upgrade.Set("Connection", "Upgrade")
	upgrade.Set("Upgrade", "websocket")
	return func(v view) (view, bool) {
		v.method, v.header = http.MethodGet, upgrade
		return v, true
	}
}

// inUpperCase sees a method as the servers do that ignore its case, gunicorn among them.
func inUpperCase(v view) (view, bool) {
	upper := strings.ToUpper(v.method)
	differs := upper != v.method
	v.method = upper
	return v, differs
}

// withPlainHost sees the host as the servers do that choose a site by it: without the
// dot of a full domain name, and in lower case.
func withPlainHost(v view) (view, bool) {
	host := policy.PlainHost(v.host)
	differs := host != v.host
	v.host = host
	return v, differs
}

// asked asks the matchers about the request as it is seen. The request is the same
// value, because Caddy's placeholders are of it.
func (v view) asked(matchers caddyhttp.MatcherSets, r *http.Request) (bool, error) {
	method, host, header, current := r.Method, r.Host, r.Header, r.URL
	defer func() { r.Method, r.Host, r.Header, r.URL = method, host, header, current }()
	r.Method, r.Host, r.Header, r.URL = v.method, v.host, v.header, v.url
	return matchers.AnyMatchWithError(r)
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
