// Package browser reads and writes what a browser holds for the gateway: its cookies,
// pending logins and login loops. It also decides which requests are page navigations.
//
// Jar is the only place that makes cookies. Begin with Jar.Take.
package browser

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// secondChunk is the suffix of the second session cookie's name. The second cookie exists
// only if the session does not fit into one.
const secondChunk = "-2"

// Jar makes and reads all cookies of one site. No other code does.
type Jar struct {
	Name        string
	Domain      string // with cookie_domain
	Secure      bool   // the external origin is https
	SameSite    http.SameSite
	Partitioned bool
	// Others returns the cookie names of all sites of this process. Their cookies are also
	// removed before the request reaches an upstream: one site's application must not
	// receive another site's session. A nil function or a nil set means no other sites.
	Others func() CookieNames
}

// DefaultCookieName returns the session cookie's name if none is configured. The prefix
// makes the browser refuse the cookie unless it is Secure and, if it has no domain, was
// set by this very host (RFC 6265bis section 4.1.3). On plain http the cookie has neither
// prefix nor Secure: not every browser accepts Secure cookies there, even on loopback.
func DefaultCookieName(secure bool, domain string) string {
	switch {
	case !secure:
		return "tollgate"
	case domain != "":
		return "__Secure-tollgate"
	default:
		return "__Host-tollgate"
	}
}

func (j *Jar) otherNames() CookieNames {
	if j.Others == nil {
		return nil
	}
	return j.Others()
}

// LoginName returns the name of a pending login's cookie. flow comes from FlowOf.
func (j *Jar) LoginName(flow string) string { return j.Name + "-login-" + flow }

// SignedOutName returns the name of the cookie that remembers a sign-out until the next
// sign-in.
func (j *Jar) SignedOutName() string { return j.Name + "-signed-out" }

// recentName returns the name of the cookie that counts recent sign-ins.
func (j *Jar) recentName() string { return j.Name + "-recent" }

// Owns reports whether a cookie with this name belongs to this site's gateway. The
// comparison is exact and case-sensitive.
func (j *Jar) Owns(name string) bool {
	rest, ok := strings.CutPrefix(name, j.Name)
	if !ok {
		return false
	}
	return rest == "" || rest == secondChunk || rest == "-signed-out" || rest == "-recent" || strings.HasPrefix(rest, "-login-")
}

// maxCookieName is the maximum length of a configured cookie name, in bytes.
const maxCookieName = 100

// CookieNames is a set of session cookie names, one per site. Several goroutines may share
// a set, so it must not be changed after it is published.
type CookieNames map[string]struct{}

// own reports whether a cookie with this name belongs to one of the sites. It does not
// allocate, because it runs for every cookie of every request.
func (n CookieNames) own(name string) bool {
	if len(n) == 0 {
		return false
	}
	if n.has(name) {
		return true
	}
	for _, suffix := range [...]string{secondChunk, "-signed-out", "-recent"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && n.has(base) {
			return true
		}
	}
	// A configured name may itself contain "-login-", so every occurrence may be where
	// the configured name ends.
	const login = "-login-"
	for at := 0; at <= maxCookieName; {
		next := strings.Index(name[at:], login)
		if next < 0 {
			return false
		}
		if at += next; n.has(name[:at]) {
			return true
		}
		at++
	}
	return false
}

func (n CookieNames) has(name string) bool {
	if len(name) > maxCookieName {
		return false
	}
	_, ok := n[name]
	return ok
}

// make is the only constructor of cookies. A maxAge of zero or less deletes the cookie. The
// deletion has the same attributes as the cookie: a browser ignores it otherwise.
func (j *Jar) make(name, value string, maxAge time.Duration, sameSite http.SameSite, partitioned bool) string {
	c := http.Cookie{
		Name:        name,
		Value:       value,
		Path:        "/",
		Domain:      j.Domain,
		MaxAge:      -1,
		Secure:      j.Secure,
		HttpOnly:    true,
		SameSite:    sameSite,
		Partitioned: partitioned,
	}
	if maxAge > 0 {
		c.MaxAge = int(maxAge / time.Second)
	}
	return c.String()
}

