// Command bench compares plain Caddy `reverse_proxy` with the same site behind
// tollgate, in one run on one machine, and prints ratios. It fails if a response is
// wrong, and never because a response is slow.
//
// It uses three processes, so that the CPU time of Caddy can be measured alone: this
// process, which makes the load and is the provider; one Caddy with all sites; and an
// upstream. All sites are in one Caddy, so that they share one heap. A bigger heap is
// collected less often, which would give an advantage to the site with more in memory.
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
	connections  int
	rounds       int
	duration     time.Duration
	sessions     int
	tokenSize    int
	maxAge       time.Duration
	otherCookies int
	bare         bool
	profile      string
}

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		playRole(role)
		return
	}
	o, err := parseOptions(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&o.connections, "connections", 64, "keep-alive connections, each with one request at a time")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds; in each, every case has its turn")
	flags.DurationVar(&o.duration, "duration", 2500*time.Millisecond, "length of one turn")
	flags.IntVar(&o.sessions, "sessions", 5000, "sessions in rotation, each of a user of its own")
	flags.IntVar(&o.tokenSize, "token-size", 800, "size of an access token in bytes")
	flags.DurationVar(&o.maxAge, "max-age", time.Hour, "tollgate's balance max_age; a short one adds the re-reads to the figures")
	flags.IntVar(&o.otherCookies, "other-cookies", 0, "cookies of the application that every request carries")
	flags.BoolVar(&o.bare, "bare", false, "send only Host and Cookie, without the headers of a browser")
	flags.StringVar(&o.profile, "profile", "", "write a CPU profile of Caddy for each turn into this folder; the figures suffer")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.connections < 1 || o.rounds < 1 || o.sessions < 1:
		return o, errors.New("-connections, -rounds and -sessions must be at least 1")
	case o.otherCookies < 0:
		return o, errors.New("-other-cookies must not be less than 0")
	case o.duration <= 0 || o.maxAge <= 0:
		return o, errors.New("-duration and -max-age must be more than zero")
	case o.tokenSize < 128 || o.tokenSize > 3000:
		return o, errors.New("-token-size must be between 128 and 3000 bytes")
	case o.sessions > maxSessions:
		return o, fmt.Errorf("-sessions must be at most %d", maxSessions)
	}
	return o, nil
}

func run(o options) error {
	if o.profile != "" {
		if err := os.MkdirAll(o.profile, 0o755); err != nil {
			return err
		}
	}
	facts := machineFacts()
	s, err := startSite(o)
	if err != nil {
		return err
	}
	defer s.close()

	began := time.Now()
	sessions, err := s.signInAll(o.sessions)
	if err != nil {
		return s.explain(err)
	}
	fmt.Fprintf(os.Stderr, "%d sign-ins in %v\n", len(sessions), time.Since(began).Round(time.Millisecond))

	cases := newCases(o, s, sessions)
	defer closeCases(cases)
	results, err := measure(o, s, cases)
	if err != nil {
		return s.explain(err)
	}
	if err := s.checkProvider(o); err != nil {
		return err
	}
	writeReport(os.Stdout, o, facts, cases, results)
	return nil
}

// slice is the maximum time for which one case is loaded without a break. With short slices,
// other work on the machine affects every case of a round in the same way.
const slice = 500 * time.Millisecond

// measure warms every case up, and then runs its turns, slice by slice. The order is reversed
// after each pass, so that no case has an advantage if the machine becomes slower or faster.
func measure(o options, s *site, cases []*benchCase) ([][]turn, error) {
	for _, c := range cases {
		if err := c.warmUp(); err != nil {
			return nil, fmt.Errorf("warming up %s: %w", c, err)
		}
	}
	results := make([][]turn, len(cases))
	slices := max(1, int(o.duration/slice))
	for round := range o.rounds {
		for i := range cases {
			results[i] = append(results[i], turn{})
		}
		for pass := range slices {
			for step := range cases {
				i := step
				if pass%2 != round%2 {
					i = len(cases) - 1 - step
				}
				profile := profilePath(o, cases[i], round*slices+pass)
				if err := s.load(cases[i], o.duration/time.Duration(slices), &results[i][round], profile); err != nil {
					return nil, fmt.Errorf("round %d, %s: %w", round+1, cases[i], err)
				}
			}
		}
		for i := range cases {
			results[i][round].finish()
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
	}
	return results, nil
}

// load loads one case, and reads Caddy's CPU time before and after.
func (s *site) load(c *benchCase, duration time.Duration, t *turn, profile string) error {
	if profile != "" {
		if _, err := s.caddy.ask("profile " + profile); err != nil {
			return err
		}
	}
	before, err := s.caddy.cpuTime()
	if err != nil {
		return err
	}
	if err := c.load(duration, t); err != nil {
		return err
	}
	after, err := s.caddy.cpuTime()
	if err != nil {
		return err
	}
	t.cpu += after - before
	if profile != "" {
		_, err = s.caddy.ask("profiled")
	}
	return err
}
