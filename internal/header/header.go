// Package header knows the names and values of HTTP header fields.
//
// Some servers treat different names as equal: CGI, WSGI and PHP replace every character
// that is not a letter or a digit by the same one. Fold returns the form in which such
// names are equal, and Encode writes a value so that it arrives unchanged. Package
// identity decides which headers carry the identity. Begin with Fold.
package header

import (
	"net/http"
	"strings"
)

// Size returns the number of bytes that a header takes in an HTTP/1.1 message.
func Size(header http.Header) int {
	size := 0
	for name, lines := range header {
		for _, line := range lines {
			size += len(name) + len(": \r\n") + len(line)
		}
	}
	return size
}

// IsReserved reports whether a header frames or routes a request. Such a header cannot be
// an identity header: it would break the request, or a proxy would drop it. The name must
// have the form of http.CanonicalHeaderKey.
func IsReserved(canonical string) bool {
	switch canonical {
	case "Connection", "Content-Length", "Cookie", "Host", "Http2-Settings", "Keep-Alive",
		"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// IsName reports whether s can be the name of a header: a token of RFC 9110 section 5.6.2.
func IsName(s string) bool {
	for i := range len(s) {
		if !IsAlphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// IsAlphanumeric reports whether c is an ASCII letter or digit.
func IsAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// Fold returns the form in which header names count as equal. Upstreams (CGI, WSGI, PHP)
// ignore case, and replace each character that is not a letter or digit by the same one.
// Fold therefore returns lower case, with one "-" for each run of such characters
// (oauth2-proxy CVE-2025-64484, Caddy CVE-2026-52845, Traefik CVE-2026-39858).
func Fold(name string) string {
	return string(AppendFolded(make([]byte, 0, len(name)), name))
}

// MaxFolded is the maximum length of a name that is folded on the stack, in bytes. Longer
// names cost an allocation.
const MaxFolded = 64

// AppendFolded appends Fold(name) to b, without allocating if b has room.
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
