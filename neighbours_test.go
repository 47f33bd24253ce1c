package tollgate_test

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/manualtest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
)

func namedSite(t *testing.T, cookie string, options gatewaytest.Options) *gatewaytest.Site {
	t.Helper()
	options.InTollgate = "session {\n\t\t\tcookie_name " + cookie + "\n\t\t}"
	return gatewaytest.New(t, options)
}

func TestAnUpstreamSeesNoOtherSitesCookies(t *testing.T) {
	setting := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Set-Cookie", "site_b=evil; Path=/")
		w.Header().Add("Set-Cookie", "site_b-login-x=evil; Path=/")
		w.Header().Add("Set-Cookie", "theirs=good; Path=/")
	}
	a := namedSite(t, "site_a", gatewaytest.Options{Handler: setting, Before: "", InProvider: ""})
	b := namedSite(t, "site_b", gatewaytest.Options{})
	signedIn := a.NewBrowser()
	signedIn.Follow("/")
	const foreign = "site_b=1.secret; x=1; site_b-2=more; site_b-login-abc=l; y=2; site_b-login-a-login-b=l; site_b-signed-out=1; site_b-recent=1.a; site_bc=3; site_b-other=4"
	ask := func() (sent, set string) {
		res := signedIn.Get("/", "Cookie: "+foreign)
		if res.StatusCode != http.StatusOK {
			t.Fatalf("got %d", res.StatusCode)
		}
		return a.Upstream.Last.Load().Header.Get("Cookie"), strings.Join(res.Header.Values("Set-Cookie"), "\n")
	}
	want := func(when string) {
		t.Helper()
		sent, set := ask()
		if strings.Contains(sent, "secret") || strings.Contains(sent, "site_b=") || strings.Contains(sent, "site_b-2") || strings.Contains(sent, "site_b-login") ||
			strings.Contains(sent, "site_b-signed-out") || strings.Contains(sent, "site_b-recent") {
			t.Errorf("%s: the upstream got %s", when, sent)
		}
		for _, kept := range []string{"x=1", "y=2", "site_bc=3", "site_b-other=4"} {
			if !strings.Contains(sent, kept) {
				t.Errorf("%s: the upstream did not get %s: %s", when, kept, sent)
			}
		}
		if strings.Contains(set, "evil") || !strings.Contains(set, "theirs=good") {
			t.Errorf("%s: the browser got %s", when, set)
		}
	}
	want("at first")
	a.Load()
	want("after a reload of its own")
	b.Load()
	want("after a reload of the other")
	b.Restart()
	want("after the other began anew")
	b.Handlers[0].Cleanup()
	b.Handlers = nil
	if sent, _ := ask(); !strings.Contains(sent, "secret") {
		t.Errorf("a site that is gone has no cookies: the upstream got %s", sent)
	}
}

