package tollgate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/configtest"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/keys"
)

const plainProvider = configtest.PlainProvider

func TestPlainProviderNamesTheEndpointThatIsMissing(t *testing.T) {
	for _, name := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint"} {
		for _, base := range []string{"", "base_url https://login.example.com\n"} {
			var kept []string
			for line := range strings.Lines(strings.Replace(plainProvider, "client_id", base+"client_id", 1)) {
				if !strings.Contains(line, name) {
					kept = append(kept, line)
				}
			}
			if _, err := adaptHandler(strings.Join(kept, "")); err == nil || !strings.Contains(err.Error(), "provider."+name+": is required") {
				t.Errorf("without %s: got %v", name, err)
			}
		}
	}
}

func TestInvalidProviderSettingsAreErrors(t *testing.T) {
	with := func(line string) string { return strings.Replace(plainProvider, "client_id", line+"\nclient_id", 1) }
	for block, want := range map[string]string{
		strings.Replace(plainProvider, "https://login.example.com/t", "/t", 1):                                       `provider.token_endpoint: is neither an absolute URL nor a path below base_url, at Caddyfile:`,
		with("base_url https://x.example\nrevocation_endpoint //evil.example"):                                       `provider.revocation_endpoint: is neither`,
		with(`balance_endpoint "https://x.example/a b"`):                                                             `provider.balance_endpoint: must not contain a space`,
		with(`balance_endpoint "https://x.example/a "`):                                                              `provider.balance_endpoint: must not contain a space`,
		with("balance_endpoint https://user:hunter2@x.example"):                                                      `provider.balance_endpoint: must have neither a user nor a fragment`,
		with("balance_endpoint \"https://user:hunt er2@x.example\""):                                                 `provider.balance_endpoint: must have neither a user nor a fragment`,
		with("issuer http://issuer.example"):                                                                         `provider.issuer: "http://issuer.example" must be https`,
		with("issuer https://issuer.example?x=1"):                                                                    `provider.issuer: must not contain a query`,
		with(`scopes "profile balance"`):                                                                             `provider.scopes: "profile balance" is not a scope; write several scopes as separate words`,
		with(`scopes a b"c`):                                                                                         `provider.scopes: "b\"c" is not a scope`,
		with("scopes é"):                                                                                             `provider.scopes: "é" is not a scope`,
		with(`authorize_param "a b" x`):                                                                              `provider.authorize_param: "a b" is not a valid parameter name`,
		with("authorize_param a&b x"):                                                                                `provider.authorize_param: "a&b" is not a valid parameter name`,
		with("logout_param state x"):                                                                                 `provider.logout_param: "state" is set by tollgate itself`,
		with("logout_param prompt"):                                                                                  `provider.logout_param: wrong number of arguments`,
		with("logout_param off\nlogout_param prompt login"):                                                          `provider.logout_param: contradicts off`,
		with("logout_param prompt login\nlogout_param off"):                                                          `provider.logout_param: off contradicts another mention`,
		with("logout_param prompt login\nlogout_param prompt x"):                                                     `provider.logout_param: prompt is set twice`,
		strings.Replace(plainProvider, "client_secret secret", `client_secret "hunter2 "`, 1):                        "provider.client_secret: begins or ends with a space, at",
		strings.Replace(plainProvider, "client_secret secret", "client_secret pässword", 1):                          "provider.client_secret: contains a character other than printable ASCII",
		strings.Replace(plainProvider, "client_id id", `client_id " id"`, 1):                                         "provider.client_id: begins or ends with a space",
		strings.Replace(plainProvider, "https://app.example.com/oauth/callback", `"https://app.example.com/o h"`, 1): "redirect_uri: must not contain a space",
		plainProvider + "topup_hosts pay.example.com":                                                                "topup_hosts: has no effect without topup_endpoint: remove it, or set topup_endpoint, at",
		minimalBlock + "topup_hosts https://pay.example.com":                                                         `topup_hosts: "https://pay.example.com" is not a host such as`,
		minimalBlock + "topup_hosts *.example.com":                                                                   `topup_hosts: "*.example.com" is not a host name`,
		minimalBlock + "topup_hosts pay.example.com/x":                                                               `topup_hosts: "pay.example.com/x" is not a host such as`,
		minimalBlock + "topup_hosts 127.1":                                                                           `topup_hosts: "127.1" is read as an IPv4 address`,
		minimalBlock + "topup_hosts":                                                                                 "topup_hosts: wrong number of arguments",
	} {
		_, err := adaptHandler(block)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", block, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "hunt") || strings.Contains(err.Error(), "pässword")) {
			t.Errorf("the error holds a secret: %v", err)
		}
	}
}

