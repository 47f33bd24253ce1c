package config

import (
	"errors"
	"strings"
	"testing"
)

// TestGeneratedSecretsAreHiddenInsideOtherTexts: an operator may put a secret behind any
// word, and the error quotes it with what is around it.
func TestGeneratedSecretsAreHiddenInsideOtherTexts(t *testing.T) {
	const secret = "GOCSPX-4f9aX_Zz81kQpLw0tVn3"
	for _, text := range []string{
		"email_domain: \"@" + secret + "\" is not a domain",
		"session.cookie_name: \"" + secret + " x\" is not a cookie name",
		"redirect_uri: \"https://" + secret + "\" needs a plain path",
		"pages: /x/" + secret + ": no such folder",
		"unrecognized matcher @" + secret,
	} {
		if got := WithoutSecrets(errors.New(text), nil).Error(); strings.Contains(got, "GOCSPX") {
			t.Errorf("got %q, want the secret hidden", got)
		}
	}
	for _, name := range []string{"https://my-company-2024-prod.example.com/oauth", "https://app-eu-west-1.example.com/oauth", "/srv/tollgate/pages-v2"} {
		if got := Shown(name); got != name {
			t.Errorf("got %q, want %q shown", got, name)
		}
	}
}
