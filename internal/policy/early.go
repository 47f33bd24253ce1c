package policy

import "net/http"

// IsEarly reports whether a request may have come in the early data of TLS 1.3 (0-RTT). Anyone
// on the network path can send a copy of early data to the server again, and the copy arrives
// as a request of the same user (RFC 8470 section 2). Over HTTP/3 Caddy accepts early data
// unless it is told not to. A proxy in front says it with Early-Data.
func IsEarly(r *http.Request) bool {
	_, said := r.Header["Early-Data"]
	return said || r.TLS != nil && !r.TLS.HandshakeComplete
}

// IsSafe reports whether a method asks for no change (RFC 9110 section 9.2.1), so that a
// second request of a user does no harm.
func IsSafe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return false
}
