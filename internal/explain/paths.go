package explain

import (
	"net/http"
	"net/url"

	"github.com/caddy-tollgate/tollgate/internal/policy"
)

// Routes are the rules by path of a site.
type Routes struct {
	All *policy.Routes
	// Public and Optional are the patterns of these options.
	Public, Optional []string
	// Only makes routes on which a single pattern is public.
	Only func(pattern string) (*policy.Routes, error)
}

// Paths describes the path that the client sent, and the one at tollgate if it differs.
func (rs Routes) Paths(sent *url.URL, r *http.Request) []Path {
	paths := []Path{rs.path("as sent", sent, r)}
	if sent.EscapedPath() != r.URL.EscapedPath() {
		paths = append(paths, rs.path("at tollgate", r.URL, r))
	}
	return paths
}

func (rs Routes) path(name string, u *url.URL, r *http.Request) Path {
	here := r.WithContext(r.Context())
	here.URL = u
	readings, complete := policy.Readings(u)
	demand, ok := rs.All.Demand(u, here)
	p := Path{Name: name, Path: u.EscapedPath(), Readings: readings, Ambiguous: !ok || !complete}
	if !p.Ambiguous {
		p.Access = AccessName(demand.Access)
		p.By = append(rs.covering("public", rs.Public, u, here), rs.covering("optional", rs.Optional, u, here)...)
	}
	return p
}

// covering returns the patterns of an option that cover a path, as the operator wrote them.
func (rs Routes) covering(option string, patterns []string, u *url.URL, here *http.Request) (by []string) {
	for _, pattern := range patterns {
		only, err := rs.Only(pattern)
		if err != nil {
			continue
		}
		if demand, ok := only.Demand(u, here); ok && demand.Access == policy.AccessPublic {
			by = append(by, "`"+option+" "+pattern+"`")
		}
	}
	return by
}

// AccessName is the word for who may pass.
func AccessName(a policy.Access) string {
	switch a {
	case policy.AccessPublic:
		return "public"
	case policy.AccessOptional:
		return "optional"
	default:
		return "protected"
	}
}
