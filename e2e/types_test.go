package e2e

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

var (
	declaredMember = regexp.MustCompile(`(?m)^\t(\w+)\(`)
	declaredExport = regexp.MustCompile(`(?m)^export (?:const|class) (\w+)`)
	declaredUser   = regexp.MustCompile(`(?m)^\treadonly (\w+):`)
	optionalUser   = regexp.MustCompile(`(?m)^\treadonly (\w+)\?:`)
	declaredEvent  = regexp.MustCompile(`(?m)^\t(\w+): CustomEvent<`)
)

// TestTypesMatchTheSDK compares sdk.d.ts with the script as a browser sees it.
func TestTypesMatchTheSDK(t *testing.T) {
	types, err := os.ReadFile("../web/sdk.d.ts")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, siteOptions{pages: sdkPage})
	w := s.newPerson().openSDK()
	w.signInByClick()

	body := regexp.MustCompile(`(?s)export interface Tollgate extends.*?\n}`).FindString(string(types))
	members := names(declaredMember, body)
	members = slices.DeleteFunc(members, func(name string) bool { return name == "addEventListener" || name == "removeEventListener" })
	// Not every configuration has them.
	optional := names(optionalUser, string(types))
	for what, c := range map[string]struct {
		declared []string
		script   string
	}{
		"exports": {names(declaredExport, string(types)), `import("/oauth/sdk.js").then(sdk => Object.keys(sdk).sort())`},
		"members": {members, `Object.getOwnPropertyNames(Object.getPrototypeOf(tollgate)).filter(name => name !== "constructor").sort()`},
		"user": {
			names(declaredUser, regexp.MustCompile(`(?s)export interface User .*?\n}`).FindString(string(types))),
			`tollgate.user().then(user => Object.keys(user).sort())`,
		},
		"balance": {
			names(declaredUser, regexp.MustCompile(`(?s)export interface Balance .*?\n}`).FindString(string(types))),
			`tollgate.user().then(user => Object.keys(user.balance).sort())`,
		},
	} {
		has := slices.DeleteFunc(evaluate[[]string](w, c.script), func(name string) bool { return slices.Contains(optional, name) })
		if len(has) == 0 || !slices.Equal(c.declared, has) {
			t.Errorf("%s: the types declare %q, the page has %q", what, c.declared, has)
		}
	}
	source, err := os.ReadFile("../web/sdk.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range names(declaredEvent, string(types)) {
		if !regexp.MustCompile(`"` + event + `"`).Match(source) {
			t.Errorf("the types declare the event %s, and sdk.js does not send it", event)
		}
	}
}

func names(pattern *regexp.Regexp, text string) []string {
	var found []string
	for _, match := range pattern.FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	slices.Sort(found)
	return slices.Compact(found)
}
