package tollgate_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// sendEvilTrailers answers with trailers that no upstream may send, and with a good one.
func sendEvilTrailers(announced ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range announced {
			w.Header().Add("Trailer", name)
		}
		w.Write([]byte("body"))
		http.NewResponseController(w).Flush()
		for name, value := range map[string]string{
			"Set-Cookie": "tollgate=evil; Path=/", "Expires": "Thu, 01 Dec 2094 16:00:00 GMT",
			"Cdn-Cache-Control": "max-age=3600", "X-Good": "good",
		} {
			if !slices.Contains(announced, name) {
				name = http.TrailerPrefix + name
			}
			w.Header().Set(name, value)
		}
	}
}

func TestTrailersSetNoCookieAndSteerNoCache(t *testing.T) {
	for name, announced := range map[string][]string{
		"announced":      {"Set-Cookie", "Expires", "Cdn-Cache-Control", "X-Good"},
		"unannounced":    nil,
		"partly, in one": {"set-cookie, X-Good"},
	} {
		t.Run(name, func(t *testing.T) {
			s := gatewaytest.New(t, gatewaytest.Options{Handler: sendEvilTrailers(announced...)})
			front := httptest.NewUnstartedServer(s.Server)
			front.EnableHTTP2 = true
			front.StartTLS()
			defer front.Close()
			for _, at := range []struct {
				client *http.Client
				url    string
			}{{http.DefaultClient, s.URL}, {front.Client(), front.URL}} {
				b := s.NewBrowser()
				b.Follow("/")
				s.Clock.Advance(over) // the session cookie is renewed
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, at.url+"/", nil)
				_, cookies, _ := strings.Cut(b.CookieLine(), ": ")
				req.Header.Set("Cookie", cookies)
				res, err := at.client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if set := res.Header.Get("Set-Cookie"); err != nil || !strings.HasPrefix(set, "tollgate=") || strings.Contains(set, "evil") {
					t.Fatalf("%s: got Set-Cookie %q, %v, want the session's", res.Proto, set, err)
				}
				if got := res.Trailer.Get("X-Good"); got != "good" || len(res.Trailer) != 1 {
					t.Errorf("%s: got the trailers %v, want X-Good alone", res.Proto, res.Trailer)
				}
			}
		})
	}
}
