package command

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-tollgate/tollgate/simulator"
)

// providerOptions are the flags of the provider command.
type providerOptions struct {
	listen         string
	accessLifetime time.Duration
	clientID       string
	clientSecret   string
	redirectURIs   []string
	autoLogin      string
	faults         []string
}

func newProviderCommand() *cobra.Command {
	var o providerOptions
	cmd := &cobra.Command{
		Use:   "provider [--listen <address>] [--access-lifetime <duration>] [--client-id <id>] [--client-secret <secret>] [--redirect-uri <url>...] [--auto-login <user>] [--fault <endpoint>=<what>...]",
		Short: "Runs a simulated AIHubMix",
		Long: `
Runs a simulated AIHubMix on this machine, to develop and test against: the
endpoints of its OAuth 2.0, sign-in and top-up pages, and the failures that a
client has to live through. Its users have no passwords and its money is not
real, so it listens on loopback only. Everything is forgotten when it ends.

A fault is an endpoint (authorize, token, exchange, refresh, userinfo, topup,
apps, revoke) and what goes wrong there:

	token=503                 this status
	token=500;times:3         three times, then it works again
	userinfo=delay:2s         the real response, late
	refresh=cut;after-work    a new refresh token is made, but the response is lost
	exchange=hang             no response
`,
		Example: `  $ caddy tollgate provider
  $ caddy tollgate provider --access-lifetime 30s --auto-login user123
  $ caddy tollgate provider --fault 'userinfo=503;probability:0.2'`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilStopped(cmd.Context())
			defer stop()
			return runProvider(ctx, cmd.OutOrStdout(), o)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.listen, "listen", "127.0.0.1:9099", "address to listen on, on loopback")
	flags.DurationVar(&o.accessLifetime, "access-lifetime", 2*time.Hour, "how long an access token is valid")
	flags.StringVar(&o.clientID, "client-id", "client_of_the_simulator", "the client's id")
	flags.StringVar(&o.clientSecret, "client-secret", "secret_of_the_simulator", "the client's secret")
	flags.StringArrayVar(&o.redirectURIs, "redirect-uri", []string{"http://127.0.0.1:8080/oauth/callback"}, "redirect URI of the client; repeatable")
	flags.StringVar(&o.autoLogin, "auto-login", "", "user as whom every browser is signed in from the start")
	flags.StringArrayVar(&o.faults, "fault", nil, "what goes wrong, as <endpoint>=<what>; repeatable")
	return cmd
}

func runProvider(ctx context.Context, out io.Writer, o providerOptions) error {
	provider, err := newSimulatedProvider(o)
	if err != nil {
		return err
	}
	l, err := listenLoopback("--listen", o.listen)
	if err != nil {
		return err
	}
	host, _, _ := net.SplitHostPort(o.listen)
	server := startLocal(l, provider)
	defer server.Close()
	if err := printProvider(out, originOf(l, host), provider, o); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.failed:
		return fmt.Errorf("serving the simulated provider: %w", err)
	}
}

// newSimulatedProvider reads the flags. Its errors name the flag.
func newSimulatedProvider(o providerOptions) (*simulator.Provider, error) {
	if err := checkAccessLifetime(o.accessLifetime); err != nil {
		return nil, err
	}
	for flag, value := range map[string]string{"--client-id": o.clientID, "--client-secret": o.clientSecret} {
		if !isPlainText(value) {
			return nil, fmt.Errorf("%s: use letters, digits and -._~+/=:@, so that it needs no quotes in any file", flag)
		}
	}
	for _, uri := range o.redirectURIs {
		if _, err := checkRedirectURI(uri); err != nil {
			return nil, fmt.Errorf("--redirect-uri: %w", err)
		}
	}
	provider := simulator.New(simulator.Options{
		Clients: []simulator.Client{{
			ID: o.clientID, Secret: o.clientSecret, Name: "Your application", RedirectURIs: o.redirectURIs,
		}},
		AccessLifetime: o.accessLifetime,
		AutoLogin:      o.autoLogin,
	})
	if o.autoLogin != "" {
		var names []string
		for _, user := range provider.Users() {
			names = append(names, user.Username)
		}
		if !slices.Contains(names, o.autoLogin) {
			return nil, fmt.Errorf("--auto-login: there is no user %q; there are %s", o.autoLogin, strings.Join(names, ", "))
		}
	}
	for _, text := range o.faults {
		endpoint, fault, err := simulator.ParseFault(text)
		if err != nil {
			return nil, fmt.Errorf("--fault: %w", err)
		}
		provider.SetFault(endpoint, fault)
	}
	return provider, nil
}

// printProvider says where the provider is and how to point a gateway at it.
func printProvider(out io.Writer, origin string, provider *simulator.Provider, o providerOptions) error {
	var b strings.Builder
	row := func(cells ...string) { b.WriteString("  " + strings.Join(cells, "\t") + "\n") }
	section := func(title string) { b.WriteString("\n" + title + "\n") }

	fmt.Fprintf(&b, "A simulated AIHubMix is at %s\nNo account and no money is real.\n", origin)
	section("Endpoints")
	row("authorization", "GET", origin+simulator.AuthorizePath)
	row("token", "POST", origin+simulator.TokenPath)
	row("userinfo", "GET", origin+simulator.UserInfoPath)
	row("topup", "GET", origin+simulator.TopUpPath)
	row("revocation", "POST", origin+simulator.RevokePath)
	row("applications", "POST", origin+simulator.AppsPath)
	section("Client")
	row("client id", o.clientID)
	row("client secret", o.clientSecret)
	for _, uri := range o.redirectURIs {
		row("redirect URI", uri)
	}
	row("developer token", simulator.DefaultDeveloperToken)
	section("Users, without passwords")
	for _, user := range provider.Users() {
		row(fmt.Sprintf("id %d", user.ID), "balance "+user.Balance(), user.Username)
	}
	if len(o.faults) > 0 {
		section("Faults")
		for _, fault := range o.faults {
			row(fault)
		}
	}
	section("In the Caddyfile")

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(table, b.String()); err != nil {
		return err
	}
	if err := table.Flush(); err != nil {
		return err
	}
	// Apart, because its tabs are no columns.
	_, err := fmt.Fprintf(out, `  tollgate {
  	provider aihubmix {
  		base_url      %s
  		client_id     %s
  		client_secret %s
  	}
  	redirect_uri %s
  }

Ctrl-C ends it.
`, origin, o.clientID, o.clientSecret, o.redirectURIs[0])
	return err
}
