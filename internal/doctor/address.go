package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/caddy-tollgate/tollgate/internal/neighbours"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// checkRedirectURI compares redirect_uri with the addresses of the site: the provider sends
// every browser there, and the site must receive it.
func checkRedirectURI(_ context.Context, e *examination) []Finding {
	u, err := url.Parse(e.RedirectURI)
	if err != nil {
		return fail(err.Error(), "set redirect_uri to the full URL of the callback")
	}
	place := e.Place()
	host := origin.HostKey(u.Hostname())
	namesHost := place.NamesHost(host)
	if !namesHost && !e.hasProxyInFront() {
		return fail(fmt.Sprintf("redirect_uri leads to another host, %s: this site serves %s, so the callback never comes here", host, strings.Join(place.Hosts, ", ")),
			"set redirect_uri to this site's own host, here and at the provider, or add "+host+" to the site's addresses")
	}
	if findings := e.checkScheme(u); findings != nil {
		return findings
	}
	if path := e.Endpoints["callback"]; !e.isReached(e.probeHost(), path) {
		return fail(fmt.Sprintf("the path %s does not come to this tollgate: a matcher or another route keeps it away", path),
			"move tollgate out of that block, or set path_prefix and redirect_uri to paths that the block matches")
	}
	return e.checkOtherNames(host)
}

// checkScheme compares the scheme and the port of redirect_uri with the site's listeners.
func (e *examination) checkScheme(u *url.URL) []Finding {
	place, port := e.Place(), origin.PortOf(u)
	listens := place.ListensOn(port)
	switch {
	case e.ForwardAuth:
		return nil // another proxy receives the requests
	case u.Scheme == "http" && e.server.HasTLS && (listens || port == "80"):
		return fail("redirect_uri is http, but this site serves https: the callback fails, or arrives without the cookie of the sign-in",
			"set redirect_uri to https://"+strings.TrimPrefix(e.RedirectURI, "http://")+", here and at the provider")
	case u.Scheme == "https" && !e.server.HasTLS && listens && !e.hasProxyInFront():
		return fail(fmt.Sprintf("redirect_uri is https, but this site serves plain http on port %s", port),
			"let the site serve https, or set the port of the proxy that ends TLS in redirect_uri")
	case !listens && len(place.Hosts) > 0 && !e.hasProxyInFront():
		return warn(fmt.Sprintf("redirect_uri leads to another port, %s: this site is %s", port, place),
			"set the port of redirect_uri to this site's, here and at the provider. If a proxy or a port mapping leads from there to here, all is well")
	}
	return nil
}

// checkOtherNames looks for names of the site at which a sign-in ends elsewhere.
func (e *examination) checkOtherNames(host string) []Finding {
	var others []string
	for _, name := range e.Place().Hosts {
		if origin.HostKey(name) != host && !strings.ContainsAny(name, "*{") && e.Cookies.Domain == "" {
			others = append(others, name)
		}
	}
	if len(others) > 0 && !e.ForwardAuth {
		return warn(fmt.Sprintf("people may open this site as %s, too: a sign-in that begins there ends at %s", strings.Join(others, ", "), e.Origin),
			"give these names a site of their own, with `redir "+e.Origin+"{uri}`")
	}
	return ok("%s comes to this site", e.RedirectURI)
}

// hasProxyInFront reports whether the configuration says that another proxy receives the
// requests first.
func (e *examination) hasProxyInFront() bool {
	return e.ForwardAuth || len(e.server.TrustedProxies) > 0
}

// probeHost is a host for which the site's routes are meant.
func (e *examination) probeHost() string {
	place := e.Place()
	if len(place.Hosts) == 0 || place.NamesHost(origin.HostnameOf(e.Origin)) {
		return origin.HostOf(e.Origin)
	}
	return strings.ReplaceAll(place.Hosts[0], "*", "doctor")
}

