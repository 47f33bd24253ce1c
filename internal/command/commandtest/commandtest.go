// Package commandtest runs the commands of `caddy tollgate` in tests. It does not import
// package command, so that the tests of that package can use it.
package commandtest

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// Commands adds the subcommands under test to their parent: command.AddCommands.
type Commands func(parent *cobra.Command)

// Result is what a command that has ended printed, and its error.
type Result struct {
	Out, Errs string
	Err       error
}

// All is everything that a terminal would show.
func (r Result) All() string {
	if r.Err != nil {
		return r.Out + r.Errs + r.Err.Error()
	}
	return r.Out + r.Errs
}

func (c Commands) root(out, errs io.Writer, args ...string) *cobra.Command {
	root := &cobra.Command{Use: "caddy", SilenceUsage: true, SilenceErrors: true}
	parent := &cobra.Command{Use: "tollgate <command>"}
	c(parent)
	root.AddCommand(parent)
	root.SetArgs(append([]string{"tollgate"}, args...))
	root.SetOut(out)
	root.SetErr(errs)
	root.SetIn(strings.NewReader(""))
	return root
}

// Run runs `caddy tollgate <args>` until it ends.
func (c Commands) Run(args ...string) Result {
	var out, errs bytes.Buffer
	err := c.root(&out, &errs, args...).ExecuteContext(context.Background())
	return Result{out.String(), errs.String(), err}
}

// Output is what a running command printed so far.
type Output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write appends to the output.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns the output so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// timeout is how long a test waits for a command. A command on a busy machine takes far less.
const timeout = time.Minute

// Running is a command that runs until it is stopped.
type Running struct {
	t    *testing.T
	Out  *Output
	Stop context.CancelFunc
	done chan error
}

// Start runs a command in the background, and waits until it has printed ready. The
// command is stopped at the end of the test.
func (c Commands) Start(t *testing.T, ready string, args ...string) *Running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &Running{t: t, Out: &Output{}, Stop: cancel, done: make(chan error, 1)}
	cmd := c.root(r.Out, r.Out, args...)
	go func() { r.done <- cmd.ExecuteContext(ctx) }()
	deadline := time.After(timeout)
	for !strings.Contains(r.Out.String(), ready) {
		select {
		case err := <-r.done:
			t.Fatalf("%v ended early: %v\n%s", args, err, r.Out)
		case <-deadline:
			t.Fatalf("%v never printed %q:\n%s", args, ready, r.Out)
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Cleanup(func() {
		cancel()
		select {
		case <-r.done:
		case <-time.After(timeout):
			t.Errorf("%v does not end", args)
		}
	})
	return r
}

// Ended waits for the end of a command that was told to end.
func (r *Running) Ended() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(timeout):
		r.t.Fatalf("the command does not end:\n%s", r.Out)
		return nil
	}
}

// Between gives what stands between two texts of the output.
func (r *Running) Between(before, after string) string {
	r.t.Helper()
	_, rest, ok := strings.Cut(r.Out.String(), before)
	found, _, ok2 := strings.Cut(rest, after)
	if !ok || !ok2 {
		r.t.Fatalf("nothing stands between %q and %q:\n%s", before, after, r.Out)
	}
	return found
}

// WantOutput checks what a command printed, and that it did not fail.
func WantOutput(t *testing.T, got Result, out, errs string) {
	t.Helper()
	if got.Err != nil || got.Out != out || !strings.Contains(got.Errs, errs) || (errs == "" && got.Errs != "") {
		t.Errorf("printed %q and %q (%v), want %q and %q", got.Out, got.Errs, got.Err, out, errs)
	}
}

// WantError checks that a command failed with one line that has all words.
func WantError(t *testing.T, got Result, words ...string) {
	t.Helper()
	if got.Err == nil || got.Out != "" || strings.Contains(got.Err.Error(), "\n") {
		t.Errorf("printed %q, and failed with: %v", got.Out, got.Err)
		return
	}
	for _, word := range words {
		if !strings.Contains(got.Err.Error(), word) {
			t.Errorf("the error has no %q: %v", word, got.Err)
		}
	}
}
