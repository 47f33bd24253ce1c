package policy

import (
	"net/http"
	"net/url"
)

// Demand returns which rules apply to a request, by two paths: the path that the client
// sent, and the current path, after the directives before us. The stricter one decides: a
// request is public only if both paths are public, and a require block applies if it names
// one of them.
//
// An operator may write rules for either path. With the current path alone,
// `uri strip_prefix /api` takes a request out of `require /api/*`, and
// `rewrite /secret/* /public{uri}` skips the login. With the path that the client sent
// alone, a rule for the path that the application sees would never apply. Paths between two
// rewrites are not known.
//
// ok is false if the result depends on how one of the paths is read.
func (rt *Routes) Demand(sent *url.URL, here *http.Request) (d Demand, ok bool) {
	if !rt.dependsOnPath() {
		_, readable := Readings(sent) // without rules, every readable path is protected
		return Demand{Access: AccessProtected}, readable
	}
	if isSamePath(sent, here.URL) { // the ordinary case, which costs no allocation
		return rt.demandAt(read(here))
	}
	asSent := here.WithContext(here.Context())
	asSent.URL = sent
	return rt.demandAt(read(asSent), read(here))
}

// dependsOnPath reports whether any setting depends on the path.
func (rt *Routes) dependsOnPath() bool {
	return len(rt.public.List) > 0 || len(rt.optional.List) > 0 || len(rt.required) > 0
}

// isSamePath reports whether two URLs have the same path in the same spelling.
func isSamePath(a, b *url.URL) bool {
	return a.Path == b.Path && a.RawPath == b.RawPath
}

// demandAt returns the strictest demand of one or two paths.
func (rt *Routes) demandAt(paths ...readPath) (d Demand, ok bool) {
	d.Access = AccessPublic
	for i := range paths {
		a, ok := decideAlike(&paths[i], rt.cleanAccess, rt.literalAccess)
		if !ok {
			return Demand{}, false
		}
		d.Access = min(d.Access, a)
	}
	if d.Access == AccessPublic || len(rt.required) == 0 {
		return d, true // a public path has no rules
	}
	for i := range paths {
		which, ok := decideAlike(&paths[i], rt.cleanBlocks, rt.literalBlocks)
		if !ok {
			return Demand{}, false
		}
		d.Blocks |= which
	}
	return d, true
}

// readPath is one path of a request, with every way in which a server may read it.
type readPath struct {
	request  *http.Request // with this path in its URL
	forms    []string      // nil for an ordinary path, which every server reads in the same way
	complete bool          // false if Readings found the path too long or too odd
}

func read(r *http.Request) readPath {
	if isOrdinary(r.URL) {
		return readPath{request: r, complete: true}
	}
	forms, complete := Readings(r.URL)
	return readPath{r, forms, complete}
}

// decideAlike decides by one path. clean uses Caddy's path matcher, which cleans the path;
// literal compares a reading exactly. ok is false if clean and literal differ for any reading.
func decideAlike[T comparable](p *readPath, clean func(*http.Request) T, literal func(path string) T) (decided T, ok bool) {
	if p.forms == nil {
		return clean(p.request), true
	}
	var none T
	if !p.complete {
		return none, false
	}
	literally, ok := agree(p.forms, literal)
	if !ok {
		return none, false
	}
	request := p.request.WithContext(p.request.Context())
	cleaned, ok := agree(p.forms, func(path string) T {
		request.URL = &url.URL{Path: path}
		return clean(request)
	})
	return cleaned, ok && cleaned == literally
}