// TestLineBreakInAFileStopsTheStart: Caddy takes one line break off the end of a file.
// What remains would be sent to the provider, encoded, and everybody be refused.
func TestLineBreakInAFileStopsTheStart(t *testing.T) {
	file := func(content string) string {
		name := filepath.Join(t.TempDir(), "value")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "{file." + name + "}"
	}
	replaced := func(old, replacement string) string { return strings.Replace(minimalBlock, old, replacement, 1) }
	redis := func(word, content string) string {
		return minimalBlock + "session {\nstore redis {\naddress 127.0.0.1:1\n" + word + " " + file(content) + "\n}\n}\n"
	}
	for block, want := range map[string]string{
		replaced("client_id id", "client_id "+file("hunter2\n\n")):                             "provider.client_id: contains a line break",
		replaced("client_id id", "client_id "+file("hunter2 \n")):                              "provider.client_id: begins or ends with a space",
		replaced("client_secret secret", "client_secret "+file("hunter2\r\n\r\n")):             "provider.client_secret: contains a line break",
		replaced("client_secret secret", "client_secret "+file("hunter2\x00")):                 "provider.client_secret: contains a line break or another control character",
		replaced("client_id id", "scopes "+file("profile\nbalance\n")+"\nclient_id id"):        "provider.scopes: contains a line break",
		replaced("client_id id", "authorize_param a "+file("hunter2\n\n")+"\nclient_id id"):    "provider.authorize_param: contains a line break",
		replaced("client_id id", "token_endpoint "+file("https://x/\n\n")+"\nclient_id id"):    "provider.token_endpoint: contains a line break",
		replaced("client_id id", "active_status "+file("1\n\n")+"\nclient_id id"):              "provider.active_status: contains a line break",
		replaced("https://app.example.com/oauth/callback", file("https://app.example/cb\n\n")): "redirect_uri: contains a line break",
		minimalBlock + "brand " + file("a\nb"):                                                 "brand: contains a line break",
		minimalBlock + "require {\nuser " + file("7\n\n") + "\n}":                              "require[0].user: contains a line break",
		minimalBlock + "identity {\nheader X-A " + file("hunter2\n\n") + "\n}":                 "identity.header: contains a line break",
		redis("username", "hunter2\n\n"):                                                       "session.store.username: contains a line break",
		redis("password", "hunter2\n\n"):                                                       "session.store.password: contains a line break",
		redis("password", "hunter2\x00x"):                                                      "session.store.password: contains a line break",
	} {
		_, handlers, err := gatewaytest.Provision("{\n\tadmin off\n\tauto_https off\n}\nhttp:// {\n\ttollgate {\n" + block + "\n\t}\n}\n")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", block, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error holds a secret: %v", err)
		}
		for _, h := range handlers {
			h.Cleanup()
		}
	}
	text := "{\n\tadmin off\n\tauto_https off\n}\nhttp:// {\n\ttollgate {\n" + replaced("client_secret secret", "client_secret "+file("secret\n")) + "secret " + file(keys.NewSecret()+"\n\n") + "\n\t}\n}\n"
	_, handlers, err := gatewaytest.Provision(text)
	if err != nil {
		t.Fatalf("a file with one line break, and a secret with two: %v", err)
	}
	handlers[0].Cleanup()
}
