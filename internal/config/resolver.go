// Package config reads what operators write: the words of a Caddyfile block, and settings with
// their placeholders.
//
// Errors name the setting, its line, and the word that was probably meant. The modules define
// which words exist and what they mean. Begin with Parser for the Caddyfile and with Resolver
// for the settings.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// Error is a setting that cannot be used. Its text begins with the setting's name as the
// operator writes it, with its block: "provider.client_secret".
type Error struct {
	setting string
	err     error
	// placeholder is true if the setting's text contains a placeholder. In another environment
	// it may have another value.
	placeholder bool
}

// Error returns the setting and the problem.
func (e *Error) Error() string { return e.setting + ": " + e.err.Error() }

// Unwrap returns the problem without the setting's name.
func (e *Error) Unwrap() error { return e.err }

// Errorf returns an Error for a setting. Placeholders had no part in the problem.
func Errorf(setting, format string, args ...any) error {
	return &Error{setting: setting, err: WithoutSecrets(fmt.Errorf(format, args...), nil)}
}

// Resolver reads settings one after the other and keeps the first error, so that the code below
// reads straight down.
type Resolver struct {
	Repl *caddy.Replacer
	Err  error
	// Read maps the value of each setting to its text in the configuration.
	Read map[string]string
}

// Fail records a problem of a setting, unless there was an earlier one.
func (r *Resolver) Fail(setting, format string, args ...any) {
	r.Check(setting, "", fmt.Errorf(format, args...))
}

// Text returns a setting's text with its placeholders replaced. It is an error if a given text
// is empty after the replacement: an unset `{env.X}` must stop the start. It is also an error
// if the text contains a line break, for example from a file that `{file.…}` reads.
func (r *Resolver) Text(setting, raw, byDefault string) string {
	text := r.AnyText(setting, raw, byDefault)
	if hasControl(text) {
		r.Check(setting, raw, errControl)
	}
	return text
}

