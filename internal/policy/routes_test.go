package policy

import (
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// newRoutes are routes with Caddy's path matcher, without placeholders.
func newRoutes(endpoints map[string]string, public, optional []string, required ...[]string) (*Routes, error) {
	var all []Patterns
	for _, list := range append([][]string{public, optional}, required...) {
		matcher := caddyhttp.MatchPath(slices.Clone(list)) // Provision changes it in place
		if err := matcher.Provision(caddy.Context{}); err != nil {
			return nil, err
		}
		all = append(all, Patterns{List: matcher, Match: matcher.MatchWithError})
	}
	return NewRoutes(endpoints, all[0], all[1], all[2:]), nil
}

// FuzzAccess: whatever an upstream takes a path for, it never reads one that passes
// as public, or without the rules of /admin, as one below /admin, or as an endpoint of
// ours.
func FuzzAccess(f *testing.F) {
	for _, seed := range []string{
		"/public/a", "/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin", "/public/..%5cadmin", "/public/..;/admin",
		"/public/%252e%252e%252fadmin", "/public/x%00/../../admin", "//public/a", "/public/./%2e%2e//admin", "/oauth/logout", "/public/..%2foauth/start", "/a%3b/../public/..;x/admin",
		"//x/admin", "//u@x:80/admin", "/%2fx/admin", "/admin%0a", "/public/..%0a",
		"/adm%C4%B1n", "/adm%25C4%25B1n/x", "/admin%E2%80%A8", "/admin%C2%85",
		"/public/%25/%252e%252e/%252e%252e/admin", "/%2561dmin/%25", "/public/%25zz/%252e%252e%252f..%252fadmin",
	} {
		f.Add(seed)
	}
	rt, err := newRoutes(map[string]string{"start": "/oauth/start", "logout": "/oauth/logout"}, []string{"/public/*", "*.css"}, []string{"/optional/*"},
		[]string{"/admin", "/admin/*"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Path == "" || u.Path[0] != '/' {
			return
		}
		name, ok := rt.Endpoint(u)
		if !ok {
			return
		}
		asked, ok := rt.Demand(u, requestAt(u))
		if !ok {
			return
		}
		access := asked.Access
		for _, read := range upstreamReadings(u) {
			lower := strings.ToLower(read)
			if access != AccessPublic && asked.Blocks == 0 && (lower == "/admin" || strings.HasPrefix(lower, "/admin/")) {
				t.Fatalf("%q passes without the rules, and an upstream reads %q", target, read)
			}
			if access == AccessPublic && (lower == "/admin" || strings.HasPrefix(lower, "/admin/")) && !strings.HasSuffix(lower, ".css") {
				t.Fatalf("%q passes as public, and an upstream reads %q", target, read)
			}
			if name == "" && (read == "/oauth/start" || read == "/oauth/logout") {
				t.Fatalf("%q is none of ours, and an upstream reads %q", target, read)
			}
		}
	})
}

// upstreamReadings are ways in which servers read a path, written apart from the
// code under test.
func upstreamReadings(u *url.URL) []string {
	decoded, err := url.PathUnescape(u.EscapedPath())
	if err != nil {
		decoded = u.Path
	}
	// A decoder that fails on a wrong escape leaves the text, or only that escape.
	twice := regexp.MustCompile(`%[0-9A-Fa-f]{2}`).ReplaceAllStringFunc(decoded, func(escape string) string {
		character, err := hex.DecodeString(escape[1:])
		if err != nil {
			return escape
		}
		return string(character)
	})
	parameters := regexp.MustCompile(`;[^/]*`)
	var read []string
	for _, p := range []string{decoded, twice, parameters.ReplaceAllString(decoded, ""), strings.ReplaceAll(decoded, `\`, "/")} {
		read = append(read, p, path.Clean(p), strings.TrimRight(p, "\n\u0085\u2028\u2029"), strings.ToUpper(p))
		if relative, err := url.Parse(p); err == nil && strings.HasPrefix(p, "//") {
			read = append(read, relative.Path)
		}
	}
	return read
}

// TestDecidingByPathAllocatesNothing: every request pays for this decision.
func TestDecidingByPathAllocatesNothing(t *testing.T) {
	rt, err := newRoutes(nil, []string{"/public/*", "*.css"}, []string{"/optional/*"}, []string{"/paid", "/paid/*"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		want Demand
	}{
		{"/public/a", Demand{Access: AccessPublic, Blocks: 0}}, {"/optional/a", Demand{Access: AccessOptional, Blocks: 2}}, {"/paid/a", Demand{Access: AccessProtected, Blocks: 3}}, {"/page", Demand{Access: AccessProtected, Blocks: 2}},
	} {
		r := caddyhttp.PrepareRequest(httptest.NewRequest(http.MethodGet, c.path, nil), caddy.NewReplacer(), nil, &caddyhttp.Server{})
		if d, ok := rt.Demand(r.URL, r); !ok || d != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", c.path, d, ok, c.want)
		}
		if n := testing.AllocsPerRun(100, func() { rt.Demand(r.URL, r) }); n != 0 {
			t.Errorf("%s: got %v allocations, want none", c.path, n)
		}
	}
}

// accessAt decides about one path, without an endpoint's say.
func accessAt(t *testing.T, rt *Routes, target string) (Access, bool) {
	t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	d, ok := rt.Demand(u, requestAt(u))
	return d.Access, ok
}

// TestAmbiguousPathHasNoAccess: a rewrite may have made the path
// after the endpoints were compared.
func TestAmbiguousPathHasNoAccess(t *testing.T) {
	rt, err := newRoutes(nil, []string{"/public/*"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		target string
		want   bool
	}{
		{"/public/a", true},
		{"/admin", true},
		{"/public/caf%C3%A9", true},
		{"/admin/x%2Fy", true},
		{"/public/..%2fadmin", false},
		{"//public/a", false},
		{"/public/%" + strings.Repeat("25", 40) + "41", false}, // more readings than are looked at
		{"/public/%25/%252e%252e/%252e%252e/admin", false},
		{"/public/%25/a", true},
		{"/public/100%25", true},
	} {
		if a, ok := accessAt(t, rt, c.target); ok != c.want {
			t.Errorf("%s: got %v, %t, want %t", c.target, a, ok, c.want)
		}
	}
}

// TestLiteralMatcherAgreesWithCaddyOnOrdinaryPaths: the two are compared on odd paths, so
// they must not differ on any other.
func TestLiteralMatcherAgreesWithCaddyOnOrdinaryPaths(t *testing.T) {
	paths := []string{"/", "/a", "/A", "/a/", "/a/b", "/a/x/b", "/a/x/y/b", "/ab", "/axb", "/x.css", "/d/x.css", "/d/xcssy", "/a/b.css/c"}
	for _, pattern := range []string{"*", "/*", "/a", "/a*", "/a/*", "*.css", "*css*", "/a/*/b", "/a*b", "/a*b*", "*a*b", "/A/B"} {
		rt, err := newRoutes(nil, []string{pattern}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			cleaned, _ := accessAt(t, rt, path)
			if literal := rt.literalAccess(path); literal != cleaned {
				t.Errorf("%s at %s: got %v literally, want %v as Caddy has it", pattern, path, literal, cleaned)
			}
		}
	}
}
