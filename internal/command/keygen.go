package command

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/session"
)

func newKeygenCommand() *cobra.Command {
	var (
		file, lifetime string
		force          bool
	)
	cmd := &cobra.Command{
		Use:   "keygen [--roll <file> [--lifetime <duration>] [--force]]",
		Short: "Prints a new secret for the cookies, or replaces one step by step",
		Long: `
Prints a new secret that seals the cookies: 32 random bytes in base64url, and
nothing else, so that it can go straight into a file:

	$ (umask 077; caddy tollgate keygen > tollgate.secret)

and from there into the Caddyfile:

	secret {file./etc/caddy/tollgate.secret}

With --roll it replaces the secret in that file, one step each time it is called, so
that nobody has to sign in again: it adds a new secret that only opens, then makes it
the first, then removes the previous one. After each step it says when the next one may
follow. Gateways read the file again by themselves. If there are several files, run the
command for one of them, and copy it to the others after each step.
`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("roll") {
				if cmd.Flags().Changed("lifetime") || force {
					return errors.New("--lifetime and --force need --roll <file>")
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), keys.NewSecret())
				return err
			}
			longest, err := caddy.ParseDuration(lifetime)
			if err != nil || longest <= 0 || longest > session.MaxLifetime {
				return errors.New("--lifetime must be a duration of at most 30d, such as 30d or 12h: the `lifetime` of the sessions")
			}
			return runRoll(cmd.OutOrStdout(), file, longest, force)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringVar(&file, "roll", "", "a file with secrets, one in each line: make the next step with it")
	cmd.Flags().StringVar(&lifetime, "lifetime", "30d", "the longest session `lifetime` of the sites that use the file")
	cmd.Flags().BoolVar(&force, "force", false, "make the next step although it is too early")
	return cmd
}

func runRoll(out io.Writer, file string, lifetime time.Duration, force bool) error {
	now := time.Now().Truncate(time.Second)
	var rolled keys.Rolled
	err := rewriteSecretFile(file, func(text string) (_ string, err error) {
		rolled, err = keys.Roll(text, now, lifetime, force)
		return rolled.Text, err
	})
	if early, ok := errors.AsType[*keys.RollTooEarlyError](err); ok {
		return errors.New(tooEarly(file, early, lifetime, now))
	}
	if err != nil {
		return fmt.Errorf("--roll: %s: %w", file, err)
	}
	_, err = io.WriteString(out, rollReport(file, rolled, lifetime, now))
	return err
}

// rollReport says what was done, and what comes next.
func rollReport(file string, rolled keys.Rolled, lifetime time.Duration, now time.Time) string {
	next := localTime(rolled.Next.Unix(), now)
	again := "caddy tollgate keygen --roll " + file
	switch rolled.Step {
	case keys.RollAdded:
		return fmt.Sprintf(`Step 1 of 3 done: %s has a new secret that only opens. Cookies are still sealed with the previous one.

Next: wait until every gateway has read the file. Each one logs "secret replaced". If
upstreams verify assertions, they need the new key from jwks.json, too.
Then, from %s on, run:
  %s
`, file, next, again)
	case keys.RollSeals:
		return fmt.Sprintf(`Step 2 of 3 done: the new secret in %s seals. The previous one still opens, and cookies are sealed again when they are used.

Next: wait until no session can have a cookie of the previous secret: the lifetime of a
session (%s), and an hour. As long as a gateway logs "a previous secret is still in use", wait.
Then, from %s on, run:
  %s
`, file, roughly(lifetime), next, again)
	default:
		return fmt.Sprintf("Step 3 of 3 done: %s has one secret left (removed: %d). There is no next step.\n", file, rolled.Retired)
	}
}

func tooEarly(file string, early *keys.RollTooEarlyError, lifetime time.Duration, now time.Time) string {
	since, from := localTime(early.Since.Unix(), now), localTime(early.From.Unix(), now)
	if early.Step == keys.RollSeals {
		return fmt.Sprintf("nothing was changed: the new secret in %s was added at %s; it may seal from %s on, when every gateway has read the file; "+
			"--force does it now: a gateway that has not read the file refuses the sessions that another one has sealed", file, since, from)
	}
	return fmt.Sprintf("nothing was changed: the previous secret in %s was replaced at %s, and sessions live for %s; it is unused from %s on; "+
		"--force removes it now: sessions that were not used since then end (if your sites have a shorter `lifetime`, name it with --lifetime)", file, since, roughly(lifetime), from)
}
