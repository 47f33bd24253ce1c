package browser

import (
	"net/http"
	"strconv"
	"strings"
)

// IsNavigation reports whether a request is a page navigation: a top-level GET or HEAD that
// may be redirected to the provider. Requests of a script, an image, a frame, a WebSocket or
// a prefetch are not navigations. A redirect would not help them, and would start logins
// that the user did not request.
func IsNavigation(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && isForWindow(r)
}

// IsForm reports whether a person has submitted a form, and sees the response as a page.
func IsForm(r *http.Request) bool { return r.Method == http.MethodPost && isForWindow(r) }

// isForWindow reports whether the response replaces the page of a window.
func isForWindow(r *http.Request) bool {
	if isPrefetch(r.Header) || r.Header.Get("Upgrade") != "" {
		return false
	}
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	switch {
	case mode == "" && dest == "", isFromWorker(mode, dest):
		return prefersPage(r.Header)
	default:
		return mode == "navigate" && dest == "document"
	}
}

// isFromWorker reports whether a request may be a navigation that a service worker has
// forwarded. `fetch(event.request)` loses the destination. The mode stays `navigate` in
// Chromium and WebKit. It becomes `same-origin` in Firefox, and in every browser if the
// worker passes its own options. A script that fetches data has the mode `cors`.
//
// A frame loses its destination in the same way, so a site's own worker can forward a frame
// that looks like a page. The damage is limited: a browser keeps at most maxPendingLogins
// logins, and providers refuse to be framed.
func isFromWorker(mode, dest string) bool {
	return dest == "empty" && (mode == "navigate" || mode == "same-origin")
}

// prefersPage reports whether a request without usable Fetch Metadata looks like a page
// navigation: it prefers HTML, and does not name a script library in X-Requested-With.
func prefersPage(header http.Header) bool {
	return header.Get("X-Requested-With") == "" && prefers(header, "text/html", "application/json")
}

// isPrefetch reports whether the browser fetches a page before the user visits it.
func isPrefetch(header http.Header) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Moz"} {
		if strings.Contains(strings.ToLower(header.Get(name)), "prefetch") {
			return true
		}
	}
	return false
}

// prefers reports whether Accept names the media type wanted and prefers it to other. With
// equal weights the first one wins. Wildcards do not count, and a request that also accepts
// an event stream prefers neither.
func prefers(header http.Header, wanted, other string) bool {
	best, bestOther := 0.0, 0.0
	wantedFirst := false
	for _, line := range header.Values("Accept") {
		for item := range strings.SplitSeq(line, ",") {
			mediaType, q := parseAccept(item)
			switch mediaType {
			case wanted:
				wantedFirst = wantedFirst || bestOther == 0
				best = max(best, q)
			case other:
				bestOther = max(bestOther, q)
			case "text/event-stream":
				return false // an event stream is never a page
			}
		}
	}
	return best > 0 && (best > bestOther || best == bestOther && wantedFirst)
}

func parseAccept(item string) (mediaType string, q float64) {
	mediaType, params, _ := strings.Cut(item, ";")
	q = 1
	for param := range strings.SplitSeq(params, ";") {
		name, value, ok := strings.Cut(param, "=")
		if ok && strings.EqualFold(strings.TrimSpace(name), "q") {
			parsed, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err == nil && parsed >= 0 && parsed <= 1 {
				q = parsed
			}
		}
	}
	return strings.ToLower(strings.TrimSpace(mediaType)), q
}

// WantsJSON reports whether the client prefers JSON to HTML, as scripts do.
func WantsJSON(r *http.Request) bool {
	return prefers(r.Header, "application/json", "text/html")
}

// IsSameOrigin reports whether a request to an unsafe endpoint comes from this site. An
// Origin equal to origin, the external origin, is sufficient: WebKit sends
// `Sec-Fetch-Site: cross-site` for a form of our own page that opens a new window. No page
// can choose its Origin, and a redirect through another site makes it `null` (Fetch,
// "serializing a request origin").
//
// Otherwise Fetch Metadata decides if the browser sends it. A request with neither header
// does not come from another site's page: browsers send Origin with every cross-origin POST.
func IsSameOrigin(r *http.Request, origin string) bool {
	from, sent := r.Header["Origin"]
	if len(from) == 1 && from[0] == origin {
		return true
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	return !sent
}
