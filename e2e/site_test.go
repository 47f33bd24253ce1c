package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-tollgate/tollgate"
	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/porttest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// siteOptions are the settings in which a test differs from the usual site.
type siteOptions struct {
	// browser is the browser of the test. Default: Chromium.
	browser browser
	// provider is the simulator's; without AutoLogin people see its sign-in form.
	provider simulator.Options
	// inTollgate are more lines for that block. Public are / and what begins with /page;
	// whatever else the application has is protected.
	inTollgate string
	// inProvider are more lines for the provider's block.
	inProvider string
	// pages are the documents and scripts of the application, by path.
	pages map[string]string
	// api serves the requests below /api.
	api http.HandlerFunc
	// header is added to the application's pages.
	header http.Header
	// other may serve any other request. It returns false if it did not.
	other func(http.ResponseWriter, *http.Request) bool
	// policy is the Content-Security-Policy of the application's pages.
	// Default: strictPolicy.
	policy string
	// host is where people find the site. Default: 127.0.0.1. The provider is at the
	// other name of this machine, so that to a browser these are two sites.
	host string
	// https makes the site use https, with a certificate that no browser trusts.
	https bool
}

// strictPolicy is the strictest policy of an application: no inline script or style,
// nothing from other origins, and no text that becomes markup.
const strictPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'; trusted-types 'none'"

// site is a whole application behind tollgate.
type site struct {
	t           *testing.T
	provider    *simulator.Provider
	browser     browser
	host        string
	url         string
	providerURL string
	outsideURL  string // another site's server, empty until startOutside
}

// newSite starts provider, application and Caddy, and opens no browser yet.
func newSite(t *testing.T, options siteOptions) *site {
	t.Helper()
	address := porttest.Address()
	s := &site{t: t, browser: options.browser, host: cmp.Or(options.host, "127.0.0.1")}
	s.url = "http://" + s.host + ":" + portOf(address)
	certificate := ""
	if options.https {
		s.url = strings.Replace(s.url, "http", "https", 1)
		certificate = "tls " + gatewaytest.WriteCertificate(t)
	}

	provider := s.startProvider(options.provider)

	if options.policy == "" {
		options.policy = strictPolicy
	}
	application := httptest.NewServer(options)
	t.Cleanup(application.Close)

	s.run(fmt.Sprintf(`%s {
	bind 127.0.0.1
	%s
	tollgate {
		provider aihubmix {
			%s
			client_id %s
			client_secret %s
			%s
		}
		redirect_uri %s/oauth/callback
		secret %s
		public /
		public /page*
		%s
	}
	reverse_proxy %s
}
`, s.url, certificate, provider, gatewaytest.ClientID, gatewaytest.ClientSecret, options.inProvider, s.url, gatewaytest.Secret, options.inTollgate, application.URL))
	return s
}

// startProvider starts the simulator, and returns lines for the provider's block: the
// gateway uses its address, and browsers use its name.
func (s *site) startProvider(options simulator.Options) string {
	s.t.Helper()
	provider := httptest.NewUnstartedServer(nil)
	providerHost := "localhost"
	if s.host == providerHost {
		providerHost = "127.0.0.1"
	}
	s.providerURL = "http://" + providerHost + ":" + portOf(provider.Listener.Addr().String())
	options.BaseURL = s.providerURL
	options.Clients = []simulator.Client{{
		ID: gatewaytest.ClientID, Secret: gatewaytest.ClientSecret, Name: "Browser tests", RedirectURIs: []string{s.url + "/oauth/callback"},
	}}
	s.provider = simulator.New(options)
	provider.Config.Handler = s.provider
	provider.Start()
	s.t.Cleanup(provider.Close)
	return fmt.Sprintf("base_url http://%s\nauthorization_endpoint %s%s", provider.Listener.Addr(), s.providerURL, simulator.AuthorizePath)
}

// run runs Caddy with the sites of a Caddyfile until the end of the test. A process can
// have only one Caddy, so these tests run one after the other.
func (s *site) run(sites string) {
	s.t.Helper()
	text := fmt.Sprintf(`{
	admin off
	auto_https off
	persist_config off
	storage_check off
	storage_clean_interval off
	grace_period 1s
	storage file_system %s
	log {
		output discard
	}
}
%s`, s.t.TempDir(), sites)
	config, err := gatewaytest.Adapt(text)
	if err != nil {
		s.t.Fatalf("%v\n%s", err, text)
	}
	if err := caddy.Load(config, true); err != nil {
		s.t.Fatalf("%v\n%s", err, text)
	}
	s.t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			s.t.Error(err)
		}
	})
}

// ServeHTTP is the application.
func (o siteOptions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	page, ok := o.pages[r.URL.Path]
	switch {
	case strings.HasPrefix(r.URL.Path, "/api") && o.api != nil:
		o.api(w, r)
	case o.other != nil && o.other(w, r):
	case !ok:
		http.NotFound(w, r)
	case strings.HasSuffix(r.URL.Path, ".js"), strings.HasSuffix(r.URL.Path, ".css"):
		w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(r.URL.Path)))
		w.Write([]byte(page))
	default:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", o.policy)
		maps.Copy(w.Header(), o.header)
		w.Write([]byte(page))
	}
}

// document returns a document with this head and body. It has an empty icon, without which
// a browser would request one.
func document(head, body string) string {
	return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title>` +
		`<link rel="icon" href="data:,">` + head + `</head><body>` + body + `</body></html>`
}

// startOutside starts the server of another site, at localhost.
func (s *site) startOutside(body string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte(document("", body)))
	}))
	s.t.Cleanup(server.Close)
	s.outsideURL = "http://localhost:" + portOf(server.Listener.Addr().String())
}

// isKnown reports whether a page may send a request to this URL.
func (s *site) isKnown(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	switch u.Scheme {
	case "data", "blob", "about":
		return true
	}
	origin := u.Scheme + "://" + u.Host
	return origin == s.url || origin == s.providerURL || origin == s.outsideURL && s.outsideURL != ""
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}
