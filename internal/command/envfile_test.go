package command

import (
	"strings"
	"testing"
)

func TestEnvFileIsReadAlikeByCaddyAndAShell(t *testing.T) {
	for _, c := range []struct{ value, want string }{
		{"plain-._~+/=:@", "A=plain-._~+/=:@\n"},
		{"with $ and `", "A='with $ and `'\n"},
		{`"quoted"`, "A='\"quoted\"'\n"},
		{"a'b", ""},
		{`a\b`, ""},
		{"a#b", ""},
		{"a\nb", ""},
		{"ключ", ""},
	} {
		got, err := envFileContent([]envVariable{{name: "A", value: c.value}})
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q: got %q, %v, want %q", c.value, got, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), c.value) {
			t.Errorf("the error repeats the value: %v", err)
		}
	}
}
