package command

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-tollgate/tollgate/internal/oauth"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// envDeveloperToken is the environment variable for the developer token. There is no flag for
// it, because every user of a machine can read the arguments of its processes.
const envDeveloperToken = "AIHUBMIX_DEVELOPER_TOKEN"

// registerOptions are the flags of the register-app command.
type registerOptions struct {
	oauth.App
	baseURL string
	envFile string
	force   bool
}

func newRegisterAppCommand() *cobra.Command {
	var o registerOptions
	cmd := &cobra.Command{
		Use:   "register-app --name <name> --redirect-uri <url> [--description <text>] [--base-url <url>] [--env-file <file>] [--force]",
		Short: "Registers your application with the provider",
		Long: `
Registers your application with AIHubMix. The client id and the client secret,
which the provider shows only once, are written to an env file that only you can
read; the block for the Caddyfile is printed.

The developer token is read from the environment variable
` + envDeveloperToken + `, or from the terminal. It is never an
argument, and neither it nor the client secret is ever printed.
`,
		Example: `  $ caddy tollgate register-app --name "My App" --redirect-uri https://app.example.com/oauth/callback
  $ caddy run --envfile tollgate.env`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRegisterApp(cmd, o)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.Name, "name", "", "the application's name, as people see it when they sign in (required)")
	flags.StringVar(&o.RedirectURI, "redirect-uri", "", "the callback's full URL, such as https://app.example.com/oauth/callback (required)")
	flags.StringVar(&o.Description, "description", "", "what the application does")
	flags.StringVar(&o.baseURL, "base-url", oauth.DefaultBaseURL, "the provider's address")
	flags.StringVar(&o.envFile, "env-file", "tollgate.env", "file for the client id and secret")
	flags.BoolVar(&o.force, "force", false, "replace the env file if it exists")
	return cmd
}

// runRegisterApp does everything that can fail without the provider first: what it
// answers comes only once.
func runRegisterApp(cmd *cobra.Command, o registerOptions) error {
	site, base, err := o.check()
	if err != nil {
		return err
	}
	if err := checkEnvFile(o.envFile, o.force); err != nil {
		return err
	}
	token, err := developerToken(cmd)
	if err != nil {
		return err
	}
	file, err := reserveEnvFile(o.envFile, o.force)
	if err != nil {
		return err
	}
	defer file.discard()

	ctx, stop := untilStopped(cmd.Context())
	defer stop()
	app, err := oauth.RegisterApp(ctx, base, token, o.App)
	if err != nil {
		return err
	}
	if err := keepCredentials(file, app, o.RedirectURI); err != nil {
		return err
	}
	if app.RedirectURI != "" && app.RedirectURI != o.RedirectURI {
		cmd.PrintErrf("Warning: the provider registered another redirect URI: %s\n", oauth.Printable(app.RedirectURI, token))
	}
	return printRegistration(cmd, o, site)
}

// check reads the flags. Its errors name the flag.
func (o registerOptions) check() (site *url.URL, base string, err error) {
	if strings.TrimSpace(o.Name) == "" {
		return nil, "", errors.New("--name is required: the application's name, as people see it when they sign in")
	}
	if o.RedirectURI == "" {
		return nil, "", errors.New("--redirect-uri is required: the callback's full URL, such as https://app.example.com/oauth/callback")
	}
	if site, err = checkRedirectURI(o.RedirectURI); err != nil {
		return nil, "", fmt.Errorf("--redirect-uri: %w", err)
	}
	if base, err = checkBaseURL(o.baseURL); err != nil {
		return nil, "", fmt.Errorf("--base-url: %w", err)
	}
	if o.envFile == "" {
		return nil, "", errors.New("--env-file: is empty")
	}
	return site, base, nil
}

// checkRedirectURI accepts what the gateway accepts as its redirect_uri, in a
// spelling that needs no quotes in any file.
func checkRedirectURI(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"):
		return nil, errors.New("is not an absolute http(s) URL")
	case u.User != nil || strings.ContainsAny(raw, "?#"):
		return nil, errors.New("must have no user, query or fragment")
	case !isPlainHost(u) || !isPlainText(u.Path) || u.RawPath != "" || u.Path != path.Clean(u.Path):
		return nil, errors.New("must be made of plain letters, digits and -._~ alone")
	case u.Path == "/":
		return nil, errors.New("needs a path of its own, such as /oauth/callback")
	case !origin.IsSecure(u):
		return nil, errors.New("must be https, or http on loopback")
	}
	return u, nil
}

