package tollgate_test

import (
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

func TestAStoreWithoutModuleIsRefusedWithoutItsValues(t *testing.T) {
	const rest = `"address":["127.0.0.1:1"],"password":"hunter2SECRETpw"`
	for name, store := range map[string]string{
		"no module":       `{` + rest + `}`,
		"a number":        `{"module":7,` + rest + `}`,
		"an empty module": `{"module":"",` + rest + `}`,
		"a misspelt key":  `{"modul":"redis",` + rest + `}`,
		"a wrong module":  `{"module":"hunter2SECRETpw",` + rest + `}`,
		"a bare name":     `"redis"`,
		"a bare secret":   `"hunter2SECRETpw"`,
		"a list":          `["hunter2SECRETpw"]`,
	} {
		config := `{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"routes":[{"handle":[{"handler":"tollgate",
			"provider":{"client_id":"id","client_secret":"secret"},"redirect_uri":"https://app.example.com/oauth/callback","session":{"store":` + store + `}}]}]}}}}}`
		_, _, err := gatewaytest.ProvisionJSON([]byte(config))
		switch {
		case err == nil:
			t.Errorf("%s: got no error", name)
		case strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error shows the secret: %v", name, err)
		case !strings.Contains(err.Error(), "session.store.module") || !strings.Contains(err.Error(), "cookie, redis, storage"):
			t.Errorf("%s: the error does not name the setting and the stores: %v", name, err)
		}
	}
}
