package config

import (
	"cmp"
	"errors"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Hidden is shown in an error in the place of a value that may be a secret.
const Hidden = "… (hidden: it may be a secret)"

// shownError is an error whose text shows no secret. The original stays in its chain.
type shownError struct {
	error
	text string
}

func (e *shownError) Error() string { return e.text }

func (e *shownError) Unwrap() error { return e.error }

// WithoutSecrets is the one way of a configuration error to people. An operator easily
// puts a secret behind the wrong word, and the error goes into logs. Errors of Caddy and
// of Go quote values, too, so it looks through the text, whoever wrote it.
//
// It shows a value that came out of a placeholder as the placeholder, which read names by
// the value. It hides a literal value that may be a secret; see shown.
func WithoutSecrets(err error, read map[string]string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for value, raw := range longestFirst(read) {
		// The search for words below cannot see the ends of such a value. A short one could
		// be a part of our own words.
		if len(value) >= minSearched && strings.ContainsAny(value, " \"'") {
			for _, written := range []string{value, quoteInside(value)} {
				text = strings.ReplaceAll(text, written, shownRead(value, raw))
			}
		}
	}
	text = errorWord.ReplaceAllStringFunc(text, func(word string) string { return shownWord(word, read) })
	if text == err.Error() {
		return err
	}
	return &shownError{err, text}
}

// errorWord is a quoted value in an error, or a word.
var errorWord = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'[^'\s]*'|[^\s"']+`)

// shownWord is a word of an error as it may be shown, in its quotes.
func shownWord(word string, read map[string]string) string {
	if value, err := strconv.Unquote(word); err == nil && word[0] == '"' {
		if show := shownValue(value, read, true); show != value {
			return `"` + show + `"`
		}
		return word
	}
	value := strings.Trim(word, "'`,:;()")
	if value == "" {
		return word
	}
	return strings.Replace(word, value, shownValue(value, read, word[0] == '\''), 1)
}

// quoteInside is a value as it stands between the quotes that %q writes.
func quoteInside(value string) string {
	quoted := strconv.Quote(value)
	return quoted[1 : len(quoted)-1]
}

// longestFirst gives the values that were read, so that a value goes before its parts.
func longestFirst(read map[string]string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		values := slices.SortedFunc(maps.Keys(read), func(a, b string) int {
			return cmp.Or(len(b)-len(a), strings.Compare(a, b))
		})
		for _, value := range values {
			if !yield(value, read[value]) {
				return
			}
		}
	}
}

// minSearched is the length from which on a value is searched for in others, and others
// in it: a setting's host in the setting's URL, for example.
const minSearched = 6

// shownValue is a value as it may be shown.
func shownValue(value string, read map[string]string, quoted bool) string {
	lower := strings.ToLower(value)
	for text, raw := range longestFirst(read) {
		text = strings.ToLower(text)
		switch {
		case !strings.Contains(raw, "{"):
		case len(value) > 3 && lower == text || quoted && lower == text,
			len(text) >= minSearched && strings.Contains(lower, text),
			quoted && len(value) >= minSearched && strings.Contains(text, lower):
			return shownRead(value, raw)
		}
	}
	return Shown(value)
}

// shownRead is shown for a value that the text raw of a setting became.
func shownRead(value, raw string) string {
	if strings.Contains(raw, "{") {
		return raw
	}
	return Shown(value)
}

// Shown is a literal value as it may be shown. A typing mistake must be recognisable, so it
// is the value itself, but for the user and the password in an address, for what follows
// the name of a secret and a `:` or a `=`, and for a value that looks like a secret which a
// program made.
func Shown(value string) string {
	if name := assignedSecret.FindString(value); name != "" && len(name) < len(value) {
		return name + Hidden
	}
	value = withoutUser(value)
	if looksGenerated(value) {
		return Hidden
	}
	return value
}

// withoutUser masks the user and the password in an address. A path may hold an @.
func withoutUser(value string) string {
	start := 0
	if scheme := strings.Index(value, "//"); scheme >= 0 {
		start = scheme + len("//")
	} else if strings.HasPrefix(value, "/") {
		return value
	}
	if at := strings.LastIndexByte(value, '@'); at > start {
		return value[:start] + "…" + value[at:]
	}
	return value
}

const (
	// minGenerated is the least length, in bytes, of a value that is taken for a generated
	// secret as a whole; minGeneratedPart that of a part of a path or an address.
	minGenerated     = 16
	minGeneratedPart = 32
)

var (
	// assignedSecret is the beginning of such a text as `client_secret:x` or `password="x"`.
	assignedSecret = regexp.MustCompile(`^(?i:[\w.,?&-]*(secret|passw(or)?d)[:=])`)

	generated     = regexp.MustCompile(`^[A-Za-z0-9_+=.-][A-Za-z0-9_+/=.-]*$`)
	generatedPart = regexp.MustCompile(`[A-Za-z0-9_-]+`)
	letterOrDigit = regexp.MustCompile(`[A-Za-z]+|[0-9]+`)
	longHex       = regexp.MustCompile(`^[0-9A-Fa-f]{32,}$`)
	hostOrFile    = regexp.MustCompile(`^([A-Za-z0-9_-]{1,31}[./])*[A-Za-z0-9_-]{1,31}\.[A-Za-z]{2,24}(/[^/]*)*$`)
)

// looksGenerated reports whether a value looks like a secret that a program made.
func looksGenerated(value string) bool {
	if len(value) >= minGenerated && generated.MatchString(value) && !hostOrFile.MatchString(value) &&
		strings.ContainsAny(value, "0123456789") && strings.Trim(value, "0123456789_+/=.-") != "" {
		return true
	}
	return slices.ContainsFunc(generatedPart.FindAllString(value, -1), func(part string) bool {
		secret, marked := strings.CutPrefix(part, "secret_")
		return marked && strings.ContainsAny(secret, "0123456789") || longHex.MatchString(part) ||
			len(part) >= minGeneratedPart && len(letterOrDigit.FindAllString(part, -1)) >= 6
	})
}

// errBraces is for a text whose braces hold no placeholder. What they hold may be a part of
// a secret.
var errBraces = errors.New(`holds braces with something in them that is no placeholder: write \{ for a brace`)

// isSecretSetting reports whether a setting is for a secret.
func isSecretSetting(setting string) bool {
	return strings.HasSuffix(setting, "secret") || strings.HasSuffix(setting, "password")
}