// checkBaseURL accepts what may be sent the developer token.
func checkBaseURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "":
		return "", errors.New("is not an absolute URL")
	case u.User != nil || strings.ContainsAny(raw, "?#"):
		return "", errors.New("must have no user, query or fragment")
	case !isPlainHost(u) || (u.Path != "" && !isPlainText(u.Path)):
		return "", errors.New("must be made of plain letters, digits and -._~ alone")
	case !origin.IsSecure(u):
		return "", errors.New("must be https, or http on loopback: the developer token goes there")
	}
	return strings.TrimRight(raw, "/"), nil
}

// isPlainHost reports whether a URL's host is a name or an address, with no more
// than a port; url.Parse lets quotes and brackets through.
func isPlainHost(u *url.URL) bool {
	return u.Hostname() != "" && strings.Trim(u.Host, letters+"0123456789.-:[]") == ""
}

// isPlainText reports whether a text means the same in an env file, in a shell and
// in a Caddyfile, without quotes.
func isPlainText(s string) bool {
	return s != "" && strings.Trim(s, letters+"0123456789-._~+/=:@") == ""
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// developerToken reads the developer token from the environment, or asks for it.
func developerToken(cmd *cobra.Command) (string, error) {
	token := strings.TrimSpace(os.Getenv(envDeveloperToken))
	if token == "" {
		stdin, ok := cmd.InOrStdin().(*os.File)
		if !ok || !term.IsTerminal(int(stdin.Fd())) {
			return "", fmt.Errorf("the developer token is missing: set %s, or run this in a terminal to be asked for it", envDeveloperToken)
		}
		var err error
		if token, err = askForToken(cmd, stdin); err != nil {
			return "", err
		}
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return "", errors.New("the developer token contains a character that no token has; copy the whole token and nothing else")
		}
	}
	if token == "" {
		return "", errors.New("the developer token is empty")
	}
	return token, nil
}

// askForToken reads a line without echo. A signal meanwhile gives the terminal its
// echo back.
func askForToken(cmd *cobra.Command, stdin *os.File) (string, error) {
	fd := int(stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("asking for the developer token: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	cmd.PrintErr("Developer token (not shown): ")
	defer cmd.PrintErrln()
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() { // ends with the line, or with the process
		text, err := term.ReadPassword(fd)
		read <- line{text, err}
	}()
	select {
	case <-signals:
		_ = term.Restore(fd, before)
		return "", errors.New("canceled; nothing was registered")
	case got := <-read:
		if got.err != nil {
			return "", fmt.Errorf("asking for the developer token: %w", got.err)
		}
		return strings.TrimSpace(string(got.text)), nil
	}
}

// printRegistration says what to do now. The block goes to the standard output
// alone, so that it can be redirected.
func printRegistration(cmd *cobra.Command, o registerOptions, site *url.URL) error {
	cmd.PrintErrf(`The application is registered. Its client id and client secret are in %s,
which only you can read; keep it out of version control.

Put this into your Caddyfile, with the address of your application instead of
localhost:3000, and start with: caddy run --envfile %s

`, o.envFile, o.envFile)
	address := origin.Of(site)
	if host, isHTTPS := strings.CutPrefix(address, "https://"); isHTTPS {
		address = host
	}
	baseURL := ""
	if o.baseURL != oauth.DefaultBaseURL {
		baseURL = "\n\t\t\tbase_url " + o.baseURL
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), `%s {
	tollgate {
		provider aihubmix {%s
			client_id {env.OAUTH_CLIENT_ID}
			client_secret {env.OAUTH_CLIENT_SECRET}
		}
		redirect_uri {env.OAUTH_REDIRECT_URI}
	}
	reverse_proxy localhost:3000
}
`, address, baseURL)
	return err
}
