package command

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/caddy-tollgate/tollgate/internal/adminapi"
)

func newSessionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions <command>",
		Short: "Lists the sessions of a user, and ends sessions",
		Long: `
Lists the sessions of a user, and ends them, in the Caddy that is running. It asks
Caddy's admin API, and so works on the machine where Caddy runs, for sites that keep
their sessions on the server.
`,
		Example: `  $ caddy tollgate sessions list --user 12345
  $ caddy tollgate sessions end --user 12345`,
		Args:                  cobra.ArbitraryArgs,
		DisableFlagsInUseLine: true,
		// A flag after a mistyped command is read as one of this one's.
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("sessions needs a command: list or end")
			}
			return fmt.Errorf("unknown command '%s'; sessions has the commands list and end", args[0])
		},
	}
	cmd.AddCommand(newSessionsListCommand(), newSessionsEndCommand())
	return cmd
}

func newSessionsListCommand() *cobra.Command {
	var (
		user   string
		asJSON bool
		admin  adminFlags
	)
	cmd := &cobra.Command{
		Use:   "list --user <id> [--json] [--address <interface>] [--config <path> [--adapter <name>]]",
		Short: "Lists the sessions of a user",
		Long: `
Lists the sessions of a user, the newest first. The user is named by the provider's
id, as in the header X-User-Id and in the audit lines. When a session was used last is
known where ` + "`idle_timeout`" + ` is configured, to about a minute.

A session is marked as unconfirmed if it comes from a cookie and the provider has not
confirmed yet that it belongs to this user. Until then it signs nobody in.
`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if user == "" {
				return errors.New("--user is required: the user's id, as in the header X-User-Id")
			}
			return runSessionsList(cmd, user, asJSON, admin)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&user, "user", "", "the user's id (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the admin API's response as JSON")
	admin.addTo(cmd)
	return cmd
}

func newSessionsEndCommand() *cobra.Command {
	var (
		user     string
		all, yes bool
		admin    adminFlags
	)
	cmd := &cobra.Command{
		Use:   "end <session>|--user <id>|--all [--yes] [--address <interface>] [--config <path> [--adapter <name>]]",
		Short: "Ends one session, all of a user, or all",
		Long: `
Ends one session, as the list names it, or all sessions of a user. What the browser
holds is worth nothing from then on: at once in the Caddy that is asked, and within a
second in others that share its store. The user may sign in again.

--all ends every session in the stores of this Caddy. That includes the sessions of
other sites, and of other Caddys, that use the same storage, or the same Redis with
the same prefix. On a terminal it asks first; elsewhere it needs --yes.
`,
		Args:                  cobra.ArbitraryArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			path := adminapi.Path
			switch {
			case all && (len(args) > 0 || cmd.Flags().Changed("user")):
				return errors.New("--all ends the sessions of all users: name neither a session nor a user with it")
			case all:
				if err := confirmEndAll(cmd, yes); err != nil {
					return err
				}
				path += "?" + adminapi.AllQuery
			case len(args) == 0 && user != "":
				path += "?user=" + url.QueryEscape(user)
			case len(args) != 1 || cmd.Flags().Changed("user"):
				return errors.New("name one session, or a user with --user <id>, or --all")
			case !adminapi.IsName(args[0]):
				return adminapi.ErrNoName
			default:
				path += "/" + args[0]
			}
			return runSessionsEnd(cmd, path, admin)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&user, "user", "", "end all sessions of the user with this id")
	cmd.Flags().BoolVar(&all, "all", false, "end the sessions of all users")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --all: do not ask")
	admin.addTo(cmd)
	return cmd
}

// confirmEndAll asks on the terminal whether all sessions shall end. It returns nil if they
// shall.
func confirmEndAll(cmd *cobra.Command, yes bool) error {
	if yes {
		return nil
	}
	stdin, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(stdin.Fd())) {
		return errors.New("--all ends the sessions of all users: add --yes")
	}
	cmd.PrintErr("This signs out every user of every site that shares these stores. Type \"yes\" to go on: ")
	answer, err := bufio.NewReader(stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return errors.New("no session was ended")
	}
	return nil
}

func runSessionsList(cmd *cobra.Command, user string, asJSON bool, admin adminFlags) error {
	var answer adminapi.Sessions
	if err := admin.ask(http.MethodGet, adminapi.Path+"?user="+url.QueryEscape(user), &answer); err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(answer)
	}
	warnOfCookieSites(cmd, answer.CookieSites)
	if len(answer.Sessions) == 0 {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "no sessions")
		return err
	}
	return printSessions(cmd, answer.Sessions, time.Now())
}

