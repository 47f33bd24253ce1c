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

// demand is what a path asks of who wants to pass.
type demand struct {
	access access
	blocks blocks // that apply to who is signed in
}

// demand says what the path asks as it stands here. ok is false when that depends on
// how the path is read. A public path asks nothing of anybody.
func (rt *routes) demand(r *http.Request) (d demand, ok bool) {
	if d.access, ok = rt.access(r); !ok || d.access == accessPublic {
		return d, ok
	}
	d.blocks, ok = rt.blocks(r)
	return d, ok
}

// strictest is what is asked where the path is not known: everything.
func (rt *routes) strictest() demand {
	return demand{accessProtected, 1<<len(rt.required) - 1}
}

// access says who may pass at the path as it stands here.
func (rt *routes) access(r *http.Request) (a access, ok bool) {
	if len(rt.public) == 0 && len(rt.optional) == 0 {
		return accessProtected, true
	}
	return readAlike(r, rt.cleanAccess, rt.literalAccess)
}

// blocks says which require blocks apply to the path as it stands here.
func (rt *routes) blocks(r *http.Request) (which blocks, ok bool) {
	if len(rt.required) == 0 {
		return 0, true
	}
	return readAlike(r, rt.cleanBlocks, rt.literalBlocks)
}

// readAlike gives what a path decides. ok is false when that depends on how the path is
// read: by Caddy's path matcher, which cleans it, or letter by letter, in any of its
// forms.
func readAlike[T comparable](r *http.Request, clean func(*http.Request) T, literal func(path string) T) (decided T, ok bool) {
	if isOrdinary(r.URL) {
		return clean(r), true
	}
	var none T
	forms, complete := readings(r.URL)
	literally, ok := agree(forms, literal)
	if !ok || !complete {
		return none, false
	}
	cleaned, ok := agree(forms, func(path string) T {
		read := r.WithContext(r.Context())
		read.URL = &url.URL{Path: path}
		return clean(read)
	})
	return cleaned, ok && cleaned == literally
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

// originalURL is the URL as the client sent it, before any rewrite.
func originalURL(r *http.Request) *url.URL {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL
	}
	return r.URL
}
