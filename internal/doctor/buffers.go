package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/browser"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

const (
	// nginxBuffer is nginx's proxy_buffer_size by default, in bytes: one page of memory. The
	// whole header of a response must fit into it.
	nginxBuffer = 4096

	// plainHeaders is about what the callback's response has beside cookies and the return
	// path: the status line, Date, Server, Alt-Svc and the headers of every response of ours.
	plainHeaders = 250

	// returnPathBytes is the assumed length of the return path, which is in Location.
	returnPathBytes = 256

	// DefaultTokenBytes is the assumed length of access tokens. Tokens that describe the user
	// (JSON Web Tokens) are often longer.
	DefaultTokenBytes = 800
)

// checkProxyBuffers compares the Set-Cookie header of a sign-in with the buffer of the proxy in
// front. If it does not fit, nginx answers the callback with 502.
func checkProxyBuffers(_ context.Context, e *examination) []Finding {
	switch {
	case e.StoreName != "cookie":
		return ok("the session cookie is small: the session is in the store")
	case e.options.ProxyBuffer == 0 && !e.isBehindProxy():
		return ok("no proxy is in front")
	}
	buffer := e.options.ProxyBuffer
	if buffer == 0 {
		buffer = nginxBuffer
	}
	size, err := sessionCookieSize(e.Site, e.options.TokenBytes)
	if err != nil {
		return fail(fmt.Sprintf("access tokens of %d bytes do not fit into cookies", e.options.TokenBytes),
			"set `session { store storage }` or `session { store redis { … } }`")
	}
	largest := largestToken(e.Site, buffer)
	text := fmt.Sprintf("with access tokens of %d bytes, Set-Cookie has %d bytes; a proxy buffer of %d bytes is enough for tokens of up to %d bytes",
		e.options.TokenBytes, size, buffer, largest)
	if largest >= maxToken(e.Site) {
		return ok("%s", text)
	}
	const advice = "set `proxy_buffer_size 16k; proxy_buffers 4 16k; large_client_header_buffers 4 16k;` in nginx, and tell doctor with --proxy-buffer 16384; or keep sessions on the server (`session { store … }`)"
	switch fits := size+otherHeaders(e.Site) <= buffer; {
	case e.options.ProxyBuffer == 0: // a guess: the proxy may have other buffers
		return warn(text+". With longer ones nginx answers the callback with 502", advice)
	case fits:
		return ok("%s", text)
	default:
		return fail(text+". nginx answers the callback with 502", advice)
	}
}

// isBehindProxy reports whether a proxy is in front, as far as the configuration says: it
// trusts one, or browsers use https and this site serves plain http.
func (e *examination) isBehindProxy() bool {
	return e.hasProxyInFront() || !e.server.HasTLS && strings.HasPrefix(e.Origin, "https://")
}

// sessionCookieSize is the size of the Set-Cookie lines for a session with access tokens of
// this length. It returns an error if such a session does not fit into cookies.
func sessionCookieSize(site *Site, tokenBytes int) (int, error) {
	ring, err := keys.NewRing([][]byte{make([]byte, keys.MinSecret)}, site.Client.Config.ClientID, site.RedirectURI)
	if err != nil {
		return 0, err
	}
	lines, err := sessionCookies(site.Cookies, ring, madeUpSession(time.Now(), strings.Repeat("a", tokenBytes)), site.Lifetime)
	if err != nil {
		return 0, err
	}
	return setCookieSize(lines...), nil
}

// setCookieSize is the size of Set-Cookie lines with these values.
func setCookieSize(values ...string) (size int) {
	for _, value := range values {
		size += len("Set-Cookie: \r\n") + len(value)
	}
	return size
}

// otherHeaders is about what the callback's response has beside the session cookie. The
// cookies are those of a sign-in after a sign-out.
func otherHeaders(site *Site) int {
	jar := site.Cookies
	return plainHeaders + returnPathBytes + setCookieSize(
		jar.Remove(jar.LoginName(browser.FlowOf(""))), jar.Remove(jar.SignedOutName()), jar.Recent(browser.Recent{}.Next("/")))
}

// largestToken is the length of the longest access token whose sign-in fits into a buffer.
func largestToken(site *Site, buffer int) int {
	low, high := 0, keys.MaxSessionValue // fits, does not
	for low+1 < high {
		middle := (low + high) / 2
		if size, err := sessionCookieSize(site, middle); err == nil && size+otherHeaders(site) <= buffer {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}

// maxToken is the length of the longest access token that fits into cookies.
func maxToken(site *Site) int { return largestToken(site, 1<<20) }

// sessionCookies gives the Set-Cookie values of a session in the cookie store.
func sessionCookies(jar *browser.Jar, ring *keys.Ring, s *session.Session, lifetime time.Duration) ([]string, error) {
	value, err := ring.Session.Seal(s.AppendBinary(nil))
	if err != nil {
		return nil, err
	}
	return jar.Session(value, lifetime, false), nil
}

// madeUpUserID is the id of a user that no provider knows.
const madeUpUserID = "tollgate-doctor"

// madeUpSession is a session that only a site with the secret of a check accepts.
func madeUpSession(now time.Time, access string) *session.Session {
	var fields [oauth.FieldCount]oauth.Scalar
	copy(fields[:], []oauth.Scalar{`"` + madeUpUserID + `"`, `"doctor"`, `"doctor@example.com"`, "750000", "250000", `"750.00"`, "1", "1609459200"})
	tokens := oauth.Tokens{Access: access, Refresh: strings.Repeat("r", 64), Scope: "profile balance", Issued: now, Expires: now.Add(time.Hour)}
	return session.NewSession(now, tokens, oauth.NewUserInfo(fields, now))
}
