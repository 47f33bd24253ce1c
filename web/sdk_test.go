package web

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestEveryLanguageOfTheElementHasTheSameTexts(t *testing.T) {
	_, table, _ := strings.Cut(sdkFile, "const texts = {")
	table, _, _ = strings.Cut(table, "\n};")
	key := regexp.MustCompile(`(\w+): "[^"]+"`)
	var languages []string
	var want []string
	for _, line := range regexp.MustCompile(`(?m)^\t"?([\w-]+)"?: \{(.*)\},$`).FindAllStringSubmatch(table, -1) {
		languages = append(languages, line[1])
		var keys []string
		for _, match := range key.FindAllStringSubmatch(line[2], -1) {
			keys = append(keys, match[1])
		}
		if want == nil {
			want = keys
		}
		if !slices.Equal(keys, want) {
			t.Errorf("%s has %q, want %q", line[1], keys, want)
		}
	}
	if all := []string{"en", "pt-BR", "es", "ja", "zh-Hans", "zh-Hant"}; !slices.Equal(languages, all) || len(want) < 10 {
		t.Errorf("languages %q with %d texts, want %q", languages, len(want), all)
	}
	for _, name := range want {
		if !regexp.MustCompile(`["\.]` + name + `\b`).MatchString(strings.ReplaceAll(sdkFile, table, "")) {
			t.Errorf("nothing uses the text %s", name)
		}
	}
}

// Markup is never made of texts, and the script reads no cookie and stores nothing.
func TestTheSDKUsesNothingThatIsDangerous(t *testing.T) {
	for _, word := range []string{"innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "localStorage", "sessionStorage", "document.cookie", "\"*\"", "Math.random"} {
		if strings.Contains(sdkFile, word) {
			t.Errorf("the script has %s", word)
		}
	}
}

func TestTheSDKHasOneLineForTheEndpoints(t *testing.T) {
	if n := len(endpointsLine.FindAllString(sdkFile, -1)); n != 1 {
		t.Errorf("%d lines", n)
	}
}
