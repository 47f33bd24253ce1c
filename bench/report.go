package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// machine describes the machine for readers of the report.
type machine struct {
	processor string
	load      string // at the start
}

func machineFacts() machine {
	return machine{processor: processorName(), load: loadAverage()}
}

// processorName returns the name of the processor, or "" if the system does not provide it.
func processorName() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// loadAverage returns the load average of the last minute, or "" if the system does not
// provide it.
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// writeReport writes the ratios as a Markdown table, and the figures below it.
func writeReport(out io.Writer, o options, m machine, cases []*benchCase, results [][]turn) {
	fmt.Fprintf(out, "%d cores", runtime.NumCPU())
	if m.processor != "" {
		fmt.Fprintf(out, " (%s)", m.processor)
	}
	caddyVersion, _ := caddy.Version()
	fmt.Fprintf(out, ", %s/%s, %s, Caddy %s", runtime.GOOS, runtime.GOARCH, runtime.Version(), caddyVersion)
	if m.load != "" {
		fmt.Fprintf(out, ", load average %s before the run and %s after it", m.load, loadAverage())
	}
	fmt.Fprintf(out, ".\n%d keep-alive connections over plain HTTP, %d rounds of %v for each line, interleaved in slices; medians of the ratios taken round by round (smallest to largest). "+
		"A request has %d bytes with its session cookie, for an access token of %d bytes. Load generator, upstream and Caddy share the cores. Every answer was checked.\n\n",
		o.connections, o.rounds, o.duration, len(cases[1].requests[0]), o.tokenSize)
	writeRatios(out, cases, results)
	fmt.Fprint(out, "\nThe figures behind them, medians, which mean nothing on another machine:\n\n")
	writeFigures(out, cases, results)
}

func writeRatios(out io.Writer, cases []*benchCase, results [][]turn) {
	fmt.Fprint(out, "| | sessions | requests/s | p50 | p99 | CPU time of Caddy per request | requests/s against plain Caddy without the cookie |\n|---|---|---|---|---|---|---|\n")
	withoutCookie := results[0]
	var base []turn
	for i := 1; i < len(cases); i++ {
		c, turns := cases[i], results[i]
		against := ratios(turns, withoutCookie, perSecond)
		if c.site == sitePlain {
			base = turns
			fmt.Fprintf(out, "| %s, same Cookie header | %s | 1 | 1 | 1 | 1 | %s |\n", c.site, c.sessions, against)
			continue
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s |\n", c.site, c.sessions,
			ratios(turns, base, perSecond), ratios(turns, base, p50), ratios(turns, base, p99), ratios(turns, base, cpu), against)
	}
}

// String returns "" for unknown figures.
func (s spread) String() string {
	if s == (spread{}) {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.median, s.min, s.max)
}

func writeFigures(out io.Writer, cases []*benchCase, results [][]turn) {
	fmt.Fprint(out, "| | sessions | requests/s | p50 | p99 | CPU time of Caddy per request |\n|---|---|---|---|---|---|\n")
	for i, c := range cases {
		fmt.Fprintf(out, "| %s | %s | %.0f | %v | %v | %v |\n", c.site, c.sessions,
			medianOf(results[i], perSecond),
			duration(medianOf(results[i], p50)),
			duration(medianOf(results[i], p99)),
			duration(medianOf(results[i], cpu)))
	}
}

func duration(nanoseconds float64) time.Duration {
	d := time.Duration(nanoseconds)
	if d < time.Millisecond {
		return d.Round(100 * time.Nanosecond)
	}
	return d.Round(10 * time.Microsecond)
}
