package errorroutes

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// routes are one route. It is being loaded if its raw form is there.
func routes(loading bool, handlers ...caddyhttp.MiddlewareHandler) caddyhttp.RouteList {
	route := caddyhttp.Route{Handlers: handlers}
	if loading {
		route.HandlersRaw = []json.RawMessage{[]byte(`{}`)}
	}
	return caddyhttp.RouteList{route}
}

func TestGuardStandsBeforeErrorRoutesThatAreNotLoadedYet(t *testing.T) {
	proxy := new(reverseproxy.Handler)
	subroute := &caddyhttp.Subroute{Routes: routes(false, proxy)}
	for _, test := range []struct {
		name   string
		server *caddyhttp.Server
		guards int
		warns  int
	}{
		{"no server", nil, 0, 0},
		{"no error routes", &caddyhttp.Server{Routes: routes(true)}, 0, 0},
		{"error routes that come later", &caddyhttp.Server{Routes: routes(true), Errors: &caddyhttp.HTTPErrorConfig{Routes: routes(true)}}, 1, 0},
		{"a named route, and error routes to an upstream", &caddyhttp.Server{Routes: routes(false), Errors: &caddyhttp.HTTPErrorConfig{Routes: routes(false, proxy)}}, 0, 1},
		{"a named route, and error routes to an upstream in a block", &caddyhttp.Server{Routes: routes(false), Errors: &caddyhttp.HTTPErrorConfig{Routes: routes(false, subroute)}}, 0, 1},
		{"a named route, and error routes to a page", &caddyhttp.Server{Routes: routes(false), Errors: &caddyhttp.HTTPErrorConfig{Routes: routes(false, caddyhttp.StaticResponse{})}}, 0, 0},
	} {
		core, logs := observer.New(zapcore.WarnLevel)
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		if err := Guard(ctx, test.server, nil, nil, zap.New(core)); err != nil {
			t.Errorf("%s: got %v, want no error", test.name, err)
		}
		cancel()
		guards := 0
		if test.server != nil && test.server.Errors != nil {
			for i, route := range test.server.Errors.Routes {
				for _, handler := range route.Handlers {
					if _, ours := handler.(*guard); ours && i == 0 {
						guards++
					}
				}
			}
		}
		if guards != test.guards || logs.Len() != test.warns {
			t.Errorf("%s: got %d guards and %d warnings, want %d and %d", test.name, guards, logs.Len(), test.guards, test.warns)
		}
	}
}

func TestGuardKnowsTheHostsOfItsSite(t *testing.T) {
	for _, test := range []struct {
		hosts []string
		host  string
		want  bool
	}{
		{nil, "other.example", true},
		{[]string{"app.example", "app.example"}, "app.example", true},
		{[]string{"app.example"}, "APP.example:8443", true},
		{[]string{"app.example"}, "other.example", false},
		{[]string{"*.app.example"}, "a.app.example", true},
		{[]string{"*.app.example"}, "app.example", false},
	} {
		server := &caddyhttp.Server{Routes: routes(true), Errors: &caddyhttp.HTTPErrorConfig{}}
		var got *bool
		serve := func(_ http.ResponseWriter, _ *http.Request, _ caddyhttp.Handler, ours bool) error {
			got = &ours
			return nil
		}
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		if err := Guard(ctx, server, test.hosts, serve, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "http://"+test.host+"/", nil)
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, server)
		if err := server.Errors.Routes[0].Handlers[0].ServeHTTP(httptest.NewRecorder(), r, nil); err != nil {
			t.Fatal(err)
		}
		cancel()
		if got == nil || *got != test.want {
			t.Errorf("hosts %q, request for %q: got %v, want %t", test.hosts, test.host, got, test.want)
		}
	}
}
