package web

import (
	"embed"
	"encoding/json"
	"fmt"
	"strings"

	"golang.org/x/text/feature/plural"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

//go:embed lang/*.json
var languageFiles embed.FS

// translation is the human text of every page in one language: the file
// lang/<tag>.json, key to text. Text holds placeholders such as {brand}.
//
// A key with _brand is the text where a brand is set, since a sentence without the
// name is another sentence. One with _one or _other is the text for a number, by the
// language's own rules. The key dir is the direction in which the language is
// written.
type translation struct {
	tag  language.Tag
	text map[string]string
}

// translations are the languages of the pages. The first one is for everybody who
// reads none of them.
var translations = mustLoadTranslations("en", "es", "ja", "pt-BR", "zh-Hans", "zh-Hant")

var english = translations[0]

var matcher = language.NewMatcher(tagsOf(translations))

// mustLoadTranslations panics on a broken file: the bytes are part of the program,
// so no input and no configuration can bring that about.
func mustLoadTranslations(tags ...string) []*translation {
	var loaded []*translation
	for _, tag := range tags {
		raw, err := languageFiles.ReadFile("lang/" + tag + ".json")
		if err != nil {
			panic(fmt.Sprintf("reading language %s: %v", tag, err))
		}
		l := &translation{tag: language.MustParse(tag)}
		if err := json.Unmarshal(raw, &l.text); err != nil {
			panic(fmt.Sprintf("parsing language %s: %v", tag, err))
		}
		loaded = append(loaded, l)
	}
	return loaded
}

func tagsOf(translations []*translation) []language.Tag {
	var tags []language.Tag
	for _, l := range translations {
		tags = append(tags, l.tag)
	}
	return tags
}

// maxAcceptLanguage is how many bytes of Accept-Language are worth reading: a browser
// with a dozen languages sends about 150. Each tag in it costs a comparison with
// every language that we have.
const maxAcceptLanguage = 1024

// choose gives the language that suits an Accept-Language header best. Regions find
// their script (zh-TW is traditional Chinese), and a language that we do not have, or
// a header that cannot be read, is English.
func choose(acceptLanguage string) *translation {
	if len(acceptLanguage) > maxAcceptLanguage {
		return english
	}
	wanted, _, err := language.ParseAcceptLanguage(acceptLanguage)
	if err != nil {
		return english
	}
	// The first one that we have, before all of them together, where zh, as a name of
	// ours, would win over the zh-HK in front of it.
	for _, tag := range wanted {
		if _, index, confidence := matcher.Match(tag); confidence >= language.High {
			return translations[index]
		}
	}
	_, index, _ := matcher.Match(wanted...)
	return translations[index]
}

// variant gives the key of the text for a page with a brand, or for a number.
func (l *translation) variant(key string, hasBrand bool, number int) string {
	for _, suffix := range []struct {
		name string
		fits bool
	}{{"_brand", hasBrand}, {"_one", l.isOne(number)}, {"_other", true}} {
		if _, ok := l.text[key+suffix.name]; ok && suffix.fits {
			return key + suffix.name
		}
	}
	return key
}

// isOne reports whether the language speaks of this number as of one thing.
func (l *translation) isOne(number int) bool {
	return plural.Cardinal.MatchPlural(l.tag, number, 0, 0, 0, 0) == plural.One
}

// number writes a number as the language does.
func (l *translation) number(n int) string {
	return message.NewPrinter(l.tag).Sprint(n)
}

// fill returns the text of key with its placeholders replaced. pairs are
// alternating names and values. It is one pass over the text, so a value that
// looks like a placeholder stays as it is. The result is plain text: only
// html/template turns it into HTML.
func (l *translation) fill(key string, pairs ...string) (string, error) {
	text, ok := l.text[key]
	if !ok {
		return "", fmt.Errorf("language %s has no text %q", l.tag, key)
	}
	oldnew := make([]string, len(pairs))
	for i, s := range pairs {
		if i%2 == 0 {
			s = "{" + s + "}"
		}
		oldnew[i] = s
	}
	return strings.NewReplacer(oldnew...).Replace(text), nil
}
