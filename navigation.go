package tollgate

import (
	"net/http"
	"strconv"
	"strings"
)

// isNavigation reports whether a person is going to a page: a top-level navigation
// that may be redirected to the provider. A script, an image, a frame, a WebSocket
// or a prefetch may not: a redirect would help none of them, and would start
// logins that nobody asked for.
func isNavigation(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if isPrefetch(r.Header) || r.Header.Get("Upgrade") != "" {
		return false
	}
	mode, dest := r.Header.Get("Sec-Fetch-Mode"), r.Header.Get("Sec-Fetch-Dest")
	if mode != "" || dest != "" {
		return mode == "navigate" && dest == "document"
	}
	return r.Header.Get("X-Requested-With") == "" && prefers(r.Header, "text/html", "application/json")
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

// wantsJSON reports whether the client is a script rather than a person.
func wantsJSON(r *http.Request) bool {
	return prefers(r.Header, "application/json", "text/html")
}

// isSameOrigin reports whether a request for an unsafe endpoint comes from this
// site. Fetch Metadata decides where a browser sends it; else the Origin must be
// the configured external one, not whatever Host says. A request with neither does
// not come from another site's page: browsers send Origin with every cross-origin
// POST.
func isSameOrigin(r *http.Request, origin string) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	from, sent := r.Header["Origin"]
	return !sent || (len(from) == 1 && from[0] == origin)
}