// Session returns the Set-Cookie values for a session's value, split into one or two
// cookies. The first character of the first cookie is the number of cookies. If one cookie
// is enough and hasSecond is set, Session also deletes the second cookie, which is left
// over from an earlier, longer session.
func (j *Jar) Session(value string, maxAge time.Duration, hasSecond bool) []string {
	fits := keys.MaxCookie - len(j.Name) - len("1.")
	if len(value) <= fits {
		cookies := []string{j.make(j.Name, "1."+value, maxAge, j.SameSite, j.Partitioned)}
		if hasSecond {
			cookies = append(cookies, j.make(j.Name+secondChunk, "", -1, j.SameSite, j.Partitioned))
		}
		return cookies
	}
	return []string{
		j.make(j.Name, "2."+value[:fits], maxAge, j.SameSite, j.Partitioned),
		j.make(j.Name+secondChunk, value[fits:], maxAge, j.SameSite, j.Partitioned),
	}
}

// Login returns the Set-Cookie value for one pending login. The cookie is always Lax: the
// browser reaches the callback from another site, and would not send a Strict cookie.
func (j *Jar) Login(flow, value string) string {
	return j.make(j.LoginName(flow), value, loginMemory, http.SameSiteLaxMode, false)
}

// SignedOut returns the Set-Cookie value that remembers that this browser signed out.
func (j *Jar) SignedOut() string {
	return j.make(j.SignedOutName(), "1", session.MaxLifetime, http.SameSiteLaxMode, false)
}

// Recent returns the Set-Cookie value that stores the count of recent sign-ins.
func (j *Jar) Recent(l Recent) string {
	return j.make(j.recentName(), l.String(), loopWindow, http.SameSiteLaxMode, false)
}

// Remove returns the Set-Cookie value that deletes one of the gateway's cookies.
func (j *Jar) Remove(name string) string {
	if name == j.Name || name == j.Name+secondChunk {
		return j.make(name, "", -1, j.SameSite, j.Partitioned)
	}
	return j.make(name, "", -1, http.SameSiteLaxMode, false)
}

// RemoveSession returns the Set-Cookie values that delete the session cookie of a browser.
func (j *Jar) RemoveSession(sent *Sent) []string {
	removals := []string{j.Remove(j.Name)}
	if sent.HasSecond {
		removals = append(removals, j.Remove(j.Name+secondChunk))
	}
	return removals
}

// RemoveAll returns the Set-Cookie values that delete the gateway's cookies of a browser.
func (j *Jar) RemoveAll(sent *Sent) []string {
	removals := j.RemoveSession(sent)
	if sent.Recent.Count > 0 {
		removals = append(removals, j.Remove(j.recentName()))
	}
	for _, cookie := range sent.Logins[:min(len(sent.Logins), maxRemovals)] {
		removals = append(removals, j.Remove(cookie.Name))
	}
	return removals
}

// Sent holds the gateway's own cookies of one request.
type Sent struct {
	First, Second       string // values of the session's cookies
	hasFirst, HasSecond bool
	// Duplicate reports that two session cookies have the same name. That happens if a
	// sibling domain has set one. The gateway cannot tell which one is its own.
	Duplicate bool
	// Logins holds all login cookies, however many there are, so that a callback always
	// finds its own. The server's limit on the header's size limits their number.
	Logins    []sentLogin
	SignedOut bool
	Recent    Recent
}

type sentLogin struct {
	Name  string
	Value string
}

// Take reads the gateway's cookies from a request's header, and removes them there, so
// that the upstream does not see them. All other cookies stay unchanged, byte for byte.
func (j *Jar) Take(header http.Header) Sent {
	var sent Sent
	lines := header["Cookie"]
	if len(lines) == 0 {
		return sent
	}
	kept := lines[:0:0]
	changed := false
	for _, line := range lines {
		rest := j.takeLine(line, &sent)
		changed = changed || len(rest) != len(line)
		if rest != "" {
			kept = append(kept, rest)
		}
	}
	switch {
	case !changed:
	case len(kept) == 0:
		delete(header, "Cookie")
	default:
		header["Cookie"] = kept
	}
	return sent
}

