package origin

import (
	"net/url"
	"strings"
)

// maxPath is the maximum length of a return path in bytes. Links of search and report
// pages have a few thousand bytes, and some proxies refuse longer ones.
const maxPath = 6144

// CleanPath returns the path (with query and fragment) to which a browser may be sent
// after a sign-in or sign-out. ok is false if raw is not safely a path of this origin.
//
// CleanPath reads raw as the URL parser of a browser does, not as Go's does: a browser
// takes a backslash for a slash, drops tabs and newlines, and resolves percent-encoded
// dot segments. CleanPath refuses or resolves everything that such a parser treats
// specially, and builds the result from its parts. Therefore no later clean-up of the
// path can turn it into "//host" (oauth2-proxy's three rounds of the same fix; Caddy
// CVE-2022-28923).
func CleanPath(raw string) (cleaned string, ok bool) {
	if raw == "" || len(raw) > maxPath || raw[0] != '/' {
		return "", false
	}
	if strings.HasPrefix(raw, "//") || strings.ContainsFunc(raw, isUnsafeInPath) {
		return "", false
	}

	rest, fragment, hasFragment := strings.Cut(raw, "#")
	path, query, hasQuery := strings.Cut(rest, "?")
	u, err := url.Parse(path)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" {
		return "", false
	}
	// Many upstreams decode a backslash or a control byte before they use the path.
	if strings.ContainsFunc(u.Path, isUnsafeInPath) {
		return "", false
	}

	cleaned = resolveDots(u.EscapedPath())
	if hasQuery {
		cleaned += "?" + escapeOdd(query)
	}
	if hasFragment {
		cleaned += "#" + escapeOdd(fragment)
	}
	if len(cleaned) > maxPath {
		return "", false
	}
	return cleaned, true
}

// WithoutOwnOrigin returns the path of a full URL of this origin, because some proxies
// can only give a full URL. It returns any other text unchanged. It also returns a URL
// unchanged if a browser could read another origin in it than Go does: CleanPath then
// refuses it.
func WithoutOwnOrigin(raw, origin string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || len(raw) > maxPath+len(origin) {
		return raw
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, path := rest[:end], rest[end:]
	// With user information, a backslash, an escape or a space, parsers disagree where the
	// host ends.
	if authority == "" || strings.ContainsFunc(authority, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("@\\%", r) }) {
		return raw
	}
	u, err := url.Parse(scheme + "://" + authority)
	if err != nil || Of(u) != origin {
		return raw
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return path
}

// isUnsafeInPath reports whether a browser, or a proxy in front of us, may read r as
// something else than a plain character.
func isUnsafeInPath(r rune) bool {
	return r == '\\' || r < 0x20 || r == 0x7f || r == '\uFFFD'
}

// resolveDots removes "." and ".." segments, also percent-encoded ones, from an escaped
// absolute path. The result begins with exactly one slash.
func resolveDots(escaped string) string {
	segments := strings.Split(strings.TrimLeft(escaped, "/"), "/")
	kept := make([]string, 0, len(segments))
	for i, segment := range segments {
		last := i == len(segments)-1
		switch strings.ReplaceAll(strings.ToLower(segment), "%2e", ".") {
		case ".":
		case "..":
			if len(kept) > 0 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, segment)
			continue
		}
		if last {
			kept = append(kept, "") // "/a/." and "/a/b/.." both end in a slash
		}
	}
	return "/" + strings.TrimLeft(strings.Join(kept, "/"), "/")
}

// escapeOdd percent-encodes every byte that is unsafe in a Location header or in an HTML
// attribute. It also encodes a percent sign that does not begin an escape, because some
// URL parsers refuse it. Existing escapes stay as they are.
func escapeOdd(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		bare := c == '%' && (i+2 >= len(s) || !isHex(s[i+1:i+3]))
		if bare || c <= 0x20 || c >= 0x7f || strings.IndexByte("\"'<>\\^`{|}#", c) >= 0 {
			b.WriteString("%" + string(hex[c>>4]) + string(hex[c&15]))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
