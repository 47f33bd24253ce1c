package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// maxHealthBytes bounds how much of a response is read. The real ones have 15 bytes.
const maxHealthBytes = 1 << 10

// healthOptions are the flags of the health command.
type healthOptions struct {
	connect string
	timeout time.Duration
}

func newHealthCommand() *cobra.Command {
	var o healthOptions
	cmd := &cobra.Command{
		Use:   "health <url> [--connect <host:port>] [--timeout <duration>]",
		Short: "Asks a gateway whether it is healthy, for container health checks",
		Long: `
Sends one GET request to the endpoint "health" or "ready" of a gateway. The exit
status is 0 if tollgate answers 200 {"status":"ok"}, and 1 otherwise. A response
of another server does not count, even with status 200: Caddy itself answers 200
to a host that it has no site for.

--connect sends the request to this address, with the host name of the URL. Use
it if the host name leads to a load balancer, and not to this machine.
`,
		Example: `  $ caddy tollgate health http://127.0.0.1:8080/oauth/health
  $ caddy tollgate health https://app.example.com/oauth/ready --connect 127.0.0.1:443`,
		Args:                  cobra.ExactArgs(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd.Context(), args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return err
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&o.connect, "connect", "", "send the request to this address")
	flags.DurationVar(&o.timeout, "timeout", 3*time.Second, "how long the check may take")
	return cmd
}

// check returns nil if the endpoint at address is one of tollgate's, and healthy.
func (o healthOptions) check(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil {
		return errors.New("the argument must be the URL of the endpoint, such as http://127.0.0.1:8080/oauth/health")
	}
	if _, _, err := net.SplitHostPort(o.connect); o.connect != "" && err != nil {
		return errors.New("--connect must be an address with a port, such as 127.0.0.1:8080")
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	response, err := o.client().Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return judgeHealth(response)
}

// client uses no proxy of the environment: the gateway is on this machine or beside it.
// It follows no redirect, because the endpoints answer with none.
func (o healthOptions) client() *http.Client {
	transport := &http.Transport{DisableKeepAlives: true}
	if o.connect != "" {
		transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, o.connect)
		}
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// judgeHealth tells a healthy gateway from one that is not ready and from another server.
func judgeHealth(response *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, maxHealthBytes))
	if err != nil {
		return fmt.Errorf("reading the response: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not healthy: the response has status %d", response.StatusCode)
	}
	var health struct {
		Status string `json:"status"`
	}
	if json.Unmarshal(body, &health) != nil || health.Status != "ok" {
		return errors.New("the response does not come from tollgate: check the host name, the port and the path, such as /oauth/health")
	}
	return nil
}
