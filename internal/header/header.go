// Package header knows the names and values of HTTP header fields.
//
// Servers differ in which names they take for the same one: CGI, WSGI and PHP turn every
// character that is not a letter or a digit into the same one. Fold gives the form in
// which such names are equal, and Encode writes a value so that it arrives unchanged.
// Which headers carry the identity is the concern of package identity. Begin with Fold.
package header

import (
	"net/http"
	"strings"
)

// Size is what a header takes on the wire.
func Size(header http.Header) int {
	size := 0
	for name, lines := range header {
		for _, line := range lines {
			size += len(name) + len(": \r\n") + len(line)
		}
	}
	return size
}

// IsReserved names the headers that frame or route a request; one of them
// as an identity header would break the request, or be dropped on the way.
func IsReserved(canonical string) bool {
	switch canonical {
	case "Connection", "Content-Length", "Cookie", "Host", "Http2-Settings", "Keep-Alive",
		"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

func IsName(s string) bool {
	for i := range len(s) {
		if !IsAlphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

func IsAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// Fold is the form in which names count as equal: upstreams (CGI, WSGI, PHP)
// turn each character that is not a letter or digit into the same one and ignore
// case, so each run of such characters is one "-" here (oauth2-proxy
// CVE-2025-64484, Caddy CVE-2026-52845, Traefik CVE-2026-39858).
func Fold(name string) string {
	return string(AppendFolded(make([]byte, 0, len(name)), name))
}

func AppendFolded(b []byte, name string) []byte {
	inRun := false
	for i := range len(name) {
		c := name[i]
		if !IsAlphanumeric(c) {
			if !inRun {
				b = append(b, '-')
			}
			inRun = true
			continue
		}
		inRun = false
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}
