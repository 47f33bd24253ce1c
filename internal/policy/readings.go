package policy

import (
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Access says who may pass at a path.
type Access int

const (
	// AccessProtected: only requests with a session pass.
	AccessProtected Access = iota
	// AccessOptional: all requests pass, with the identity if there is a session.
	AccessOptional
	// AccessPublic: all requests pass, without an identity.
	AccessPublic
)

// Readings returns every path that an upstream could read in the path of a URL. The first
// is the plain path, and an ordinary path has no other. The others are: cleaned; decoded
// once more; cut or split as some servers do (at `\`, `;`, an encoded `/`, `?` or `#`, and
// dots and blanks at the end of a segment); and without the host that some servers read in
// a path that begins with `//`.
//
// A rule must look at all of them, and refuse the request if they disagree: Traefik and
// Caddy have each let `/public/..%2fadmin` through. complete is false if the path is too
// long, has a control character in a reading, or has more than maxReadings readings. Such a
// path is refused, too.
func Readings(u *url.URL) (forms []string, complete bool) {
	plain := u.Path
	if isOrdinary(u) {
		return []string{plain}, true
	}
	escaped := u.EscapedPath()
	if len(escaped) > maxOddPath {
		return []string{plain}, false
	}
	forms, complete = []string{plain, escaped}, true
	for i := 0; i < len(forms); i++ { // grows: each form is read again in turn
		if len(forms) > maxReadings {
			return forms, false
		}
		form := forms[i]
		if cut := strings.IndexFunc(form, isControl); cut >= 0 {
			complete = false
			forms = addForm(forms, form[:cut]) // may name an endpoint
		}
		forms = addForm(forms, cleanPath(form))
		if strings.HasPrefix(form, "//") {
			forms = addForm(forms, belowHost(form[2:]))
			forms = addForm(forms, belowHost(strings.TrimLeft(form, "/")))
		}
		forms = addForm(forms, overlong.Replace(form))
		forms = addForm(forms, upperTwins.Replace(form))
		forms = addForm(forms, strings.ReplaceAll(form, `\`, "/"))
		forms = addForm(forms, cutParameters(form))
		forms = addForm(forms, trimSegments(form))
		if cut := strings.IndexAny(form, "?#"); cut >= 0 {
			forms = addForm(forms, form[:cut])
		}
		forms = addForm(forms, decodeEscapes(form))
	}
	return forms, complete
}

// maxReadings limits the work for one path. A path of an honest client has few readings:
// four independent oddities in one path make 16.
const maxReadings = 16

// maxOddPath is the maximum length of a path that is not ordinary, in bytes as the client
// sends them: each reading is as long as the path, and any client may send one. The longest
// honest ones contain a web address (`/proxy/https%3A%2F%2F…`), which browsers and servers
// keep below about 2,000 bytes. BenchmarkOddPath shows the cost.
const maxOddPath = 2048

func addForm(forms []string, form string) []string {
	for _, known := range forms {
		if known == form {
			return forms
		}
	}
	return append(forms, form)
}

// isOrdinary reports whether all servers read the path in the same way.
func isOrdinary(u *url.URL) bool {
	if u.RawPath != "" {
		return false
	}
	before := byte('x') // the byte before
	for i := range len(u.Path) {
		b := u.Path[i]
		if isControl(rune(b)) || isOverlong(before, b) || b >= utf8.RuneSelf && isOddLetter(u.Path[i:]) {
			return false
		}
		switch b {
		case '%', '\\', ';', '?', '#':
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

// isControl reports whether a character does not belong in a path. A `$` in a regular
// expression of Python, Perl and PHP also matches before a newline at the end, so that
// routes for `/admin` answer `/admin%0A`; C ends a text at NUL. U+0085, U+2028 and U+2029
// end a line, too, in Java and in other languages.
func isControl(r rune) bool {
	return r < ' ' || r == 0x7f || r == '\u0085' || r == '\u2028' || r == '\u2029'
}

// upperTwins replaces the two letters outside ASCII that become an ASCII letter in upper
// case. A server that compares paths in upper case reads `/admın` as `/admin`.
var upperTwins = strings.NewReplacer("\u0131", "i", "\u017f", "s")

// isOddLetter reports whether a text begins with a letter of upperTwins or with a control
// character outside ASCII.
func isOddLetter(text string) bool {
	r, _ := utf8.DecodeRuneInString(text)
	return r == '\u0131' || r == '\u017f' || isControl(r)
}

// belowHost returns the path of a text that begins with a host. `new URL(target, base)` in
// JavaScript, parse_url in PHP and java.net.URI read `//host/path` as a
// reference to another host (RFC 3986 section 4.2). JavaScript does so after any number of
// slashes.
func belowHost(text string) string {
	if slash := strings.IndexByte(text, '/'); slash >= 0 {
		return text[slash:]
	}
	return "/"
}

// overlong replaces path characters, such as `/`, that are encoded in two or more bytes of
// UTF-8. RFC 3629 forbids that encoding, but old decoders accept it. Legacy encodings such
// as GB 2312 use the same bytes for letters, so the result is only one more reading.
var overlong = newOverlongReplacer()

func newOverlongReplacer() *strings.Replacer {
	var pairs []string
	for _, c := range []byte("\x00\n./\\%;?#") {
		high, low := c>>6, 0x80|c&0x3f
		for _, lead := range []string{"\xc0", "\xe0\x80", "\xf0\x80\x80"} {
			lead = lead[:len(lead)-1] + string([]byte{lead[len(lead)-1] | high})
			pairs = append(pairs, lead+string([]byte{low}), string([]byte{c}))
		}
	}
	return strings.NewReplacer(pairs...)
}

// isOverlong reports whether two bytes begin a character that overlong replaces.
func isOverlong(first, second byte) bool {
	switch first {
	case 0xc0, 0xc1:
		return second&0xc0 == 0x80
	case 0xe0:
		return second == 0x80 || second == 0x81
	case 0xf0:
		return second == 0x80
	default:
		return false
	}
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

// decodeEscapes decodes every escape of a path. A percent sign that does not begin an
// escape stays, as in most decoders: one `%25` must not hide the escapes beside it.
func decodeEscapes(p string) string {
	if !strings.Contains(p, "%") {
		return p
	}
	var decoded strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) {
			if character, err := strconv.ParseUint(p[i+1:i+3], 16, 8); err == nil {
				decoded.WriteByte(byte(character))
				i += 2
				continue
			}
		}
		decoded.WriteByte(p[i])
	}
	return decoded.String()
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

// trimSegments removes dots and blanks at the end of each segment, as file systems of
// Windows do. A segment of only dots and blanks stays as it is.
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

// agree returns the result of ask for the first reading of a path. ok is false if another
// reading has another result.
func agree[T comparable](forms []string, ask func(path string) T) (result T, ok bool) {
	first := ask(forms[0])
	for _, form := range forms[1:] {
		if ask(form) != first {
			return first, false
		}
	}
	return first, true
}

// matchesLiterally reports whether a path matches one of the patterns letter by letter, as
// in a server that does not clean paths.
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
