package resolve

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// sameSites are the words of same_site.
var sameSites = map[string]http.SameSite{"lax": http.SameSiteLaxMode, "strict": http.SameSiteStrictMode, "none": http.SameSiteNoneMode}

// Cookies are the settings of the session cookie.
type Cookies struct {
	Name, Domain, SameSite string
	Partitioned            bool
}

// Jar reads what the session cookie is like, on the site of redirectURI.
func Jar(r *config.Resolver, c Cookies, redirectURI *url.URL) *browser.Jar {
	secure := redirectURI.Scheme == "https"
	sameSite := r.OneOf("session.same_site", c.SameSite, "lax", "lax", "strict", "none")
	if sameSite == "none" && !secure {
		r.Fail("session.same_site", "none needs an https redirect_uri: browsers refuse such a cookie on plain http")
	}
	if c.Partitioned && !secure {
		r.Fail("session.partitioned", "needs an https redirect_uri: browsers refuse such a cookie on plain http")
	}
	domain := r.Domain("session.cookie_domain", c.Domain)
	if host, _ := origin.CanonicalHost(redirectURI.Hostname()); domain != "" && host != domain && !strings.HasSuffix(host, "."+domain) {
		r.Fail("session.cookie_domain", "%q is not the host of redirect_uri (%q) or a parent domain of it", domain, host)
	}
	name := r.Text("session.cookie_name", c.Name, browser.DefaultCookieName(secure, domain))
	if problem := browser.ValidCookieName(name, secure, domain); problem != "" {
		r.Fail("session.cookie_name", "%s", problem)
	}
	return &browser.Jar{Name: name, Domain: domain, Secure: secure, SameSite: sameSites[sameSite], Partitioned: c.Partitioned}
}