func printSessions(cmd *cobra.Command, sessions []adminapi.Session, now time.Time) error {
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
	if _, err := fmt.Fprintln(table, "SESSION\tSITE\tSIGNED IN\tLAST SEEN\tEXPIRES"); err != nil {
		return err
	}
	for _, s := range sessions {
		lastSeen := "-" // not recorded
		if s.LastSeenAt > s.CreatedAt {
			lastSeen = localTime(s.LastSeenAt, now)
		}
		expires := localTime(s.ExpiresAt, now)
		if s.Unconfirmed {
			expires += " (unconfirmed)"
		}
		if _, err := fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.Session, s.Site, localTime(s.CreatedAt, now), lastSeen, expires); err != nil {
			return err
		}
	}
	return table.Flush()
}

// localTime formats a time as local time, with the distance from now.
func localTime(unix int64, now time.Time) string {
	t := time.Unix(unix, 0)
	distance := roughly(now.Sub(t)) + " ago"
	if t.After(now) {
		distance = "in " + roughly(t.Sub(now))
	}
	return t.Format("2006-01-02 15:04") + " (" + distance + ")"
}

// roughly formats a duration in its largest useful unit.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
}

func runSessionsEnd(cmd *cobra.Command, path string, admin adminFlags) error {
	var answer adminapi.Ended
	if err := admin.ask(http.MethodDelete, path, &answer); err != nil {
		return err
	}
	warnOfCookieSites(cmd, answer.CookieSites)
	text := fmt.Sprintf("%d sessions ended", answer.Ended)
	if answer.Ended == 1 {
		text = "1 session ended"
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

// warnOfCookieSites warns that the response is incomplete.
func warnOfCookieSites(cmd *cobra.Command, origins []string) {
	if len(origins) > 0 {
		cmd.PrintErrf("Warning: the list is not complete: %s\n", adminapi.CookieSitesError(origins))
	}
}

// adminFlags locate the running Caddy's admin API. They are the flags of `caddy reload`.
type adminFlags struct {
	address, config, adapter string
}

func (f *adminFlags) addTo(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.address, "address", "", "the address of the admin API, if not the default")
	flags.StringVarP(&f.config, "config", "c", "", "a configuration file to read that address from")
	flags.StringVarP(&f.adapter, "adapter", "a", "", "the adapter of that file, such as caddyfile")
}

// ask sends a request to the admin API and reads the response.
func (f *adminFlags) ask(method, uri string, answer any) error {
	address, err := f.find()
	if err != nil {
		return err
	}
	res, err := caddycmd.AdminAPIRequest(address, method, uri, nil, nil)
	if err != nil {
		return readableError(address, err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(answer); err != nil {
		return fmt.Errorf("the server at %s is not the admin API of a Caddy with tollgate; set its address with --address", address)
	}
	return nil
}

// find returns the address of the admin API. A configuration without an admin API is an error,
// because another Caddy would be listening at the default address.
func (f *adminFlags) find() (string, error) {
	if f.address != "" || f.config == "" {
		return caddycmd.DetermineAdminAPIAddress(f.address, nil, "", "")
	}
	config, _, _, err := caddycmd.LoadConfig(f.config, f.adapter)
	if err != nil {
		return "", fmt.Errorf("--config: %w", err)
	}
	var parsed struct {
		Admin struct {
			Disabled bool `json:"disabled"`
		} `json:"admin"`
	}
	if err := json.Unmarshal(config, &parsed); err != nil {
		return "", fmt.Errorf("--config: reading %s: %w", f.config, err)
	}
	if parsed.Admin.Disabled {
		return "", fmt.Errorf("--config: the admin API is off in %s: remove `admin off`, because sessions are listed and ended through the admin API", f.config)
	}
	return caddycmd.DetermineAdminAPIAddress("", config, f.config, f.adapter)
}

// readableError makes one line of an error of caddycmd.AdminAPIRequest. Only the text of that
// error says whether Caddy did not respond, or responded with an error as JSON.
func readableError(address string, err error) error {
	text, answered := strings.CutPrefix(err.Error(), "caddy responded with error: ")
	if !answered {
		return fmt.Errorf("no response from the admin API at %s: check that Caddy is running, that the address is right (--address, --config), and that the configuration has no `admin off` (%w)", address, err)
	}
	var refusal struct {
		Error string `json:"error"`
	}
	_, body, _ := strings.Cut(text, ": ")
	if json.Unmarshal([]byte(body), &refusal) != nil || refusal.Error == "" {
		return fmt.Errorf("the admin API at %s has no /tollgate/sessions: the Caddy there has another version of tollgate, or none", address)
	}
	return adminRefusal(refusal.Error)
}

// adminRefusal is an error text of the gateway. It may contain the name of a session, which
// looks like a secret but is not one.
type adminRefusal string

// Error returns the gateway's text.
func (e adminRefusal) Error() string { return string(e) }
