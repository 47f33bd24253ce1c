package tollgate

import (
	"fmt"
	"net/http"
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
	required  []caddyhttp.MatchPath // of each require block; none is every path
}

func newRoutes(ctx caddy.Context, endpoints map[string]string, public, optional []string, required ...[]string) (*routes, error) {
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
	for i, patterns := range required {
		matcher := caddyhttp.MatchPath(slices.Clone(patterns))
		if err := matcher.Provision(ctx); err != nil {
			return nil, fmt.Errorf("require[%d]: %w", i, err)
		}
		rt.required = append(rt.required, matcher)
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

// demand is what a request asks of who wants to pass.
type demand struct {
	access access
	blocks blocks // that apply to who is signed in
}

// demand says what a request asks. ok is false if that depends on how one of its two
// paths is read.
func (rt *routes) demand(r *http.Request) (d demand, ok bool) {
	return rt.stricter(originalURL(r), r)
}

// strictest is what is asked where the path is not known: everything.
func (rt *routes) strictest() demand {
	return demand{accessProtected, 1<<len(rt.required) - 1}
}

func (rt *routes) cleanBlocks(r *http.Request) blocks {
	return blocksWhere(rt.required, func(patterns caddyhttp.MatchPath) bool {
		ok, err := patterns.MatchWithError(r)
		return ok || err != nil // what cannot be matched demands, and lets nobody pass
	})
}

func (rt *routes) literalBlocks(path string) blocks {
	return blocksWhere(rt.required, func(patterns caddyhttp.MatchPath) bool { return matchesLiterally(patterns, path) })
}

func blocksWhere(required []caddyhttp.MatchPath, match func(caddyhttp.MatchPath) bool) (which blocks) {
	for i, patterns := range required {
		if len(patterns) == 0 || match(patterns) {
			which |= 1 << i
		}
	}
	return which
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
