package policy

import (
	"net/http"
	"net/url"
	"strings"
)

// Selects reports whether a matcher selects a request: as the client sent it, or as it is
// here after `rewrite` and `uri`, with every reading of its path, its method and its host.
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

// view is one way to see a request.
type view struct {
	method string
	host   string
	header http.Header
	url    *url.URL
}

// viewsOf gives the ways to see a request. plain is false if a reading of a path is not
// in its plain form.
func viewsOf(r, original *http.Request) (views []view, plain bool) {
	here := view{r.Method, r.Host, r.Header, r.URL}
	sent := view{original.Method, r.Host, r.Header, original.URL}
	for _, v := range []view{sent, here} {
		forms, complete := Readings(v.url)
		if !complete {
			return nil, false
		}
		for _, form := range forms {
			if CleanPath(form) != form {
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

// respelled adds each view once more as an upstream may see it, where that is another.
func respelled(views []view, spell func(view) (respelled view, differs bool)) []view {
	for _, v := range views {
		if other, differs := spell(v); differs {
			views = append(views, other)
		}
	}
	return views
}

// asGET sees the CONNECT of a WebSocket as the request that reverse_proxy makes of it.
func asGET(r *http.Request) func(view) (view, bool) {
	if !IsWebSocketConnect(r) {
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

// inUpperCase sees a method as the servers do that ignore its case, gunicorn among them.
func inUpperCase(v view) (view, bool) {
	upper := strings.ToUpper(v.method)
	differs := upper != v.method
	v.method = upper
	return v, differs
}

// withPlainHost sees the host as the servers do that choose a site by it: without the
// dot of a full domain name, and in lower case.
func withPlainHost(v view) (view, bool) {
	host := PlainHost(v.host)
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
