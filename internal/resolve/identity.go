package resolve

import (
	"maps"
	"net/http"
	"net/textproto"
	"slices"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/identity"
	"github.com/caddy-tollgate/tollgate/internal/placeholders"
	"github.com/caddy-tollgate/tollgate/internal/respond"
)

// IdentityHeaders reads which headers tell the upstream who the user is: sets of headers, and
// the operator's own by name.
func IdentityHeaders(r *config.Resolver, presets []string, own map[string]string) *identity.Headers {
	if len(presets) == 0 {
		presets = []string{"default"}
	}
	if slices.Contains(presets, "none") && len(presets) > 1 {
		r.Fail("identity", "none cannot be combined with other presets")
	}
	headers, err := identity.NewHeaders(presets, own)
	r.Check("identity", "", err)
	for _, name := range slices.Sorted(maps.Keys(own)) {
		r.Template("identity.header", own[name], placeholders.Prefix, placeholders.Names())
	}
	return headers
}

// AssertionBlock are the settings of the assertion. Origin is the site's.
type AssertionBlock struct {
	Header, Audience string
	Lifetime         caddy.Duration
	Origin           string
}

// Assertion reads the block of the assertion, and adds its header to those of the identity.
func Assertion(r *config.Resolver, headers *identity.Headers, a AssertionBlock) *identity.AssertionOptions {
	const setting = "assertion.header"
	name := textproto.CanonicalMIMEHeaderKey(r.Text(setting, a.Header, identity.DefaultAssertionHeader))
	switch {
	case !header.IsName(name):
		r.Fail(setting, "%q is not a valid header name", name)
	case header.IsReserved(name) || respond.IsAuthHeader(name):
		r.Fail(setting, "%s already has another meaning: choose another name", name)
	case headers.Forges(name):
		r.Fail(setting, "%s already carries a part of the identity: choose another name", name)
	default:
		headers.AddAssertion(name)
	}
	options := &identity.AssertionOptions{
		Audience: r.Text("assertion.audience", a.Audience, a.Origin),
		Lifetime: r.Duration("assertion.lifetime", a.Lifetime, identity.DefaultAssertionLifetime),
	}
	if l := options.Lifetime; l < identity.MinAssertionLifetime || l > identity.MaxAssertionLifetime {
		r.Fail("assertion.lifetime", "must be from 10s to 5m")
	}
	return options
}

// CheckAuthHeaders checks that the identity headers can be sent to another proxy.
func CheckAuthHeaders(r *config.Resolver, headers *identity.Headers) {
	empty := http.Header{}
	headers.SetEmpty(empty)
	for name := range empty {
		if respond.IsAuthHeader(name) {
			r.Fail("identity.header", "%s has another meaning in the response of forward_auth: choose another name", name)
		}
	}
	if size := header.Size(empty); size > respond.MaxAuthHeaders/2 {
		r.Fail("identity", "the header names alone take %d bytes, and the response of forward_auth allows %d: use fewer presets or shorter names", size, respond.MaxAuthHeaders/2)
	}
}

// AccessTokenHeader reads the header of the access token, and adds it to those of the
// identity. forwardAuth reports whether it is sent to another proxy, too.
func AccessTokenHeader(r *config.Resolver, headers *identity.Headers, raw string, forwardAuth bool) {
	const setting = "pass_access_token"
	name := r.Text(setting, raw, "")
	if forwardAuth && respond.IsAuthHeader(textproto.CanonicalMIMEHeaderKey(name)) {
		r.Fail(setting, "%s has another meaning in the response of forward_auth: choose another name", name)
	}
	if r.Err == nil {
		r.Check(setting, raw, headers.ReserveToken(name))
	}
}
