package metrics_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-tollgate/tollgate/internal/metrics"
)

func TestSeveralSitesAndReloadsShareTheSetOfTheProcess(t *testing.T) {
	for range 2 { // two configurations
		registry := prometheus.NewPedanticRegistry()
		first, err := metrics.Of(registry)
		if err != nil {
			t.Fatal(err)
		}
		second, err := metrics.Of(registry)
		if err != nil || second != first {
			t.Errorf("a second site: %p and %v, want %p and no error", second, err, first)
		}
		if _, err := registry.Gather(); err != nil {
			t.Error(err)
		}
	}
}

func TestOfReportsAForeignMetricOfTheSameName(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "tollgate_refresh_waiters_total", Help: "another one"}))
	if _, err := metrics.Of(registry); err == nil {
		t.Error("no error")
	}
}

func TestUnknownResultCountsAsServerError(t *testing.T) {
	s := metrics.New()
	s.CountLogin("of a user\"}")
	s.CountRefresh("ok")
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var grown strings.Builder
	for _, family := range families {
		for _, series := range family.GetMetric() {
			if series.GetCounter().GetValue() > 0 {
				grown.WriteString(family.GetName() + " " + series.GetLabel()[0].GetValue() + "\n")
			}
		}
	}
	if got, want := grown.String(), "tollgate_logins_total server_error\ntollgate_refreshes_total ok\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCodesAreABoundedSet(t *testing.T) {
	deadline, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	for _, c := range []struct {
		status int
		err    error
		want   string
	}{
		{200, nil, "200"},
		{503, nil, "503"},
		{799, nil, "other"},
		{0, deadline.Err(), "timeout"},
		{0, context.Canceled, "canceled"},
		{0, errors.New("refused"), "unreachable"},
	} {
		if got := metrics.CodeOf(c.status, c.err); got != c.want {
			t.Errorf("CodeOf(%d, %v): got %q, want %q", c.status, c.err, got, c.want)
		}
	}
}

// BenchmarkRequest is what the metrics cost an ordinary request with a server-side store.
func BenchmarkRequest(b *testing.B) {
	s := metrics.New()
	b.ReportAllocs()
	for b.Loop() {
		begun := time.Now()
		s.ObserveStore(metrics.OpLoad, metrics.StoreOK, time.Since(begun))
		s.ObserveDecision(metrics.Passed, time.Since(begun))
		s.ObserveBalanceAge(time.Second)
	}
}

func TestMetricsOfARequestAllocateNothing(t *testing.T) {
	s := metrics.New()
	if got := testing.AllocsPerRun(100, func() {
		s.ObserveStore(metrics.OpLoad, metrics.StoreOK, time.Millisecond)
		s.ObserveDecision(metrics.Passed, time.Millisecond)
		s.ObserveBalanceAge(time.Second)
		s.CountLogin("ok")
		s.CountRefreshWaiter()
	}); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}