// isReached reports whether a request for a path of the site would come to its tollgate.
func (e *examination) isReached(host, path string) bool {
	_, arrives := e.Arrive(&http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: path}, RequestURI: path, Host: host, Header: http.Header{},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "127.0.0.1:1",
	})
	return arrives
}

// checkOtherSites looks for sites of the configuration that break this one's sign-ins.
func checkOtherSites(_ context.Context, e *examination) []Finding {
	var findings []Finding
	for _, other := range e.others {
		switch e.ConflictWith(other.Site) {
		case neighbours.SameRedirectURI:
			findings = append(findings, fail(fmt.Sprintf("two sites have one redirect_uri: this one (%s) and %s. The sign-ins of both end at the one that receives it",
				e.Place(), other.Place()), "give each site a redirect_uri of its own, here and at the provider")...)
		case neighbours.SameCookies:
			findings = append(findings, fail(fmt.Sprintf("this site and %s share a host and the cookie name %s: a sign-in at one replaces the session of the other, since cookies know no ports",
				other.Origin, e.Cookies.Name), "set another `session { cookie_name … }` for one of them")...)
		}
	}
	if findings == nil {
		return ok("no other site of this configuration has this redirect_uri or this cookie")
	}
	return findings
}

// checkCookies compares the attributes of the session cookie with the site's origin. What
// browsers always refuse does not load.
func checkCookies(_ context.Context, e *examination) []Finding {
	jar := e.Cookies
	suffix, _ := publicsuffix.PublicSuffix(jar.Domain)
	switch {
	case jar.Domain != "" && suffix == jar.Domain:
		return fail(fmt.Sprintf("cookie_domain %s is a public suffix: browsers refuse the cookie, and nobody stays signed in", jar.Domain),
			"set cookie_domain to a domain that you own, such as example.com, or remove it")
	case !jar.Secure && !origin.IsLoopback(origin.HostnameOf(e.Origin)):
		return warn("the session cookie travels over plain http: anybody on the way can read it, and use the session",
			"serve the site over https, set redirect_uri to https, and remove insecure_http")
	case jar.SameSite == http.SameSiteNoneMode:
		return warn("same_site none: browsers send the session cookie with requests from every other site",
			"set `same_site lax`, unless the site is shown in frames of other sites; then the application must protect its forms and calls against cross-site request forgery")
	}
	return ok("%s fits %s", jar.Name, e.Origin)
}

// checkTrustedProxies looks for proxies that are trusted wherever they are. Anybody can then
// claim another address, or another URL.
func checkTrustedProxies(_ context.Context, e *examination) []Finding {
	var findings []Finding
	if e.TrustedProxies.Everybody() {
		findings = append(findings, fail("forward_auth trusts the proxy headers of every address: any client can claim a public path, and pass without a login",
			"list only your proxies in `forward_auth { trusted_proxies … }`")...)
	}
	if trustsEverybody(e.server.TrustedProxies) {
		findings = append(findings, warn("Caddy trusts the proxy headers of every address (the global option `servers { trusted_proxies … }`): any client can claim another address in X-Forwarded-For, in the logs, too",
			"list only your proxies, for example `trusted_proxies static private_ranges`")...)
	}
	for _, proxy := range e.configuration.reverseProxies(e.server.name) {
		if trustsEverybody(texts(proxy["trusted_proxies"])) {
			findings = append(findings, warn("a reverse_proxy of this site trusts the proxy headers of every address: the upstream sees whatever X-Forwarded-For a client sends",
				"list only your proxies in `reverse_proxy { trusted_proxies … }`, or remove it")...)
		}
	}
	if findings == nil {
		return ok("no proxy headers are trusted from everywhere")
	}
	return findings
}

// trustsEverybody reports whether ranges contain all addresses of a family.
func trustsEverybody(ranges []string) bool {
	for _, text := range ranges {
		if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Bits() == 0 {
			return true
		}
	}
	return false
}
