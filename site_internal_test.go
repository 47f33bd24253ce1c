package tollgate

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/relay"
)

// TestSiteThatIsGoneCountsNoStreams has a request that becomes a stream after its site is gone.
func TestSiteThatIsGoneCountsNoStreams(t *testing.T) {
	set, registry := metrics.New(), prometheus.NewPedanticRegistry()
	registry.MustRegister(set)
	open := func() float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "tollgate_streams_open" {
				return family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatalf("tollgate_streams_open is not among the %d metrics", len(families))
		return 0
	}
	state := newSiteState(time.Now, set)
	add := func() {
		stream := &relay.Stream[*passing]{Session: "one", End: func(relay.End) {}}
		state.streams.Add(stream, time.Hour, func(string) {})
		t.Cleanup(func() { state.streams.Remove(stream) })
	}
	add()
	if got := open(); got != 1 {
		t.Fatalf("with the site: got %v streams, want 1", got)
	}
	if err := state.Destruct(); err != nil {
		t.Fatal(err)
	}
	add()
	if got := open(); got != 0 {
		t.Errorf("without the site: got %v streams, want 0", got)
	}
}
