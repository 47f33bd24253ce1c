package tollgate

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// Limits of what a browser and a server take. A browser drops a cookie whose name
// and value exceed 4,096 bytes without a word, and Caddy's header budget is
// 16 KiB. All our cookies together stay under 8 KiB, but for one login next to a session
// of the longest kind, and for logins that a browser begins all at once.
const (
	maxCookie       = 4096
	maxSessionValue = 2 * (maxCookie - 160) // two chunks; 160 for the name and the attributes
)

// secondChunk is what the second cookie's name adds to the session cookie's, where
// a session does not fit into one.
const secondChunk = "-2"

// cookieJar makes and reads all cookies of one site. Nothing else does.
type cookieJar struct {
	name        string
	domain      string // with cookie_domain
	secure      bool   // the external origin is https
	sameSite    http.SameSite
	partitioned bool
	// others gives the cookie names of all sites of this process: their cookies are kept
	// from upstreams, too. One site's application must not receive another site's session.
	// A nil function, or a nil set, means that there are no other names.
	others func() cookieNames
}

// defaultCookieName is the session cookie's name where none is configured. The
// prefixes make the browser refuse the cookie unless it is Secure and, without a
// domain, comes from this very host (RFC 6265bis section 4.1.3). On plain http
// there is neither prefix nor Secure, since not every browser takes Secure
// cookies there, loopback included.
func defaultCookieName(secure bool, domain string) string {
	switch {
	case !secure:
		return "tollgate"
	case domain != "":
		return "__Secure-tollgate"
	default:
		return "__Host-tollgate"
	}
}

func (j *cookieJar) otherNames() cookieNames {
	if j.others == nil {
		return nil
	}
	return j.others()
}

func (j *cookieJar) loginName(flow string) string { return j.name + "-login-" + flow }

// signedOutName is the cookie that remembers a logout until the next sign-in.
func (j *cookieJar) signedOutName() string { return j.name + "-signed-out" }

// recentName is the cookie that counts recent sign-ins.
func (j *cookieJar) recentName() string { return j.name + "-recent" }

// owns reports whether a cookie of this name is the gateway's. Names are compared
// exactly, case included.
func (j *cookieJar) owns(name string) bool {
	rest, ok := strings.CutPrefix(name, j.name)
	if !ok {
		return false
	}
	return rest == "" || rest == secondChunk || rest == "-signed-out" || rest == "-recent" || strings.HasPrefix(rest, "-login-")
}

// maxCookieName bounds a configured cookie name in bytes.
const maxCookieName = 100

// cookieNames are the session cookies' names of several sites. A set that is read may be
// shared; it is never changed.
type cookieNames map[string]struct{}

