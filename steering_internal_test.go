package tollgate

import (
	"bufio"
	"cmp"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/policy"
	"github.com/caddy-tollgate/tollgate/internal/resolve"
)

// FuzzTarget: no request reaches the upstream that the rules did not see. What a client
// sends is passed on in net/http's own words, and read by net/http as an upstream reads
// it: it must be one request, under no stricter rules than those that were applied.
func FuzzTarget(f *testing.F) {
	for _, target := range []string{"/admin/x", "a:http://x/admin/x", "*", "http://host", "http://host/admin/x", "x:y", "//admin/x", "host:443", "a:?x", "http:admin", "/public/a"} {
		for _, method := range []string{"GET", "CONNECT", "TRACE", "OPTIONS", "connect"} {
			f.Add(method, target, "websocket", 1, smuggled)
			f.Add(method, target, "connect-udp", 3, smuggled)
			f.Add(method, target, "", 2, smuggled)
		}
	}
	rt, err := resolve.Routes(caddy.Context{}, map[string]string{"start": "/oauth/start"}, []string{"/public/*", "*.css"}, []string{"/optional/*"},
		[]string{"/admin", "/admin/*"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, method, target, protocol string, major int, body string) {
		r, ok := arriving(method, target, protocol, major, body)
		if !ok {
			return
		}
		if policy.JudgeTarget(r, originalURL(r)) != policy.TargetOK {
			return
		}
		if name, ok := rt.Endpoint(originalURL(r)); !ok || name != "" {
			return
		}
		applied, ok := rt.Demand(originalURL(r), r)
		if !ok {
			return
		}
		wire, ok := onTheWire(r)
		if !ok {
			return
		}
		sent := wire.String()
		upstream := bufio.NewReader(wire)
		seen, err := http.ReadRequest(upstream)
		if err != nil {
			return // the upstream refuses it
		}
		if _, err := io.Copy(io.Discard, seen.Body); err != nil {
			return
		}
		if rest, _ := io.ReadAll(upstream); len(rest) > 0 {
			t.Fatalf("%s %q: after one request the upstream reads on in %q, of %q", method, target, rest, sent)
		}
		if slices.Contains([]string{"CONNECT", "TRACE", "TRACK"}, strings.ToUpper(seen.Method)) {
			t.Fatalf("%s %q arrives as %s", method, target, seen.Method)
		}
		read := caddyhttp.PrepareRequest(seen, caddy.NewReplacer(), nil, &caddyhttp.Server{})
		if read.URL.Opaque != "" || read.URL.Path != "" && read.URL.Path[0] != '/' {
			t.Fatalf("%s %q: the upstream reads no path from it: %q", method, target, sent)
		}
		read.URL.Path = cmp.Or(read.URL.Path, "/")
		due, ok := rt.Demand(originalURL(read), read)
		if ok && (applied.Access > due.Access || due.Access != policy.AccessPublic && applied.Blocks&due.Blocks != due.Blocks) {
			t.Fatalf("%s %q passed under %+v; the upstream reads %q, which asks %+v", method, target, applied, seen.RequestURI, due)
		}
	})
}
