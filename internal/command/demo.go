package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/spf13/cobra"

	"github.com/caddy-tollgate/tollgate/demo"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// demoOptions are the flags of the demo command.
type demoOptions struct {
	listen         string
	metrics        string
	accessLifetime time.Duration
	verbose        bool
}

func newDemoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo [--listen <address>] [--metrics <address>] [--access-lifetime <duration>] [--verbose]",
		Short: "Shows the gateway at work, with a simulated AIHubMix",
		Long: `
Runs the gateway, a simulated AIHubMix and a small application in one process, on
this machine only. No account, no configuration and no network is needed, and
nothing is kept when it ends.
`,
		Example: `  $ caddy tollgate demo
  $ caddy tollgate demo --access-lifetime 30s --verbose`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilStopped(cmd.Context())
			defer stop()
			return runDemo(ctx, cmd.OutOrStdout(), o)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8080", "address to listen on, on loopback; port 0 takes any free one")
	flags.StringVar(&o.metrics, "metrics", "", "address on loopback that serves metrics for Prometheus, such as 127.0.0.1:9180")
	flags.DurationVar(&o.accessLifetime, "access-lifetime", 2*time.Hour, "how long an access token is valid; choose a short time to see refreshes")
	flags.BoolVar(&o.verbose, "verbose", false, "log requests and events of the gateway, not only errors")
	return cmd
}

func runDemo(ctx context.Context, out io.Writer, o demoOptions) (err error) {
	site, err := startDemo(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	if err := site.printWelcome(out); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-site.provider.failed:
		return fmt.Errorf("serving the simulated provider: %w", err)
	case err := <-site.upstream.failed:
		return fmt.Errorf("serving the application: %w", err)
	}
}

// demoSite is a running demo. It uses the only Caddy instance of this process.
type demoSite struct {
	url         string // the URL to open
	providerURL string
	metricsURL  string // empty without --metrics
	folder      string // Caddy's data, deleted at the end
	provider    *localServer
	upstream    *localServer
	running     bool // true if Caddy runs
}

func startDemo(o demoOptions) (site *demoSite, err error) {
	if err := checkAccessLifetime(o.accessLifetime); err != nil {
		return nil, err
	}
	// If the system supports it (SO_REUSEPORT), Caddy shares a used port with another process.
	// So we find out whether the port is free by listening on it.
	front, err := listenLoopback("--listen", o.listen)
	if err != nil {
		return nil, err
	}
	defer func() { _ = front.Close() }()
	host, _, _ := net.SplitHostPort(o.listen)

	s := &demoSite{url: originOf(front, host)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.folder, err = os.MkdirTemp("", "tollgate-demo-"); err != nil {
		return nil, fmt.Errorf("making a temporary folder: %w", err)
	}
	config, err := s.startBehind(host, o)
	if err != nil {
		return nil, err
	}
	if err := s.chooseMetrics(o.metrics, config); err != nil {
		return nil, err
	}
	config.listen = front.Addr().String()
	if err := front.Close(); err != nil {
		return nil, fmt.Errorf("--listen: %w", err)
	}
	if err := config.run(s.folder, o.verbose); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("--listen: another program took %s while the demo started; try again", config.listen)
		}
		return nil, fmt.Errorf("starting the gateway: %w", err)
	}
	s.running = true
	return s, nil
}

// chooseMetrics chooses the address of the metrics. An empty address means no metrics.
func (s *demoSite) chooseMetrics(address string, config *demoConfig) error {
	if address == "" {
		return nil
	}
	l, err := listenLoopback("--metrics", address)
	if err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(address)
	config.metrics = originOf(l, host)
	config.metricsAddress, _, _ = net.SplitHostPort(l.Addr().String())
	s.metricsURL = config.metrics + "/metrics"
	return l.Close()
}