// takeLine removes the gateway's cookies from one Cookie header line. It returns a line
// without such cookies unchanged.
func (j *Jar) takeLine(line string, sent *Sent) string {
	others := j.otherNames()
	if len(others) == 0 && !strings.Contains(line, j.Name) {
		return line
	}
	var kept strings.Builder
	found := false
	for rest, more := line, true; more; {
		var pair string
		whole := rest
		pair, rest, more = strings.Cut(rest, ";")
		name, value, _ := strings.Cut(pair, "=")
		name = textproto.TrimString(name)
		own := j.Owns(name)
		if own || others.own(name) {
			if !found {
				found = true
				kept.WriteString(line[:len(line)-len(whole)])
			}
			if own {
				sent.add(j, name, textproto.TrimString(value))
			}
			continue
		}
		if found {
			kept.WriteString(pair)
			if more {
				kept.WriteByte(';')
			}
		}
	}
	if !found {
		return line
	}
	return strings.Trim(kept.String(), "; \t")
}

func (s *Sent) add(j *Jar, name, value string) {
	switch name {
	case j.Name:
		s.Duplicate = s.Duplicate || s.hasFirst
		s.First, s.hasFirst = value, true
	case j.Name + secondChunk:
		s.Duplicate = s.Duplicate || s.HasSecond
		s.Second, s.HasSecond = value, true
	case j.SignedOutName():
		s.SignedOut = true
	case j.recentName():
		s.Recent = parseRecentLogins(value)
	default:
		s.Logins = append(s.Logins, sentLogin{name, value})
	}
}

// SessionValue joins the chunks of the session cookie. ok is false if the request has no
// session cookie, has two of the same name, or the value is not in the gateway's format.
func (s *Sent) SessionValue() (value string, ok bool) {
	if s.Duplicate || len(s.First) < 2 || s.First[1] != '.' {
		return "", false
	}
	switch s.First[0] {
	case '1':
		return s.First[2:], true // no copy: every request takes this path
	case '2':
		if !s.HasSecond || len(s.First)+len(s.Second) > 2*keys.MaxCookie {
			return "", false
		}
		return s.First[2:] + s.Second, true
	default:
		return "", false
	}
}

// IsOwnSetCookie reports whether a Set-Cookie line sets a cookie of the gateway, of this
// site or of another site of this process.
func (j *Jar) IsOwnSetCookie(line string) bool {
	pair, _, _ := strings.Cut(line, ";")
	name, value, _ := strings.Cut(pair, "=")
	if name = textproto.TrimString(name); name == "" {
		// A browser sends a nameless cookie back as its value alone, and a value such as
		// `tollgate=x` then reads as a name (RFC 6265bis section 5.7).
		name, _, _ = strings.Cut(value, "=")
		name = textproto.TrimString(name)
	}
	return j.Owns(name) || j.otherNames().own(name)
}

// ValidCookieName returns the problem with a configured cookie name, or an empty string if
// the name is valid. The problem reads as the rest of a sentence about the setting.
func ValidCookieName(name string, secure bool, domain string) string {
	switch {
	case !header.IsName(name):
		return strconv.Quote(name) + " is not a valid cookie name"
	case len(name) > maxCookieName:
		return "is longer than 100 bytes"
	case strings.HasPrefix(strings.ToLower(name), "__host-") && (!secure || domain != ""):
		return "the prefix __Host- needs an https origin and no cookie_domain"
	case strings.HasPrefix(strings.ToLower(name), "__secure-") && !secure:
		return "the prefix __Secure- needs an https origin"
	}
	return ""
}

// Reaches reports whether the browser sends the cookies to host because it is in their
// domain. It is false for every host if no domain is configured.
func (j *Jar) Reaches(host string) bool {
	return j.Domain != "" && (host == j.Domain || strings.HasSuffix(host, "."+j.Domain))
}
