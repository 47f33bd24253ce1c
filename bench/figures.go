package main

import (
	"slices"
	"time"
)

// turn is what one case has shown in one round.
type turn struct {
	latencies []time.Duration // of all requests
	inTime    int             // how many ended before the time was up
	elapsed   time.Duration
	cpu       time.Duration // of Caddy, for all requests
}

// finish is called when the turn is over.
func (t *turn) finish() { slices.Sort(t.latencies) }

// percentile is the smallest of the sorted values that p percent of them do not
// exceed (the nearest rank), or zero of none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*p + 99) / 100
	return sorted[max(rank, 1)-1]
}

// spread is the median of some values, with the smallest and the largest.
type spread struct {
	median, min, max float64
}

// spreadOf gives the zero value for no values at all.
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

// figure reads one figure of a turn that is over.
type figure func(turn) float64

func perSecond(t turn) float64 { return float64(t.inTime) / t.elapsed.Seconds() }
func p50(t turn) float64       { return float64(percentile(t.latencies, 50)) }
func p99(t turn) float64       { return float64(percentile(t.latencies, 99)) }
func cpu(t turn) float64       { return float64(t.cpu) / float64(max(1, len(t.latencies))) }

// ratios divides round by round. Whatever slows the machine down for a while slows
// both turns of a round down, so a ratio holds where the figures do not.
func ratios(turns, base []turn, of figure) spread {
	var values []float64
	for i := range min(len(turns), len(base)) {
		if divisor := of(base[i]); divisor > 0 {
			values = append(values, of(turns[i])/divisor)
		}
	}
	return spreadOf(values)
}

// medianOf is the median of one figure over the rounds.
func medianOf(turns []turn, of figure) float64 {
	values := make([]float64, len(turns))
	for i, t := range turns {
		values[i] = of(t)
	}
	return spreadOf(values).median
}
