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

// hidden replaces a value that may be a secret in an error.
const hidden = "… (hidden: it may be a secret)"

// shownError is an error whose text shows no secret. Unwrap returns the original error.
type shownError struct {
	error
	text string
}

// Error returns the text without secrets.
func (e *shownError) Error() string { return e.text }

// Unwrap returns the original error.
func (e *shownError) Unwrap() error { return e.error }

// WithoutSecrets returns err with a text that is safe to log. Every configuration error must go
// through it. Operators easily put a secret behind the wrong word, and errors go into logs.
// Errors of Caddy and of Go also quote values, so it searches the whole text.
//
// It replaces the value of a placeholder by the placeholder, which it finds in read by the
// value. It hides a literal value that may be a secret; see Shown.
func WithoutSecrets(err error, read map[string]string) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for value, raw := range longestFirst(read) {
		// The search for words below cannot find the end of such a value. A shorter value could
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

// errorWord matches a quoted value in an error, or a word.
var errorWord = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'[^'\s]*'|[^\s"']+`)

// shownWord returns a word of an error with its quotes, without secrets.
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

// quoteInside returns a value as %q writes it, without the quotes.
func quoteInside(value string) string {
	quoted := strconv.Quote(value)
	return quoted[1 : len(quoted)-1]
}

// longestFirst iterates over the values that were read, so that a value is replaced before its
// parts are.
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

// minSearched is the minimum length of a value that is searched for inside other texts, and of
// a text that is searched for inside a value. For example, a setting's host is a part of the
// setting's URL.
const minSearched = 6

// shownValue returns a value without secrets.
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

// shownRead returns the safe text for a value that came from the setting's text raw.
func shownRead(value, raw string) string {
	if strings.Contains(raw, "{") {
		return raw
	}
	return Shown(value)
}

// Shown returns a literal value without secrets. The operator must recognise a typing mistake,
// so Shown changes the value only if it may be a secret. It masks the user and the password in
// an address, and what follows the name of a secret and a `:` or a `=`. It hides a value that
// looks like a generated secret.
func Shown(value string) string {
	if name := assignedSecret.FindString(value); name != "" && len(name) < len(value) {
		return name + hidden
	}
	value = withoutUser(value)
	if looksGenerated(value) {
		return hidden
	}
	return value
}

// withoutUser masks the user and the password in an address. A path may contain an @.
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
	// minGenerated is the minimum length in bytes of a whole value that is taken for a
	// generated secret. minGeneratedPart is the minimum length of a part of a path or an
	// address, and minMixedPart of a part in which letters and digits alternate often.
	minGenerated     = 16
	minGeneratedPart = 32
	minMixedPart     = 20
	minAlternations  = 5
)

var (
	// assignedSecret matches the beginning of texts such as `client_secret:x` or
	// `password="x"`.
	assignedSecret = regexp.MustCompile(`^(?i:[\w.,?&-]*(secret|passw(or)?d)[:=])`)

	generated     = regexp.MustCompile(`^[A-Za-z0-9_+=.-][A-Za-z0-9_+/=.-]*$`)
	generatedPart = regexp.MustCompile(`[A-Za-z0-9_-]+`)
	letterOrDigit = regexp.MustCompile(`[A-Za-z]+|[0-9]+`)
	longHex       = regexp.MustCompile(`^[0-9A-Fa-f]{32,}$`)
	hostOrFile    = regexp.MustCompile(`^([A-Za-z0-9_-]{1,31}[./])*[A-Za-z0-9_-]{1,31}\.[A-Za-z]{2,24}(/[^/]*)*$`)
)

// looksGenerated reports whether a value looks like a secret that a program generated.
func looksGenerated(value string) bool {
	if len(value) >= minGenerated && generated.MatchString(value) && !hostOrFile.MatchString(value) &&
		strings.ContainsAny(value, "0123456789") && strings.Trim(value, "0123456789_+/=.-") != "" {
		return true
	}
	return slices.ContainsFunc(generatedPart.FindAllString(value, -1), func(part string) bool {
		secret, marked := strings.CutPrefix(part, "secret_")
		return marked && strings.ContainsAny(secret, "0123456789") || longHex.MatchString(part) ||
			len(part) >= minGeneratedPart && len(letterOrDigit.FindAllString(part, -1)) >= 6 ||
			len(part) >= minMixedPart && alternations(part) >= minAlternations
	})
}

// alternations counts how often a letter and a digit are side by side. Names have few such
// places: `my-company-2024-prod` has none.
func alternations(text string) (count int) {
	isDigit := func(c byte) bool { return '0' <= c && c <= '9' }
	isLetter := func(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
	for i := 1; i < len(text); i++ {
		before, c := text[i-1], text[i]
		if isDigit(before) && isLetter(c) || isLetter(before) && isDigit(c) {
			count++
		}
	}
	return count
}

// errBraces is the error for a text whose braces do not contain a placeholder. It does not
// repeat the text in the braces, which may be a part of a secret.
var errBraces = errors.New(`contains braces without a placeholder in them; write \{ for a literal brace`)

// isSecretSetting reports whether a setting is for a secret.
func isSecretSetting(setting string) bool {
	return strings.HasSuffix(setting, "secret") || strings.HasSuffix(setting, "password")
}
