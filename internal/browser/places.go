package browser

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// Places are the parts of a site that a browser is sent to before and after a sign-in.
type Places struct {
	Origin     string // the external origin of the site
	Start      string // the path of the endpoint start
	Callback   string // the path of the endpoint callback
	AfterLogin string // where a sign-in leads that has no page to return to
}

// ReturnPathOf returns the path to go back to after the sign-in of a request. For a page
// navigation it is the requested page, which is sent. For a script's request it is the page
// that runs the script, according to the Referer header, so that the user does not end on JSON.
func (p Places) ReturnPathOf(r *http.Request, sent *url.URL) string {
	target := ""
	if IsNavigation(r) {
		target = sent.RequestURI()
	} else if referer, err := url.Parse(r.Referer()); err == nil && origin.Of(referer) == p.Origin {
		target = referer.RequestURI()
	}
	return p.ReturnPath(target)
}

// ReturnPath returns a safe return path, or AfterLogin. The endpoints start and callback are
// not allowed: going back to them would start another sign-in.
func (p Places) ReturnPath(raw string) string {
	cleaned, ok := origin.CleanPath(origin.WithoutOwnOrigin(raw, p.Origin))
	if !ok {
		return p.AfterLogin
	}
	path, _, _ := strings.Cut(cleaned, "?")
	path, _, _ = strings.Cut(path, "#")
	if path == p.Start || path == p.Callback {
		return p.AfterLogin
	}
	return cleaned
}

// maxStartQuery limits the escaped return path in the URL of `start`, in bytes. Servers and
// proxies accept URLs of up to 8 KiB. A longer return path is dropped: the sign-in then leads
// to AfterLogin.
const maxStartQuery = 7680

// escapeLess escapes only the characters that would end or change a value in a query. A clean
// return path contains no other character that is forbidden there.
var escapeLess = strings.NewReplacer("%", "%25", "&", "%26", "#", "%23", "+", "%2B", ";", "%3B")

// StartURL returns the URL that starts a sign-in with the given return path.
func (p Places) StartURL(returnTo string) string {
	if returnTo == "" {
		return p.Start
	}
	escaped := url.QueryEscape(returnTo)
	if len(escaped) > maxStartQuery {
		escaped = escapeLess.Replace(returnTo)
	}
	if len(escaped) > maxStartQuery {
		return p.Start
	}
	return p.Start + "?return_to=" + escaped
}

// RestartURL returns the URL that starts a dropped login again.
func (p Places) RestartURL(gone Destination) string {
	start := p.StartURL(gone.ReturnPath)
	if !gone.Popup {
		return start
	}
	separator := "?"
	if start != p.Start {
		separator = "&"
	}
	start += separator + "popup=1"
	if gone.Nonce != "" {
		start += "&nonce=" + gone.Nonce
	}
	return start
}
