package tollgate_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
)

// TestAMatcherSelectsEverySpellingOfAMethod has a reason: gunicorn handles the method `post` as
// POST.
func TestAMatcherSelectsEverySpellingOfAMethod(t *testing.T) {
	s := withMatcher(t, "@write", gatewaytest.Options{Before: "@write method GET POST"})
	for line, want := range map[string]int{
		"POST /transfer": 401, "post /transfer": 401, "POSt /transfer": 401, "get /transfer": 401, "Get /a;b": 401, "OPTIONS /transfer": 200, "options /transfer": 200,
	} {
		if res := rawRequest(t, s, line+" HTTP/1.1", "Host: gateway", "", ""); res.StatusCode != want {
			t.Errorf("%s: got %d, want %d", line, res.StatusCode, want)
		}
	}
}

// TestAMatcherSelectsEverySpellingOfAHost: nginx finds the same site for all of these.
func TestAMatcherSelectsEverySpellingOfAHost(t *testing.T) {
	for _, matcher := range []string{"host admin.localhost", "expression {http.request.host} == 'admin.localhost'"} {
		s := withMatcher(t, "@admin", gatewaytest.Options{Before: "@admin " + matcher + "\n@other host other.localhost"})
		for host, want := range map[string]int{
			"admin.localhost": 401, "admin.localhost.": 401, "ADMIN.localhost": 401, "Admin.Localhost.:80": 401, "admin.localhost:": 401,
			"admin.localhost:1:2": 400, "admin.localhost.:1:2": 400, "admin.localhost:x": 400, "x@admin.localhost": 400, "%61dmin.localhost": 400,
			"other.localhost": 200, "other.localhost:8080": 200, "[::1]": 200, "[::1]:8080": 200, "127.0.0.1:80": 200, "my_service": 200,
		} {
			if res := rawRequest(t, s, "GET / HTTP/1.1", "Host: "+host, "", ""); res.StatusCode != want {
				t.Errorf("%s, %s: got %d, want %d", matcher, host, res.StatusCode, want)
			}
		}
		// Each of them in another spelling at once.
		if res := rawRequest(t, s, "get /a HTTP/1.1", "Host: ADMIN.localhost.", "", ""); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", matcher, res.StatusCode)
		}
	}
}

// TestAMatcherSelectsWebSocketsOverHTTP2AndHTTP3: reverse_proxy makes a GET of their
// CONNECT.
func TestAMatcherSelectsWebSocketsOverHTTP2AndHTTP3(t *testing.T) {
	t.Parallel()
	for _, matcher := range []string{"method GET HEAD POST", "header Upgrade websocket"} {
		log := &requestLog{}
		s := newProtocolSite(t, protocolOptions{handler: log.serve, matcher: matcher})
		heads := map[string]responseHead{
			"HTTP/2": s.overHTTP2(true, frames{extendedConnect("websocket", "https", s.secure, "/admin/secret", ""), ""}),
			"HTTP/3": s.overHTTP3(s.connectRequest("websocket", "/admin/secret"), ""),
		}
		for name, head := range heads {
			if head.status != "401" {
				t.Errorf("%s over %s: got %q, want 401", matcher, name, head.status)
			}
		}
		if seen := log.seen(); len(seen) != 0 {
			t.Errorf("%s: the upstream saw %q", matcher, seen)
		}
	}
}

func TestAMatcherThatLeavesTheNextPathOpenIsAWarning(t *testing.T) {
	const fix = "which therefore needs no login"
	for matcher, want := range map[string]string{
		"/app/*": "the matcher of tollgate: /app/* does not match /app, which therefore needs no login; add /app to the matcher, or to `public` if it is open on purpose",
		"/app":   "/app does not match /app/,", "@x path /app /app/*": "", "@x path /app*": "", "*": "", "@x not path /open/*": "", "@x method GET": "",
		"@x {\nmethod GET\npath /app/*\n}": "/app/* does not match /app,", "/shop/*": "", "/opt/*": "",
	} {
		definition, name := "", matcher
		if strings.HasPrefix(matcher, "@") {
			definition, name = matcher, "@x"
		}
		file := filepath.Join(t.TempDir(), "log")
		_, handlers, err := gatewaytest.Provision("{\nadmin off\nauto_https off\nlog {\noutput file " + file + "\n}\n}\nhttp:// {\n" + definition +
			"\ntollgate " + name + " {\n" + minimalBlock + "public /shop\noptional /opt\n}\n}\n")
		if err != nil {
			t.Fatalf("%s: %v", matcher, err)
		}
		handlers[0].Cleanup()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if warned := strings.Count(string(text), fix); (want == "") != (warned == 0) || warned > 1 || !strings.Contains(string(text), want) {
			t.Errorf("%s: got %d warnings in %s, want %q", matcher, warned, text, want)
		}
	}
}
