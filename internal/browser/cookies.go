// Package browser knows what a browser holds and how it asks: the gateway's own cookies,
// pending logins, login loops, and what is a navigation of a person.
//
// All cookies are made in one place, Jar. Begin with Jar.Take.
package browser

import (
	"crypto/sha256"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-tollgate/tollgate/internal/header"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// SecondChunk is what the second cookie's name adds to the session cookie's, where
// a session does not fit into one.
const SecondChunk = "-2"

// Jar makes and reads all cookies of one site. Nothing else does.
type Jar struct {
	Name        string
	Domain      string // with cookie_domain
	Secure      bool   // the external origin is https
	SameSite    http.SameSite
	Partitioned bool
	// Others gives the cookie names of all sites of this process: their cookies are kept
	// from upstreams, too. One site's application must not receive another site's session.
	// A nil function, or a nil set, means that there are no other names.
	Others func() CookieNames
}

// DefaultCookieName is the session cookie's name where none is configured. The
// prefixes make the browser refuse the cookie unless it is Secure and, without a
// domain, comes from this very host (RFC 6265bis section 4.1.3). On plain http
// there is neither prefix nor Secure, since not every browser takes Secure
// cookies there, loopback included.
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

func (j *Jar) LoginName(flow string) string { return j.Name + "-login-" + flow }

// SignedOutName is the cookie that remembers a logout until the next sign-in.
func (j *Jar) SignedOutName() string { return j.Name + "-signed-out" }

// RecentName is the cookie that counts recent sign-ins.
func (j *Jar) RecentName() string { return j.Name + "-recent" }

// Owns reports whether a cookie of this name is the gateway's. Names are compared
// exactly, case included.
func (j *Jar) Owns(name string) bool {
	rest, ok := strings.CutPrefix(name, j.Name)
	if !ok {
		return false
	}
	return rest == "" || rest == SecondChunk || rest == "-signed-out" || rest == "-recent" || strings.HasPrefix(rest, "-login-")
}

// maxCookieName bounds a configured cookie name in bytes.
const maxCookieName = 100

// CookieNames are the session cookies' names of several sites. A set that is read may be
// shared; it is never changed.
type CookieNames map[string]struct{}

// own reports whether a cookie of this name is a cookie of one of the sites. It
// allocates nothing: every cookie of every request is asked about.
func (n CookieNames) own(name string) bool {
	if len(n) == 0 {
		return false
	}
	if n.has(name) {
		return true
	}
	for _, suffix := range [...]string{SecondChunk, "-signed-out", "-recent"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && n.has(base) {
			return true
		}
	}
	// A configured name may have these letters in it, too: each place may be the end.
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

// make is the one constructor of cookies. A maxAge below zero makes the deletion,
// which carries the same attributes, since a browser ignores it otherwise.
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

// Session gives the Set-Cookie values for a session's value: one, or two chunks.
// The first character says how many there are. A second cookie that the browser
// still holds of an earlier, longer session is deleted.
func (j *Jar) Session(value string, maxAge time.Duration, hasSecond bool) []string {
	fits := keys.MaxCookie - len(j.Name) - len("1.")
	if len(value) <= fits {
		cookies := []string{j.make(j.Name, "1."+value, maxAge, j.SameSite, j.Partitioned)}
		if hasSecond {
			cookies = append(cookies, j.make(j.Name+SecondChunk, "", -1, j.SameSite, j.Partitioned))
		}
		return cookies
	}
	return []string{
		j.make(j.Name, "2."+value[:fits], maxAge, j.SameSite, j.Partitioned),
		j.make(j.Name+SecondChunk, value[fits:], maxAge, j.SameSite, j.Partitioned),
	}
}

// Login gives the Set-Cookie value of one pending login. It is always Lax: the
// callback comes from another site, where a Strict cookie would be missing.
func (j *Jar) Login(flow, value string) string {
	return j.make(j.LoginName(flow), value, loginMemory, http.SameSiteLaxMode, false)
}

// SignedOut remembers that this browser signed out.
func (j *Jar) SignedOut() string {
	return j.make(j.SignedOutName(), "1", session.MaxLifetime, http.SameSiteLaxMode, false)
}

// Recent counts a sign-in.
func (j *Jar) Recent(l Recent) string {
	return j.make(j.RecentName(), l.String(), loopWindow, http.SameSiteLaxMode, false)
}

// Remove gives the deletion of a cookie of ours.
func (j *Jar) Remove(name string) string {
	if name == j.Name || name == j.Name+SecondChunk {
		return j.make(name, "", -1, j.SameSite, j.Partitioned)
	}
	return j.make(name, "", -1, http.SameSiteLaxMode, false)
}

// Sent are the gateway's own cookies as one request brought them.
type Sent struct {
	First, Second       string // of the session
	hasFirst, HasSecond bool
	// Duplicate: two cookies of one name. A browser sends that when a sibling
	// domain has planted one, and nobody can say which is ours.
	Duplicate bool
	// Logins are all of them, so that a callback finds its own behind any number of
	// others. They are parts of the header, whose size the server bounds.
	Logins    []sentLogin
	SignedOut bool
	Recent    Recent
}

type sentLogin struct {
	Name  string
	Value string
}

// Take reads the gateway's cookies from a request and removes them from what the
// upstream will see. All other cookies pass byte for byte.
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

// takeLine takes our cookies out of one Cookie header line. A line without any is
// returned as it is.
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
	case j.Name + SecondChunk:
		s.Duplicate = s.Duplicate || s.HasSecond
		s.Second, s.HasSecond = value, true
	case j.SignedOutName():
		s.SignedOut = true
	case j.RecentName():
		s.Recent = parseRecentLogins(value)
	default:
		s.Logins = append(s.Logins, sentLogin{name, value})
	}
}

