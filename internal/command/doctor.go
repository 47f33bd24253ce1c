package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/doctor"
)

// doctorFlags are the flags of the doctor command.
type doctorFlags struct {
	configFlags
	doctor.Options
	asJSON bool
}

func newDoctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [--config <path> [--adapter <name>]] [--envfile <path>] [--site <host>] [--json]",
		Short: "Finds out why a site cannot work, before people do",
		Long: `
Examines a configuration: its secrets and addresses, the provider's endpoints,
the clock, the session store, and whether the site's routes keep forged identity
headers from the upstream. Each check says ok, warning or failure, and what to do.

Doctor changes nothing. It signs nobody in, what it writes to the session store is
removed or expires, and it never prints a secret. Run it as the user that runs
Caddy, on the machine where Caddy runs; Caddy itself may be running or not.

The exit status is 0 if there is no failure, and 1 otherwise.
`,
		Example: `  $ caddy tollgate doctor
  $ caddy tollgate doctor --config /etc/caddy/Caddyfile --envfile tollgate.env --json`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDoctor(cmd, f)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.addTo(flags)
	flags.StringVar(&f.Site, "site", "", "examine only the site of this host")
	flags.BoolVar(&f.asJSON, "json", false, "print the findings as JSON")
	flags.IntVar(&f.ProxyBuffer, "proxy-buffer", 0, "bytes of a response header that the proxy in front accepts (nginx: proxy_buffer_size)")
	flags.IntVar(&f.TokenBytes, "token-bytes", doctor.DefaultTokenBytes, "the length of the provider's access tokens")
	return cmd
}

// runDoctor prints the report. Failures are an error, so that scripts see them.
func runDoctor(cmd *cobra.Command, f doctorFlags) error {
	report := f.examine(cmd.Context())
	var err error
	if f.asJSON {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "\t")
		err = encoder.Encode(report)
	} else {
		_, err = report.WriteTo(cmd.OutOrStdout())
	}
	if err != nil {
		return err
	}
	if n := report.Count(doctor.Failure); n > 0 {
		return fmt.Errorf("failed checks: %d", n)
	}
	return nil
}

// examine runs all checks. A configuration that does not load is the one finding then.
func (f *doctorFlags) examine(ctx context.Context) *doctor.Report {
	report := &doctor.Report{Findings: []doctor.Finding{versions()}}
	configuration, err := f.provision()
	if err != nil {
		report.Findings = append(report.Findings, doctor.Finding{
			Check: "configuration", Status: doctor.Failure, Text: doctor.Cause(config.WithoutSecrets(err, nil).Error()),
			Do: "correct the line or the option that the error names; docs/options.md describes all options",
		})
		return report
	}
	defer configuration.Close()
	report.Findings = append(report.Findings, doctor.Finding{
		Check: "configuration", Status: doctor.OK, Text: fmt.Sprintf("it loads; sites with tollgate: %d", len(configuration.Sites)),
	})
	report.Findings = append(report.Findings, doctor.Examine(ctx, configuration, f.Options)...)
	return report
}

// provision loads the configuration, and checks that it has the site.
func (f *doctorFlags) provision() (*doctor.Configuration, error) {
	text, err := f.load()
	if err != nil {
		return nil, err
	}
	configuration, err := doctor.Provision(text)
	if err != nil {
		return nil, err
	}
	switch {
	case len(configuration.Sites) == 0:
		err = errors.New("no site of this configuration has tollgate")
	case len(configuration.Named(f.Site)) == 0:
		err = fmt.Errorf("--site: no site with tollgate has the host %q", f.Site)
	}
	if err != nil {
		configuration.Close()
		return nil, err
	}
	return configuration, nil
}

// versions names what runs: the first thing that a bug report needs.
func versions() doctor.Finding {
	ofCaddy, _ := caddy.Version()
	return doctor.Finding{Check: "versions", Status: doctor.OK, Text: fmt.Sprintf("tollgate %s, Caddy %s", thisVersion(), ofCaddy)}
}