// startBehind starts the application and the provider, and returns the configuration to reach
// them.
func (s *demoSite) startBehind(host string, o demoOptions) (*demoConfig, error) {
	providerListener, err := listenLoopback("--listen", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	// Cookies do not distinguish ports. With another name for the same machine the provider is
	// a different site than the gateway, as in reality.
	providerHost := "localhost"
	if strings.EqualFold(host, providerHost) {
		providerHost = "127.0.0.1"
	}
	s.providerURL = originOf(providerListener, providerHost)
	config := &demoConfig{
		origin:       s.url,
		baseURL:      "http://" + providerListener.Addr().String(),
		browserURL:   s.providerURL,
		clientID:     "client_of_the_demo",
		clientSecret: keys.NewSecret(),
		secret:       keys.NewSecret(),
	}
	provider := simulator.New(simulator.Options{
		Clients: []simulator.Client{{
			ID: config.clientID, Secret: config.clientSecret, Name: "tollgate demo",
			RedirectURIs: []string{config.redirectURI()},
		}},
		BaseURL:        s.providerURL,
		AccessLifetime: o.accessLifetime,
	})
	s.provider = startLocal(providerListener, provider)

	upstreamListener, err := listenLoopback("--listen", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	config.upstream = upstreamListener.Addr().String()
	s.upstream = startLocal(upstreamListener, demo.New(spendAt(provider)))
	return config, nil
}

// spendAt returns a function that charges accounts, as a call to a model would.
func spendAt(provider *simulator.Provider) demo.SpendFunc {
	return func(userID string, cents int64) error {
		id, err := strconv.ParseInt(userID, 10, 64)
		if err != nil {
			return fmt.Errorf("reading the user id: %w", err)
		}
		if err = provider.Spend(id, cents); errors.Is(err, simulator.ErrInsufficient) {
			return demo.ErrInsufficient
		}
		return err
	}
}

// Close stops everything. It stops the gateway first, so that no request reaches a stopped
// server.
func (s *demoSite) Close() error {
	var err error
	if s.running {
		err = caddy.Stop()
	}
	for _, server := range []*localServer{s.upstream, s.provider} {
		if server != nil {
			server.Close()
		}
	}
	return errors.Join(err, os.RemoveAll(s.folder))
}

func (s *demoSite) printWelcome(out io.Writer) error {
	metrics := ""
	if s.metricsURL != "" {
		metrics = "  - Let Prometheus read the metrics at " + s.metricsURL + "\n"
	}
	_, err := fmt.Fprintf(out, `The demo is ready.

  Open   %s/

and sign in with one click. Behind it are a small application without any
OAuth code, and a simulated AIHubMix at %s.

Try this:
  - Ask a question for 0.50: the answer comes word by word, and the balance goes down.
  - Top up in the other tab that opens, come back, and refresh the balance.
  - Press "Twenty at once": the gateway passes as many calls as the balance can
    pay, and answers 402 to the others.
  - Open a second tab: it is signed in. Sign out there, and reload the first.
  - Sign in again: after a sign-out the provider asks for your consent.
  - Sign in as 张伟, who has no money at all, and ask: the gateway says what is
    missing. Top up, and try again.
  - See a public page at %s/public, and one where sign-in
    is optional at %s/optional.
%s
Ctrl-C stops the demo. Nothing is saved.
`, s.url, s.providerURL, s.url, s.url, metrics)
	return err
}

// demoConfig has the values for the demo's Caddyfile.
type demoConfig struct {
	listen                 string // address and port
	origin                 string
	baseURL, browserURL    string // the provider's address for the gateway and for the browser
	clientID, clientSecret string
	secret                 string
	metrics                string // origin of the site for metrics; empty without one
	metricsAddress         string // IP address that this site listens on
	upstream               string
}

func (c *demoConfig) redirectURI() string { return c.origin + "/oauth/callback" }

// caddyfile returns the demo's whole configuration. The forms are optional paths: a form that
// is sent after signing out in another tab gets a page of the application and not a 401 for
// scripts. Responses are flushed at once, because they come word by word in a page, and Caddy
// does that by itself only for event streams. The second site redirects users of another name
// for this machine to the first.
func (c *demoConfig) caddyfile(verbose bool) string {
	address, port, _ := net.SplitHostPort(c.listen)
	level := "ERROR"
	log := ""
	if verbose {
		level, log = "INFO", "log"
	}
	return fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	storage_check off
	storage_clean_interval off
	grace_period %s
	default_bind %s
	log {
		level %s
	}
}

%s {
	%s
	tollgate {
		provider aihubmix {
			base_url               %s
			authorization_endpoint %s
			client_id              %s
			client_secret          %s
		}
		redirect_uri %s
		secret       %s
		brand        "tollgate demo"

		public   /public /assets/*
		optional /optional /ask /refresh-balance
		require /answers /answers/* /model /model/* {
			balance 0.50
			reserve
		}
		balance {
			max_age 5s
		}
	}
	reverse_proxy %s {
		flush_interval -1
	}
}

http://:%s {
	redir %s{uri}
}
%s`, closeTimeout, address, level,
		c.origin, log,
		c.baseURL, c.browserURL+simulator.AuthorizePath, c.clientID, c.clientSecret,
		c.redirectURI(), c.secret,
		c.upstream,
		port, c.origin, c.metricsSite())
}

// metricsSite returns the block of the site for metrics. It may listen on another address than
// the demo.
func (c *demoConfig) metricsSite() string {
	if c.metrics == "" {
		return ""
	}
	return fmt.Sprintf("%s {\n\tbind %s\n\tmetrics /metrics\n}\n", c.metrics, c.metricsAddress)
}

// run starts Caddy with folder for everything that it may store.
func (c *demoConfig) run(folder string, verbose bool) error {
	adapter := caddyfile.Adapter{ServerType: httpcaddyfile.ServerType{}}
	adapted, _, err := adapter.Adapt([]byte(c.caddyfile(verbose)), map[string]any{"filename": "demo"})
	if err != nil {
		return err
	}
	var config caddy.Config
	if err := json.Unmarshal(adapted, &config); err != nil {
		return err
	}
	// This is not in the Caddyfile, because a folder name may contain any character.
	config.StorageRaw = caddyconfig.JSONModuleObject(map[string]string{"root": folder}, "module", "file_system", nil)
	return caddy.Run(&config)
}
