package tollgate

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// routes decides by path: which endpoint of ours a request is for, and else who may
// pass there.
type routes struct {
	endpoints map[string]string // path to name
	belowAuth string            // what the paths below auth begin with, or empty
	public    caddyhttp.MatchPath
	optional  caddyhttp.MatchPath
}

func newRoutes(ctx caddy.Context, endpoints map[string]string, public, optional []string) (*routes, error) {
	rt := &routes{
		endpoints: make(map[string]string, len(endpoints)),
		public:    slices.Clone(public), // Provision changes them in place
		optional:  slices.Clone(optional),
	}
	for name, path := range endpoints {
		rt.endpoints[path] = name
		if name == "auth" {
			rt.belowAuth = path + "/"
		}
	}
	for setting, patterns := range map[string]caddyhttp.MatchPath{"public": rt.public, "optional": rt.optional} {
		if err := patterns.Provision(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", setting, err)
		}
	}
	return rt, nil
}

// endpoint names the endpoint that a request is for, or nothing. It goes by the
// path as the client sent it, whatever directives before us made of it. ok is
// false when an endpoint is meant by some readings of the path and not by others; the
// name is then auth's where one of them means that, which has its own way to refuse.
func (rt *routes) endpoint(r *http.Request) (name string, ok bool) {
	u := originalURL(r)
	if isOrdinary(u) {
		return rt.endpointAt(u.Path), true
	}
	forms, complete := readings(u)
	name, ok = agree(forms, rt.endpointAt)
	if !ok && slices.ContainsFunc(forms, func(path string) bool { return rt.endpointAt(path) == "auth" }) {
		name = "auth"
	}
	return name, ok && complete
}

func (rt *routes) endpointAt(path string) string {
	if rt.belowAuth != "" && strings.HasPrefix(path, rt.belowAuth) {
		return "auth"
	}
	return rt.endpoints[path]
}

// access says who may pass at the path as it stands here. ok is false when that
// depends on how the path is read: by Caddy's path matcher, which cleans it, or
// letter by letter, in any of its forms.
func (rt *routes) access(r *http.Request) (a access, ok bool) {
	if len(rt.public) == 0 && len(rt.optional) == 0 {
		return accessProtected, true
	}
	if isOrdinary(r.URL) {
		return rt.cleanAccess(r), true
	}
	forms, complete := readings(r.URL)
	literal, ok := agree(forms, rt.literalAccess)
	if !ok || !complete {
		return accessProtected, false
	}
	cleaned, ok := agree(forms, func(path string) access {
		read := r.WithContext(r.Context())
		read.URL = &url.URL{Path: path}
		return rt.cleanAccess(read)
	})
	return cleaned, ok && cleaned == literal
}

func (rt *routes) cleanAccess(r *http.Request) access {
	return accessIf(matches(rt.public, r), func() bool { return matches(rt.optional, r) })
}

func (rt *routes) literalAccess(path string) access {
	return accessIf(matchesLiterally(rt.public, path), func() bool { return matchesLiterally(rt.optional, path) })
}

func accessIf(public bool, optional func() bool) access {
	switch {
	case public:
		return accessPublic
	case optional():
		return accessOptional
	default:
		return accessProtected
	}
}

// matches treats a pattern that cannot be matched as no match: then the path is
// protected.
func matches(patterns caddyhttp.MatchPath, r *http.Request) bool {
	if len(patterns) == 0 {
		return false
	}
	ok, err := patterns.MatchWithError(r)
	return err == nil && ok
}

// originalURL is the URL as the client sent it, before any rewrite.
func originalURL(r *http.Request) *url.URL {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL
	}
	return r.URL
}
