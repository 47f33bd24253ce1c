package tollgate_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// hidden is what an error shows instead of a value that may be a secret.
const hidden = "… (hidden: it may be a secret)"

func TestARedisAddressIsRefusedWithoutItsSecret(t *testing.T) {
	for _, address := range []string{
		"hunter2SECRETpw@127.0.0.1:1",
		"host:6379,password=hunter2SECRETpw",
		"rediss://host:6379?password=hunter2SECRETpw",
		"host:6379/hunter2SECRETpw",
		"hunter2SECRETpw",
	} {
		_, err := adaptHandler(minimalBlock + "session {\nstore redis {\naddress " + address + "\n}\n}")
		switch {
		case err == nil:
			t.Errorf("%s: got no error", address)
		case strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error shows the secret: %v", address, err)
		case !strings.Contains(err.Error(), "session.store.address") || !strings.Contains(err.Error(), "<host>:<port>"):
			t.Errorf("%s: the error does not say what to write: %v", address, err)
		}
	}
}

func TestAParameterOfTheTokenEndpointIsRefused(t *testing.T) {
	for _, option := range []string{"authorize_param", "logout_param"} {
		for _, name := range []string{"client_secret", "code", "code_verifier", "grant_type", "refresh_token"} {
			block := strings.Replace(minimalBlock, "client_id id", "client_id id\n"+option+" "+name+" x", 1)
			if _, err := adaptHandler(block); err == nil || !strings.Contains(err.Error(), "provider."+option+": \""+name+"\" ") {
				t.Errorf("%s %s: got %v, want an error that names both", option, name, err)
			}
		}
	}
}

func TestValueInPlaceOfAnOptionNameIsNotShown(t *testing.T) {
	provider := func(line string) string {
		return strings.Replace(minimalBlock, "client_id id", "client_id id\n"+line, 1)
	}
	redis := func(line string) string {
		return minimalBlock + "session {\nstore redis {\naddress a:1\n" + line + "\n}\n}"
	}
	for block, want := range map[string]string{
		provider("client_secret:hunter2SECRETpw"):            "'client_secret'",
		provider("client_secret=hunter"):                     "'client_secret'",
		provider("client_id:hunter2SECRETpw"):                "'client_id'",
		provider(`client_secret:"hunter2 SECRETpw"`):         "'client_secret'",
		provider("Client_Secret:hunter2"):                    "unknown word",
		provider("hunter2SECRETpw"):                          "unknown word",
		provider("hunterSecretPw"):                           "unknown word",
		provider("hunter"):                                   "unknown word",
		provider("hunter2SECRETpw x"):                        "unknown word",
		provider("fields {\nhunter2SECRETpw x\n}"):           "unknown word",
		redis("hunter2SECRETpw"):                             "unknown word",
		redis("hunter"):                                      "unknown word",
		redis("password:hunter"):                             "'password'",
		redis("username=hunter2"):                            "'username'",
		redis("tls {\nhunter2SECRETpw\n}"):                   "unknown word",
		minimalBlock + "hunter2SECRETpw":                     "unknown word",
		minimalBlock + "secret:hunter2":                      "'secret'",
		minimalBlock + "session {\nstore password:hunter\n}": "unknown session store",
	} {
		_, err := adaptHandler(block)
		if err == nil || strings.Contains(strings.ToLower(err.Error()), "hunter") || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "at Caddyfile:") {
			t.Errorf("%s\n  got  %v\n  want no value, %s and the line", block, err, want)
		}
	}
	for block, want := range map[string]string{
		provider("clientsecret x"):      "unknown word 'clientsecret'; did you mean 'client_secret'?",
		provider("Client-ID x"):         "unknown word 'Client-ID'; did you mean 'client_id'?",
		redis("passwrd x"):              "unknown word 'passwrd'; did you mean 'password'?",
		minimalBlock + "discovery":      "unknown word 'discovery'",
		minimalBlock + "Redirect_URI x": "unknown word 'Redirect_URI'; did you mean 'redirect_uri'?",
	} {
		if _, err := adaptHandler(block); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n  got  %v\n  want %s", block, err, want)
		}
	}
}

