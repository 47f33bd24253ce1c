package tollgate

import (
	"strings"
	"testing"
)

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
