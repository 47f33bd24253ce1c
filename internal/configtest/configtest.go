// Package configtest adapts and provisions configurations in tests. It does not import the root
// package, so that the root's own tests can use it, too. Other tests use internal/gatewaytest.
// Begin with Provision.
package configtest

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard" // the modules that a configuration names
)

// PlainProvider is the smallest valid block of tollgate with `provider oauth2`.
const PlainProvider = `provider oauth2 {
	authorization_endpoint https://login.example.com/a
	token_endpoint https://login.example.com/t
	userinfo_endpoint https://login.example.com/u
	client_id id
	client_secret secret
}
redirect_uri https://app.example.com/oauth/callback
`

// Adapt turns a Caddyfile into Caddy's JSON.
func Adapt(text string) ([]byte, error) {
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	config, _, err := adapter.Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	return config, err
}

// Provision provisions a configuration in JSON, and returns its first server. It writes globals
// of Caddy, so it must not run twice at the same time.
func Provision(config []byte) (*caddyhttp.Server, error) {
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &parsed); err != nil {
		return nil, err
	}
	ctx, err := caddy.ProvisionContext(&parsed)
	if err != nil {
		return nil, err
	}
	app, err := ctx.App("http")
	if err != nil {
		return nil, err
	}
	return app.(*caddyhttp.App).Servers["srv0"], nil
}

// HandlersIn returns the handlers of type H in routes. The test cleans them up: Caddy does so only
// if it runs the configuration.
func HandlersIn[H caddyhttp.MiddlewareHandler](routes caddyhttp.RouteList) []H {
	var found []H
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case H:
				found = append(found, h)
			case *caddyhttp.Subroute:
				found = append(found, HandlersIn[H](h.Routes)...)
			}
		}
	}
	return found
}
