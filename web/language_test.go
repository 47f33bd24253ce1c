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
	used := map[string]bool{"title_brand": true}
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
	for _, e := range append(slices.Collect(maps.Values(explanations)), explanation("")) {
		for _, part := range []string{"title", "text", "next"} {
			used["cause."+e+"."+part] = true
		}
	}
	return used
}

func TestEveryLanguageHasExactlyTheTextsThatPagesUse(t *testing.T) {
	used := usedKeys(t)
	files, err := fs.Glob(languageFiles, "lang/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("languages: %v, %v", files, err)
	}
	for _, file := range files {
		tag := strings.TrimSuffix(strings.TrimPrefix(file, "lang/"), ".json")
		lang := mustLoadLanguage(tag)
		for key := range used {
			if lang.text[key] == "" {
				t.Errorf("%s: no text for %s", file, key)
			}
		}
		for key := range lang.text {
			if base := strings.TrimSuffix(key, "_brand"); !used[key] && !used[base] {
				t.Errorf("%s: no page uses %s", file, key)
			}
		}
	}
}

// A page is English all the way through only when templates hold no text.
func TestTemplatesHoldNoTextOfTheirOwn(t *testing.T) {
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

func TestTextsUseOnlyPlaceholdersThatAreFilled(t *testing.T) {
	placeholder := regexp.MustCompile(`\{[^}]*\}`)
	for key, text := range english.text {
		for _, p := range placeholder.FindAllString(text, -1) {
			allowed := []string{"{code}", "{seconds}"}
			if strings.HasSuffix(key, "_brand") {
				allowed = append(allowed, "{brand}")
			}
			if strings.HasPrefix(key, "balance.") {
				allowed = []string{"{balance}", "{required}"}
			}
			if key == "title_brand" {
				allowed = []string{"{title}", "{brand}"}
			}
			if strings.HasPrefix(key, "cause.") || strings.HasSuffix(key, ".title") {
				allowed = nil
			}
			if !slices.Contains(allowed, p) {
				t.Errorf("%s uses %s, which nobody fills", key, p)
			}
		}
		if strings.ContainsAny(text, "<>&") {
			t.Errorf("%s = %q: texts are plain, markup would be shown as it stands", key, text)
		}
	}
}

func TestAMissingTextIsAnError(t *testing.T) {
	if s, err := english.fill("no.such.key"); err == nil {
		t.Errorf("got %q", s)
	}
}
