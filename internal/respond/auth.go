package respond

import (
	"net/http"
	"slices"

	"github.com/caddy-tollgate/tollgate/internal/header"
)

// MaxAuthHeaders limits the headers of a response to another proxy, in bytes. nginx accepts
// 4,096 bytes with the status line; the difference is for the headers that the server adds.
const MaxAuthHeaders = 4096 - 256

// headerReason is the response header with the reason why a request may not pass.
const headerReason = "Tollgate-Reason"

// AuthAnswer is what another proxy is told about a request.
type AuthAnswer struct {
	Status int
	Reason string
}

// The only answers. No other status is used, because nginx turns it into a 500.
var (
	AuthPass        = AuthAnswer{http.StatusOK, ""}
	AuthLogin       = AuthAnswer{http.StatusUnauthorized, "unauthenticated"}
	AuthRefused     = AuthAnswer{http.StatusForbidden, "refused"}
	AuthLacking     = AuthAnswer{http.StatusForbidden, "insufficient_balance"}
	AuthUnavailable = AuthAnswer{http.StatusForbidden, "unavailable"}
)

// authHeaders are the headers of a response to another proxy besides the identity headers.
var authHeaders = []string{
	"Cache-Control", "Referrer-Policy", "X-Content-Type-Options", "Set-Cookie", headerReason, "Www-Authenticate",
	"Date", "Server", "Via", "Alt-Svc", "Content-Type", "Content-Encoding", "Location",
}

// IsAuthHeader reports whether a header has a meaning of its own in a response to another
// proxy. name is in canonical form.
func IsAuthHeader(name string) bool { return slices.Contains(authHeaders, name) }

// Auth sends an answer to another proxy. The identity headers are in the header already.
//
// Proxies forward at most one cookie, and the session's is one: the ticket. If the cookie
// does not fit, it is left out: the browser's existing ticket stays valid.
func Auth(w http.ResponseWriter, r *http.Request, answer AuthAnswer, cookies []string) error {
	fields := w.Header()
	if len(cookies) > 0 && header.Size(fields)+len("Set-Cookie: \r\n")+len(cookies[0]) <= MaxAuthHeaders {
		fields.Set("Set-Cookie", cookies[0])
	}
	if answer.Reason != "" {
		fields.Set(headerReason, answer.Reason)
	}
	if answer.Status == http.StatusUnauthorized {
		fields.Set("WWW-Authenticate", Challenge)
	}
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// The server would wait for a body that the proxy may never send.
		fields.Set("Connection", "close")
	}
	w.WriteHeader(answer.Status)
	return nil
}
