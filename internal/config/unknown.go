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

// plainWord matches words like ours. They may be longer than ours, but are shorter than every
// valid value of `secret`.
var plainWord = regexp.MustCompile(`^[a-z]+([_-][a-z]+)*$`)

const maxPlainWord = 31

// unknownWord returns the error for a word that a block does not know. Such a word may be the
// value of another word: on a line of its own, or behind a `:` or a `=`.
func (p *Parser) unknownWord(name string, known Words) error {
	words := slices.Sorted(maps.Keys(known))
	if end := strings.IndexAny(name, ":="); end > 0 && slices.Contains(words, name[:end]) {
		return p.Errf("write a space between the word '%s' and its value", name[:end])
	}
	shown := "'" + name + "'"
	if !isShownName(name, words, !slices.ContainsFunc(words, isPasswordSetting)) {
		shown = hidden
	}
	return p.Errf("unknown word %s%s", shown, DidYouMean(name, words))
}

// UnknownName returns a name for an error, with the known name that was probably meant. It
// hides a name that may be a secret.
func UnknownName(name string, known []string) string {
	shown := fmt.Sprintf("%q", name)
	if !isShownName(name, known, true) {
		shown = hidden
	}
	return shown + DidYouMean(name, known)
}

// isShownName reports whether an unknown name may be shown, because it looks like one of the
// known names. Set plainToo to false where an operator may have written a password that is a
// plain word.
func isShownName(name string, known []string, plainToo bool) bool {
	if slices.ContainsFunc(known, func(word string) bool { return foldWord(word) == foldWord(name) }) {
		return true
	}
	return len(name) <= maxPlainWord && plainWord.MatchString(name) && (plainToo || DidYouMean(name, known) != "")
}

// isPasswordSetting reports whether a setting is for a secret that people may have chosen. The
// values of `secret` are not: they are too long.
func isPasswordSetting(setting string) bool { return isSecretSetting(setting) && setting != "secret" }

// unknownField matches the error of encoding/json for a field that a struct does not have.
var unknownField = regexp.MustCompile(`unknown field ("(?:[^"\\]|\\.)*")`)

// UnmarshalStrict is Caddy's strict JSON decoding, with an error that shows no secret.
func UnmarshalStrict(text []byte, target any) error {
	err := caddy.StrictUnmarshalJSON(text, target)
	if err == nil {
		return nil
	}
	if found := unknownField.FindStringSubmatch(err.Error()); found != nil {
		name := strings.Trim(found[1], `"`) // a name with an escape is not a plain word
		return errors.New("json: unknown field " + UnknownName(name, slices.Sorted(jsonNames(reflect.TypeOf(target)))))
	}
	return WithoutSecrets(err, nil)
}

// jsonNames iterates over the JSON names of the fields of a type, and of the types within it.
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

// schemeAndHost returns the part of a URL that an error may show: a path or a query may contain
// a secret. It returns an empty text if the text is not an absolute URL.
func schemeAndHost(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}
