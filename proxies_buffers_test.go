package tollgate_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

// nginxLines are lines for nginx's configuration in a document.
var nginxLines = regexp.MustCompile("(?s)```nginx\n(.*?)```")

// TestNginxWithDocumentedBuffersCarriesLargeSessions runs nginx in front of a gateway
// with the cookie store, without and with the lines of docs/sessions.md.
func TestNginxWithDocumentedBuffersCarriesLargeSessions(t *testing.T) {
	documented := nginxLines.FindStringSubmatch(manualtest.ReadFile(t, "docs/sessions.md"))
	if documented == nil {
		t.Fatal("docs/sessions.md holds no lines for nginx")
	}
	for _, size := range []int{2200, 2800, 3600} {
		for lines, want := range map[string]int{"": http.StatusBadGateway, documented[1]: http.StatusOK} {
			listen := porttest.Address()
			options := gatewaytest.Options{Front: "http://" + listen}
			options.Provider.AccessTokenSize = size
			s := gatewaytest.New(t, options)
			runNginx(t, proxyAddresses{listen: listen, log: t.TempDir() + "/log"}, "server {\nlisten "+listen+";\n"+lines+
				"location / {\nproxy_pass http://"+strings.TrimPrefix(s.GatewayURL, "http://")+";\nproxy_set_header Host $http_host;\n}\n}\n")
			b := s.NewBrowser()
			b.SetCookie("application", strings.Repeat("x", 3000))
			if a := b.Follow("/"); a.StatusCode != want {
				t.Errorf("a token of %d bytes, with %q: the sign-in ends with %d, want %d", size, lines, a.StatusCode, want)
			} else if want == http.StatusOK && b.Get("/again").StatusCode != http.StatusOK {
				t.Errorf("a token of %d bytes, with %q: the next request fails", size, lines)
			}
		}
	}
}
