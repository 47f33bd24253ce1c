package tollgate

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-tollgate/tollgate/internal/command"
	"github.com/caddy-tollgate/tollgate/internal/keys"
)

// commandRun is a run of `caddy tollgate …` in a test.
type commandRun struct {
	out, errs string
	err       error
}

// all is everything that a terminal would show.
func (r commandRun) all() string {
	if r.err != nil {
		return r.out + r.errs + r.err.Error()
	}
	return r.out + r.errs
}

func newTestCommand(out, errs io.Writer, args ...string) *cobra.Command {
	root := &cobra.Command{Use: "caddy", SilenceUsage: true, SilenceErrors: true}
	parent := &cobra.Command{Use: "tollgate <command>"}
	command.AddCommands(parent)
	root.AddCommand(parent)
	root.SetArgs(append([]string{"tollgate"}, args...))
	root.SetOut(out)
	root.SetErr(errs)
	root.SetIn(strings.NewReader(""))
	return root
}

func runCommand(args ...string) commandRun {
	var out, errs bytes.Buffer
	err := newTestCommand(&out, &errs, args...).ExecuteContext(context.Background())
	return commandRun{out.String(), errs.String(), err}
}

// output is what a running command printed so far.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// runningCommand is a command that runs until it is stopped.
type runningCommand struct {
	t    *testing.T
	out  *output
	stop context.CancelFunc
	done chan error
}

// startCommand runs a command, and waits until it printed a text.
func startCommand(t *testing.T, ready string, args ...string) *runningCommand {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &runningCommand{t: t, out: &output{}, stop: cancel, done: make(chan error, 1)}
	cmd := newTestCommand(r.out, r.out, args...)
	go func() { r.done <- cmd.ExecuteContext(ctx) }()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(r.out.String(), ready) {
		select {
		case err := <-r.done:
			t.Fatalf("%v ended early: %v\n%s", args, err, r.out)
		case <-deadline:
			t.Fatalf("%v never printed %q:\n%s", args, ready, r.out)
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Cleanup(func() {
		cancel()
		select {
		case <-r.done:
		case <-time.After(10 * time.Second):
			t.Errorf("%v does not end", args)
		}
	})
	return r
}

// ended waits for the end of a command that was told to end.
func (r *runningCommand) ended() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(10 * time.Second):
		r.t.Fatalf("the command does not end:\n%s", r.out)
		return nil
	}
}

// between gives what stands between two texts of the output.
func (r *runningCommand) between(before, after string) string {
	r.t.Helper()
	_, rest, ok := strings.Cut(r.out.String(), before)
	found, _, ok2 := strings.Cut(rest, after)
	if !ok || !ok2 {
		r.t.Fatalf("nothing stands between %q and %q:\n%s", before, after, r.out)
	}
	return found
}

func TestTheParentCommandPrintsItsHelp(t *testing.T) {
	r := runCommand()
	if r.err != nil {
		t.Fatal(r.err)
	}
	for _, name := range []string{"demo", "keygen", "provider", "register-app", "sessions"} {
		if !strings.Contains(r.out, "\n  "+name+" ") {
			t.Errorf("the help does not list %s:\n%s", name, r.out)
		}
	}
}

func TestAnUnknownCommandFailsAndNamesTheNearest(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"demoo"}, "unknown command 'demoo'; did you mean 'demo'?"},
		{[]string{"registerapp"}, "unknown command 'registerapp'; did you mean 'register-app'?"},
		{[]string{"porvider", "--listen", "127.0.0.1:0"}, "unknown command 'porvider'; did you mean 'provider'?"},
		{[]string{"something-else"}, "unknown command 'something-else'; `caddy tollgate --help` lists them"},
		{[]string{"--bogus"}, "unknown flag: --bogus"},
		{[]string{"demo", "--bogus"}, "unknown flag: --bogus"},
		{[]string{"demo", "extra"}, `unknown command "extra" for "caddy tollgate demo"`},
	} {
		if r := runCommand(test.args...); r.err == nil || r.err.Error() != test.want {
			t.Errorf("%v: got %v, want %s", test.args, r.err, test.want)
		}
	}
}

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	for _, subcommand := range []string{"demo", "provider"} {
		for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:80", "127.0.0.1", "nonsense", "0.0.0.0.localhost.example.com:1"} {
			r := runCommand(subcommand, "--listen", address)
			if r.err == nil || !strings.HasPrefix(r.err.Error(), "--listen: ") {
				t.Errorf("%s --listen %s: got %v", subcommand, address, r.err)
			}
		}
	}
	for _, address := range []string{"127.0.0.1:0", "localhost:0", "127.0.0.2:0"} {
		l, err := command.ListenLoopback(address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		l.Close()
	}
}

func TestATakenPortIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, command := range []string{"demo", "provider"} {
		r := runCommand(command, "--listen", l.Addr().String())
		if r.err == nil || !strings.Contains(r.err.Error(), l.Addr().String()+" is taken") || !strings.Contains(r.err.Error(), "127.0.0.1:0") {
			t.Errorf("%s: got %v", command, r.err)
		}
	}
}

func TestSignalStopsACommandCleanly(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		// This keeps the signal from ending the tests, whatever the command does.
		caught := make(chan os.Signal, 1)
		signal.Notify(caught, sig)
		defer signal.Stop(caught)

		r := startCommand(t, "Ctrl-C ends it", "provider", "--listen", "127.0.0.1:0")
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if err := r.ended(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
	}
}

func TestKeygenPrintsASecretAndNothingElse(t *testing.T) {
	first, second := runCommand("keygen"), runCommand("keygen")
	if first.err != nil || first.errs != "" {
		t.Fatalf("got %v, %q", first.err, first.errs)
	}
	secret, rest, _ := strings.Cut(first.out, "\n")
	if b, err := keys.ParseSecret(secret); err != nil || len(b) != keys.MinSecret || rest != "" {
		t.Errorf("%q is not one secret: %v", first.out, err)
	}
	if first.out == second.out {
		t.Error("two secrets are the same")
	}
}