func TestSitesThatBreakEachOtherAreAWarning(t *testing.T) {
	site := func(address, redirect, more string) string {
		return address + " {\ntollgate {\n" + strings.Replace(minimalBlock, "https://app.example.com/oauth/callback", redirect, 1) + "secret " + gatewaytest.Secret + "\n" + more + "\n}\n}\n"
	}
	const (
		sameRedirect = "two sites have the same redirect_uri"
		sameCookie   = "two sites share a host and a cookie name"
		elsewhere    = "redirect_uri leads to another host or port"
	)
	named := func(name string) string { return "session {\ncookie_name " + name + "\n}" }
	for name, c := range map[string]struct {
		sites string
		want  []string // parts of the one warning; none: no warning
	}{
		"one site":                  {site("app.example.com", "https://app.example.com/oauth/callback", ""), nil},
		"one redirect_uri":          {site("a.example.com", "https://a.example.com/oauth/callback", "") + site("a.example.com:8443", "https://a.example.com/oauth/callback", ""), []string{sameRedirect, "a.example.com on :443", "a.example.com on :8443"}},
		"one host, one cookie":      {site("a.example.com", "https://a.example.com/oauth/callback", "") + site("a.example.com:8443", "https://a.example.com:8443/oauth/callback", ""), []string{sameCookie, "https://a.example.com/oauth/callback", "https://a.example.com:8443/oauth/callback"}},
		"one host, two cookies":     {site("a.example.com", "https://a.example.com/oauth/callback", named("x")) + site("a.example.com:8443", "https://a.example.com:8443/oauth/callback", named("y")), nil},
		"a cookie like a chunk":     {site("a.example.com", "https://a.example.com/oauth/callback", named("x")) + site("a.example.com:8443", "https://a.example.com:8443/oauth/callback", named("x-2")), []string{sameCookie}},
		"two hosts":                 {site("a.example.com", "https://a.example.com/oauth/callback", "") + site("b.example.com", "https://b.example.com/oauth/callback", ""), nil},
		"two hosts of one domain":   {site("a.example.com", "https://a.example.com/oauth/callback", "session {\ncookie_domain example.com\n}") + site("b.example.com", "https://b.example.com/oauth/callback", named("__Secure-tollgate")), []string{sameCookie}},
		"another port":              {site("http://a.example.com:8080", "https://a.example.com/oauth/callback", ""), []string{elsewhere, "a.example.com on :8080", "https://a.example.com/oauth/callback"}},
		"another host":              {site("localhost", "https://127.0.0.1/oauth/callback", ""), []string{elsewhere, "localhost on :443"}},
		"a wildcard":                {site("*.example.com", "https://a.example.com/oauth/callback", ""), nil},
		"no host, behind a proxy":   {site("http://", "https://a.example.com/oauth/callback", ""), nil},
		"asked by another proxy":    {site("http://gateway:8080", "https://a.example.com/oauth/callback", inStorage+"\nforward_auth"), nil},
		"two routes of one site":    {"a.example.com {\n" + strings.Repeat("handle /x {\ntollgate {\n"+strings.Replace(minimalBlock, "app.example", "a.example", 1)+"\n}\n}\n", 1) + "handle {\ntollgate {\n" + strings.Replace(minimalBlock, "app.example", "a.example", 1) + "\n}\n}\n}\n", nil},
		"a site with several names": {site("a.example.com, www.example.com", "https://a.example.com/oauth/callback", ""), nil},
	} {
		var warnings []string
		for line := range strings.Lines(startLog(t, "", c.sites)) {
			if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "http.handlers.tollgate") {
				warnings = append(warnings, line)
			}
		}
		found := slices.ContainsFunc(warnings, func(line string) bool {
			return !slices.ContainsFunc(c.want, func(part string) bool { return !strings.Contains(line, part) })
		})
		if found != (len(c.want) > 0) || (len(c.want) == 0 && len(warnings) > 0) {
			t.Errorf("%s: got %v, want %q in one warning", name, warnings, c.want)
		}
	}
}

func TestReloadDoesNotWarnAboutSitesOfTheOldConfiguration(t *testing.T) {
	const warning = "two sites have the same redirect_uri"
	r := gatewaytest.Run(t, gatewaytest.RunOptions{})
	warnings := func() int {
		return strings.Count(manualtest.ReadFile(t, filepath.Join(r.Logs, "default.log")), warning)
	}
	r.Reload()
	if n := warnings(); n != 0 {
		t.Errorf("one site, loaded twice: got %d warnings, want none", n)
	}
	// A second site of the same configuration is warned about, so the log is the right one.
	_, site, _ := strings.Cut(r.Caddyfile, "\n}\n")
	r.Caddyfile += strings.Replace(site, strings.TrimPrefix(r.URL, "http://")+" {", porttest.Address()+" {", 1)
	r.Reload()
	if n := warnings(); n != 1 {
		t.Errorf("two sites: got %d warnings, want 1", n)
	}
}
