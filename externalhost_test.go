package tollgate_test

import (
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// startAt asks for `start` under a host, as a browser that goes there.
func startAt(t *testing.T, s *gatewaytest.Site, host, query string) *http.Response {
	t.Helper()
	return rawRequest(t, s, "GET /oauth/start"+query+" HTTP/1.1", "Host: "+host,
		"Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Accept: text/html", "Connection: close", "", "")
}

func TestSignInAtAnotherHostRedirectsToTheExternalHost(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	logs := observe(s)
	for range 2 {
		for _, host := range []string{"localhost", "www.example.com", "evil.example:99"} {
			res := startAt(t, s, host, "?return_to=%2Fpage%3Fa%3Db&popup=1")
			want := s.URL + "/oauth/start?at_origin=1&popup=1&return_to=%2Fpage%3Fa%3Db"
			if got := res.Header.Get("Location"); res.StatusCode != http.StatusFound || got != want || res.Header.Get("Set-Cookie") != "" {
				t.Errorf("%s: got %d %s, want %s", host, res.StatusCode, got, want)
			}
			// A proxy that rewrites Host: there is no second step.
			res = startAt(t, s, host, "?return_to=%2Fpage&at_origin=1")
			if got := res.Header.Get("Location"); !strings.HasPrefix(got, s.ProviderURL) {
				t.Errorf("%s, the second time: got %s, want the provider", host, got)
			}
		}
	}
	own := strings.TrimPrefix(s.URL, "http://")
	for _, host := range []string{own, strings.Split(own, ":")[0]} {
		if got := startAt(t, s, host, "").Header.Get("Location"); !strings.HasPrefix(got, s.ProviderURL) {
			t.Errorf("%s: got %s, want the provider", host, got)
		}
	}
	warnings := logs.FilterMessageSnippet("another host than redirect_uri's").FilterField(zap.String("redirect_uri_host", own))
	if n := warnings.FilterField(zap.String("host", "localhost")).Len(); n != 1 || warnings.Len() != 3 {
		t.Errorf("got %d warnings about localhost of %d, want 1 of 3", n, warnings.Len())
	}
}

func TestStartWithForwardAuthDoesNotRedirectToTheExternalHost(t *testing.T) {
	s, _, _ := newStoredSite(t, gatewaytest.Options{InTollgate: inStorage + "\nforward_auth"})
	if got := startAt(t, s, "gateway.internal", "").Header.Get("Location"); !strings.HasPrefix(got, s.ProviderURL) {
		t.Errorf("got %s, want the provider", got)
	}
}

func TestHostsAreComparedAsBrowsersReadThem(t *testing.T) {
	for _, c := range []struct {
		host, origin string
		want         bool
	}{
		{"app.example.com", "https://app.example.com", true},
		{"APP.example.com.", "https://app.example.com", true},
		{"app.example.com:443", "https://app.example.com", true},
		{"app.example.com", "https://app.example.com:8443", true},
		{"app.example.com:80", "https://app.example.com", false},
		{"www.example.com", "https://app.example.com", false},
		{"[::1]:3000", "http://[0:0:0:0:0:0:0:1]:3000", true},
		{"[::1]", "http://[::1]:3000", true},
		{"127.0.0.1:3000", "http://localhost:3000", false},
		{"", "http://localhost:3000", false},
	} {
		if got := origin.IsSameHost(c.host, c.origin); got != c.want {
			t.Errorf("%q and %s: got %v, want %v", c.host, c.origin, got, c.want)
		}
	}
}
