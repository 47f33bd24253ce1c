package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/caddy-tollgate/tollgate/internal/keys"
)

func newKeygenCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keygen",
		Short: "Prints a new secret for the cookies",
		Long: `
Prints a new secret that seals the cookies: 32 random bytes in base64url, and
nothing else, so that it can go straight into a file:

	$ (umask 077; caddy tollgate keygen > tollgate.secret)

and from there into the Caddyfile, before the previous one if there is one:

	secret {file./etc/caddy/tollgate.secret}
`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), keys.NewSecret())
			return err
		},
	}
}