// AnyText is like Text, for a setting that may contain line breaks.
func (r *Resolver) AnyText(setting, raw, byDefault string) string {
	if raw == "" {
		return byDefault
	}
	if pipe := namedPipeIn(raw); pipe != "" {
		r.fail(setting, raw, fmt.Errorf("file %s is a named pipe: reading it may wait for ever; write the value into an ordinary file", Shown(pipe)))
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
	if reason := whyEmpty(err); reason != nil {
		r.fail(setting, raw, reason)
	}
	r.Check(setting, raw, err)
	return text
}

// emptyPlaceholder matches the error of Caddy's replacer for a placeholder without a value.
var emptyPlaceholder = regexp.MustCompile(`^evaluated placeholder (\{(env|file)\.(.+)\}) is empty$`)

// whyEmpty says why the placeholder in Caddy's error has no value. It returns nil for other
// errors, and for a placeholder that may contain a secret.
func whyEmpty(err error) error {
	if err == nil {
		return nil
	}
	found := emptyPlaceholder.FindStringSubmatch(err.Error())
	if found == nil || Shown(found[1]) != found[1] {
		return nil
	}
	name := found[3]
	if found[2] == "file" {
		return whyFileEmpty(name)
	}
	if _, isSet := os.LookupEnv(name); isSet {
		return fmt.Errorf("environment variable %s is empty", name)
	}
	return fmt.Errorf("environment variable %s is not set; forgot `--envfile tollgate.env`?", name)
}

// whyFileEmpty says why Caddy read nothing from a file.
func whyFileEmpty(name string) error {
	f, err := os.Open(name) //nolint:gosec // G304: the operator names the file, and Caddy has read it
	if err != nil {
		if pathErr, ok := errors.AsType[*os.PathError](err); ok {
			err = pathErr.Err // without the path, which is in the text already
		}
		return fmt.Errorf("file %s cannot be read: %w", name, err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("file %s is a directory", name)
	}
	return fmt.Errorf("file %s is empty", name)
}

var placeholderIn = regexp.MustCompile(`\{([a-z_.]+\.[^{}]*)\}`)

// Template checks a text whose placeholders are replaced on every request. A placeholder that
// begins with prefix must be one of names. A placeholder for an environment variable or a file
// must not be empty.
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

// Texts returns a list of texts. None of them may be empty.
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

// Check records a problem of a setting, unless there was an earlier one, and whether the
// setting's text contains a placeholder. All problems go through Check or AnyText, so that no
// error shows a secret.
func (r *Resolver) Check(setting, raw string, problem error) {
	r.fail(setting, raw, WithoutSecrets(problem, r.Read))
}

// fail records a problem whose text shows no secret.
func (r *Resolver) fail(setting, raw string, problem error) {
	if problem != nil && r.Err == nil {
		r.Err = &Error{setting: setting, err: problem, placeholder: strings.Contains(raw, "{")}
	}
}

// Duration returns a duration, or byDefault if it is zero. A negative duration is an error.
func (r *Resolver) Duration(setting string, d caddy.Duration, byDefault time.Duration) time.Duration {
	if d < 0 {
		r.Fail(setting, "must be more than zero")
	}
	if d == 0 {
		return byDefault
	}
	return time.Duration(d)
}

// URL returns an absolute URL that is https, or http on loopback. Its errors show only the
// scheme and the host.
func (r *Resolver) URL(setting, raw, byDefault string) string {
	text := r.Text(setting, raw, byDefault)
	if r.Err != nil || text == "" {
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "@") && (err != nil || u.User != nil), err == nil && strings.Contains(text, "#"):
		// Do not repeat the text: it may contain a password.
		r.Check(setting, raw, errors.New("must have neither a user nor a fragment"))
	case schemeAndHost(text) == "":
		r.Check(setting, raw, errors.New("is not an absolute URL: it must begin with https:// and a host"))
	case strings.Contains(text, " "):
		r.Check(setting, raw, errors.New("must not contain a space"))
	case !origin.IsSecure(u):
		r.Check(setting, raw, fmt.Errorf("%q must be https, or http on loopback", schemeAndHost(text)))
	}
	return text
}

// Domain returns a domain in ASCII, as a cookie's Domain attribute contains it. A leading dot
// has no meaning (RFC 6265 section 5.2.3).
func (r *Resolver) Domain(setting, raw string) string {
	text := strings.TrimPrefix(r.Text(setting, raw, ""), ".")
	if text == "" {
		return ""
	}
	domain, err := origin.CanonicalHost(text)
	r.Check(setting, raw, err)
	return domain
}

// Path returns a path of this origin.
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

// OneOf returns value if it is one of allowed, or byDefault if value is empty.
func (r *Resolver) OneOf(setting, value, byDefault string, allowed ...string) string {
	if value == "" {
		return byDefault
	}
	if !slices.Contains(allowed, value) {
		r.Fail(setting, "%q is not one of %s", value, strings.Join(allowed, ", "))
	}
	return value
}

// Patterns returns path patterns for Caddy's path matcher. A pattern with a percent sign is
// refused: Caddy compares it with the undecoded path, which an upstream reads differently.
func (r *Resolver) Patterns(setting string, raw []string) []string {
	patterns := make([]string, 0, len(raw))
	for _, text := range raw {
		pattern := r.Text(setting, text, "")
		switch {
		case pattern == "" || (pattern[0] != '/' && pattern[0] != '*'):
			r.Check(setting, text, fmt.Errorf("%q is not a path pattern: it must begin with / or *", pattern))
		case strings.ContainsAny(pattern, "%?#"):
			r.Check(setting, text, fmt.Errorf("%q must be written without percent escapes and without a query", pattern))
		case !isGlob(pattern):
			r.Check(setting, text, fmt.Errorf("%q is not a path pattern: a bracket is not closed, or nothing follows a backslash", pattern))
		}
		patterns = append(patterns, pattern)
	}
	return patterns
}

// isGlob reports whether a pattern is valid. An invalid pattern never matches.
func isGlob(pattern string) bool {
	_, err := path.Match(pattern, "")
	return err == nil
}

// hostLetters matches a host: a name, an IP address, or an IPv6 address with a zone. An @ is
// not allowed: the text in front of it may be a password.
var hostLetters = regexp.MustCompile(`^[\p{L}\p{N}._:%-]+$`)

// Address returns a host and a port. The error does not repeat the text, because some Redis
// clients accept an address with a password in it.
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
var errControl = errors.New("contains a line break or another control character: if it comes from a file, remove the empty lines at its end")

// hasControl reports whether a text contains a line break, a NUL or another control
// character.
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c == 0x7f })
}
