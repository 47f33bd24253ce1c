package main

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		name   string
		sorted []time.Duration
		p      int
		want   time.Duration
	}{
		{"of nothing", nil, 99, 0},
		{"of one", []time.Duration{7}, 99, 7},
		{"p50 of two is the smaller", []time.Duration{1, 2}, 50, 1},
		{"p50 of three", []time.Duration{1, 2, 3}, 50, 2},
		{"p50 of a hundred", hundred, 50, 50},
		{"p99 of a hundred", hundred, 99, 99},
		{"p100 is the largest", hundred, 100, 100},
		{"p0 is the smallest", hundred, 0, 1},
		{"p99 of ten is the largest", hundred[:10], 99, 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := percentile(c.sorted, c.p); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestSpreadHasTheMedianAndLeavesTheValuesInOrder(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{5, 1, 3}, spread{3, 1, 5}},
		{[]float64{4, 1, 3, 2}, spread{2.5, 1, 4}},
	} {
		given := slices.Clone(c.values)
		if got := spreadOf(given); got != c.want {
			t.Errorf("of %v: got %+v, want %+v", c.values, got, c.want)
		}
		if !slices.Equal(given, c.values) {
			t.Errorf("%v became %v", c.values, given)
		}
	}
}

func TestRatiosAreComputedPerRound(t *testing.T) {
	rate := func(perSecond int) turn { return turn{inTime: perSecond, elapsed: time.Second} }
	// The machine was twice as fast in the second round, and the ratio does not care.
	base := []turn{rate(1000), rate(2000), rate(1000)}
	gated := []turn{rate(900), rate(1800), rate(950)}
	got := ratios(gated, base, perSecond)
	if math.Abs(got.median-0.9) > 1e-9 || math.Abs(got.max-0.95) > 1e-9 {
		t.Errorf("got %+v", got)
	}
}

func TestRatiosOfUnknownFiguresAreEmpty(t *testing.T) {
	got := ratios([]turn{{}}, []turn{{}}, cpu)
	if text := got.String(); text != "" {
		t.Errorf("got %q", text)
	}
}

func TestRequestsPerSecondIgnoreLateRequests(t *testing.T) {
	late := turn{latencies: make([]time.Duration, 110), inTime: 100, elapsed: 2 * time.Second, cpu: 110 * time.Millisecond}
	if got := perSecond(late); got != 50 {
		t.Errorf("%v requests per second, want 50", got)
	}
	if got := cpu(late); got != float64(time.Millisecond) {
		t.Errorf("%v of CPU time, want 1ms for each request that was served", got)
	}
}
