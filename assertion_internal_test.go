package tollgate

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

// BenchmarkAssertion is what a request costs with an assertion that was made before,
// with one that has to be signed, and without any; the upstream answers at once.
func BenchmarkAssertion(b *testing.B) {
	for _, c := range []struct {
		name, block string
		pause       time.Duration // between two requests, on the handler's clock
	}{{"none", "", 0}, {"reused", "assertion", 0}, {"signed", "assertion", time.Second}} {
		b.Run(c.name, func(b *testing.B) {
			_, handlers, err := provision(fmt.Sprintf(`{
	admin off
	storage file_system %s
}
http:// {
	tollgate {
		provider aihubmix {
			client_id client
			client_secret secret
		}
		redirect_uri https://app.example.com/oauth/callback
		secret %s
		balance {
			max_age 720h
		}
		refresh_before 1s
		%s
	}
}`, b.TempDir(), testSecret, c.block))
			if err != nil {
				b.Fatal(err)
			}
			h := handlers[0]
			defer h.Cleanup()
			now := time.Now()
			h.now = func() time.Time { return now }
			h.sessions.now, h.tokens.now = h.now, h.now
			if h.assertions.asserter != nil && c.pause > 0 {
				h.assertions.asserter.Lifetime = time.Second // less than any configuration may say
			}
			s := session.NewSession(now, oauth.Tokens{Access: "a", Refresh: "r", Issued: now, Expires: now.Add(720 * time.Hour)},
				oauth.NewUserInfo([oauth.FieldCount]oauth.Scalar{oauth.FieldID: testUserID, oauth.FieldStatus: "1", oauth.FieldUsername: `"user123"`, oauth.FieldEmail: `"user@example.com"`, oauth.FieldBalance: `"750.00"`}, now))
			if s, err = h.Internals().Store.Create(b.Context(), s); err != nil {
				b.Fatal(err)
			}
			lines, err := h.sessions.cookies(b.Context(), s, false)
			if err != nil {
				b.Fatal(err)
			}
			cookie, _, _ := strings.Cut(lines[0], ";")
			passed := 0
			upstream := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
				if (r.Header.Get(assertionHeader) != "") == (c.block != "") && r.Header.Get("X-User-Id") == testUserID {
					passed++
				}
				return nil
			})
			b.ReportAllocs()
			sent := 0
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/", http.NoBody)
				r.Header.Set("Cookie", cookie)
				if err := h.ServeHTTP(httptest.NewRecorder(), r, upstream); err != nil {
					b.Fatal(err)
				}
				now = now.Add(c.pause)
				sent++
			}
			if passed != sent {
				b.Fatalf("%d of %d requests passed as they should", passed, sent)
			}
		})
	}
}
