package policy

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Forwarding says which proxies in front of a site may name the original request. The zero value trusts no proxy.
type Forwarding struct {
	Proxies  TrustedProxies
	AuthPath string // of the endpoint auth
	Origin   string // of the site
}

// Question is what another proxy asks: may the request for its original URL pass?
type Question struct {
	// Demand is the demand of the original path.
	Demand Demand
	// HandToken reports whether the response may carry the access token: a trusted proxy has
	// sent the original URL, and that is not one of our endpoints. Any other request may
	// come from a browser, forwarded by such a proxy by mistake.
	HandToken bool
}

// Question parses the question of a request to `auth`. sent is the URL that the proxy sent.
// Without an original URL from a trusted proxy the path counts as protected, and every require
// block applies. ok is false if the original URL is invalid or ambiguous.
func (f Forwarding) Question(routes *Routes, r *http.Request, sent *url.URL) (q Question, ok bool) {
	asked, ok := f.askedURL(r, sent)
	if asked == nil || !ok {
		return Question{Demand: routes.Strictest()}, ok
	}
	original := r.WithContext(r.Context())
	original.URL = asked
	demand, ok := routes.Demand(asked, original) // the path of `auth` itself does not count
	forms, complete := Readings(asked)
	isOurs := slices.ContainsFunc(forms, func(path string) bool { return routes.endpointAt(path) != "" })
	return Question{demand, complete && !isOurs}, ok
}

// askedURL returns the original URL that a trusted proxy has sent, or nil. Envoy appends
// the original path to the path of `auth`. It does not set the headers of other proxies,
// so a client may have sent them: if there are both a path and headers, they must agree.
func (f Forwarding) askedURL(r *http.Request, sent *url.URL) (original *url.URL, ok bool) {
	if !f.Proxies.Trust(r.RemoteAddr) {
		return nil, true
	}
	original, ok = forwardedURL(r.Header)
	own := url.URL{Path: f.AuthPath}
	below, found := strings.CutPrefix(sent.EscapedPath(), own.EscapedPath())
	if !ok || !found || below == "" {
		return original, ok && found
	}
	appended, ok := parseForwardedURL(below)
	if !ok || original != nil && original.EscapedPath() != appended.EscapedPath() {
		return nil, false
	}
	return appended, true
}

// IsOnlyFullURL reports whether a trusted proxy sends the original URL as a full URL and not
// as a path.
func (f Forwarding) IsOnlyFullURL(r *http.Request) bool {
	return f.Proxies.Trust(r.RemoteAddr) && onlyFullURL(r.Header)
}

// Page returns the original page of a request that a trusted proxy has sent on to `start`,
// because its user is not signed in. page is not cleaned yet. It is empty if it is not a page
// of this site. forwarded is false for every other request.
func (f Forwarding) Page(r *http.Request) (page string, forwarded bool) {
	if !f.Proxies.Trust(r.RemoteAddr) {
		return "", false
	}
	asked, ok := forwardedURL(r.Header)
	if asked == nil && ok {
		return "", false
	}
	if !ok {
		return "", true
	}
	return forwardedPath(asked, f.Origin), true
}

// IsForwarded reports whether a trusted proxy forwards a request that was for another URL.
func (f Forwarding) IsForwarded(r *http.Request) bool {
	_, forwarded := f.Page(r)
	return forwarded
}
