// Package config reads what operators write: the words of a Caddyfile block, and settings
// with their placeholders.
//
// Errors name the setting, its line, and the word that was probably meant. Which words
// there are, and what they mean, is said by the module that has them. Begin with Parser
// for the Caddyfile and with Resolver for the settings.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// Error is a setting that cannot be used. Setting is the name as the
// operator writes it, with its block: "provider.client_secret".
type Error struct {
	setting string
	err     error
	// placeholder: the setting's text holds a placeholder, which another
	// environment may fill in differently.
	placeholder bool
}

func (e *Error) Error() string { return e.setting + ": " + e.err.Error() }

func (e *Error) Unwrap() error { return e.err }

func Errorf(setting, format string, args ...any) error {
	return &Error{setting: setting, err: WithoutSecrets(fmt.Errorf(format, args...), nil)}
}

// Resolver reads settings one after the other and keeps the first fault, so that
// the code below reads straight down.
type Resolver struct {
	Repl *caddy.Replacer
	Err  error
	// Read holds the texts of settings, as they are written, by what they became.
	Read map[string]string
}

func (r *Resolver) Fail(setting, format string, args ...any) {
	r.Check(setting, "", fmt.Errorf(format, args...))
}

// Text gives a setting's text with its placeholders read. A text that was given
// and turns out empty is a fault: an unset `{env.X}` must stop the start. So is one with
// a line break in it, which a file that is read by `{file.…}` may bring along.
func (r *Resolver) Text(setting, raw, byDefault string) string {
	text := r.AnyText(setting, raw, byDefault)
	if hasControl(text) {
		r.Check(setting, raw, errControl)
	}
	return text
}

// AnyText is text for a setting that may hold line breaks.
func (r *Resolver) AnyText(setting, raw, byDefault string) string {
	if raw == "" {
		return byDefault
	}
	text, err := r.Repl.ReplaceOrErr(raw, true, true)
	if err == nil && strings.TrimSpace(text) == "" {
		err = errors.New("is empty")
	}
	if err != nil && strings.HasPrefix(err.Error(), "unrecognized placeholder") &&
		(isSecretSetting(setting) || !placeholderIn.MatchString(err.Error())) {
		err = errBraces
	}
	if r.Read == nil {
		r.Read = make(map[string]string)
	}
	r.Read[text] = raw
	r.Check(setting, raw, err)
	return text
}

var placeholderIn = regexp.MustCompile(`\{([a-z_.]+\.[^{}]*)\}`)

// Template checks a text whose placeholders are read with every request: one that begins
// with prefix has to be among names, and one of the environment or of a file may not be
// empty.
func (r *Resolver) Template(setting, raw, prefix string, names []string) {
	for _, found := range placeholderIn.FindAllStringSubmatch(raw, -1) {
		switch name, ours := strings.CutPrefix(found[1], prefix); {
		case ours && !slices.Contains(names, name):
			r.Fail(setting, "unknown placeholder %s%s", found[0], DidYouMean(name, names))
		case strings.HasPrefix(found[1], "env."), strings.HasPrefix(found[1], "file."):
			r.Text(setting, found[0], "")
		}
	}
}

// Texts gives a list of texts, of which none is empty.
func (r *Resolver) Texts(setting string, raw []string) []string {
	var texts []string
	for _, each := range raw {
		text := r.Text(setting, each, "")
		if strings.TrimSpace(text) == "" {
			r.Check(setting, each, errors.New("is empty"))
			text = "?"
		}
		texts = append(texts, text)
	}
	return texts
}

// Check runs a check of a setting's text, and notes whether a placeholder had its
// part in it. Every fault of a setting comes through here, so none shows a secret.
func (r *Resolver) Check(setting, raw string, problem error) {
	if problem != nil && r.Err == nil {
		r.Err = &Error{setting: setting, err: WithoutSecrets(problem, r.Read), placeholder: strings.Contains(raw, "{")}
	}
}

