// Command soak simulates users of a site while everything around it fails. Several
// gateways share their sessions; the provider fails now and then; Redis is killed and
// restarted; configurations are reloaded; gateways are stopped and started. It counts lost
// sessions. It fails if any session was lost for another reason than a response of the
// provider that was cut off: then nobody can have the rotated tokens.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

// options are the flags.
type options struct {
	refreshes int
	replicas  int
	sessions  int
	store     string
	limit     time.Duration
	verbose   bool
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.IntVar(&o.refreshes, "refreshes", 10_000, "good refreshes after which the run ends")
	flags.IntVar(&o.replicas, "replicas", 3, "gateways")
	flags.IntVar(&o.sessions, "sessions", 250, "people, each with a session and a few requests at a time")
	flags.StringVar(&o.store, "store", "redis", "where the sessions are: redis, or storage (a folder)")
	flags.DurationVar(&o.limit, "limit", 30*time.Minute, "end the run after this time as a failure")
	flags.BoolVar(&o.verbose, "v", false, "print what happens")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.refreshes < 1 || o.replicas < 1 || o.sessions < 1:
		return o, errors.New("-refreshes, -replicas and -sessions must be at least 1")
	case o.store != "redis" && o.store != "storage":
		return o, fmt.Errorf("-store: %q must be redis or storage", o.store)
	}
	return o, nil
}

func run(o options) (err error) {
	s, err := startSite(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	began := time.Now()
	people, err := s.signInAll()
	if err != nil {
		return err
	}
	o.logf("%d people signed in after %v", len(people), time.Since(began).Round(time.Millisecond))
	s.provider.beginFaults()
	reached := s.useUntilDone(people)
	if err := s.settle(people); err != nil {
		return err
	}
	s.report(os.Stdout, time.Since(began))
	if !reached {
		return fmt.Errorf("timed out after %[2]v, before there were %[1]d refreshes", o.refreshes, o.limit)
	}
	return s.verdict()
}

func (o options) logf(format string, args ...any) {
	if o.verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}
