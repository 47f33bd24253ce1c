// Package policy decides by path: which endpoint of the gateway a request is for, who may
// pass, and which rules apply.
//
// A path is judged in every way in which an upstream could read it. If the readings lead to
// different results, the request is refused. The package does not know who is signed in.
// Begin with Routes.
package policy

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Patterns are path patterns in the syntax of Caddy's path matcher, for two ways to match.
type Patterns struct {
	// List is compared letter by letter, as in a server that does not clean paths.
	List []string
	// Match is Caddy's path matcher, which cleans the path. An error means that it cannot
	// be evaluated.
	Match func(*http.Request) (bool, error)
}

// Routes decides by path: it finds the endpoint of a request, or else the access that the
// path allows.
type Routes struct {
	endpoints map[string]string // path to name
	belowAuth string            // the beginning of the paths below auth; empty without auth
	public    Patterns
	optional  Patterns
	required  []Patterns // of each require block; a block without patterns applies to every path
}

// NewRoutes returns the routes of a site. endpoints maps names to paths. required has one
// element for each require block.
func NewRoutes(endpoints map[string]string, public, optional Patterns, required []Patterns) *Routes {
	rt := &Routes{endpoints: make(map[string]string, len(endpoints)), public: public, optional: optional, required: required}
	for name, path := range endpoints {
		rt.endpoints[path] = name
		if name == "auth" {
			rt.belowAuth = path + "/"
		}
	}
	return rt
}

// Endpoint returns the name of the endpoint that a request is for, or "". It uses the path
// as the client sent it, also if a directive before us has rewritten it. ok is false if
// only some readings of the path are an endpoint. If one of them is auth, the name is
// "auth", because auth refuses requests in its own way.
func (rt *Routes) Endpoint(u *url.URL) (name string, ok bool) {
	if isOrdinary(u) {
		return rt.endpointAt(u.Path), true
	}
	forms, complete := Readings(u)
	name, ok = agree(forms, rt.endpointAt)
	if !ok && slices.ContainsFunc(forms, func(path string) bool { return rt.endpointAt(path) == "auth" }) {
		name = "auth"
	}
	return name, ok && complete
}

// endpointAt returns the name of the endpoint at a decoded path, or "".
func (rt *Routes) endpointAt(path string) string {
	if rt.belowAuth != "" && strings.HasPrefix(path, rt.belowAuth) {
		return "auth"
	}
	return rt.endpoints[path]
}

// Demand is what a path requires of a request.
type Demand struct {
	Access Access
	Blocks Blocks // the require blocks that apply to a signed-in user
}

// Strictest returns the demand for an unknown path: a session, and every require block.
func (rt *Routes) Strictest() Demand {
	return Demand{AccessProtected, 1<<len(rt.required) - 1}
}

func (rt *Routes) cleanBlocks(r *http.Request) Blocks {
	return blocksWhere(rt.required, func(p Patterns) bool {
		ok, err := p.Match(r)
		return ok || err != nil // fail closed: if a pattern cannot be evaluated, its block applies
	})
}

func (rt *Routes) literalBlocks(path string) Blocks {
	return blocksWhere(rt.required, func(p Patterns) bool { return matchesLiterally(p.List, path) })
}

func blocksWhere(required []Patterns, match func(Patterns) bool) (which Blocks) {
	for i, p := range required {
		if len(p.List) == 0 || match(p) {
			which |= 1 << i
		}
	}
	return which
}

func (rt *Routes) cleanAccess(r *http.Request) Access {
	return accessIf(matches(rt.public, r), func() bool { return matches(rt.optional, r) })
}

func (rt *Routes) literalAccess(path string) Access {
	return accessIf(matchesLiterally(rt.public.List, path), func() bool { return matchesLiterally(rt.optional.List, path) })
}

func accessIf(public bool, optional func() bool) Access {
	switch {
	case public:
		return AccessPublic
	case optional():
		return AccessOptional
	default:
		return AccessProtected
	}
}

// matches reports whether a request matches. A pattern that cannot be evaluated does not
// match, so that the path stays protected.
func matches(p Patterns, r *http.Request) bool {
	if len(p.List) == 0 {
		return false
	}
	ok, err := p.Match(r)
	return err == nil && ok
}
