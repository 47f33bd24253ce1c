// Package explain describes what a gateway would do with a request, and why, in words. The
// gateway itself decides, by the code that decides about real requests.
//
// No text contains a token or a secret. Begin with Explanation.
package explain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Explainer is a handler that can explain a request: the one of tollgate.
type Explainer interface {
	// Explain says what would be done with a request, as the directives before the handler
	// leave it. It asks the session store, but not the provider, and changes nothing.
	Explain(r *http.Request) *Explanation
}

// Explanation is what would be done with a request, and why.
type Explanation struct {
	// Site is the external origin of the site that the request comes to.
	Site string `json:"site"`
	// Paths are the path that the client sent, and the one at tollgate if it is another.
	Paths []Path `json:"paths,omitempty"`
	// Endpoint is the gateway's own endpoint that the request is for.
	Endpoint string `json:"endpoint,omitempty"`
	// LeftOut reports whether the matcher of tollgate leaves the request out.
	LeftOut bool `json:"left_out_by_matcher,omitempty"`
	// Access is "public", "optional" or "protected". The stricter path decides.
	Access string `json:"access,omitempty"`
	// Rules are the require blocks that apply.
	Rules []Rule `json:"rules,omitempty"`
	// Cookie says what was found in the session cookie.
	Cookie  string   `json:"cookie"`
	Session *Session `json:"session,omitempty"`
	// Outcome is what would be done, and Status the status of the gateway's own response. It
	// is 0 if the upstream or an endpoint responds.
	Outcome string `json:"outcome"`
	Status  int    `json:"status,omitempty"`
	// Notes are what the outcome depends on.
	Notes []string `json:"notes,omitempty"`
}

// Path is one path of a request, with every way in which a server may read it.
type Path struct {
	// Name is "as sent" or "at tollgate".
	Name     string   `json:"name"`
	Path     string   `json:"path"`
	Readings []string `json:"readings"`
	// Ambiguous reports whether the readings lead to different decisions.
	Ambiguous bool   `json:"ambiguous,omitempty"`
	Access    string `json:"access,omitempty"`
	// By are the patterns of `public` and `optional` that cover this path.
	By []string `json:"by,omitempty"`
}

// Rule is a require block that applies.
type Rule struct {
	Paths      []string `json:"paths"`
	Conditions []string `json:"conditions"`
	// Lacks says which condition the user of the session does not meet.
	Lacks string `json:"lacks,omitempty"`
}

// Session is the session of a cookie, without its tokens.
type Session struct {
	Name       string    `json:"session"`
	UserID     string    `json:"user_id"`
	Username   string    `json:"username"`
	Email      string    `json:"email"`
	Balance    string    `json:"balance"`
	ReadAt     time.Time `json:"read_at"`
	Generation uint64    `json:"generation"`
	SignedInAt time.Time `json:"signed_in_at"`
	LastSeenAt time.Time `json:"last_seen_at"`
	// AccessToken and RefreshToken are masked.
	AccessToken     string    `json:"access_token"`
	AccessTokenEnds time.Time `json:"access_token_ends"`
	RefreshToken    string    `json:"refresh_token"`
	// Clocks end the session; the first one does.
	Clocks []Clock `json:"clocks"`
}

// Clock is one reason why a session ends.
type Clock struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// First is the clock that ends the session.
func (s *Session) First() Clock {
	first := s.Clocks[0]
	for _, c := range s.Clocks {
		if c.At.Before(first.At) {
			first = c
		}
	}
	return first
}

// masked describes a token so that two can be compared, and none can be used.
func masked(token string) string {
	if token == "" {
		return "none"
	}
	sum := sha256.Sum256([]byte(token))
	return fmt.Sprintf("%d bytes, SHA-256 begins with %s", len(token), hex.EncodeToString(sum[:4]))
}

// Print writes the explanation for people.
func (e *Explanation) Print(out io.Writer, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, Printable(fmt.Sprintf(format, args...))) // Flush returns the error
	}
	line("site", "%s", e.Site)
	for _, p := range e.Paths {
		line("path "+p.Name, "%s", p.describe())
	}
	if e.Endpoint != "" {
		line("endpoint", "%s", e.Endpoint)
	}
	if e.LeftOut {
		line("matcher", "leaves this request out, so it counts as public")
	}
	if e.Access != "" {
		line("access", "%s", e.Access)
	}
	for _, r := range e.Rules {
		line("rule", "%s", r.describe())
	}
	line("cookie", "%s", e.Cookie)
	if e.Session != nil {
		e.Session.print(line, now)
	}
	line("outcome", "%s", e.Outcome)
	for _, note := range e.Notes {
		line("note", "%s", note)
	}
	return w.Flush()
}

// Printable replaces what is no visible character. Users choose their names, and a terminal
// would obey control characters in them, or show a name as further lines of the explanation.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func (p *Path) describe() string {
	text := p.Path
	if p.Access != "" {
		text += ", " + p.Access
	}
	if len(p.By) > 0 {
		text += " by " + strings.Join(p.By, ", ")
	}
	if p.Ambiguous {
		text += ", ambiguous"
	}
	if len(p.Readings) > 1 {
		text += "; servers may read " + strings.Join(p.Readings[1:], ", ")
	}
	return text
}

func (r *Rule) describe() string {
	paths := "every path"
	if len(r.Paths) > 0 {
		paths = strings.Join(r.Paths, " ")
	}
	text := "require " + paths + ": " + strings.Join(r.Conditions, "; ")
	if r.Lacks != "" {
		text += ". Lacks: " + r.Lacks
	}
	return text
}

func (s *Session) print(line func(name, format string, args ...any), now time.Time) {
	line("session", "%s, generation %d", s.Name, s.Generation)
	line("user", "%s (%s, %s)", s.UserID, s.Username, s.Email)
	line("balance", "%s, read %s", s.Balance, distance(s.ReadAt, now))
	line("signed in", "%s, last seen %s", distance(s.SignedInAt, now), distance(s.LastSeenAt, now))
	line("access token", "%s; ends %s", s.AccessToken, distance(s.AccessTokenEnds, now))
	line("refresh token", "%s", s.RefreshToken)
	for _, c := range s.Clocks {
		first := ""
		if c == s.First() && len(s.Clocks) > 1 {
			first = ", the first"
		}
		line("ends by "+c.Name, "%s%s", distance(c.At, now), first)
	}
}

// distance writes a time with its distance from now.
func distance(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := t.Sub(now).Round(time.Second)
	text := t.UTC().Format("2006-01-02 15:04:05 UTC")
	if d <= 0 {
		return text + " (" + short(-d) + " ago)"
	}
	return text + " (in " + short(d) + ")"
}

// short writes a duration without the units that nobody needs.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= 2*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return d.String()
	}
}
