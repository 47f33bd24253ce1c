package origin

import (
	"net/url"
	"strings"
)

// MaxPath bounds a return path in bytes. Links of search and report pages have a
// few thousand; what is longer does not come through every proxy.
const MaxPath = 6144

// CleanPath gives the path (with query and fragment) that a browser may be
// sent to after a sign-in or sign-out, or false when raw is not safely a path of
// this origin.
//
// It is judged as a browser's URL parser would read it, not as Go's would: a
// backslash counts as a slash there, tabs and newlines vanish, and dot segments
// may be percent-encoded. Everything that such a parser treats specially is
// refused or resolved here, and the result is put together anew from its parts,
// so that no later clean-up of the path can turn it into "//host"
// (oauth2-proxy's three rounds of the same fix; Caddy CVE-2022-28923).
func CleanPath(raw string) (string, bool) {
	if raw == "" || len(raw) > MaxPath || raw[0] != '/' {
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
	// An encoded backslash or control byte is a plain one to many an upstream.
	if strings.ContainsFunc(u.Path, isUnsafeInPath) {
		return "", false
	}

	cleaned := resolveDots(u.EscapedPath())
	if hasQuery {
		cleaned += "?" + escapeOdd(query)
	}
	if hasFragment {
		cleaned += "#" + escapeOdd(fragment)
	}
	if len(cleaned) > MaxPath {
		return "", false
	}
	return cleaned, true
}

// WithoutOwnOrigin gives the path of a full URL of this origin, as some proxies have no
// other address to give, and every other text as it is. A URL whose origin a browser could
// read in another way than Go stays whole, so that CleanPath refuses it.
func WithoutOwnOrigin(raw, origin string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || len(raw) > MaxPath+len(origin) {
		return raw
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	authority, path := rest[:end], rest[end:]
	// User information, a backslash, an escape or a blank: parsers differ in where the host
	// ends.
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

// isUnsafeInPath reports whether a browser, or something between it and us,
// would read r other than as a plain character.
func isUnsafeInPath(r rune) bool {
	return r == '\\' || r < 0x20 || r == 0x7f || r == '\uFFFD'
}

// resolveDots removes "." and ".." segments, encoded ones included, from an
// escaped absolute path. The result begins with exactly one slash.
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

// escapeOdd percent-encodes what must not stand bare in a Location header or in
// an HTML attribute, and a percent sign that begins no escape, which not every URL
// parser takes. What is encoded already stays as it is.
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
