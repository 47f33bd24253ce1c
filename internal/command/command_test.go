package command

import (
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/caddy-tollgate/tollgate/internal/command/commandtest"
)

// commands are those under test.
var commands = commandtest.Commands(AddCommands)

func TestParentCommandPrintsItsHelp(t *testing.T) {
	r := commands.Run()
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	for _, name := range []string{"demo", "doctor", "explain", "health", "keygen", "provider", "register-app", "sessions", "version"} {
		if !strings.Contains(r.Out, "\n  "+name+" ") {
			t.Errorf("the help does not list %s:\n%s", name, r.Out)
		}
	}
}

func TestUnknownCommandFailsAndNamesTheNearest(t *testing.T) {
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
		if r := commands.Run(test.args...); r.Err == nil || r.Err.Error() != test.want {
			t.Errorf("%v: got %v, want %s", test.args, r.Err, test.want)
		}
	}
}

func TestCommandsListenOnLoopbackOnly(t *testing.T) {
	for _, subcommand := range []string{"demo", "provider"} {
		for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:80", "127.0.0.1", "nonsense", "0.0.0.0.localhost.example.com:1"} {
			r := commands.Run(subcommand, "--listen", address)
			if r.Err == nil || !strings.HasPrefix(r.Err.Error(), "--listen: ") {
				t.Errorf("%s --listen %s: got %v", subcommand, address, r.Err)
			}
		}
	}
	commandtest.WantError(t, commands.Run("demo", "--listen", "127.0.0.1:0", "--metrics", "0.0.0.0:0"), "--metrics: ", "not on loopback")
	for _, address := range []string{"127.0.0.1:0", "localhost:0", "127.0.0.2:0"} {
		l, err := listenLoopback("--listen", address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		l.Close()
	}
}

func TestErrorNamesATakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, command := range []string{"demo", "provider"} {
		r := commands.Run(command, "--listen", l.Addr().String())
		if r.Err == nil || !strings.Contains(r.Err.Error(), l.Addr().String()+" is taken") || !strings.Contains(r.Err.Error(), "127.0.0.1:0") {
			t.Errorf("%s: got %v", command, r.Err)
		}
	}
}

func TestSignalStopsACommandCleanly(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		// This keeps the signal from ending the tests, whatever the command does.
		caught := make(chan os.Signal, 1)
		signal.Notify(caught, sig)
		defer signal.Stop(caught)

		r := commands.Start(t, "Ctrl-C ends it", "provider", "--listen", "127.0.0.1:0")
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		if err := r.Ended(); err != nil {
			t.Errorf("%v: %v", sig, err)
		}
	}
}

func TestCommandErrorShowsNoSecret(t *testing.T) {
	for _, c := range []struct{ part, secret string }{
		{"9f86d081884c7d65", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
		{"b3ulvrgqe0m", "B3uLvRgQe0mT5nYxKc7wZ2aHd9pJf4sV1iOq8kEXtGU"},
		{"tlz84jq0vbne", "secret_tLz84Jq0VbNe"},
		{"hunter2", "redis://:hunter2@host"},
		{"pa55word", "https://user:pa55word@host/x"},
	} {
		for _, args := range [][]string{
			{c.secret},
			{"--" + c.secret},
			{"sessions", c.secret},
			{"demo", "--listen", c.secret},
			{"provider", "--listen", c.secret},
			{"provider", "--auto-login", c.secret},
			{"provider", "--fault", c.secret},
			{"provider", "--redirect-uri", c.secret},
			{"provider", "--access-lifetime", c.secret},
			{"demo", "--" + c.secret},
			{"keygen", c.secret},
			{"sessions", "list", "--user", "1", "--config", c.secret},
			{"sessions", "list", "--user", "1", "--address", c.secret},
			{"register-app", "--name", "x", "--redirect-uri", c.secret},
			{"register-app", "--name", "x", "--redirect-uri", "https://a.example/x", "--base-url", c.secret},
		} {
			if r := commands.Run(args...); r.Err == nil || strings.Contains(strings.ToLower(r.All()), c.part) {
				t.Errorf("%q: got %s, want an error without %q", args, r.All(), c.part)
			}
		}
	}
}
