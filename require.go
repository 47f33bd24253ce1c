package tollgate

import (
	"net/url"
	"path"
	"strings"
)

// access says who may pass at a path.
type access int

const (
	// accessProtected: only with a session.
	accessProtected access = iota
	// accessOptional: with the identity where there is a session.
	accessOptional
	// accessPublic: everybody, and without an identity.
	accessPublic
)

// readings gives every path that an upstream could take a request's path for: as it
// is, cleaned, decoded once more, with what some servers cut off or split at
// (`\`, `;`, an encoded `/`, `?`, `#` or NUL). The first is the plain one; an
// ordinary path has no other. Whoever decides by path decides by all of them, and
// refuses the request when they disagree (Traefik and Caddy have each let
// `/public/..%2fadmin` through). complete is false for a path with more readings
// than are looked at: such a path is refused, too.
func readings(u *url.URL) (forms []string, complete bool) {
	plain := u.Path
	if isOrdinary(u) {
		return []string{plain}, true
	}
	forms = []string{plain, u.EscapedPath()}
	for i := 0; i < len(forms); i++ { // grows: each form is read again in turn
		if len(forms) > maxReadings {
			return forms, false
		}
		form := forms[i]
		forms = addForm(forms, cleanPath(form))
		forms = addForm(forms, strings.ReplaceAll(form, `\`, "/"))
		forms = addForm(forms, cutParameters(form))
		if cut := strings.IndexAny(form, "?#\x00"); cut >= 0 {
			forms = addForm(forms, form[:cut])
		}
		if decoded, err := url.PathUnescape(form); err == nil {
			forms = addForm(forms, decoded)
		}
	}
	return forms, true
}

// maxReadings bounds the work for one path. An honest one has a handful.
const maxReadings = 32

func addForm(forms []string, form string) []string {
	for _, known := range forms {
		if known == form {
			return forms
		}
	}
	return append(forms, form)
}

// isOrdinary reports whether every server reads the path in the same way.
func isOrdinary(u *url.URL) bool {
	return u.RawPath == "" &&
		!strings.ContainsAny(u.Path, "%\\;?#\x00") &&
		!strings.Contains(u.Path, "//") &&
		!strings.Contains(u.Path, "/.")
}

// cleanPath resolves dots and doubled slashes, and keeps a slash at the end.
func cleanPath(p string) string {
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