func TestRefusedURLShowsNoMoreThanItsHost(t *testing.T) {
	for _, option := range []string{
		"base_url", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "topup_endpoint", "revocation_endpoint", "balance_endpoint", "issuer",
	} {
		for address, host := range map[string]string{
			"ftp://x.example/hunter2":          `"ftp://x.example" must be https`,
			"ftp://x.example?token=hunter2":    `"ftp://x.example" must be https`,
			"http://x.example/hunter2?hunter2": `"http://x.example" must be https`,
			`"https://x.example/a hunter2"`:    "space",
			"https://x.example/%zz?hunter2":    "is not an absolute URL",
			"ftp:hunter2":                      "is not an absolute URL",
			"hunter2":                          "is not an absolute URL",
			"x.example/hunter2":                "is not an absolute URL",
			"//x.example/hunter2":              "absolute URL",
		} {
			_, err := adaptHandler(strings.Replace(minimalBlock, "client_id id", "client_id id\n"+option+" "+address, 1))
			if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), host) || !strings.Contains(err.Error(), "provider."+option) {
				t.Errorf("%s %s\n  got  %v\n  want %s", option, address, err, host)
			}
		}
	}
	_, err := adaptHandler(strings.Replace(plainProvider, "https://login.example.com/t", "/t?hunter2", 1))
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "below base_url") {
		t.Errorf("a path without base_url: got %v", err)
	}
	for _, address := range []string{"ftp://x.example/hunter2", "hunter2", "https://x.example/%zz?hunter2"} {
		if _, err := adaptHandler(strings.Replace(minimalBlock, "https://app.example.com/oauth/callback", address, 1)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("redirect_uri %s: got %v", address, err)
		}
	}
}

func TestAnUnknownJSONFieldIsShownIfItIsAWord(t *testing.T) {
	for key, want := range map[string]string{
		"redirekt_uri":                         `"redirekt_uri"; did you mean 'redirect_uri'?`,
		"ClientID":                             `did you mean 'client_id'?`,
		"discovery":                            `"discovery"`,
		"hunter2SECRETpw":                      hidden,
		"hunter2":                              hidden,
		"password=hunter":                      hidden,
		`hunter\"secret`:                       hidden,
		"hunterhunterhunterhunterhunterhunter": hidden,
	} {
		for place, object := range map[string]string{
			"the handler":      `{%s:1}`,
			"provider":         `{"provider":{%s:1}}`,
			"require":          `{"require":[{%s:1}]}`,
			"provider.fields":  `{"provider":{"preset":"aihubmix","client_id":"id","client_secret":"secret","fields":{%s:"x"}},"redirect_uri":"https://app.example.com/oauth/callback"}`,
			"endpoints":        `{"provider":{"preset":"aihubmix","client_id":"id","client_secret":"secret"},"endpoints":{%s:"/x"},"redirect_uri":"https://app.example.com/oauth/callback"}`,
			"store redis":      `{"provider":{"preset":"aihubmix","client_id":"id","client_secret":"secret"},"session":{"store":{"module":"redis",%s:1}},"redirect_uri":"https://app.example.com/oauth/callback"}`,
			"store redis, tls": `{"provider":{"preset":"aihubmix","client_id":"id","client_secret":"secret"},"session":{"store":{"module":"redis","tls":{%s:1}}},"redirect_uri":"https://app.example.com/oauth/callback"}`,
			"store storage":    `{"provider":{"preset":"aihubmix","client_id":"id","client_secret":"secret"},"session":{"store":{"module":"storage",%s:1}},"redirect_uri":"https://app.example.com/oauth/callback"}`,
		} {
			name, _ := json.Marshal(key)
			handler := strings.Replace(fmt.Sprintf(object, name), "{", `{"handler":"tollgate",`, 1)
			_, _, err := gatewaytest.ProvisionJSON([]byte(`{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"routes":[{"handle":[` + handler + `]}]}}}}}`))
			known := strings.Contains(want, "did you mean") // of another block
			if err == nil || strings.Contains(err.Error(), "hunter") || !strings.Contains(err.Error(), "unknown ") || !known && !strings.Contains(err.Error(), want) {
				t.Errorf("%s, %s\n  got  %v\n  want %s", place, key, err, want)
			}
		}
	}
	_, _, err := gatewaytest.ProvisionJSON([]byte(`{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"routes":[{"handle":[{"handler":"tollgate","provider":{"clientid":"x"}}]}]}}}}}`))
	if err == nil || !strings.Contains(err.Error(), `unknown field "clientid"; did you mean 'client_id'?`) {
		t.Errorf("a misspelt key: got %v", err)
	}
}
