package command

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"
)

// modulePath is the Go module that tollgate's own version belongs to.
const modulePath = "github.com/caddy-tollgate/tollgate"

// version is set by `make release`, with
// -ldflags '-X github.com/caddy-tollgate/tollgate/internal/command.version=0.1.0'.
var version string

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Prints the versions of tollgate, Caddy and Go",
		Long: `
Prints the versions of tollgate, of the Caddy that it is built into, and of Go,
with the platform. Add these lines to a bug report.

` + "`caddy version`" + ` prints the version of Caddy alone.
`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ofCaddy, _ := caddy.Version()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "tollgate %s\ncaddy %s\n%s %s/%s\n",
				thisVersion(), ofCaddy, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// thisVersion is the version of tollgate in this program.
func thisVersion() string {
	build, _ := debug.ReadBuildInfo()
	return ownVersion(version, build)
}

// ownVersion is the version of tollgate: the one of a release, else the one in the build
// information, which may be nil. There tollgate is the main module if cmd/caddy was built,
// and a dependency in a build by xcaddy.
func ownVersion(released string, build *debug.BuildInfo) string {
	if released != "" {
		return released
	}
	if build == nil {
		return "unknown"
	}
	for _, m := range append([]*debug.Module{&build.Main}, build.Deps...) {
		if m.Path != modulePath {
			continue
		}
		if m.Replace != nil {
			m = m.Replace
		}
		if m.Version != "" {
			return m.Version
		}
	}
	return "(devel)"
}
