package main

import (
	"slices"
	"time"
)

// turn holds the measurements of one case in one round.
type turn struct {
	latencies []time.Duration // of all requests
	inTime    int             // how many requests ended before the deadline
	elapsed   time.Duration
	cpu       time.Duration // of Caddy, for all requests
}

// finish ends the turn.
func (t *turn) finish() { slices.Sort(t.latencies) }

// percentile returns the smallest of the sorted values such that p percent of them are not
// greater (the nearest rank). It returns zero if there are no values.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

// spread holds the median, the smallest and the largest of some values.
type spread struct {
	median, min, max float64
}

// spreadOf returns the spread of values. Without values it is the zero value.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return spread{median: median, min: sorted[0], max: sorted[len(sorted)-1]}
}

// figure reads one figure of a finished turn.
type figure func(turn) float64

func perSecond(t turn) float64 { return float64(t.inTime) / t.elapsed.Seconds() }
func p50(t turn) float64       { return float64(percentile(t.latencies, 50)) }
func p99(t turn) float64       { return float64(percentile(t.latencies, 99)) }
func cpu(t turn) float64       { return float64(t.cpu) / float64(max(1, len(t.latencies))) }

// ratios divides the figures of two cases round by round. If something slows the machine
// down for a while, it slows both turns of a round down. So ratios vary less than figures.
func ratios(turns, base []turn, of figure) spread {
	var values []float64
	for i := range min(len(turns), len(base)) {
		if divisor := of(base[i]); divisor > 0 {
			values = append(values, of(turns[i])/divisor)
		}
	}
	return spreadOf(values)
}

// medianOf returns the median of one figure over the rounds.
func medianOf(turns []turn, of figure) float64 {
	values := make([]float64, len(turns))
	for i, t := range turns {
		values[i] = of(t)
	}
	return spreadOf(values).median
}
