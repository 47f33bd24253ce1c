package tollgate_test

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-tollgate/tollgate"
	"github.com/caddy-tollgate/tollgate/internal/oauth"
)

// FuzzCallback: a callback is acted on only with each parameter once, and with all
// that is needed.
func FuzzCallback(f *testing.F) {
	for _, seed := range []string{"code=c&state=s", "state=s&state=t", "error=e&state=s", "code=&state=", "code=c&state=s&iss=i&iss=j", "a;b", "%zz", "code=c&Code=d&state=s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, _ := url.ParseQuery(query)
		answer, cause := oauth.ParseCallback(values)
		if cause != "" {
			if answer != (oauth.Callback{}) || (cause != "missing_parameters" && cause != "invalid_state") {
				t.Fatalf("%q: %+v with the cause %q", query, answer, cause)
			}
			return
		}
		for name, value := range map[string]string{"code": answer.Code, "state": answer.State, "error": answer.ErrorCode, "iss": answer.Issuer} {
			if n := len(values[name]); n > 1 || (n == 1 && values[name][0] != value) || (n == 0 && value != "") {
				t.Fatalf("%q: %s is %q of %q", query, name, value, values[name])
			}
		}
		if answer.ErrorCode == "" && (answer.Code == "" || answer.State == "") {
			t.Fatalf("%q passes", query)
		}
	})
}

// FuzzCaddyfile: what is accepted is a configuration that loads again from its JSON.
func FuzzCaddyfile(f *testing.F) {
	f.Add(minimalBlock)
	f.Add(full)
	f.Add(minimalBlock + "session {\nstore cookie\n}\nidentity none {\nheader X {y}\n}")
	f.Add("provider {\n}\nprovider")
	f.Add("secret {env.X}\npublic\n}")
	f.Fuzz(func(t *testing.T, block string) {
		if strings.Contains(block, "{file.") || strings.Contains(block, "{$") {
			return // which would read this machine's files and environment
		}
		var h tollgate.Handler
		if h.UnmarshalCaddyfile(caddyfile.NewTestDispenser("tollgate {\n"+block+"\n}")) != nil {
			return
		}
		text, err := json.Marshal(&h)
		if err != nil {
			t.Fatal(err)
		}
		var again tollgate.Handler
		if err := caddy.StrictUnmarshalJSON(text, &again); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if twice, _ := json.Marshal(&again); !bytes.Equal(twice, text) {
			t.Fatalf("%s becomes %s", text, twice)
		}
	})
}
