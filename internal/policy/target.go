package policy

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddy-tollgate/tollgate/internal/header"
)

// Target says whether a request is one that rules by path can decide about.
type Target int

const (
	// TargetOK: the request asks for a path.
	TargetOK Target = iota
	// TargetMethod: the method opens a tunnel, makes the upstream send the request back, or is
	// no method.
	TargetMethod
	// TargetNoPath: the target is not a path, or does not begin with one.
	TargetNoPath
	// TargetHost: the Host header is not a host.
	TargetHost
	// TargetProtocol: the request names a protocol, as the CONNECT of a WebSocket does, and is not
	// a CONNECT.
	TargetProtocol
)

// JudgeTarget decides about a request before anything else looks at it.
//
// CONNECT is refused, because its body is not a body: Go's transport writes it to an
// HTTP/1.1 upstream without a length, and an upstream that answers with 404 and keeps
// the connection open reads it as the next request. That request can have any path and
// any identity header, and tollgate has not seen it. Only the CONNECT of a WebSocket
// (RFC 8441, RFC 9220) passes: reverse_proxy makes a GET of it. TRACE is refused,
// because its response shows the client all headers that the upstream received, and
// TRACK is Microsoft's name for TRACE.
//
// Over HTTP/2 Go's server accepts methods that are no tokens (`POST `, `GET /x`), and a
// ":protocol" without CONNECT. Caddy cannot send either to an HTTP upstream: it answers 502,
// and counts a failure of the upstream. Both are refused.
//
// A target without a path (`GET *`, `GET a:http://x/api`) is refused, because no rule
// applies to it while the upstream may find a path in it. An absolute target without a
// path, such as `http://host`, means "/" (RFC 9110 section 4.2.3).
//
// original is the URL that the client sent. If the result is TargetOK, an empty path of
// original and of the request has become the "/" that it means, so that rules and upstreams
// see the same path.
func JudgeTarget(r *http.Request, original *url.URL) Target {
	switch {
	case IsConnect(r.Method) && !isWebSocketConnect(r), isTrace(r.Method), !header.IsName(r.Method):
		return TargetMethod
	case r.Header[":protocol"] != nil && !IsConnect(r.Method):
		return TargetProtocol
	case !hasPath(original) || original.Path == "" && original.Host == "":
		return TargetNoPath
	case !hasPath(r.URL): // empty where a directive has stripped all of it
		return TargetNoPath
	case !isHost(r.Host):
		return TargetHost
	}
	fillPath(original)
	fillPath(r.URL)
	return TargetOK
}

// hasPath reports whether a URL has a path that begins with a slash, or an empty one,
// which is sent to the upstream as "/".
func hasPath(u *url.URL) bool {
	return u.Opaque == "" && (u.Path == "" || u.Path[0] == '/')
}

// IsConnect reports whether a method is CONNECT, in any case: some upstreams ignore the case.
func IsConnect(method string) bool { return strings.EqualFold(method, http.MethodConnect) }

// isTrace reports whether a method is TRACE, or Microsoft's TRACK, in any case.
func isTrace(method string) bool {
	return strings.EqualFold(method, http.MethodTrace) || strings.EqualFold(method, "TRACK")
}

// isWebSocketConnect reports whether a request is the CONNECT with which a WebSocket
// begins over HTTP/2 or HTTP/3. Each server notes the protocol in a place of its own.
func isWebSocketConnect(r *http.Request) bool {
	if r.Method != http.MethodConnect {
		return false
	}
	switch r.ProtoMajor {
	case 2:
		protocol := r.Header[":protocol"]
		return len(protocol) == 1 && protocol[0] == "websocket"
	case 3:
		return r.Proto == "websocket"
	default:
		return false
	}
}

// fillPath replaces the empty path of a URL by the "/" that it means, so that rules and
// upstreams see the same path.
func fillPath(u *url.URL) {
	if u.Path == "" {
		u.Path = "/"
	}
}

// forwardedMethodHeaders are the headers in which a proxy says with which method it was
// asked: Traefik's and Caddy's, and ingress-nginx's.
var forwardedMethodHeaders = []string{"X-Forwarded-Method", "X-Original-Method"}

// ForwardsTunnel reports whether a proxy asks about a CONNECT or a TRACE. Such a
// request is refused even if the proxy is not trusted: it would pass the request on.
func ForwardsTunnel(fields http.Header) bool {
	for _, name := range forwardedMethodHeaders {
		for _, method := range fields[name] {
			if method = strings.TrimSpace(method); IsConnect(method) || isTrace(method) {
				return true
			}
		}
	}
	return false
}
