package tollgate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
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
		_, handlers, err := gatewaytest.Provision("{\nadmin off\nauto_https off\nlog {\noutput file " + file + "\n}\n}\nhttp:// {\ntollgate {\n" + minimalBlock + lines + "\n}\n}\n")
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
