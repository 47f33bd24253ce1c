package policy

import (
	"net/url"
	"path"
	"strings"
)

// Access says who may pass at a path.
type Access int

const (
	// AccessProtected: only with a session.
	AccessProtected Access = iota
	// AccessOptional: with the identity where there is a session.
	AccessOptional
	// AccessPublic: everybody, and without an identity.
	AccessPublic
)

// Readings gives every path that an upstream could take a request's path for: as it
// is, cleaned, decoded once more, with what some servers cut off or split at
// (`\`, `;`, an encoded `/`, `?`, `#` or NUL, dots and blanks at the end of a segment).
// The first is the plain one; an ordinary path has no other. Whoever decides by path
// decides by all of them, and refuses the request when they disagree (Traefik and Caddy
// have each let `/public/..%2fadmin` through). complete is false for a path that is too
// long, or has more readings than are looked at: such a path is refused, too.
func Readings(u *url.URL) (forms []string, complete bool) {
	plain := u.Path
	if IsOrdinary(u) {
		return []string{plain}, true
	}
	escaped := u.EscapedPath()
	if len(escaped) > MaxOddPath {
		return []string{plain}, false
	}
	forms = []string{plain, escaped}
	for i := 0; i < len(forms); i++ { // grows: each form is read again in turn
		if len(forms) > maxReadings {
			return forms, false
		}
		form := forms[i]
		forms = addForm(forms, CleanPath(form))
		forms = addForm(forms, strings.ReplaceAll(form, `\`, "/"))
		forms = addForm(forms, cutParameters(form))
		forms = addForm(forms, trimSegments(form))
		if cut := strings.IndexAny(form, "?#\x00"); cut >= 0 {
			forms = addForm(forms, form[:cut])
		}
		if decoded, err := url.PathUnescape(form); err == nil {
			forms = addForm(forms, decoded)
		}
	}
	return forms, true
}

// maxReadings bounds the work for one path. An honest one has a handful: 16 are those
// of four peculiarities that are independent of each other.
const maxReadings = 16

// MaxOddPath bounds it, too, in bytes as the client sends them: every reading is as long
// as the path, and anybody may send one. The longest honest ones are web addresses in a
// path (`/proxy/https%3A%2F%2F…`), which browsers and servers keep below about 2,000
// bytes. BenchmarkOddPath shows what it costs.
const MaxOddPath = 2048

func addForm(forms []string, form string) []string {
	for _, known := range forms {
		if known == form {
			return forms
		}
	}
	return append(forms, form)
}

// IsOrdinary reports whether every server reads the path in the same way.
func IsOrdinary(u *url.URL) bool {
	if u.RawPath != "" {
		return false
	}
	before := byte('x') // the byte before
	for i := range len(u.Path) {
		b := u.Path[i]
		switch b {
		case '%', '\\', ';', '?', '#', 0:
			return false
		case '/':
			if before == '/' || before == '.' || before == ' ' {
				return false
			}
		case '.':
			if before == '/' {
				return false
			}
		}
		before = b
	}
	return before != '.' && before != ' '
}

// CleanPath resolves dots and doubled slashes, and keeps a slash at the end.
func CleanPath(p string) string {
	if p == "" || p[0] != '/' {
		return p
	}
	cleaned := path.Clean(p)
	if strings.HasSuffix(p, "/") && cleaned != "/" {
		cleaned += "/"
	}
	return cleaned
}

// cutParameters takes the path parameters (`;…`) out of each segment, as servlet
// containers do.
func cutParameters(p string) string {
	if !strings.Contains(p, ";") {
		return p
	}
	segments := strings.Split(p, "/")
	for i, segment := range segments {
		segments[i], _, _ = strings.Cut(segment, ";")
	}
	return strings.Join(segments, "/")
}

// trimSegments takes dots and blanks off the end of each segment, as file systems of
// Windows do. A segment of nothing else stays.
func trimSegments(p string) string {
	if !strings.Contains(p, "./") && !strings.Contains(p, " /") && strings.TrimRight(p, ". ") == p {
		return p
	}
	segments := strings.Split(p, "/")
	for i, segment := range segments {
		if trimmed := strings.TrimRight(segment, ". "); trimmed != "" {
			segments[i] = trimmed
		}
	}
	return strings.Join(segments, "/")
}

// agree gives the answer that a question has for all readings of a path, or false
// when they disagree.
func agree[T comparable](forms []string, ask func(path string) T) (T, bool) {
	first := ask(forms[0])
	for _, form := range forms[1:] {
		if ask(form) != first {
			return first, false
		}
	}
	return first, true
}

// matchesLiterally reports whether a path matches one of the patterns letter by
// letter, as a server does that cleans nothing.
func matchesLiterally(patterns []string, p string) bool {
	p = strings.ToLower(p)
	for _, pattern := range patterns {
		pattern = strings.ToLower(pattern)
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		suffix, isSuffix := strings.CutPrefix(pattern, "*")
		switch {
		case isPrefix && isSuffix && strings.Contains(p, strings.TrimSuffix(suffix, "*")),
			isPrefix && !strings.Contains(prefix, "*") && strings.HasPrefix(p, prefix),
			isSuffix && !strings.Contains(suffix, "*") && strings.HasSuffix(p, suffix):
			return true
		}
		if matched, err := path.Match(pattern, p); err == nil && matched {
			return true
		}
	}
	return false
}
