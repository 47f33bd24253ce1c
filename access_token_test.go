package tollgate

import (
	"fmt"
	"strings"
	"testing"
)

func TestTheUpstreamReceivesTheNewestAccessToken(t *testing.T) {
	for option, header := range map[string]string{
		"pass_access_token":              "Authorization",
		"pass_access_token X-User-Token": "X-User-Token",
	} {
		s := newSite(t, siteOptions{inTollgate: option})
		b := s.newBrowser().signIn()
		before := ""
		for range 2 {
			a := b.Get("/")
			token := s.sessionOf(b).Tokens.Access
			want := token
			if header == "Authorization" {
				want = "Bearer " + token
			}
			if got := a.seen(t).Header.Values(header); len(got) != 1 || got[0] != want || token == before {
				t.Errorf("%s: the upstream did not see one newest token in %s", option, header)
			}
			if strings.Contains(fmt.Sprint(a.Header), token) {
				t.Errorf("%s: the token went to the browser", option)
			}
			before = token
			s.clock.advance(over)
		}
	}
}

func TestAClientsOwnTokenNeverReachesTheUpstream(t *testing.T) {
	s := newSite(t, siteOptions{inTollgate: "pass_access_token X-User-Token\npublic /public/*\noptional /optional/*"})
	b := s.newBrowser().signIn()
	for _, path := range []string{"/protected", "/optional/a", "/public/a"} {
		for _, cookies := range []string{b.cookieLine(), "X-None: 1"} {
			for _, name := range []string{"X-User-Token", "x_user_token", "X.User--Token"} {
				rawRequest(t, s,
					"POST "+path+" HTTP/1.1", "Host: gateway", cookies, name+": forged-value", "Connection: "+name,
					"Transfer-Encoding: chunked", "", "0", name+": forged-value", "", "")
				if s.upstream.last.Load() == nil {
					continue // nobody signed in, at a protected path
				}
				s.wantNoForgery(t, path+" as "+name)
				seen := s.upstream.last.Swap(nil).Header.Get("X-User-Token")
				if want := path != "/public/a" && cookies != "X-None: 1"; (seen != "") != want {
					t.Errorf("%s as %s: a token passed: %v, want %v", path, name, seen != "", want)
				}
			}
		}
	}
}

func TestWithoutTheOptionAuthorizationPassesUntouched(t *testing.T) {
	s := newSite(t, siteOptions{})
	a := s.newBrowser().signIn().Get("/", "Authorization: Basic own")
	if got := a.seen(t).Header.Get("Authorization"); got != "Basic own" {
		t.Errorf("the upstream saw %q", got)
	}
}

// A route for errors may lead to another server.
func TestARouteForErrorsGetsNeitherTokenNorAssertion(t *testing.T) {
	for block, name := range map[string]string{
		"pass_access_token": "Authorization", "pass_access_token X-Token": "X-Token",
		"assertion": assertionHeader, "assertion {\nheader X-Proof\n}": "X-Proof",
	} {
		s := newSite(t, siteOptions{
			inTollgate: block,
			after:      "handle_errors {\nrespond \"got {http.request.header." + name + "} of {http.request.header.X-User-Id}\"\n}",
		})
		s.caddyfile = strings.Replace(s.caddyfile, s.upstream.URL, "http://"+freeAddress(), 1)
		s.Load()
		if a := s.newBrowser().follow("/"); a.text != "got  of "+testUserID {
			t.Errorf("%s: %d %q", name, a.StatusCode, a.text)
		}
	}
}
