package tollgate

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// settingError is a setting that cannot be used. Setting is the name as the
// operator writes it, with its block: "provider.client_secret".
type settingError struct {
	setting string
	err     error
	// placeholder: the setting's text holds a placeholder, which another
	// environment may fill in differently.
	placeholder bool
}

func (e *settingError) Error() string { return e.setting + ": " + e.err.Error() }
func (e *settingError) Unwrap() error { return e.err }

func badSetting(setting, format string, args ...any) error {
	return &settingError{setting: setting, err: withoutSecrets(fmt.Errorf(format, args...), nil)}
}

// resolver reads settings one after the other and keeps the first fault, so that
// the code below reads straight down.
type resolver struct {
	repl *caddy.Replacer
	err  error
	// read holds the texts of settings, as they are written, by what they became.
	read map[string]string
}

func (r *resolver) fail(setting, format string, args ...any) {
	r.check(setting, "", fmt.Errorf(format, args...))
}

// text gives a setting's text with its placeholders read. A text that was given
// and turns out empty is a fault: an unset `{env.X}` must stop the start. So is one with
// a line break in it, which a file that is read by `{file.…}` may bring along.
func (r *resolver) text(setting, raw, byDefault string) string {
	text := r.anyText(setting, raw, byDefault)
	if hasControl(text) {
		r.check(setting, raw, errControl)
	}
	return text
}

// anyText is text for a setting that may hold line breaks.
func (r *resolver) anyText(setting, raw, byDefault string) string {
	if raw == "" {
		return byDefault
	}
	text, err := r.repl.ReplaceOrErr(raw, true, true)
	if err == nil && strings.TrimSpace(text) == "" {
		err = errors.New("is empty")
	}
	if err != nil && strings.HasPrefix(err.Error(), "unrecognized placeholder") &&
		(isSecretSetting(setting) || !placeholderIn.MatchString(err.Error())) {
		err = errBraces
	}
	if r.read == nil {
		r.read = make(map[string]string)
	}
	r.read[text] = raw
	r.check(setting, raw, err)
	return text
}

var placeholderIn = regexp.MustCompile(`\{([a-z_.]+\.[^{}]*)\}`)

// template checks a text whose placeholders are read with every request: one that begins
// with prefix has to be among names, and one of the environment or of a file may not be
// empty.
func (r *resolver) template(setting, raw, prefix string, names []string) {
	for _, found := range placeholderIn.FindAllStringSubmatch(raw, -1) {
		switch name, ours := strings.CutPrefix(found[1], prefix); {
		case ours && !slices.Contains(names, name):
			r.fail(setting, "unknown placeholder %s%s", found[0], didYouMean(name, names))
		case strings.HasPrefix(found[1], "env."), strings.HasPrefix(found[1], "file."):
			r.text(setting, found[0], "")
		}
	}
}

// texts gives a list of texts, of which none is empty.
func (r *resolver) texts(setting string, raw []string) []string {
	var texts []string
	for _, each := range raw {
		text := r.text(setting, each, "")
		if strings.TrimSpace(text) == "" {
			r.check(setting, each, errors.New("is empty"))
			text = "?"
		}
		texts = append(texts, text)
	}
	return texts
}

// check runs a check of a setting's text, and notes whether a placeholder had its
// part in it. Every fault of a setting comes through here, so none shows a secret.
func (r *resolver) check(setting, raw string, problem error) {
	if problem != nil && r.err == nil {
		r.err = &settingError{setting: setting, err: withoutSecrets(problem, r.read), placeholder: strings.Contains(raw, "{")}
	}
}

func (r *resolver) duration(setting string, d caddy.Duration, byDefault time.Duration) time.Duration {
	if d < 0 {
		r.fail(setting, "must be more than zero")
	}
	if d == 0 {
		return byDefault
	}
	return time.Duration(d)
}

// url gives an absolute URL that is https, or http on loopback.
func (r *resolver) url(setting, raw, byDefault string) string {
	text := r.text(setting, raw, byDefault)
	if r.err != nil || text == "" {
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "@") && (err != nil || u.User != nil), err == nil && strings.Contains(text, "#"):
		// The text is not repeated: a password may be part of it.
		r.check(setting, raw, errors.New("must have neither a user nor a fragment"))
	case err != nil || u.Host == "":
		r.check(setting, raw, fmt.Errorf("%q is not an absolute URL", text))
	case strings.Contains(text, " "):
		r.check(setting, raw, fmt.Errorf("%q holds a blank", text))
	case !isSecureURL(u):
		r.check(setting, raw, fmt.Errorf("%q must be https, or http on loopback", text))
	}
	return text
}

// domain gives a domain in ASCII, as it stands in a cookie's attribute. A dot in front
// of it means nothing (RFC 6265 section 5.2.3).
func (r *resolver) domain(setting, raw string) string {
	text := strings.TrimPrefix(r.text(setting, raw, ""), ".")
	if text == "" {
		return ""
	}
	domain, err := canonicalHost(text)
	r.check(setting, raw, err)
	return domain
}

// path gives a path of this origin.
func (r *resolver) path(setting, raw, byDefault string) string {
	text := r.text(setting, raw, byDefault)
	if r.err != nil || text == "" {
		return text
	}
	cleaned, ok := cleanReturnPath(text)
	if !ok {
		r.check(setting, raw, fmt.Errorf("%q is not a path of this origin", text))
	}
	return cleaned
}

func (r *resolver) oneOf(setting, value, byDefault string, allowed ...string) string {
	if value == "" {
		return byDefault
	}
	if !slices.Contains(allowed, value) {
		r.fail(setting, "%q is none of %s", value, strings.Join(allowed, ", "))
	}
	return value
}

// patterns gives path patterns as of Caddy's path matcher. One with a percent sign
// would be compared with the undecoded path, which an upstream reads otherwise.
func (r *resolver) patterns(setting string, raw []string) []string {
	patterns := make([]string, 0, len(raw))
	for _, text := range raw {
		pattern := r.text(setting, text, "")
		switch {
		case pattern == "" || (pattern[0] != '/' && pattern[0] != '*'):
			r.check(setting, text, fmt.Errorf("%q is not a path pattern: it must begin with / or *", pattern))
		case strings.ContainsAny(pattern, "%?#"):
			r.check(setting, text, fmt.Errorf("%q must be written decoded, and without a query", pattern))
		case !isGlob(pattern):
			r.check(setting, text, fmt.Errorf("%q is not a path pattern: a bracket is not closed, or nothing follows a backslash", pattern))
		}
		patterns = append(patterns, pattern)
	}
	return patterns
}

// isGlob reports whether a pattern can match at all.
func isGlob(pattern string) bool {
	_, err := path.Match(pattern, "")
	return err == nil
}

// isSecureURL reports whether u is https, or http on loopback, where nobody else
// listens in.
func isSecureURL(u *url.URL) bool {
	switch u.Scheme {
	case "https":
		return u.Host != ""
	case "http":
		return isLoopback(u.Hostname())
	default:
		return false
	}
}

// isLoopback reports whether a host name is this machine for certain
// (RFC 8252 section 7.3, RFC 6761 section 6.3).
func isLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}
