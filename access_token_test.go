package tollgate_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

func TestTheUpstreamReceivesTheNewestAccessToken(t *testing.T) {
	for option, header := range map[string]string{
		"pass_access_token":              "Authorization",
		"pass_access_token X-User-Token": "X-User-Token",
	} {
		s := gatewaytest.New(t, gatewaytest.Options{InTollgate: option})
		b := s.NewBrowser().SignIn()
		before := ""
		for range 2 {
			a := b.Get("/")
			token := sessionOf(s, b).Tokens.Access
			want := token
			if header == "Authorization" {
				want = "Bearer " + token
			}
			if got := a.Seen(t).Header.Values(header); len(got) != 1 || got[0] != want || token == before {
				t.Errorf("%s: the upstream did not see one newest token in %s", option, header)
			}
			if strings.Contains(fmt.Sprint(a.Header), token) {
				t.Errorf("%s: the token went to the browser", option)
			}
			before = token
			s.Clock.Advance(over)
		}
	}
}

func TestAClientsOwnTokenNeverReachesTheUpstream(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{InTollgate: "pass_access_token X-User-Token\npublic /public/*\noptional /optional/*"})
	b := s.NewBrowser().SignIn()
	for _, path := range []string{"/protected", "/optional/a", "/public/a"} {
		for _, cookies := range []string{b.CookieLine(), "X-None: 1"} {
			for _, name := range []string{"X-User-Token", "x_user_token", "X.User--Token"} {
				rawRequest(t, s,
					"POST "+path+" HTTP/1.1", "Host: gateway", cookies, name+": forged-value", "Connection: "+name,
					"Transfer-Encoding: chunked", "", "0", name+": forged-value", "", "")
				if s.Upstream.Last.Load() == nil {
					continue // a protected path without a session: the request was not passed on
				}
				wantNoForgery(s, t, path+" as "+name)
				seen := s.Upstream.Last.Swap(nil).Header.Get("X-User-Token")
				if want := path != "/public/a" && cookies != "X-None: 1"; (seen != "") != want {
					t.Errorf("%s as %s: the upstream got an access token: %v, want %v", path, name, seen != "", want)
				}
			}
		}
	}
}

func TestWithoutTheOptionAuthorizationPassesUntouched(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{})
	a := s.NewBrowser().SignIn().Get("/", "Authorization: Basic own")
	if got := a.Seen(t).Header.Get("Authorization"); got != "Basic own" {
		t.Errorf("the upstream saw %q", got)
	}
}

// A route for errors may lead to another server.
func TestARouteForErrorsGetsNeitherTokenNorAssertion(t *testing.T) {
	for block, name := range map[string]string{
		"pass_access_token": "Authorization", "pass_access_token X-Token": "X-Token",
		"assertion": assertionHeader, "assertion {\nheader X-Proof\n}": "X-Proof",
	} {
		s := gatewaytest.New(t, gatewaytest.Options{
			InTollgate: block,
			After:      "handle_errors {\nrespond \"got {http.request.header." + name + "} of {http.request.header.X-User-Id}\"\n}",
		})
		s.Caddyfile = strings.Replace(s.Caddyfile, s.Upstream.URL, "http://"+porttest.Address(), 1)
		s.Load()
		if a := s.NewBrowser().Follow("/"); a.Text != "got  of "+gatewaytest.UserID {
			t.Errorf("%s: %d %q", name, a.StatusCode, a.Text)
		}
	}
}
