package tollgate_test

import (
	"net/http"
	"net/url"
	"strconv"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// TestUserNamesThatDifferInSpacesStayDifferent signs in users whose names, and ids, differ
// only in blanks at their ends.
func TestUserNamesThatDifferInSpacesStayDifferent(t *testing.T) {
	const own = ` {http.auth.user.username} `
	for _, name := range []string{"admin", " admin", "admin ", " ", "  12345 "} {
		t.Run(strconv.Quote(name), func(t *testing.T) {
			options := asked(anyPeer, "identity default webauth remote forwarded auth_request {\nheader X-Own \""+own+"\"\n}")
			options.InProvider = "fields {\nid username\n}"
			options.Provider.AutoLogin = name
			options.Provider.Users = []simulator.User{{ID: 1, Username: name, BalanceCents: 100, Status: 1}}
			s := gatewaytest.New(t, options)
			b := s.NewBrowser()
			page := b.Follow("/")
			for where, header := range map[string]http.Header{"upstream": page.Seen(t).Header, "auth": b.Get("/oauth/auth").Header} {
				for _, field := range []string{
					"X-User-Id", "X-User-Name", "X-Webauth-User", "X-Webauth-Name", "Remote-User", "Remote-Name",
					"X-Forwarded-User", "X-Forwarded-Preferred-Username", "X-Auth-Request-User", "X-Auth-Request-Preferred-Username",
				} {
					wantDecoded(t, where, header, field, name)
				}
				wantDecoded(t, where, header, "X-Own", " "+name+" ")
			}
		})
	}
}

func wantDecoded(t *testing.T, where string, header http.Header, field, want string) {
	t.Helper()
	lines := header[field]
	if len(lines) != 1 {
		t.Fatalf("%s: %s: got %q, want one value", where, field, lines)
	}
	if got, err := url.PathUnescape(lines[0]); err != nil || got != want {
		t.Errorf("%s: %s: got %q (%q, %v), want %q", where, field, got, lines[0], err, want)
	}
}
