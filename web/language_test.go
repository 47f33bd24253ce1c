package web

import (
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// usedKeys are the texts that some page can ask for.
func usedKeys(t *testing.T) map[string]bool {
	t.Helper()
	used := map[string]bool{
		"title_brand": true, "dir": true, "date": true, "months": true,
		"budget.wait_minutes": true, "budget.wait_hours": true, "budget.wait_days": true,
	}
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil || len(files) < len(allPages) {
		t.Fatalf("templates: %v, %v", files, err)
	}
	call := regexp.MustCompile(`\.T "([^"]+)"`)
	for _, file := range files {
		src, err := fs.ReadFile(templateFiles, file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(src), -1) {
			used[m[1]] = true
		}
	}
	for _, page := range allPages {
		if page != Error {
			used[string(page)+".title"] = true
		}
	}
	for _, e := range append(slices.Collect(maps.Keys(explanations())), explanation("", "")) {
		for _, part := range []string{"title", "text", "next"} {
			used["cause."+e+"."+part] = true
		}
	}
	return used
}

func base(key string) string {
	for _, suffix := range []string{"_brand", "_one", "_other"} {
		key = strings.TrimSuffix(key, suffix)
	}
	return key
}

func TestEveryLanguageHasExactlyTheTextsThatPagesUse(t *testing.T) {
	used := usedKeys(t)
	files, err := fs.Glob(languageFiles, "lang/*.json")
	if err != nil || len(files) != len(translations) {
		t.Fatalf("languages: %v, %v, and %d are loaded", files, err, len(translations))
	}
	for _, l := range translations {
		for key := range used {
			if key != "title_brand" && l.text[l.variant(key, false, 2)] == "" {
				t.Errorf("%s: no text for %s", l.tag, key)
			}
		}
		for key := range l.text {
			if !used[key] && !used[base(key)] {
				t.Errorf("%s: no page uses %s", l.tag, key)
			}
		}
	}
}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

func placeholders(text string) []string {
	return slices.Sorted(slices.Values(placeholder.FindAllString(text, -1)))
}

func TestAllLanguagesHaveTheSameKeysAndPlaceholders(t *testing.T) {
	for _, l := range translations {
		keys, numbered := map[string]bool{}, map[string]bool{}
		for key := range l.text {
			keys[strings.TrimSuffix(key, "_one")] = true
			numbered[strings.TrimSuffix(key, "_one")] = numbered[strings.TrimSuffix(key, "_one")] || strings.HasSuffix(key, "_one")
		}
		for key, text := range english.text {
			if strings.HasSuffix(key, "_one") {
				key = strings.TrimSuffix(key, "_one")
				if numbered[key] != l.isOne(1) {
					t.Errorf("%s: has a text for one of %s: %v, and the language wants one: %v", l.tag, key, numbered[key], l.isOne(1))
				}
				continue
			}
			translated, ok := l.text[key]
			if !ok {
				t.Errorf("%s: has no %s", l.tag, key)
			}
			if got, want := placeholders(translated), placeholders(text); !slices.Equal(got, want) {
				t.Errorf("%s: %s has the placeholders %v, want %v", l.tag, key, got, want)
			}
			delete(keys, key)
		}
		for key := range keys {
			if _, ok := english.text[key+"_one"]; !ok {
				t.Errorf("%s: English has no %s", l.tag, key)
			}
		}
	}
}

// sameEverywhere are the texts that may read as in English.
var sameEverywhere = map[string]bool{"dir": true, "title_brand": true}

func TestNoTextIsLeftInEnglish(t *testing.T) {
	for _, l := range translations[1:] {
		for key, text := range l.text {
			if !sameEverywhere[key] && text == english.text[key] {
				t.Errorf("%s: %s is English: %q", l.tag, key, text)
			}
		}
	}
}

// Chinese of both scripts, and Japanese, are easily pasted into each other's file.
func TestEachLanguageIsWrittenInItsOwnScript(t *testing.T) {
	foreign := map[string]*regexp.Regexp{
		"en":      regexp.MustCompile(`[^\x20-\x7e…·]`),
		"es":      regexp.MustCompile(`[^\x20-\x7e…·áéíñóúüÁÉÍÑÓÚÜ¿¡]`),
		"pt-BR":   regexp.MustCompile(`[^\x20-\x7e…·áâãàçéêíóôõúÁÂÃÀÇÉÊÍÓÔÕÚ]`),
		"ja":      regexp.MustCompile(`[账号录请这个过录户您]`),
		"zh-Hans": regexp.MustCompile(`[\p{Hiragana}\p{Katakana}帳號錄請這個過戶餘額嗎開]`),
		"zh-Hant": regexp.MustCompile(`[\p{Hiragana}\p{Katakana}账号录请这个过户余额吗开]`),
	}
	for _, l := range translations {
		pattern := foreign[l.tag.String()]
		if pattern == nil {
			t.Fatalf("%s: nothing is known of its script", l.tag)
		}
		for key, text := range l.text {
			if m := pattern.FindString(placeholder.ReplaceAllString(text, "")); m != "" {
				t.Errorf("%s: %s has %q in %q", l.tag, key, m, text)
			}
		}
	}
}

// A page is in one language all the way through only when templates hold no text.
func TestTemplatesContainNoText(t *testing.T) {
	files, _ := fs.Glob(templateFiles, "templates/*.html")
	markup := regexp.MustCompile(`(?s)\{\{.*?\}\}|<[^>]*>`)
	for _, file := range files {
		src, err := fs.ReadFile(templateFiles, file)
		if err != nil {
			t.Fatal(err)
		}
		if rest := strings.TrimSpace(markup.ReplaceAllString(string(src), "")); rest != "" {
			t.Errorf("%s: %q belongs into the language files", file, rest)
		}
	}
}

func TestTextsArePlain(t *testing.T) {
	for _, l := range translations {
		for key, text := range l.text {
			if strings.ContainsAny(text, "<>&") || strings.TrimSpace(text) != text {
				t.Errorf("%s: %s = %q: markup would be shown as it stands", l.tag, key, text)
			}
		}
	}
}

func TestEveryPlaceholderOnAPageIsFilled(t *testing.T) {
	for _, l := range translations {
		for _, page := range allPages {
			for _, cause := range codes() {
				for _, brand := range []string{"", "Acme"} {
					d := fullData()
					d.AcceptLanguage, d.Brand, d.Cause = l.tag.String(), brand, cause
					d.Popup.OK, d.Popup.Error = false, cause
					doc, _ := mustRender(t, page, d)
					if s := doc.visibleText(); strings.ContainsAny(s, "{}") {
						t.Errorf("%s, %s: a placeholder is left in %q", l.tag, page, s)
					}
				}
			}
		}
	}
}

func TestAcceptLanguageDecidesTheLanguage(t *testing.T) {
	headings := map[string]string{}
	for _, l := range translations {
		headings[l.tag.String()] = l.text["sign_in.heading"]
	}
	for header, want := range map[string]string{
		"":                                  "en",
		"en-GB,en;q=0.9":                    "en",
		"es-MX":                             "es",
		"es-419,en;q=0.5":                   "es",
		"ja-JP":                             "ja",
		"pt":                                "pt-BR",
		"pt-BR,pt;q=0.9,en;q=0.8":           "pt-BR",
		"pt-PT":                             "pt-BR",
		"zh":                                "zh-Hans",
		"zh-CN,zh;q=0.9":                    "zh-Hans",
		"zh-SG":                             "zh-Hans",
		"zh-TW":                             "zh-Hant",
		"zh-HK,zh;q=0.9,en;q=0.8":           "zh-Hant",
		"zh-MO":                             "zh-Hant",
		"zh-Hant-CN":                        "zh-Hant",
		"ZH-hant":                           "zh-Hant",
		"de,ja;q=0.8":                       "ja",
		"en;q=0.1,ja;q=0.2":                 "ja",
		"ja;q=0,es;q=0.1":                   "es",
		"de-DE,fr;q=0.5":                    "en",
		"*":                                 "en",
		"*,ja;q=0.1":                        "ja",
		"ko":                                "en",
		"x":                                 "en",
		"ja;q=banana":                       "en",
		"<script>alert(1)</script>":         "en",
		"../../../etc/passwd":               "en",
		"ja\x00,es":                         "en",
		";;;,,,===":                         "en",
		strings.Repeat("ja,", 1000):         "en",
		strings.Repeat("a-", 400):           "en",
		strings.Repeat("zh-Hant-TW-x-", 50): "en",
		"de," + strings.Repeat("fr,", 200) + "ja": "ja",
	} {
		rendered, err := standard.Render(SignIn, Data{AcceptLanguage: header})
		if err != nil {
			t.Fatal(err)
		}
		doc := parse(t, rendered)
		lang, _ := attr(doc.one(t, "html"), "lang")
		if lang != want || rendered.Language != want {
			t.Errorf("%.40q: lang %s and Content-Language %s, want %s", header, lang, rendered.Language, want)
		}
		if dir, _ := attr(doc.one(t, "html"), "dir"); dir != "ltr" {
			t.Errorf("%.40q: dir = %q", header, dir)
		}
		if got, want := text(doc.one(t, "h1")), headings[want]; got != want {
			t.Errorf("%.40q: heading %q, want %q", header, got, want)
		}
	}
}

func TestNumbersAreFormattedForTheLanguage(t *testing.T) {
	for language, want := range map[string]map[int]string{
		"en":      {1: " 1 second.", 2: " 2 seconds.", 1200: " 1,200 seconds."},
		"es":      {1: " 1 segundo.", 2: " 2 segundos.", 12000: " 12.000 segundos."},
		"pt-BR":   {1: " 1 segundo.", 2: " 2 segundos.", 1200: " 1.200 segundos."},
		"ja":      {1: " 1 秒後", 5: " 5 秒後"},
		"zh-Hans": {1: " 1 秒后", 5: " 5 秒后"},
		"zh-Hant": {1: " 1 秒後", 5: " 5 秒後"},
	} {
		for seconds, want := range want {
			d := fullData()
			d.AcceptLanguage, d.RetryAfter = language, seconds
			doc, _ := mustRender(t, Unavailable, d)
			if !strings.Contains(doc.visibleText(), want) {
				t.Errorf("%s: no %q in %s", language, want, doc.visibleText())
			}
		}
	}
}

// An amount is the provider's text: whoever compares it with an invoice finds it.
func TestBalanceIsShownAsTheProviderWroteIt(t *testing.T) {
	for _, l := range translations {
		d := fullData()
		d.AcceptLanguage, d.Balance, d.Required = l.tag.String(), "1234.50", "2000.00"
		doc, _ := mustRender(t, Balance, d)
		if s := doc.visibleText(); !strings.Contains(s, "1234.50") || !strings.Contains(s, "2000.00") {
			t.Errorf("%s: the amounts are not on the page: %s", l.tag, s)
		}
	}
}

func TestMissingTextIsAnError(t *testing.T) {
	if s, err := english.fill("no.such.key"); err == nil {
		t.Errorf("got %q", s)
	}
}