func (r *Resolver) Duration(setting string, d caddy.Duration, byDefault time.Duration) time.Duration {
	if d < 0 {
		r.Fail(setting, "must be more than zero")
	}
	if d == 0 {
		return byDefault
	}
	return time.Duration(d)
}

// Url gives an absolute URL that is https, or http on loopback. Its errors show the scheme
// and the host at most.
func (r *Resolver) Url(setting, raw, byDefault string) string {
	text := r.Text(setting, raw, byDefault)
	if r.Err != nil || text == "" {
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "@") && (err != nil || u.User != nil), err == nil && strings.Contains(text, "#"):
		// The text is not repeated: a password may be part of it.
		r.Check(setting, raw, errors.New("must have neither a user nor a fragment"))
	case SchemeAndHost(text) == "":
		r.Check(setting, raw, errors.New("is not an absolute URL: it must begin with https:// and a host"))
	case strings.Contains(text, " "):
		r.Check(setting, raw, errors.New("must not hold a blank"))
	case !origin.IsSecure(u):
		r.Check(setting, raw, fmt.Errorf("%q must be https, or http on loopback", SchemeAndHost(text)))
	}
	return text
}

// Domain gives a domain in ASCII, as it stands in a cookie's attribute. A dot in front
// of it means nothing (RFC 6265 section 5.2.3).
func (r *Resolver) Domain(setting, raw string) string {
	text := strings.TrimPrefix(r.Text(setting, raw, ""), ".")
	if text == "" {
		return ""
	}
	domain, err := origin.CanonicalHost(text)
	r.Check(setting, raw, err)
	return domain
}

// Path gives a path of this origin.
func (r *Resolver) Path(setting, raw, byDefault string) string {
	text := r.Text(setting, raw, byDefault)
	if r.Err != nil || text == "" {
		return text
	}
	cleaned, ok := origin.CleanPath(text)
	if !ok {
		r.Check(setting, raw, fmt.Errorf("%q is not a path of this origin", text))
	}
	return cleaned
}

func (r *Resolver) OneOf(setting, value, byDefault string, allowed ...string) string {
	if value == "" {
		return byDefault
	}
	if !slices.Contains(allowed, value) {
		r.Fail(setting, "%q is none of %s", value, strings.Join(allowed, ", "))
	}
	return value
}

// Patterns gives path patterns as of Caddy's path matcher. One with a percent sign
// would be compared with the undecoded path, which an upstream reads otherwise.
func (r *Resolver) Patterns(setting string, raw []string) []string {
	patterns := make([]string, 0, len(raw))
	for _, text := range raw {
		pattern := r.Text(setting, text, "")
		switch {
		case pattern == "" || (pattern[0] != '/' && pattern[0] != '*'):
			r.Check(setting, text, fmt.Errorf("%q is not a path pattern: it must begin with / or *", pattern))
		case strings.ContainsAny(pattern, "%?#"):
			r.Check(setting, text, fmt.Errorf("%q must be written decoded, and without a query", pattern))
		case !isGlob(pattern):
			r.Check(setting, text, fmt.Errorf("%q is not a path pattern: a bracket is not closed, or nothing follows a backslash", pattern))
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

// hostLetters are what a host is written with: a name, an IP address, or an IPv6 address
// with a zone. An @ is not among them: what stands before it may be a password.
var hostLetters = regexp.MustCompile(`^[\p{L}\p{N}._:%-]+$`)

// Address gives a host and a port. The error does not repeat the text, because some clients
// of Redis take an address with a password in it.
func (r *Resolver) Address(setting, raw string) string {
	text := r.Text(setting, raw, "")
	if r.Err != nil {
		return ""
	}
	host, port, err := net.SplitHostPort(text)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || !hostLetters.MatchString(host) || portErr != nil || number == 0 {
		r.Check(setting, raw, errors.New("must be <host>:<port> and nothing else, for example 127.0.0.1:6379"))
	}
	return text
}

// errControl does not repeat the text: it may be a secret.
var errControl = errors.New("holds a line break or another control character: if it comes from a file, remove the empty lines at its end")

// hasControl reports whether a text holds a line break, a NUL or another control
// character.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c == 0x7f })
}