// SessionValue puts the session cookie's value together again, or false when
// there is none, or it is none that we made.
func (s *Sent) SessionValue() (string, bool) {
	if s.Duplicate || len(s.First) < 2 || s.First[1] != '.' {
		return "", false
	}
	switch s.First[0] {
	case '1':
		return s.First[2:], true // without a copy: this is every request's way
	case '2':
		if !s.HasSecond || len(s.First)+len(s.Second) > 2*keys.MaxCookie {
			return "", false
		}
		return s.First[2:] + s.Second, true
	default:
		return "", false
	}
}

// IsOwnSetCookie reports whether a Set-Cookie line sets a cookie of the gateway.
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

// ValidCookieName says what is wrong with a configured cookie name.
func ValidCookieName(name string, secure bool, domain string) string {
	switch {
	case !header.IsName(name):
		return strconv.Quote(name) + " is not a cookie name"
	case len(name) > maxCookieName:
		return "is longer than 100 bytes"
	case strings.HasPrefix(strings.ToLower(name), "__host-") && (!secure || domain != ""):
		return "the prefix __Host- needs an https origin and no cookie_domain"
	case strings.HasPrefix(strings.ToLower(name), "__secure-") && !secure:
		return "the prefix __Secure- needs an https origin"
	}
	return ""
}

// A session that has ended leaves its cookie in the browser, with sealed tokens in it
// where the cookie is the whole session. The answer that denies a request deletes it.
//
// That answer may be late: while a request waits for its refresh, another tab of the same
// browser may have signed in again, and the deletion would then hit the new session's
// cookie, since a deletion names no value. So this process remembers for a while which
// values it has deleted or replaced, and deletes each of them once only. What remains is
// the time that an answer is on its way, and other gateways.
//
// Only a value that this site has sealed is deleted. Any other one may belong to another
// site of the same host and cookie name.

// ValueHash names a cookie value in that memory.
type ValueHash [sha256.Size]byte

// SessionHash names the session cookie that a request brought, or reports false when it
// brought none that can be read.
func (s *Sent) SessionHash() (hash ValueHash, ok bool) {
	value, ok := s.SessionValue()
	if !ok {
		return ValueHash{}, false
	}
	return sha256.Sum256([]byte(value)), true
}

// Reaches reports whether a host is in the domain of the cookies.
func (j *Jar) Reaches(host string) bool {
	return j.Domain != "" && (host == j.Domain || strings.HasSuffix(host, "."+j.Domain))
}
