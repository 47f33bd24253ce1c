package policy

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/config"
)

// FuzzTwoPaths: whatever a rewrite makes of a path, the decision about both is never
// weaker than the decision about either of them alone, and for one path it is the one
// that was made before there were two.
func FuzzTwoPaths(f *testing.F) {
	f.Add("/api/pay", "/pay", "/public/*", "/optional/*", "/api/*", "/pay")
	f.Add("/secret/a", "/public/secret/a", "/public/*", "/s*", "/secret/*", "*")
	f.Add("/public/..%2fadmin", "/public/a", "/public/*", "/a", "/admin/*", "/x")
	f.Add("/a", "//a", "*.css", "/A", "*a*", "/a/*/b")
	f.Add("/index.php/a", "/index.php", "/index.php", "/*", "/admin*", "/index.php/*")
	f.Fuzz(func(t *testing.T, sent, current, public, optional, first, second string) {
		rt := fuzzedRoutes(public, optional, first, second)
		original, err := url.ParseRequestURI(sent)
		here, err2 := url.ParseRequestURI(current)
		if rt == nil || err != nil || err2 != nil {
			return
		}
		both, ok := rt.Demand(original, requestAt(here))
		byOriginal, okOriginal := decideByOnePath(rt, original)
		byCurrent, okCurrent := decideByOnePath(rt, here)
		switch {
		case *original == *here:
			if both != byCurrent || ok != okCurrent {
				t.Fatalf("%q: got %+v, %v, want %+v, %v", sent, both, ok, byCurrent, okCurrent)
			}
		case ok && (!okOriginal || !okCurrent):
			t.Fatalf("%q became %q: got %+v, and one of them is ambiguous", sent, current, both)
		case !ok:
			return // it is refused
		case both.Access != min(byOriginal.Access, byCurrent.Access):
			t.Fatalf("%q became %q: got the access %v of %v and %v", sent, current, both.Access, byOriginal.Access, byCurrent.Access)
		case both.Access == AccessPublic && both.Blocks != 0:
			t.Fatalf("%q became %q: a public path has the rules %b", sent, current, both.Blocks)
		}
		if want := byOriginal.Blocks | byCurrent.Blocks; both.Blocks&want != want {
			t.Fatalf("%q became %q: got the rules %b of %b and %b", sent, current, both.Blocks, byOriginal.Blocks, byCurrent.Blocks)
		}
		if swapped, okSwapped := rt.Demand(here, requestAt(original)); swapped != both || okSwapped != ok {
			t.Fatalf("%q and %q: got %+v, and %+v the other way round", sent, current, both, swapped)
		}
	})
}

// fuzzedRoutes are routes with these patterns, or nil if an operator cannot write them.
func fuzzedRoutes(public, optional, first, second string) *Routes {
	r := &config.Resolver{Repl: caddy.NewReplacer()}
	patterns := r.Patterns("", []string{public, optional, first, second})
	if r.Err != nil || strings.Contains(public+optional+first+second, "{") {
		return nil
	}
	rt, err := newRoutes(nil, patterns[:1], patterns[1:2], patterns[2:3], patterns[3:])
	if err != nil {
		return nil
	}
	return rt
}

// requestAt is a request of which a directive has set the URL.
func requestAt(u *url.URL) *http.Request {
	r := &http.Request{Method: http.MethodGet, URL: u}
	return r.WithContext(context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
}

// decideByOnePath is the decision as it was before there were two paths, written apart
// from the code under test.
func decideByOnePath(rt *Routes, u *url.URL) (d Demand, ok bool) {
	forms, complete := []string{u.Path}, true
	if !isOrdinary(u) {
		forms, complete = Readings(u)
	}
	if !complete {
		return Demand{}, false
	}
	var decided []Demand
	for _, form := range forms {
		cleaned := requestAt(&url.URL{Path: form})
		for _, d := range []Demand{{Access: rt.cleanAccess(cleaned), Blocks: rt.cleanBlocks(cleaned)}, {Access: rt.literalAccess(form), Blocks: rt.literalBlocks(form)}} {
			if d.Access == AccessPublic {
				d.Blocks = 0
			}
			decided = append(decided, d)
		}
	}
	if isOrdinary(u) {
		return decided[0], true
	}
	if slices.ContainsFunc(decided, func(d Demand) bool { return d != decided[0] }) {
		return Demand{}, false
	}
	return decided[0], true
}
