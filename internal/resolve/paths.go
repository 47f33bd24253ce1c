package resolve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/origin"
	"github.com/caddy-tollgate/tollgate/internal/policy"
)

// RedirectURI reads the full URL of the callback. It returns an empty URL if there is none.
func RedirectURI(r *config.Resolver, raw string, insecureHTTP bool) (u *url.URL, text string) {
	const setting = "redirect_uri"
	if raw == "" {
		r.Fail(setting, "is required: set the full URL of the callback, exactly as registered with the provider")
	}
	text = r.Text(setting, raw, "")
	u, err := url.Parse(text)
	switch {
	case r.Err != nil:
		return &url.URL{}, text
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		r.Check(setting, raw, errors.New("is not an absolute URL: it must begin with https:// or http:// and a host"))
		return &url.URL{}, text
	case strings.Contains(text, " "):
		r.Check(setting, raw, errors.New("must not contain a space"))
	case u.User != nil || strings.ContainsAny(text, "?#"): // url.Parse forgets an empty query
		r.Check(setting, raw, errors.New("must not contain a user, query or fragment"))
	case u.Path == "" || u.Path == "/" || u.Path != path.Clean(u.Path) || u.RawPath != "":
		r.Check(setting, raw, fmt.Errorf("%q needs a plain path, such as /oauth/callback", text))
	case !origin.IsSecure(u) && !insecureHTTP:
		r.Check(setting, raw, fmt.Errorf("%q must be https (http only on loopback); to allow plain http anyway set `insecure_http`", text))
	case insecureHTTP && origin.IsSecure(u):
		r.Fail("insecure_http", "contradicts redirect_uri, which is https or on loopback already: remove insecure_http")
	}
	if _, err := origin.CanonicalHost(u.Hostname()); err != nil {
		r.Check(setting, raw, err)
	}
	return u, text
}

// defaultPathPrefix is the default of path_prefix.
const defaultPathPrefix = "/oauth"

// OwnPaths are the settings of the paths of the gateway's own endpoints.
type OwnPaths struct {
	Prefix   string
	Own      map[string]string // by name
	Callback string            // the path of redirect_uri
	// Needs maps the name of an endpoint that cannot be on to the block that is missing for it.
	Needs map[string]string
}

// EndpointPaths returns the paths of the endpoints that are on, by name.
func EndpointPaths(r *config.Resolver, o OwnPaths, names []string) map[string]string {
	prefix := strings.TrimRight(r.Path("path_prefix", o.Prefix, defaultPathPrefix), "/")
	if strings.ContainsAny(prefix, "?#%") {
		r.Fail("path_prefix", "must be a plain path without a query, fragment or escape")
	}
	paths := make(map[string]string, len(names))
	byPath := make(map[string]string, len(names))
	for _, name := range names {
		setting := "endpoints." + name
		own, moved := o.Own[name]
		if block, off := o.Needs[name]; off {
			if moved {
				r.Fail(setting, "the endpoint needs %s block", block)
			}
			continue
		}
		p := prefix + "/" + name
		switch {
		case name == "callback":
			p = o.Callback
			if moved && own != p {
				r.Fail(setting, "contradicts redirect_uri, whose path is the callback: remove it")
			}
		case moved:
			p = own
			if own == "" || own[0] != '/' || own == "/" || own != path.Clean(own) || strings.ContainsAny(own, "?#%\\;*{}") {
				r.Fail(setting, "%q is not a plain path", own)
			}
		}
		if other, taken := byPath[p]; taken {
			r.Fail(setting, "has the same path as the endpoint %s: %s", other, p)
		}
		paths[name], byPath[p] = p, name
	}
	for _, name := range slices.Sorted(maps.Keys(o.Own)) {
		if !slices.Contains(names, name) {
			r.Fail("endpoints", "unknown endpoint %s", config.UnknownName(name, names))
		}
	}
	for _, name := range names {
		if auth := paths["auth"]; auth != "" && strings.HasPrefix(paths[name], auth+"/") {
			r.Fail("endpoints.auth", "every path below %s belongs to auth: move the endpoint %s elsewhere", auth, name)
		}
	}
	return paths
}

// MatchedPaths returns the path patterns of matchers.
func MatchedPaths(matchers caddyhttp.MatcherSets) (patterns []string) {
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

// Routes prepares the path patterns of the configuration for matching.
func Routes(ctx caddy.Context, endpoints map[string]string, public, optional []string, required ...[]string) (*policy.Routes, error) {
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

// EndpointAt returns the name of the endpoint whose path a configured page has. Returns "" if
// the page is not an endpoint.
func EndpointAt(endpoints map[string]string, page string) string {
	u, err := url.Parse(page)
	if err != nil {
		return ""
	}
	for name, path := range endpoints {
		if path == u.Path {
			return name
		}
	}
	return ""
}

// NeedsLogin reports whether a configured page is protected: it is not an endpoint, not
// public and not optional. Directives that run earlier may change the path; that is not
// known here.
func NeedsLogin(page string, endpoints map[string]string, public, optional []string) bool {
	u, err := url.Parse(page)
	if page == "" || err != nil || EndpointAt(endpoints, page) != "" {
		return false
	}
	rt, err := Routes(caddy.Context{}, endpoints, public, optional)
	if err != nil {
		return false
	}
	request := &http.Request{Method: http.MethodGet, URL: u}
	// Caddy's path matcher reads placeholders in patterns.
	d, ok := rt.Demand(u, request.WithContext(context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer())))
	return ok && d.Access == policy.AccessProtected
}
