package tollgate

// What the tests of unexported names share. They cannot use internal/gatewaytest, which
// imports this package.

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

const assertionHeader = "X-Tollgate-Assertion"

// minimalBlock is the whole minimal configuration, from the second line on.
const minimalBlock = `provider aihubmix {
	client_id id
	client_secret secret
}
redirect_uri https://app.example.com/oauth/callback
`

const (
	testClientID     = "client_of_the_tests"
	testClientSecret = "secret_of_the_tests_0123456789"
	testSecret       = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	testUserID       = "12345"
)

// provision builds a Caddyfile through Caddy's own adapter and provisioning.
func provision(text string) (*caddyhttp.Server, []*Handler, error) {
	config, err := adapt(text)
	if err != nil {
		return nil, nil, err
	}
	return provisionJSON(config)
}

func adapt(text string) ([]byte, error) {
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	config, _, err := adapter.Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	return config, err
}

func provisionJSON(config []byte) (*caddyhttp.Server, []*Handler, error) {
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &parsed); err != nil {
		return nil, nil, err
	}
	ctx, err := caddy.ProvisionContext(&parsed)
	if err != nil {
		return nil, nil, err
	}
	app, err := ctx.App("http")
	if err != nil {
		return nil, nil, err
	}
	server := app.(*caddyhttp.App).Servers["srv0"]
	return server, handlersIn(server.Routes), nil
}

// handlersIn finds the tollgate handlers of a server, which a test cleans up itself:
// a provisioned config that is not run has nobody who would.
func handlersIn(routes caddyhttp.RouteList) []*Handler {
	var found []*Handler
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *Handler:
				found = append(found, h)
			case *caddyhttp.Subroute:
				found = append(found, handlersIn(h.Routes)...)
			}
		}
	}
	return found
}

// plainProvider is the least that `provider oauth2` needs.
const plainProvider = `provider oauth2 {
	authorization_endpoint https://login.example.com/a
	token_endpoint https://login.example.com/t
	userinfo_endpoint https://login.example.com/u
	client_id id
	client_secret secret
}
redirect_uri https://app.example.com/oauth/callback
`

// arriving is a request as net/http and quic-go hand it to Caddy.
func arriving(method, target, protocol string, major int, body string) (*http.Request, bool) {
	prepare := func(r *http.Request) *http.Request {
		return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), nil, &caddyhttp.Server{})
	}
	if major != 2 && major != 3 {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(
			method + " " + target + " HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")))
		if err != nil {
			return nil, false
		}
		return prepare(r), true
	}
	r, err := http.NewRequest(method, "http://gateway/", strings.NewReader(body))
	if err != nil {
		return nil, false
	}
	r.ProtoMajor, r.Proto, r.ContentLength = major, "HTTP/3.0", -1
	switch {
	case method == http.MethodConnect && protocol == "":
		r.URL = &url.URL{Host: target}
	default:
		if r.URL, err = url.ParseRequestURI(target); err != nil {
			return nil, false
		}
	}
	if method == http.MethodConnect && protocol != "" {
		r.Header[":protocol"], r.Proto = []string{protocol}, protocol
	}
	return prepare(r), true
}

// onTheWire writes a request as Caddy's reverse_proxy passes it on.
func onTheWire(r *http.Request) (*bytes.Buffer, bool) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host = "http", "upstream"
	if r.Method == http.MethodConnect && (len(r.Header[":protocol"]) == 1 && r.ProtoMajor == 2 || r.Proto == "websocket") {
		out.Method, out.Body, out.ContentLength = http.MethodGet, http.NoBody, 0
	}
	out.Header.Del(":protocol")
	var wire bytes.Buffer
	if err := out.Write(&wire); err != nil {
		return nil, false
	}
	return &wire, true
}

// smuggled is a request in the body of another one.
const smuggled = "POST /admin/x HTTP/1.1\r\nHost: app\r\nX-User-Id: 1\r\nContent-Length: 0\r\n\r\n"
