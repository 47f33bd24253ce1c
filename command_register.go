package tollgate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// envDeveloperToken is where register-app finds the developer token. It is no flag:
// every user of a machine can read the arguments of its processes.
const envDeveloperToken = "AIHUBMIX_DEVELOPER_TOKEN"

// appsPath is where the provider registers applications.
const appsPath = "/api/oauth_apps"

// registerTimeout is long enough for a slow console, and short enough for a person.
const registerTimeout = 30 * time.Second

// registerOptions are the flags of the register-app command.
type registerOptions struct {
	name        string
	description string
	redirectURI string
	baseURL     string
	envFile     string
	force       bool
}

func newRegisterAppCommand() *cobra.Command {
	var o registerOptions
	cmd := &cobra.Command{
		Use:   "register-app --name <name> --redirect-uri <url> [--description <text>] [--base-url <url>] [--env-file <file>] [--force]",
		Short: "Registers your application with the provider",
		Long: `
Registers your application with AIHubMix. The client id and the client secret,
which the provider shows only once, are written to an env file that only you can
read; what goes into the Caddyfile is printed.

The developer token is read from the environment variable
` + envDeveloperToken + `, or asked for in the terminal. It is never an
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
	flags.StringVar(&o.name, "name", "", "the application's name, as people see it when they sign in (required)")
	flags.StringVar(&o.redirectURI, "redirect-uri", "", "the callback's full URL, such as https://app.example.com/oauth/callback (required)")
	flags.StringVar(&o.description, "description", "", "what the application does")
	flags.StringVar(&o.baseURL, "base-url", defaultBaseURL, "the provider's address")
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
	app, err := registerApp(ctx, base, token, o)
	if err != nil {
		return err
	}
	if err := keepCredentials(file, app, o.redirectURI); err != nil {
		return err
	}
	if app.RedirectURI != "" && app.RedirectURI != o.redirectURI {
		cmd.PrintErrf("Warning: the provider registered another redirect URI: %s\n", printable(app.RedirectURI, token))
	}
	return printRegistration(cmd, o, site)
}

// check reads the flags. Its errors name the flag.
func (o registerOptions) check() (site *url.URL, base string, err error) {
	if strings.TrimSpace(o.name) == "" {
		return nil, "", errors.New("--name is required: the application's name, as people see it when they sign in")
	}
	if o.redirectURI == "" {
		return nil, "", errors.New("--redirect-uri is required: the callback's full URL, such as https://app.example.com/oauth/callback")
	}
	if site, err = checkRedirectURI(o.redirectURI); err != nil {
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
	case !isSecureURL(u):
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
	case !isSecureURL(u):
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
			return "", errors.New("the developer token holds a character that no token has: was it copied whole, and alone?")
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
		return "", errors.New("given up: nothing was registered")
	case got := <-read:
		if got.err != nil {
			return "", fmt.Errorf("asking for the developer token: %w", got.err)
		}
		return strings.TrimSpace(string(got.text)), nil
	}
}

// registeredApp is what the provider made.
type registeredApp struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RedirectURI  string `json:"redirect_uri"`
}

// registerApp asks the provider, once.
func registerApp(ctx context.Context, base, token string, o registerOptions) (registeredApp, error) {
	request, err := json.Marshal(map[string]string{
		"name": o.name, "description": o.description, "redirect_uri": o.redirectURI,
	})
	if err != nil {
		return registeredApp{}, fmt.Errorf("registering the application: %w", err)
	}
	var sent atomic.Bool
	req, err := http.NewRequestWithContext(withSentTrace(ctx, &sent), http.MethodPost, base+appsPath, bytes.NewReader(request))
	if err != nil {
		return registeredApp{}, fmt.Errorf("registering the application: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	client := newProviderClient(registerTimeout)
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		return registeredApp{}, registrationFault(base, transportReason(err), sent.Load())
	}
	defer res.Body.Close()
	body, err := readAnswer(res.Body)
	if err != nil {
		return registeredApp{}, registrationFault(base, err.Error(), true)
	}
	return readRegistration(res.StatusCode, body, token)
}

func registrationFault(base, reason string, sent bool) error {
	if sent {
		reason += "; it may be registered all the same, so look there before you try again"
	}
	return fmt.Errorf("registering the application at %s: %s", base, reason)
}

// readRegistration reads the provider's answer. The provider says no under a good
// status, too, and why in `message`.
func readRegistration(status int, body []byte, token string) (registeredApp, error) {
	var answer struct {
		Success bool          `json:"success"`
		Message string        `json:"message"`
		Data    registeredApp `json:"data"`
	}
	err := json.Unmarshal(body, &answer)
	why := ""
	if message := printable(answer.Message, token); err == nil && message != "" {
		why = ": " + message
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return registeredApp{}, fmt.Errorf("the provider does not accept the developer token (status %d)%s", status, why)
	case status >= 300 && status < 400:
		return registeredApp{}, fmt.Errorf("the provider answered with a redirect (status %d), which is not followed: it would take the developer token elsewhere. Is --base-url right?", status)
	case status < 200 || status > 299:
		return registeredApp{}, fmt.Errorf("the provider did not register the application (status %d)%s", status, why)
	case err != nil:
		return registeredApp{}, errors.New("the provider's answer is not the JSON it should be. Is --base-url right?")
	case !answer.Success:
		return registeredApp{}, fmt.Errorf("the provider did not register the application%s", why)
	case answer.Data.ClientID == "" || answer.Data.ClientSecret == "":
		return registeredApp{}, errors.New("the provider's answer has no client_id or no client_secret")
	}
	return answer.Data, nil
}

// maxMessage bounds what is shown of a text of the provider, in runes.
const maxMessage = 200

// printable makes a text of the provider fit for a terminal: one line without
// control or formatting characters, of bounded length, and without the developer
// token, should the provider repeat it.
func printable(text, token string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	text = strings.ReplaceAll(text, token, "[developer token]")
	if runes := []rune(text); len(runes) > maxMessage {
		text = string(runes[:maxMessage]) + "…"
	}
	return text
}

// printRegistration says what to do now. The block goes to the standard output
// alone, so that it can be redirected.
func printRegistration(cmd *cobra.Command, o registerOptions, site *url.URL) error {
	cmd.PrintErrf(`The application is registered. Its client id and client secret are in %s,
which only you can read; keep it out of version control.

Put this into your Caddyfile, with the address of your application instead of
localhost:3000, and start with: caddy run --envfile %s

`, o.envFile, o.envFile)
	address := serializeOrigin(site)
	if host, isHTTPS := strings.CutPrefix(address, "https://"); isHTTPS {
		address = host
	}
	baseURL := ""
	if o.baseURL != defaultBaseURL {
		baseURL = "\n\t\t\tbase_url      " + o.baseURL
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), `%s {
	tollgate {
		provider aihubmix {%s
			client_id     {env.OAUTH_CLIENT_ID}
			client_secret {env.OAUTH_CLIENT_SECRET}
		}
		redirect_uri {env.OAUTH_REDIRECT_URI}
	}
	reverse_proxy localhost:3000
}
`, address, baseURL)
	return err
}

// keepCredentials writes the env file, or else saves the credentials somewhere: the
// provider does not show the secret again.
func keepCredentials(file *envFile, app registeredApp, redirectURI string) error {
	content, err := envFileContent([]envVariable{
		{"OAUTH_CLIENT_ID", app.ClientID},
		{"OAUTH_CLIENT_SECRET", app.ClientSecret},
		{"OAUTH_REDIRECT_URI", redirectURI},
	})
	if err == nil {
		err = file.write(content)
	}
	if err == nil {
		return nil
	}
	app.RedirectURI = redirectURI
	saved, saveErr := saveCredentials(app)
	if saveErr != nil {
		return fmt.Errorf("the application is registered, but its client secret is lost: %w; %w. Make a new secret in the provider's console, or delete the application there and register it again", err, saveErr)
	}
	return fmt.Errorf("the application is registered, but the env file could not be written: %w. Its client id and client secret are in %s, which only you can read: move them to a safe place, and do not register again", err, saved)
}

// saveCredentials writes a file in the system's temporary folder. JSON can hold
// what an env file cannot.
func saveCredentials(app registeredApp) (string, error) {
	content, err := json.MarshalIndent(map[string]string{
		"client_id": app.ClientID, "client_secret": app.ClientSecret, "redirect_uri": app.RedirectURI,
	}, "", "\t")
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp("", "tollgate-credentials-*.json") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = file.Write(append(content, '\n'))
	return file.Name(), errors.Join(err, file.Close())
}

type envVariable struct{ name, value string }

// envFileContent writes variables so that Caddy's --envfile, systemd's
// EnvironmentFile and a shell read the same. Docker's --env-file does, too, as long
// as no value needs quotes.
func envFileContent(variables []envVariable) (string, error) {
	var b strings.Builder
	for _, v := range variables {
		value := v.value
		if !isPlainText(value) {
			// Caddy takes # for a comment, even between quotes.
			for _, r := range value {
				if r < ' ' || r > '~' || strings.ContainsRune(`'\#`, r) {
					return "", fmt.Errorf("%s holds a character that an env file cannot", v.name)
				}
			}
			value = "'" + value + "'"
		}
		b.WriteString(v.name + "=" + value + "\n")
	}
	return b.String(), nil
}

