// Package command is `caddy tollgate` and its subcommands. It registers itself with
// Caddy, and exports nothing. Begin with AddCommands, which lists the subcommands.
package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-tollgate/tollgate/internal/config"
	"github.com/caddy-tollgate/tollgate/internal/origin"
)

// commandName is the subcommand of caddy below which all of these are.
const commandName = "tollgate"

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  commandName,
		Usage: "<command>",
		Short: "Tries out and sets up the authentication gateway tollgate",
		Long: `
Tools for tollgate, the authentication gateway that signs people in with
AIHubMix's OAuth 2.0.

To see it at work, without an account and without a configuration:

	$ caddy tollgate demo
`,
		CobraFunc: AddCommands,
	})
}

// AddCommands makes cmd the parent of every subcommand.
func AddCommands(cmd *cobra.Command) {
	cmd.AddCommand(newDemoCommand(), newDoctorCommand(), newExplainCommand(), newHealthCommand(), newKeygenCommand(), newProviderCommand(), newRegisterAppCommand(), newSessionsCommand(), newVersionCommand())
	// Without a RunE of its own a cobra parent takes an unknown subcommand for an
	// argument, prints its help and reports success.
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		return unknownCommand(cmd, args[0])
	}
	// After a mistyped subcommand cobra reads its flags as the parent's, and would report an
	// unknown flag instead of the subcommand.
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if words := c.Flags().Args(); c == cmd && len(words) > 0 {
			err = unknownCommand(cmd, words[0])
		}
		return config.WithoutSecrets(err, nil)
	})
	showNoSecrets(cmd)
}

// showNoSecrets makes WithoutSecrets apply to the errors of a command and its subcommands.
func showNoSecrets(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			err := run(cmd, args)
			if _, ok := errors.AsType[adminRefusal](err); ok {
				return err
			}
			return config.WithoutSecrets(err, nil)
		}
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error { return config.WithoutSecrets(check(cmd, args), nil) }
	}
	for _, sub := range cmd.Commands() {
		showNoSecrets(sub)
	}
}

func unknownCommand(cmd *cobra.Command, name string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if suggestion := config.DidYouMean(name, names); suggestion != "" {
		return fmt.Errorf("unknown command '%s'%s", name, suggestion)
	}
	return fmt.Errorf("unknown command '%s'; `%s --help` lists them", name, cmd.CommandPath())
}

// untilStopped returns a context that ends with the first SIGINT or SIGTERM. A second signal
// then ends the process at once, as usual.
func untilStopped(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// listenLoopback listens on a loopback address, which no other machine can reach, because the
// sites of these commands have no passwords. Its errors name the flag.
func listenLoopback(flag, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%s: %q is not an address such as 127.0.0.1:8080", flag, address)
	}
	if !origin.IsLoopback(host) {
		return nil, fmt.Errorf("%s: %q is not on loopback: everyone can sign in here without a password, so use 127.0.0.1, [::1] or localhost", flag, address)
	}
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %s is taken: stop the program that listens there, or use another port; port 0 (%s) selects a free one",
			flag, address, net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	// The resolver decides which address a name has.
	if tcp, ok := l.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		_ = l.Close()
		return nil, fmt.Errorf("%s: %q leads to %s, which is not on loopback", flag, address, l.Addr())
	}
	return l, nil
}

// originOf returns the origin at which a browser reaches a listener, with the host as the user
// wrote it.
func originOf(l net.Listener, host string) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "http://" + net.JoinHostPort(host, port)
}

// closeTimeout is how long running requests may take after a command was stopped. A simulated
// provider may hang on purpose.
const closeTimeout = 2 * time.Second

// localServer serves one handler on one listener.
type localServer struct {
	server *http.Server
	failed chan error // receives the error if the server ended by itself
}

func startLocal(l net.Listener, handler http.Handler) *localServer {
	s := &localServer{
		server: &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second},
		failed: make(chan error, 1),
	}
	go func() { // ends with close
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
	return s
}

// Close waits for running requests for up to closeTimeout, and then cuts them off.
func (s *localServer) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		_ = s.server.Close()
	}
}

// minAccessLifetime is the unit of expires_in (RFC 6749 section 5.1).
const minAccessLifetime = time.Second

func checkAccessLifetime(d time.Duration) error {
	if d < minAccessLifetime {
		return fmt.Errorf("--access-lifetime: %v is less than %v", d, minAccessLifetime)
	}
	return nil
}
