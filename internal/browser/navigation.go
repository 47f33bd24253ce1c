package browser

import (
	"net/http"
	"strconv"
	"strings"
)

// IsNavigation reports whether a person is going to a page: a top-level navigation
// that may be redirected to the provider. A script, an image, a frame, a WebSocket
// or a prefetch may not: a redirect would help none of them, and would start
// logins that nobody asked for.
func IsNavigation(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
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
// passed on. `fetch(event.request)` loses the destination; the mode stays `navigate` in
// Chromium and WebKit, and becomes `same-origin` in Firefox, and everywhere if the
// worker gives options of its own. A script that fetches data has the mode `cors`.
//
// The destination of a frame is lost, too, so that a site's own worker can pass on a
// frame that looks like a page. A browser keeps at most MaxPendingLogins of it, and
// providers do not let themselves be framed.
func isFromWorker(mode, dest string) bool {
	return dest == "empty" && (mode == "navigate" || mode == "same-origin")
}

// prefersPage reports whether a request that does not say what it is for looks like a
// person's: it prefers HTML, and is none of a script library that says so.
func prefersPage(header http.Header) bool {
	return header.Get("X-Requested-With") == "" && prefers(header, "text/html", "application/json")
}

// isPrefetch reports whether a browser only fetches in advance.
func isPrefetch(header http.Header) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Moz"} {
		if strings.Contains(strings.ToLower(header.Get(name)), "prefetch") {
			return true
		}
	}
	return false
}

// prefers reports whether Accept names the wanted media type, and prefers it to
// the other one and to whatever else it names. A wildcard names nothing.
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

// WantsJSON reports whether the client is a script rather than a person.
func WantsJSON(r *http.Request) bool {
	return prefers(r.Header, "application/json", "text/html")
}

// IsSameOrigin reports whether a request for an unsafe endpoint comes from this
// site. An Origin that is exactly the configured external one suffices, whatever else
// the browser says: WebKit calls a form of our own page that opens a new window
// `Sec-Fetch-Site: cross-site`. No page can choose its Origin, and a redirect through
// another site makes it `null` (Fetch, "serializing a request origin").
//
// Otherwise Fetch Metadata decides where a browser sends it. A request with neither
// does not come from another site's page: browsers send Origin with every cross-origin
// POST.
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
