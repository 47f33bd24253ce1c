package policy

import (
	"net/http"
	"net/url"
	"strings"
)

// Selects reports whether a matcher selects a request in one of two forms: as the client
// sent it, or as it is after `rewrite` and `uri`. Every reading of its path, its method and
// its host is tried.
// A path that is not in its plain form is always selected: servers that clean no paths
// read it in their own way, and the matcher cannot tell which.
//
// sent has the method and the URL that the client sent.
func Selects(match func(*http.Request) (bool, error), r, sent *http.Request) (selected bool, err error) {
	views, plain := viewsOf(r, sent)
	if !plain {
		return true, nil
	}
	for _, v := range views {
		matched, failed := v.asked(match, r)
		selected = selected || matched
		if failed != nil {
			err = failed
		}
	}
	return selected, err
}

// view is one version of a request.
type view struct {
	method string
	host   string
	header http.Header
	url    *url.URL
}

// viewsOf returns the versions of a request that the matcher is asked about. plain is false
// if a reading of a path is not in its plain form.
func viewsOf(r, original *http.Request) (views []view, plain bool) {
	here := view{r.Method, r.Host, r.Header, r.URL}
	sent := view{original.Method, r.Host, r.Header, original.URL}
	for _, v := range []view{sent, here} {
		forms, complete := Readings(v.url)
		if !complete {
			return nil, false
		}
		for _, form := range forms {
			if cleanPath(form) != form {
				return nil, false
			}
			read := *v.url
			read.Path, read.RawPath = form, ""
			v := v
			v.url = &read
			views = append(views, v)
		}
	}
	if sent.method == here.method && *sent.url == *here.url && len(views) == 2 {
		views = []view{here}
	} else {
		views = append(views, sent, here)
	}
	return respelled(respelled(respelled(views, asGET(r)), inUpperCase), withPlainHost), true
}

// respelled adds, for each view, the version that an upstream may see, if it differs.
func respelled(views []view, spell func(view) (respelled view, differs bool)) []view {
	for _, v := range views {
		if other, differs := spell(v); differs {
			views = append(views, other)
		}
	}
	return views
}

// asGET returns the GET request that reverse_proxy makes of the CONNECT of a WebSocket.
func asGET(r *http.Request) func(view) (view, bool) {
	if !isWebSocketConnect(r) {
		return func(v view) (view, bool) { return v, false }
	}
	upgrade := r.Header.Clone()
	upgrade.Set("Connection", "Upgrade")
	upgrade.Set("Upgrade", "websocket")
	return func(v view) (view, bool) {
		v.method, v.header = http.MethodGet, upgrade
		return v, true
	}
}

// inUpperCase returns the view with its method in upper case, and whether that differs. Some
// servers, such as gunicorn, ignore the case of the method.
func inUpperCase(v view) (view, bool) {
	upper := strings.ToUpper(v.method)
	differs := upper != v.method
	v.method = upper
	return v, differs
}

// withPlainHost returns the view with its host as servers compare it: in lower case, without the dot at the
// end of a full domain name.
func withPlainHost(v view) (view, bool) {
	host := plainHost(v.host)
	differs := host != v.host
	v.host = host
	return v, differs
}

// asked asks the matcher about this view. It changes the request and changes it back,
// because Caddy's placeholders read from this very request.
func (v view) asked(match func(*http.Request) (bool, error), r *http.Request) (bool, error) {
	method, host, header, current := r.Method, r.Host, r.Header, r.URL
	defer func() { r.Method, r.Host, r.Header, r.URL = method, host, header, current }()
	r.Method, r.Host, r.Header, r.URL = v.method, v.host, v.header, v.url
	return match(r)
}
