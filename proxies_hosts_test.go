package tollgate_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// hostsWithMore are Host headers that begin another URL. A proxy that puts such a header
// in front of the path makes a URL whose path is not the one that the client asked for.
var hostsWithMore = []string{"app?x=", "app?", "app#", "app/open/x?", "app/open", "app/open/..", "app/open/x#", "x@app?x=", "app:80?x="}

// testHosts checks that no Host header makes the page public. path says whether the proxy
// also sends the path alone, so that public paths are public.
func (s *proxiedSite) testHosts(t *testing.T, path bool) {
	t.Helper()
	want := http.StatusUnauthorized
	if path {
		want = http.StatusOK
	}
	if res := rawRequest(t, s.Site, "GET /open/x HTTP/1.1", "Host: app", "", ""); res.StatusCode != want {
		t.Errorf("/open/x: got %d, want %d", res.StatusCode, want)
	}
	before := s.Upstream.Requests.Load()
	for _, host := range hostsWithMore {
		for _, target := range []string{"/page", "/../page", "/open/../page"} {
			res := rawRequest(t, s.Site, "GET "+target+" HTTP/1.1", "Host: "+host, "Cookie: a=1", "", "")
			if res.StatusCode != http.StatusUnauthorized && res.StatusCode != http.StatusBadRequest {
				t.Errorf("Host %s, %s: got %d, want 401 or 400", host, target, res.StatusCode)
			}
		}
	}
	if n := s.Upstream.Requests.Load() - before; n != 0 {
		t.Errorf("%d requests without a session reached the application, want none", n)
	}
}

// alsoPublic makes the front page public. A URL without a path means that page.
func (s *proxiedSite) alsoPublic() {
	s.T.Helper()
	if !strings.Contains(s.Caddyfile, "public /open/*") {
		s.T.Fatal("the site has no public paths")
	}
	s.Caddyfile = strings.Replace(s.Caddyfile, "public /open/*", "public / /open/*", 1)
	s.Load()
}

// TestNginxCannotBeMadeToSendAnotherPath runs nginx with a full URL as the original URL.
func TestNginxCannotBeMadeToSendAnotherPath(t *testing.T) {
	for name, path := range map[string]string{"a full URL": `""`, "a full URL and the path": "$request_uri"} {
		t.Run(name, func(t *testing.T) {
			s := newProxiedSite(t, "forward-auth-nginx", func(t *testing.T, a proxyAddresses) {
				runNginx(t, a, render(t, "examples/forward-auth-nginx/tollgate.conf",
					"listen 80;", "listen "+a.listen+";", "127.0.0.1:9000", a.gateway, "127.0.0.1:3000", a.application,
					"proxy_set_header Host $http_host;", "proxy_set_header Host app;",
					"proxy_set_header X-Forwarded-Uri $request_uri;\n\t\tproxy_set_header X-Original-URL \"\";\n\t\tproxy_set_header X-Auth-Request-Redirect \"\";",
					"proxy_set_header X-Original-URL $scheme://$http_host$request_uri;\n\t\tproxy_set_header X-Auth-Request-Redirect "+path+";"))
			})
			s.alsoPublic()
			s.testHosts(t, path != `""`)
		})
	}
}

// TestHAProxyCannotBeMadeToSendAnotherPath runs HAProxy with a full URL as the original URL.
func TestHAProxyCannotBeMadeToSendAnotherPath(t *testing.T) {
	for name, headers := range map[string]string{
		"a full URL":              `{ ["x-original-url"] = { original } }`,
		"a full URL and the path": `{ ["x-original-url"] = { original }, ["x-forwarded-uri"] = { txn.f:pathq() } }`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newProxiedSite(t, "forward-auth-haproxy", func(t *testing.T, a proxyAddresses) {
				script := filepath.Join(t.TempDir(), "tollgate.lua")
				writeFile(t, script, render(t, "examples/forward-auth-haproxy/tollgate.lua",
					"ask(url, original, cookies)", "ask(txn, url, original, cookies)", `{ ["x-forwarded-uri"] = { original } }`, headers,
					"ask(url, txn.f:pathq(), cookies)", `ask(txn, url, "http://" .. txn.sf:req_fhdr("host") .. txn.f:pathq(), cookies)`))
				config := writeHAProxy(t, a)
				writeFile(t, config, render(t, config, "examples/forward-auth-haproxy/tollgate.lua", script,
					"\tserver ", "\thttp-request set-header Host app\n\tserver "))
				startLoggingProxy(t, a.listen, a.log, "haproxy", "-db", "-f", config)
			})
			s.alsoPublic()
			s.testHosts(t, strings.Contains(headers, "forwarded"))
		})
	}
}
