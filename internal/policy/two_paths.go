package policy

import (
	"net/http"
	"net/url"
)

// Demand says what a request asks, by two paths: the path that the client sent, and
// the path of here, which is the request as directives before us have left it. The
// stricter of the two decides: a request is public only if both paths are, and each
// require block that names one of them applies.
//
// An operator writes rules for either path. With the path of here alone
// `uri strip_prefix /api` takes a request out of `require /api/*`, and
// `rewrite /secret/* /public{uri}` skips the login. With the path that the client sent
// alone, a rule for what the application serves would never apply. A path between two
// rewrites is not known to us.
//
// ok is false if the answer for one of the paths depends on how that path is read.
func (rt *Routes) Demand(sent *url.URL, here *http.Request) (d Demand, ok bool) {
	if !rt.goByPath() {
		_, readable := Readings(sent) // who asks for a proxy may ask for a path that nobody may
		return Demand{Access: AccessProtected}, readable
	}
	if isSamePath(sent, here.URL) { // the ordinary case, which costs no allocation
		return rt.demandAt(read(here))
	}
	asSent := here.WithContext(here.Context())
	asSent.URL = sent
	return rt.demandAt(read(asSent), read(here))
}

// goByPath reports whether any setting depends on the path.
func (rt *Routes) goByPath() bool {
	return len(rt.public.List) > 0 || len(rt.optional.List) > 0 || len(rt.required) > 0
}

// isSamePath reports whether two URLs have one path, in one spelling.
func isSamePath(a, b *url.URL) bool {
	return a.Path == b.Path && a.RawPath == b.RawPath
}

// demandAt gives the strictest demand of these paths, which are one or two.
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
		return d, true // a public path asks nothing of anybody
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
	forms    []string      // nil for an ordinary path: every server reads it alike
	complete bool          // false if there are more forms than we look at
}

func read(r *http.Request) readPath {
	if isOrdinary(r.URL) {
		return readPath{request: r, complete: true}
	}
	forms, complete := Readings(r.URL)
	return readPath{r, forms, complete}
}

// decideAlike gives what a path decides. ok is false if that depends on how the path is
// read: by Caddy's path matcher, which cleans it, or letter by letter, in any of its
// forms.
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
