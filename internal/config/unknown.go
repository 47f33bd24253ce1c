package config

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// plainWord is written as our words and keys are. It may be longer than them, but is shorter
// than each secret of `secret`.
var plainWord = regexp.MustCompile(`^[a-z]+([_-][a-z]+)*$`)

const maxPlainWord = 31

// unknownWord is the error for a word that a block does not know. Such a word may be the
// value of another one: on a line of its own, or behind a `:` or a `=`.
func (p *Parser) unknownWord(name string, known Words) error {
	words := slices.Sorted(maps.Keys(known))
	if end := strings.IndexAny(name, ":="); end > 0 && slices.Contains(words, name[:end]) {
		return p.Errf("write a blank between the word '%s' and its value", name[:end])
	}
	shown := "'" + name + "'"
	if !isShownName(name, words, !slices.ContainsFunc(words, isPasswordSetting)) {
		shown = Hidden
	}
	return p.Errf("unknown word %s%s", shown, DidYouMean(name, words))
}

// UnknownName shows a name in an error, and the known one that was probably meant. It hides
// a name that may be a secret.
func UnknownName(name string, known []string) string {
	shown := fmt.Sprintf("%q", name)
	if !isShownName(name, known, true) {
		shown = Hidden
	}
	return shown + DidYouMean(name, known)
}

// isShownName reports whether an unknown name may be shown: if it looks like one of the known
// names. plainToo is false where somebody may have written a password that is a plain word.
func isShownName(name string, known []string, plainToo bool) bool {
	if slices.ContainsFunc(known, func(word string) bool { return foldWord(word) == foldWord(name) }) {
		return true
	}
	return len(name) <= maxPlainWord && plainWord.MatchString(name) && (plainToo || DidYouMean(name, known) != "")
}

// isPasswordSetting reports whether a setting is for a secret that people may have chosen.
// The secrets of `secret` are not: they are too long.
func isPasswordSetting(setting string) bool { return isSecretSetting(setting) && setting != "secret" }

// unknownField is what encoding/json says of a field that a struct does not have.
var unknownField = regexp.MustCompile(`unknown field ("(?:[^"\\]|\\.)*")`)

// UnmarshalStrict is Caddy's own strict reading of JSON, with an error that shows no secret.
func UnmarshalStrict(text []byte, target any) error {
	err := caddy.StrictUnmarshalJSON(text, target)
	if err == nil {
		return nil
	}
	if found := unknownField.FindStringSubmatch(err.Error()); found != nil {
		name := strings.Trim(found[1], `"`) // one with an escape in it is not plain
		return errors.New("json: unknown field " + UnknownName(name, slices.Sorted(jsonNames(reflect.TypeOf(target)))))
	}
	return WithoutSecrets(err, nil)
}

// jsonNames gives the names of the fields of a type, and of the types within it.
func jsonNames(t reflect.Type) iter.Seq[string] {
	return func(yield func(string) bool) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return
		}
		for i := range t.NumField() {
			field := t.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !field.IsExported() || name == "-" {
				continue
			}
			if !yield(cmp.Or(name, field.Name)) {
				return
			}
			for inner := range jsonNames(field.Type) {
				if !yield(inner) {
					return
				}
			}
		}
	}
}

// SchemeAndHost gives what an error may show of a URL: a path or a query may hold a secret.
// It is empty if the text is no absolute URL.
func SchemeAndHost(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
