package gatewaytest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-tollgate/tollgate"
	"github.com/caddy-tollgate/tollgate/internal/configtest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// The client, the secret of the site, and the user whom the provider signs in.
const (
	ClientID     = "client_of_the_tests"
	ClientSecret = "secret_of_the_tests_0123456789"
	Secret       = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	UserID       = "12345"
)

// Provisioning guards the globals that Caddy's provisioning writes. Hold it while you load
// a configuration without this package.
var Provisioning sync.Mutex

// Site is a whole gateway in a test.
type Site struct {
	T        *testing.T
	Provider *simulator.Provider
	// ProviderURL and URL are the origins of the provider and of the site.
	ProviderURL string
	URL         string
	// GatewayURL is the gateway's own origin. It differs from URL if a proxy is in front.
	GatewayURL string
	// Handlers serve the site, one for each directive.
	Handlers []*tollgate.Handler
	Upstream *Upstream
	// Caddyfile is what Load loads. A test may change it before Load.
	Caddyfile string
	Server    *Swappable
	// Clock is the clock of the gateway and of the provider.
	Clock   *Clock
	options Options
}

// Options are what differs from the usual site. The zero value is a minimal
// configuration and a provider that signs in user123 without a question.
type Options struct {
	Provider simulator.Options
	// InProvider and InTollgate are more lines for those blocks.
	InProvider string
	InTollgate string
	// Before and After are more directives, before and after the gateway's.
	Before, After string
	// Storage is the argument of Caddy's option storage. Default: a folder of the test.
	Storage string
	// Handler answers in the upstream. Default: see Upstream.
	Handler http.HandlerFunc
	// Front is the URL of a proxy in front.
	Front string
}

// Swappable is a server whose handler can be replaced while it serves: a reload without
// ports.
type Swappable struct {
	// Handler serves the next request.
	Handler atomic.Pointer[http.Handler]
}

// ServeHTTP implements http.Handler.
func (s *Swappable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.Handler.Load()).ServeHTTP(w, r)
}

// New starts a provider, an upstream and a gateway, which end with the test.
func New(t *testing.T, options Options) *Site {
	t.Helper()
	s := &Site{T: t, options: options, Server: &Swappable{}, Clock: NewClock()}
	s.Upstream = NewUpstream(t, options.Handler)
	front := httptest.NewServer(s.Server)
	t.Cleanup(front.Close)
	s.URL, s.GatewayURL = front.URL, front.URL
	if options.Front != "" {
		s.URL = options.Front
	}

	options.Provider.AllowLoginHint = true
	options.Provider.Now = s.Clock.Now
	if options.Provider.AutoLogin == "" {
		options.Provider.AutoLogin = "user123"
	}
	s.Provider = simulator.New(options.Provider)
	s.Provider.SetClient(simulator.Client{
		ID: ClientID, Secret: ClientSecret, Name: "Tests",
		RedirectURIs: []string{s.URL + "/oauth/callback"},
	})
	providerServer := httptest.NewServer(s.Provider)
	t.Cleanup(providerServer.Close)
	s.ProviderURL = providerServer.URL

	s.Caddyfile = s.minimal()
	s.Load()
	t.Cleanup(func() {
		for _, h := range s.Handlers {
			h.Cleanup()
		}
	})
	return s
}

func (s *Site) minimal() string {
	storage := "file_system " + s.T.TempDir()
	if s.options.Storage != "" {
		storage = s.options.Storage
	}
	return fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	storage %s
}
http:// {
	%s
	tollgate {
		provider aihubmix {
			base_url %s
			client_id %s
			client_secret %s
			%s
		}
		redirect_uri %s/oauth/callback
		secret %s
		%s
	}
	reverse_proxy %s
	%s
}
`, storage, s.options.Before, s.ProviderURL, ClientID, ClientSecret, s.options.InProvider,
		s.URL, Secret, s.options.InTollgate, s.Upstream.URL, s.options.After)
}

// Load provisions the Caddyfile and serves it from now on. Requests that are under way
// finish on the previous handlers.
func (s *Site) Load() {
	s.T.Helper()
	server, handlers, err := provisionWith(s.Clock, s.Caddyfile)
	if err != nil {
		s.T.Fatalf("loading the config: %v\n%s", err, s.Caddyfile)
	}
	old := s.Handlers
	s.Handlers = handlers
	var handler http.Handler = server
	s.Server.Handler.Store(&handler)
	for _, h := range old {
		if err := h.Cleanup(); err != nil {
			s.T.Errorf("cleaning up: %v", err)
		}
	}
}

// Provision adapts and provisions a Caddyfile on the system's clock. It returns its first
// server, and the handlers in it, which the caller cleans up.
func Provision(text string) (*caddyhttp.Server, []*tollgate.Handler, error) {
	return provisionWith(nil, text)
}

// provisionWith is Provision with the given clock.
func provisionWith(c *Clock, text string) (*caddyhttp.Server, []*tollgate.Handler, error) {
	config, err := adaptWith(c, text)
	if err != nil {
		return nil, nil, err
	}
	return ProvisionJSON(config)
}

// adaptWith adapts a Caddyfile, and adds the clock on which its sites run.
func adaptWith(c *Clock, text string) ([]byte, error) {
	config, err := Adapt(text)
	if err != nil || c == nil {
		return config, err
	}
	return c.addTo(config)
}

// Adapt turns a Caddyfile into Caddy's JSON.
func Adapt(text string) ([]byte, error) { return configtest.Adapt(text) }

// ProvisionJSON is Provision for a configuration in JSON.
func ProvisionJSON(config []byte) (*caddyhttp.Server, []*tollgate.Handler, error) {
	Provisioning.Lock()
	defer Provisioning.Unlock()
	server, err := configtest.Provision(config)
	if err != nil {
		return nil, nil, err
	}
	return server, HandlersIn(server.Routes), nil
}

// HandlersIn returns the handlers of tollgate in routes. Caddy cleans them up only if it
// runs the configuration.
func HandlersIn(routes caddyhttp.RouteList) []*tollgate.Handler {
	return configtest.HandlersIn[*tollgate.Handler](routes)
}

// HoldBack makes requests to an endpoint of the provider wait until release is called, and
// then fail as the fault says.
func (s *Site) HoldBack(endpoint simulator.Endpoint, fault simulator.Fault) (release func()) {
	held := make(chan struct{})
	release = sync.OnceFunc(func() { close(held) })
	s.T.Cleanup(release)
	fault.Until = held
	s.Provider.SetFault(endpoint, fault)
	return release
}

// Refreshes returns how many refreshes the provider was asked for.
func (s *Site) Refreshes() int { return s.Provider.Count(simulator.Refresh) }

// WantNoDoubleSpend fails the test if a refresh token was sent twice.
func (s *Site) WantNoDoubleSpend() {
	s.T.Helper()
	if n := s.Provider.DoubleSpends(); n != 0 {
		s.T.Errorf("%d refresh tokens were spent twice", n)
	}
}

// Restart unloads the site and loads it again, so that the process forgets the site's state, as
// after a restart.
func (s *Site) Restart() {
	s.T.Helper()
	for _, h := range s.Handlers {
		if err := h.Cleanup(); err != nil {
			s.T.Errorf("cleaning up: %v", err)
		}
	}
	s.Handlers = nil
	s.Load()
}