// envFile is the file for the credentials. It is opened before the provider is
// asked, so that a folder that cannot be written to is found out in time.
type envFile struct {
	path string
	file *os.File
	// replaces: file stands beside path, and takes its place when it is complete.
	replaces bool
	done     bool
}

// checkEnvFile refuses a path that may not be written.
func checkEnvFile(path string, force bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--env-file: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("--env-file: %s is not a regular file", path)
	case !force:
		return errEnvFileExists(path)
	}
	return nil
}

func errEnvFileExists(path string) error {
	return fmt.Errorf("--env-file: %s exists: its secret may be in use. Name another file, or replace it with --force", path)
}

func reserveEnvFile(path string, force bool) (*envFile, error) {
	f := &envFile{path: path, replaces: force}
	var err error
	if force {
		f.file, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	} else {
		f.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the person who runs this names the file
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, errEnvFileExists(path)
	}
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	return f, nil
}

func (f *envFile) write(content string) error {
	_, err := f.file.WriteString(content)
	if err == nil {
		err = f.file.Sync()
	}
	if err = errors.Join(err, f.file.Close()); err != nil {
		return err
	}
	if f.replaces {
		if err := os.Rename(f.file.Name(), f.path); err != nil {
			return err
		}
	}
	f.done = true
	return nil
}

// discard removes a file that was not written.
func (f *envFile) discard() {
	if !f.done {
		_ = f.file.Close()
		_ = os.Remove(f.file.Name())
	}
}
