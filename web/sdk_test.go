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

// codeOf leaves out every comment and empty line, character by character: other than
// withoutComments it knows texts. The script has no regular expression with a quote.
func codeOf(script string) string {
	var code strings.Builder
	for len(script) > 0 {
		end := 1
		switch c := script[0]; {
		case strings.HasPrefix(script, "//"):
			script = script[strings.IndexByte(script, '\n'):]
			continue
		case strings.HasPrefix(script, "/*"):
			script = script[strings.Index(script, "*/")+2:]
			continue
		case c == '"', c == '\'', c == '`':
			for ; script[end] != c; end++ {
				if script[end] == '\\' {
					end++
				}
			}
			end++
		}
		code.WriteString(script[:end])
		script = script[end:]
	}
	var lines []string
	for line := range strings.Lines(code.String()) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func TestServedSDKDiffersOnlyInComments(t *testing.T) {
	if got, want := codeOf(servedScript), codeOf(sdkFile); got != want {
		t.Errorf("the code that is served is another one:\n%s", got)
	}
	if left := len(codeOf(servedScript)); left < 10_000 {
		t.Errorf("%d bytes of code: codeOf loses some", left)
	}
	if !strings.HasPrefix(servedScript, "// tollgate in the page") {
		t.Errorf("it begins with %.60q", servedScript)
	}
	if regexp.MustCompile(`(?m)^\s*\*`).MatchString(servedScript) {
		t.Error("a line of a comment is served")
	}
}

func TestOnlyCommentsOnTheirOwnLinesAreRemoved(t *testing.T) {
	const top = "// top\n\n"
	for script, want := range map[string]string{
		"a(); // why\n":    "a(); // why\n",
		"\t// why\na();\n": "a();\n",
		"/** @type {any} */ (window).a = 1;\nb();\n": "/** @type {any} */ (window).a = 1;\nb();\n",
		"/**\n * why\n */\na();\n":                   "a();\n",
		"/** why */\na();\n":                         "a();\n",
		"a();":                                       "a();",
	} {
		if got := withoutComments(top + script); got != top+want {
			t.Errorf("%q: got %q, want %q", script, got, top+want)
		}
	}
}