// own reports whether a cookie of this name is a cookie of one of the sites. It
// allocates nothing: every cookie of every request is asked about.
func (n cookieNames) own(name string) bool {
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

func (n cookieNames) has(name string) bool {
	if len(name) > maxCookieName {
		return false
	}
	_, ok := n[name]
	return ok
}

// make is the one constructor of cookies. A maxAge below zero makes the deletion,
// which carries the same attributes, since a browser ignores it otherwise.
func (j *cookieJar) make(name, value string, maxAge time.Duration, sameSite http.SameSite, partitioned bool) string {
	c := http.Cookie{
		Name:        name,
		Value:       value,
		Path:        "/",
		Domain:      j.domain,
		MaxAge:      -1,
		Secure:      j.secure,
		HttpOnly:    true,
		SameSite:    sameSite,
		Partitioned: partitioned,
	}
	if maxAge > 0 {
		c.MaxAge = int(maxAge / time.Second)
	}
	return c.String()
}

// session gives the Set-Cookie values for a session's value: one, or two chunks.
// The first character says how many there are. A second cookie that the browser
// still holds of an earlier, longer session is deleted.
func (j *cookieJar) session(value string, maxAge time.Duration, hasSecond bool) []string {
	fits := maxCookie - len(j.name) - len("1.")
	if len(value) <= fits {
		cookies := []string{j.make(j.name, "1."+value, maxAge, j.sameSite, j.partitioned)}
		if hasSecond {
			cookies = append(cookies, j.make(j.name+secondChunk, "", -1, j.sameSite, j.partitioned))
		}
		return cookies
	}
	return []string{
		j.make(j.name, "2."+value[:fits], maxAge, j.sameSite, j.partitioned),
		j.make(j.name+secondChunk, value[fits:], maxAge, j.sameSite, j.partitioned),
	}
}

// login gives the Set-Cookie value of one pending login. It is always Lax: the
// callback comes from another site, where a Strict cookie would be missing.
func (j *cookieJar) login(flow, value string) string {
	return j.make(j.loginName(flow), value, loginMemory, http.SameSiteLaxMode, false)
}

// signedOut remembers that this browser signed out.
func (j *cookieJar) signedOut() string {
	return j.make(j.signedOutName(), "1", maxLifetime, http.SameSiteLaxMode, false)
}

// recent counts a sign-in.
func (j *cookieJar) recent(l recentLogins) string {
	return j.make(j.recentName(), l.String(), loopWindow, http.SameSiteLaxMode, false)
}

// remove gives the deletion of a cookie of ours.
func (j *cookieJar) remove(name string) string {
	if name == j.name || name == j.name+secondChunk {
		return j.make(name, "", -1, j.sameSite, j.partitioned)
	}
	return j.make(name, "", -1, http.SameSiteLaxMode, false)
}

// sentCookies are the gateway's own cookies as one request brought them.
type sentCookies struct {
	first, second       string // of the session
	hasFirst, hasSecond bool
	// duplicate: two cookies of one name. A browser sends that when a sibling
	// domain has planted one, and nobody can say which is ours.
	duplicate bool
	// logins are all of them, so that a callback finds its own behind any number of
	// others. They are parts of the header, whose size the server bounds.
	logins    []sentLogin
	signedOut bool
	recent    recentLogins
}

type sentLogin struct {
	name  string
	value string
}

// take reads the gateway's cookies from a request and removes them from what the
// upstream will see. All other cookies pass byte for byte.
func (j *cookieJar) take(header http.Header) sentCookies {
	var sent sentCookies
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
func (j *cookieJar) takeLine(line string, sent *sentCookies) string {
	others := j.otherNames()
	if len(others) == 0 && !strings.Contains(line, j.name) {
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
		own := j.owns(name)
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

func (s *sentCookies) add(j *cookieJar, name, value string) {
	switch name {
	case j.name:
		s.duplicate = s.duplicate || s.hasFirst
		s.first, s.hasFirst = value, true
	case j.name + secondChunk:
		s.duplicate = s.duplicate || s.hasSecond
		s.second, s.hasSecond = value, true
	case j.signedOutName():
		s.signedOut = true
	case j.recentName():
		s.recent = parseRecentLogins(value)
	default:
		s.logins = append(s.logins, sentLogin{name, value})
	}
}

// sessionValue puts the session cookie's value together again, or false when
// there is none, or it is none that we made.
func (s *sentCookies) sessionValue() (string, bool) {
	if s.duplicate || len(s.first) < 2 || s.first[1] != '.' {
		return "", false
	}
	switch s.first[0] {
	case '1':
		return s.first[2:], true // without a copy: this is every request's way
	case '2':
		if !s.hasSecond || len(s.first)+len(s.second) > 2*maxCookie {
			return "", false
		}
		return s.first[2:] + s.second, true
	default:
		return "", false
	}
}

// isOwnSetCookie reports whether a Set-Cookie line sets a cookie of the gateway.
func (j *cookieJar) isOwnSetCookie(line string) bool {
	pair, _, _ := strings.Cut(line, ";")
	name, value, _ := strings.Cut(pair, "=")
	if name = textproto.TrimString(name); name == "" {
		// A browser sends a nameless cookie back as its value alone, and a value such as
		// `tollgate=x` then reads as a name (RFC 6265bis section 5.7).
		name, _, _ = strings.Cut(value, "=")
		name = textproto.TrimString(name)
	}
	return j.owns(name) || j.otherNames().own(name)
}

// validCookieName says what is wrong with a configured cookie name.
func validCookieName(name string, secure bool, domain string) string {
	switch {
	case !isHeaderName(name):
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
