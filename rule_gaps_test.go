package tollgate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/policy"
)

func TestARuleThatLeavesTheNextPathOpenIsAWarning(t *testing.T) {
	for lines, want := range map[string]string{
		"require /team/* {\nuser 1\n}":                                            "require[0]: /team/* does not match /team, where many applications answer, too; add /team to the paths of this block",
		"require /a /a/ {\nuser 1\n}\nrequire /Deep/Team/* {\nuser 1\n}":          "require[1]: /Deep/Team/* does not match /Deep/Team,",
		"require {\nbalance 1\n}\nrequire /team/* {\nuser 1\n}":                   "require[1]: /team/* does not match /team,",
		"optional /*\nrequire /team/* {\nuser 1\n}":                               "require[0]: /team/* does not match /team,",
		"public /teams/*\nrequire /team/* {\nuser 1\n}":                           "require[0]: /team/* does not match /team,",
		"require /pay {\nbalance 1\n}":                                            "require[0]: /pay does not match /pay/, where many applications answer, too; add /pay/ to the paths of this block",
		"require /pay/ {\nbalance 1\n}":                                           "require[0]: /pay/ does not match /pay,",
		"require /team /team/* {\nuser 1\n}":                                      "",
		"require /TEAM /team/* {\nuser 1\n}":                                      "",
		"require /team* /team/* {\nuser 1\n}":                                     "",
		"require /t* /team/* {\nuser 1\n}":                                        "",
		"require /* {\nuser 1\n}":                                                 "",
		"require * /team/* {\nuser 1\n}":                                          "",
		"require {\nuser 1\n}":                                                    "",
		"require / {\nuser 1\n}":                                                  "",
		"require *.pdf /a/*/b /v[12]/* {\nuser 1\n}":                              "",
		"require /pay /pay/ {\nuser 1\n}":                                         "",
		"public /x/*\noptional /y/*":                                              "",
		"public /team\nrequire /team/* {\nuser 1\n}":                              "",
		"public /*\nrequire /team/* {\nuser 1\n}":                                 "",
		"optional /team\nrequire /team/* {\nuser 1\n}":                            "",
		"require /team/* {\nuser 1\n}\nrequire /team /team/ {\nemail_domain a\n}": "",
	} {
		file := filepath.Join(t.TempDir(), "log")
		_, handlers, err := provision("{\nadmin off\nauto_https off\nlog {\noutput file " + file + "\n}\n}\nhttp:// {\ntollgate {\n" + minimalBlock + lines + "\n}\n}\n")
		if err != nil {
			t.Fatalf("%s: %v", lines, err)
		}
		handlers[0].Cleanup()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		warned := strings.Count(string(text), "where many applications answer")
		if (want == "") != (warned == 0) || warned > 1 || !strings.Contains(string(text), want) {
			t.Errorf("%s: got %d warnings in %s, want %q", lines, warned, text, want)
		}
	}
}

// TestNoExampleLeavesAPathOpen: what people copy has no such gap.
func TestNoExampleLeavesAPathOpen(t *testing.T) {
	setExampleEnv(t)
	files, err := filepath.Glob("examples/*/Caddyfile")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d examples: %v", len(files), err)
	}
	texts := map[string]string{}
	for _, file := range files {
		texts[file] = readFile(t, file)
	}
	for _, block := range manualBlocks(t, "caddyfile") {
		if strings.Contains(block.text, "require") {
			texts[block.where] = block.text
		}
	}
	blocks := 0
	for file, text := range texts {
		_, handlers, err := provision(text)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for _, h := range handlers {
			blocks += len(h.settings.required)
			for _, gap := range policy.RuleGaps(h.settings.public, h.settings.optional, h.settings.required) {
				t.Errorf("%s: %s", file, gap)
			}
			h.Cleanup()
		}
	}
	if blocks < 5 {
		t.Errorf("looked at %d require blocks, want at least 5", blocks)
	}
}
