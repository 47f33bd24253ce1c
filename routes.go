package tollgate

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// patterns are path patterns as of Caddy's path matcher, for both ways to read a path.
type patterns struct {
	// list is compared letter by letter, as a server does that cleans nothing.
	list []string
	// match is Caddy's path matcher, which cleans the path. An error means that it cannot
	// be evaluated.
	match func(*http.Request) (bool, error)
}

// routes decides by path: which endpoint of ours a request is for, and else who may
// pass there.
type routes struct {
	endpoints map[string]string // path to name
	belowAuth string            // what the paths below auth begin with, or empty
	public    patterns
	optional  patterns
	required  []patterns // of each require block; none is every path
}

func assembleRoutes(endpoints map[string]string, public, optional patterns, required []patterns) *routes {
	rt := &routes{endpoints: make(map[string]string, len(endpoints)), public: public, optional: optional, required: required}
	for name, path := range endpoints {
		rt.endpoints[path] = name
		if name == "auth" {
			rt.belowAuth = path + "/"
		}
	}
	return rt
}

// endpoint names the endpoint that a request is for, or nothing. It goes by the
// path as the client sent it, whatever directives before us made of it. ok is
// false when an endpoint is meant by some readings of the path and not by others; the
// name is then auth's where one of them means that, which has its own way to refuse.
func (rt *routes) endpoint(u *url.URL) (name string, ok bool) {
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

// strictest is what is asked where the path is not known: everything.
func (rt *routes) strictest() demand {
	return demand{accessProtected, 1<<len(rt.required) - 1}
}

func (rt *routes) cleanBlocks(r *http.Request) blocks {
	return blocksWhere(rt.required, func(p patterns) bool {
		ok, err := p.match(r)
		return ok || err != nil // what cannot be matched demands, and lets nobody pass
	})
}

func (rt *routes) literalBlocks(path string) blocks {
	return blocksWhere(rt.required, func(p patterns) bool { return matchesLiterally(p.list, path) })
}

func blocksWhere(required []patterns, match func(patterns) bool) (which blocks) {
	for i, p := range required {
		if len(p.list) == 0 || match(p) {
			which |= 1 << i
		}
	}
	return which
}

func (rt *routes) cleanAccess(r *http.Request) access {
	return accessIf(matches(rt.public, r), func() bool { return matches(rt.optional, r) })
}

func (rt *routes) literalAccess(path string) access {
	return accessIf(matchesLiterally(rt.public.list, path), func() bool { return matchesLiterally(rt.optional.list, path) })
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
func matches(p patterns, r *http.Request) bool {
	if len(p.list) == 0 {
		return false
	}
	ok, err := p.match(r)
	return err == nil && ok
}
