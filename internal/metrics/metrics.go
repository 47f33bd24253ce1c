// Package metrics counts and times what the gateway does, for Prometheus.
//
// It decides nothing. Its methods are called after a decision, or when a request to the
// provider or the store has ended. Every label has a fixed set of values: none is chosen by a
// client, and none names a user, a path or a host. Where the values are known, the series
// exist from the start with the value 0, so that an alert also sees the first failure.
//
// Begin with Set, and with Of, which registers it.
package metrics

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Set has all metrics of the gateway. Its methods may be called concurrently. None of them
// allocates or searches labels on the way of an ordinary request.
type Set struct {
	requests     [outcomeCount]prometheus.Counter
	decisions    prometheus.Histogram
	logins       results
	refreshes    results
	waiters      prometheus.Counter
	provider     *prometheus.HistogramVec
	store        [operationCount][storeResultCount]prometheus.Observer
	balanceAge   prometheus.Histogram
	insufficient [shortageCount]prometheus.Counter
	overHold     prometheus.Counter
	oldSecrets   prometheus.Counter
	gauges       gauges
	collectors   []prometheus.Collector
}

// process is the Set of this process. It is a package variable because Caddy makes a registry
// for each configuration, and the counts must go on when a reload replaces it.
var process = New()

// Of registers the Set of this process with the registry of a configuration, and returns it.
// Several sites of a configuration register it one after another.
func Of(registry prometheus.Registerer) (*Set, error) {
	err := registry.Register(process)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok && already.ExistingCollector == process {
		err = nil
	}
	return process, err
}

// New returns a Set that is not registered yet.
func New() *Set {
	s := &Set{}
	requests := s.counters("tollgate_requests_total", "Requests, by what the gateway did with them.", "outcome")
	for o, name := range outcomeNames {
		s.requests[o] = requests.WithLabelValues(name)
	}
	s.decisions = s.histogram("tollgate_decision_duration_seconds",
		"Time from the arrival of a request until the gateway has decided about it.", decisionBuckets)
	s.logins = newResults(s.counters("tollgate_logins_total", "Sign-ins that ended, by result.", "result"))
	s.refreshes = newResults(s.counters("tollgate_refreshes_total", "Refreshes of tokens at the provider, by result.", "result"))
	s.waiters = s.counter("tollgate_refresh_waiters_total", "Requests that waited for a refresh of their session's tokens.")
	s.provider = s.histograms("tollgate_provider_request_duration_seconds",
		"Duration of requests to the provider.", providerBuckets, "endpoint", "code")
	for _, endpoint := range endpoints {
		for _, code := range []string{"200", CodeTimeout, CodeUnreachable} {
			s.provider.WithLabelValues(endpoint, code)
		}
	}
	store := s.histograms("tollgate_store_request_duration_seconds",
		"Duration of operations of the session store and of the ledger.", storeBuckets, "operation", "result")
	for op, name := range operationNames {
		for result, resultName := range storeResultNames {
			s.store[op][result] = store.WithLabelValues(name, resultName)
		}
	}
	s.balanceAge = s.histogram("tollgate_balance_age_seconds",
		"Age of the balance that a request was passed on with.", ageBuckets)
	insufficient := s.counters("tollgate_insufficient_balance_total", "Requests refused because of the user's money, by reason.", "reason")
	for reason, name := range shortageNames {
		s.insufficient[reason] = insufficient.WithLabelValues(name)
	}
	s.overHold = s.counter("tollgate_cost_over_hold_total", "Requests that cost more than they held.")
	s.oldSecrets = s.counter("tollgate_old_secret_uses_total", "Cookies that were opened with a previous secret.")
	s.gauge("tollgate_holds", "Requests that hold an amount now.", func() float64 { return s.gauges.sum(Source.Holds) })
	s.gauge("tollgate_streams_open", "WebSockets and event streams of signed-in users that are open now.",
		func() float64 { return s.gauges.sum(Source.Streams) })
	return s
}

// The upper bounds of the buckets, in seconds.
var (
	decisionBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	providerBuckets = []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	storeBuckets    = []float64{.0001, .0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1, 5}
	ageBuckets      = []float64{1, 2, 5, 10, 30, 60, 120, 300, 900, 3600}
)

func (s *Set) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	s.collectors = append(s.collectors, c)
	return c
}

func (s *Set) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	s.collectors = append(s.collectors, c)
	return c
}

func (s *Set) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	s.collectors = append(s.collectors, h)
	return h
}

func (s *Set) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	s.collectors = append(s.collectors, h)
	return h
}

func (s *Set) gauge(name, help string, value func() float64) {
	s.collectors = append(s.collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

// Describe implements prometheus.Collector.
func (s *Set) Describe(to chan<- *prometheus.Desc) {
	for _, c := range s.collectors {
		c.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (s *Set) Collect(to chan<- prometheus.Metric) {
	for _, c := range s.collectors {
		c.Collect(to)
	}
}

// CountRequest counts a request that was answered without a decision about its user.
func (s *Set) CountRequest(o Outcome) { s.requests[o].Inc() }

// ObserveDecision counts a request that was decided, and how long the decision took.
func (s *Set) ObserveDecision(o Outcome, took time.Duration) {
	s.requests[o].Inc()
	s.decisions.Observe(took.Seconds())
}

// CountLogin counts a sign-in that ended. The result is ResultOK or a cause.
func (s *Set) CountLogin(result string) { s.logins.count(result) }

// CountRefresh counts a refresh at the provider. The result is ResultOK or a cause.
func (s *Set) CountRefresh(result string) { s.refreshes.count(result) }

// CountRefreshWaiter counts a request that waits for a refresh.
func (s *Set) CountRefreshWaiter() { s.waiters.Inc() }

// ObserveProvider notes a request to an endpoint of the provider. See CodeOf for code.
func (s *Set) ObserveProvider(endpoint, code string, took time.Duration) {
	s.provider.WithLabelValues(endpoint, code).Observe(took.Seconds())
}

// ObserveStore notes an operation of the session store.
func (s *Set) ObserveStore(op Operation, result StoreResult, took time.Duration) {
	s.store[op][result].Observe(took.Seconds())
}

// ObserveBalanceAge notes the age of the balance that a request was passed on with.
func (s *Set) ObserveBalanceAge(age time.Duration) { s.balanceAge.Observe(age.Seconds()) }

// CountInsufficient counts a request that was refused because of the user's money.
func (s *Set) CountInsufficient(reason Shortage) { s.insufficient[reason].Inc() }

// CountCostOverHold counts a request that cost more than it held.
func (s *Set) CountCostOverHold() { s.overHold.Inc() }

// CountOldSecretUse counts a cookie that was opened with a previous secret.
func (s *Set) CountOldSecretUse() { s.oldSecrets.Inc() }
