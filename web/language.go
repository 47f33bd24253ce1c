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

// translation holds the texts of all pages in one language, from the file
// lang/<tag>.json. A text may contain placeholders such as {brand}.
//
// A key that ends in _brand is used if a brand is set: a sentence with the brand's name differs
// from the one without it. A key that ends in _one or _other is used for a number, by the rules
// of the language. The key dir is the direction of the script.
type translation struct {
	tag  language.Tag
	text map[string]string
}

// translations are the languages of the pages. The first one is the default.
var translations = mustLoadTranslations("en", "es", "ja", "pt-BR", "zh-Hans", "zh-Hant")

var english = translations[0]

var matcher = language.NewMatcher(tagsOf(translations))

// mustLoadTranslations panics if a file is broken. The files are part of the program, so
// no input and no configuration can cause that.
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

// maxAcceptLanguage is the maximum length of Accept-Language in bytes. A longer one is
// ignored. A browser with a dozen languages sends about 150. Each tag in it costs a
// comparison with each of our languages.
const maxAcceptLanguage = 1024

// choose returns the language that fits an Accept-Language header best. A region selects
// its script (zh-TW is traditional Chinese). It returns English if we do not have the
// language or cannot read the header.
func choose(acceptLanguage string) *translation {
	if len(acceptLanguage) > maxAcceptLanguage {
		return english
	}
	wanted, _, err := language.ParseAcceptLanguage(acceptLanguage)
	if err != nil {
		return english
	}
	// First match each tag by itself. If all tags were matched together, zh would win over
	// a zh-HK before it, because zh matches one of our languages more exactly.
	for _, tag := range wanted {
		if _, index, confidence := matcher.Match(tag); confidence >= language.High {
			return translations[index]
		}
	}
	_, index, _ := matcher.Match(wanted...)
	return translations[index]
}

// variant returns the key of the text for a page with a brand, or for a number.
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

// isOne reports whether the language uses the singular with this number.
func (l *translation) isOne(number int) bool {
	return plural.Cardinal.MatchPlural(l.tag, number, 0, 0, 0, 0) == plural.One
}

// number formats a number in the language.
func (l *translation) number(n int) string {
	return message.NewPrinter(l.tag).Sprint(n)
}

// fill returns the text of key with its placeholders replaced. pairs are
// alternating names and values. A value that looks like a placeholder is not
// replaced, because there is only one pass. The result is plain text, which
// html/template escapes.
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
