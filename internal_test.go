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
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate/internal/configtest"
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

// provision adapts and provisions a Caddyfile. It returns its first server, and the handlers in it,
// which the test cleans up.
func provision(text string) (*caddyhttp.Server, []*Handler, error) {
	config, err := configtest.Adapt(text)
	if err != nil {
		return nil, nil, err
	}
	server, err := configtest.Provision(config)
	if err != nil {
		return nil, nil, err
	}
	return server, configtest.HandlersIn[*Handler](server.Routes), nil
}

const plainProvider = configtest.PlainProvider

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
