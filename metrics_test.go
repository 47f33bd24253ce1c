package tollgate_test

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/keys"
	"github.com/caddy-tollgate/tollgate/internal/metrics"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

// scraped is a response of Caddy's `metrics`: the value of each series, by its name and labels
// as they are written.
type scraped map[string]float64

func parseScrape(t *testing.T, text string) scraped {
	t.Helper()
	found := scraped{}
	for line := range strings.Lines(text) {
		cut := strings.LastIndexByte(line, ' ')
		if cut < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[cut:]), 64)
		if err != nil {
			t.Fatalf("a line of the metrics: %q: %v", line, err)
		}
		found[line[:cut]] = value
	}
	return found
}

// servesMetrics are the directives of a site that serves its metrics at /metrics.
const servesMetrics = "@metrics path /metrics\nmetrics @metrics"

// scrape reads the metrics of a site over HTTP. It is one more request for a public path.
func scrape(s *gatewaytest.Site) scraped {
	s.T.Helper()
	a := s.NewBrowser().Get("/metrics", "Accept: text/plain")
	if a.StatusCode != http.StatusOK {
		s.T.Fatalf("/metrics: status %d: %s", a.StatusCode, a.Text)
	}
	return parseScrape(s.T, a.Text)
}

// metricsCase is a request, or several, and the series that grow by it.
type metricsCase struct {
	name       string
	inTollgate string
	handler    http.HandlerFunc
	// signedOut is true if the case begins without a session.
	signedOut bool
	do        func(*gatewaytest.Site, *gatewaytest.Browser)
	grow      map[string]float64
}

const anonymous = `tollgate_requests_total{outcome="anonymous"}` // also counts the scrape

var metricsCases = []metricsCase{
	{
		name: "a request of a user",
		do:   func(_ *gatewaytest.Site, b *gatewaytest.Browser) { b.Get("/") },
		grow: map[string]float64{
			`tollgate_requests_total{outcome="passed"}`: 1, anonymous: 1,
			"tollgate_decision_duration_seconds_count": 2, "tollgate_balance_age_seconds_count": 1,
		},
	},
	{
		name: "requests without a session", signedOut: true, inTollgate: "optional /maybe",
		do: func(_ *gatewaytest.Site, b *gatewaytest.Browser) {
			b.Get("/")
			b.Get("/maybe")
		},
		grow: map[string]float64{`tollgate_requests_total{outcome="unauthenticated"}`: 1, anonymous: 2, "tollgate_balance_age_seconds_count": 0},
	},
	{
		name: "requests that are refused", inTollgate: "require /admin {\nuser 1\n}",
		do: func(s *gatewaytest.Site, b *gatewaytest.Browser) {
			b.Get("/admin")
			b.Get("/open/..%2fadmin")
			b.Send(http.MethodTrace, "/", nil)
			b.Get("/chat", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Origin: https://other.example")
			b.Send(http.MethodPost, "/", nil, "Early-Data: 1")
		},
		grow: map[string]float64{
			`tollgate_requests_total{outcome="refused"}`: 1, `tollgate_requests_total{outcome="bad_request"}`: 2,
			`tollgate_requests_total{outcome="cross_origin"}`: 1, `tollgate_requests_total{outcome="too_early"}`: 1,
		},
	},
	{
		name: "an endpoint, and a dry run",
		do: func(_ *gatewaytest.Site, b *gatewaytest.Browser) {
			b.Get("/oauth/userinfo")
			b.Get("/", "Prefer: tollgate-dry-run")
		},
		grow: map[string]float64{`tollgate_requests_total{outcome="endpoint"}`: 1, `tollgate_requests_total{outcome="dry_run"}`: 1},
	},
	{
		name: "auth checks of another proxy", inTollgate: "session {\nstore storage\n}\nforward_auth {\ntrusted_proxies 127.0.0.1\n}",
		do: func(s *gatewaytest.Site, b *gatewaytest.Browser) {
			b.Get("/oauth/auth", "X-Forwarded-Uri: /page", "X-Forwarded-Method: GET")
			s.NewBrowser().Get("/oauth/auth", "X-Forwarded-Uri: /page", "X-Forwarded-Method: GET")
		},
		grow: map[string]float64{
			`tollgate_requests_total{outcome="passed"}`: 1, `tollgate_requests_total{outcome="unauthenticated"}`: 1,
			`tollgate_requests_total{outcome="endpoint"}`: 0,
		},
	},
	{
		name: "a sign-in", signedOut: true,
		do: func(_ *gatewaytest.Site, b *gatewaytest.Browser) { b.SignIn() },
		grow: map[string]float64{
			`tollgate_logins_total{result="ok"}`: 1, `tollgate_requests_total{outcome="endpoint"}`: 2,
			`tollgate_provider_request_duration_seconds_count{code="200",endpoint="token"}`:    1,
			`tollgate_provider_request_duration_seconds_count{code="200",endpoint="userinfo"}`: 1,
		},
	},
	{
		name: "sign-ins that fail", signedOut: true,
		do: func(s *gatewaytest.Site, b *gatewaytest.Browser) {
			b.Visit("/oauth/callback")
			b.Visit("/oauth/callback?code=x&state=y")
			start := b.Visit("/oauth/start")
			state := regexp.MustCompile(`state=([^&]+)`).FindStringSubmatch(start.Location())[1]
			b.Visit("/oauth/callback?error=access_denied&state=" + state)
		},
		grow: map[string]float64{
			`tollgate_logins_total{result="missing_parameters"}`: 1, `tollgate_logins_total{result="invalid_state"}`: 1,
			`tollgate_logins_total{result="access_denied"}`: 1, `tollgate_logins_total{result="ok"}`: 0,
		},
	},
	{
		name: "a refresh that a request waits for",
		do: func(s *gatewaytest.Site, b *gatewaytest.Browser) {
			s.Clock.Advance(over)
			b.Get("/")
		},
		grow: map[string]float64{
			`tollgate_refreshes_total{result="ok"}`: 1, "tollgate_refresh_waiters_total": 1,
			`tollgate_provider_request_duration_seconds_count{code="200",endpoint="token"}`: 1,
		},
	},
	{
		name: "refreshes that fail",
		do: func(s *gatewaytest.Site, b *gatewaytest.Browser) {
			s.Clock.Advance(over)
			for _, fault := range []simulator.Fault{{Status: http.StatusServiceUnavailable}, {Cut: simulator.CutBeforeAnswer}, {Status: http.StatusTooManyRequests}, {Status: 400, Body: `{"error":"invalid_client"}`}} {
				s.Provider.SetFault(simulator.Refresh, fault)
				b.Get("/")
				s.Clock.Advance(time.Minute)
			}
			s.Provider.ClearFaults()
			s.Provider.RevokeUser(12345)
			b.Get("/")
		},
		grow: map[string]float64{
			`tollgate_refreshes_total{result="ok"}`: 0, `tollgate_refreshes_total{result="rate_limited"}`: 1,
			`tollgate_refreshes_total{result="invalid_client"}`: 1, `tollgate_refreshes_total{result="invalid_grant"}`: 1,
			`tollgate_provider_request_duration_seconds_count{code="503",endpoint="token"}`:         1,
			`tollgate_provider_request_duration_seconds_count{code="unreachable",endpoint="token"}`: 1,
			`tollgate_requests_total{outcome="unavailable"}`:                                        4,
			`tollgate_requests_total{outcome="unauthenticated"}`:                                    1,
			"tollgate_refresh_waiters_total":                                                        5,
		},
	},
	{
		name: "the other endpoints of the provider", inTollgate: "",
		do: func(s *gatewaytest.Site, b *gatewaytest.Browser) {
			b.Get("/oauth/topup", "Accept: application/json")
			s.Provider.SetFault(simulator.UserInfo, simulator.Fault{Hang: true})
			s.Clock.Advance(20 * time.Minute)
			hurry(s)
			b.Get("/")
			gatewaytest.Eventually(s.T, "the read times out", func() bool {
				return scrape(s)[`tollgate_provider_request_duration_seconds_count{code="timeout",endpoint="userinfo"}`] > timeoutsBefore
			})
		},
		grow: map[string]float64{
			`tollgate_provider_request_duration_seconds_count{code="200",endpoint="topup"}`:        1,
			`tollgate_provider_request_duration_seconds_count{code="timeout",endpoint="userinfo"}`: 1,
		},
	},
	{
		name: "too little money", inTollgate: "require /paid {\nbalance 20\n}",
		do: func(s *gatewaytest.Site, b *gatewaytest.Browser) {
			setBalance(s, "8.99")
			b.Get("/paid")
			setBalance(s, "none")
			b.Get("/paid")
		},
		grow: map[string]float64{
			`tollgate_requests_total{outcome="insufficient_balance"}`: 2,
			`tollgate_insufficient_balance_total{reason="too_low"}`:   1, `tollgate_insufficient_balance_total{reason="unknown"}`: 1,
			`tollgate_insufficient_balance_total{reason="held"}`: 0,
		},
	},
	{
		name: "a cookie of a previous secret",
		do: func(s *gatewaytest.Site, b *gatewaytest.Browser) {
			s.Caddyfile = strings.Replace(s.Caddyfile, "secret "+gatewaytest.Secret, "secret "+keys.NewSecret()+" "+gatewaytest.Secret, 1)
			s.Load()
			b.Get("/")
			b.Get("/") // with a cookie of the current secret
		},
		grow: map[string]float64{"tollgate_old_secret_uses_total": 1, `tollgate_requests_total{outcome="passed"}`: 2},
	},
	{
		name: "a request that costs more than it held, and a budget", handler: costs,
		inTollgate: "require /paid {\nbalance 0.50\nreserve 1.00\nbudget 3.00 per day\n}",
		do: func(s *gatewaytest.Site, b *gatewaytest.Browser) {
			b.Get("/paid?cost=2.50")
			b.Get("/paid")
		},
		grow: map[string]float64{"tollgate_cost_over_hold_total": 1, `tollgate_requests_total{outcome="over_budget"}`: 1, `tollgate_requests_total{outcome="passed"}`: 1},
	},
}

// timeoutsBefore is how many reads have timed out when a case begins.
var timeoutsBefore float64

func TestMetricsCountWhatHappens(t *testing.T) {
	for _, c := range metricsCases {
		s := gatewaytest.New(t, gatewaytest.Options{Before: servesMetrics, InTollgate: "public /metrics /open/*\n" + c.inTollgate, Handler: c.handler})
		b := s.NewBrowser()
		if !c.signedOut {
			b.SignIn()
		}
		before := scrape(s)
		timeoutsBefore = before[`tollgate_provider_request_duration_seconds_count{code="timeout",endpoint="userinfo"}`]
		c.do(s, b)
		after := scrape(s)
		for series, want := range c.grow {
			if _, ok := after[series]; !ok {
				t.Errorf("%s: there is no %s", c.name, series)
			}
			if got := after[series] - before[series]; got != want {
				t.Errorf("%s: %s grew by %v, want %v", c.name, series, got, want)
			}
		}
	}
}

func TestMetricsShowWhatIsOpenNow(t *testing.T) {
	u := newTill()
	s := gatewaytest.New(t, gatewaytest.Options{
		Before: servesMetrics, InTollgate: "public /metrics\nrequire /paid {\nbalance 5\nreserve\n}\nbalance {\nmax_age 1h\n}",
		Handler: u.ServeHTTP,
	})
	b := s.NewBrowser().SignIn()
	setBalance(s, "8.00")
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Copy().Get("/paid")
	}()
	gatewaytest.Eventually(t, "the request holds its amount", func() bool { return scrape(s)["tollgate_holds"] == 1 })
	before := scrape(s)
	if a := b.Get("/paid"); a.StatusCode != http.StatusPaymentRequired {
		t.Errorf("a second request: status %d, want 402", a.StatusCode)
	}
	const held = `tollgate_insufficient_balance_total{reason="held"}`
	if got := scrape(s)[held] - before[held]; got != 1 {
		t.Errorf("%s grew by %v, want 1", held, got)
	}
	u.answer("Tollgate-Cost: 0")
	<-done
	if got := scrape(s)["tollgate_holds"]; got != 0 {
		t.Errorf("tollgate_holds: got %v after the response, want 0", got)
	}
}

func TestMetricsCountOpenStreams(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Before: servesMetrics, InTollgate: "public /metrics"})
	b := s.NewBrowser().SignIn()
	before := scrape(s)["tollgate_streams_open"]
	conn := webSocket(b, s.URL+"/stream/ws")
	if got := scrape(s)["tollgate_streams_open"] - before; got != 1 {
		t.Errorf("with a WebSocket: got %v streams, want 1", got)
	}
	conn.Close(websocket.StatusNormalClosure, "")
	gatewaytest.Eventually(t, "the stream is gone", func() bool { return scrape(s)["tollgate_streams_open"] == before })
}

func TestMetricsOfRealRedis(t *testing.T) {
	server := redistest.Start(t)
	s := gatewaytest.New(t, gatewaytest.Options{
		Before:     servesMetrics,
		InTollgate: "public /metrics\nrequire /paid {\nbalance 0.01\nreserve\n}\nsession {\nstore redis {\naddress " + server.Address() + "\n}\n}",
	})
	before := scrape(s)
	b := s.NewBrowser().SignIn()
	s.Clock.Advance(over)
	b.Get("/paid")
	b.Send(http.MethodPost, "/oauth/logout", nil)
	after := scrape(s)
	for _, operation := range []string{"load", "create", "save", "reread", "lock", "end", "ready", "admit", "settle", "begin_reading", "end_reading"} {
		series := `tollgate_store_request_duration_seconds_count{operation="` + operation + `",result="ok"}`
		if after[series] <= before[series] {
			t.Errorf("%s did not grow", series)
		}
	}
	const failed = `tollgate_store_request_duration_seconds_count{operation="load",result="error"}`
	if after[failed] != before[failed] {
		t.Errorf("%s grew without an outage", failed)
	}
	b = s.NewBrowser().SignIn()
	server.Kill()
	gatewaytest.Eventually(t, "a failed read of the store is counted", func() bool {
		b.Get("/")
		return scrape(s)[failed] > after[failed]
	})
}

func TestReloadKeepsTheCounts(t *testing.T) {
	s := gatewaytest.New(t, gatewaytest.Options{Before: servesMetrics, InTollgate: "public /metrics"})
	s.NewBrowser().SignIn()
	const passed = `tollgate_requests_total{outcome="passed"}`
	before := scrape(s)[passed]
	for range 2 {
		s.Load()
	}
	if got := scrape(s)[passed]; got != before || got == 0 {
		t.Errorf("%s after a reload: got %v, want %v", passed, got, before)
	}
	streams := scrape(s)["tollgate_streams_open"]
	s.Restart()
	if got := scrape(s)["tollgate_streams_open"]; got != streams {
		t.Errorf("tollgate_streams_open after a restart: got %v, want %v", got, streams)
	}
}

// documentedMetrics are the metrics of docs/operations.md: the values of each label by the
// metric's name and the label's.
func documentedMetrics(t *testing.T) map[string]map[string][]string {
	t.Helper()
	text, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(tollgate_[a-z_]+)` \\|([^|]*)\\|([^|]*)\\|([^|]*)\\|$")
	label := regexp.MustCompile("`([a-z]+)`: ([^;]*)")
	found := map[string]map[string][]string{}
	for _, cells := range row.FindAllStringSubmatch(string(text), -1) {
		labels := map[string][]string{}
		for _, l := range label.FindAllStringSubmatch(cells[4], -1) {
			for value := range strings.SplitSeq(l[2], ",") {
				labels[l[1]] = append(labels[l[1]], strings.Trim(value, " `"))
			}
			slices.Sort(labels[l[1]])
		}
		if strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
			t.Errorf("%s has no type or meaning", cells[1])
		}
		found[cells[1]] = labels
	}
	return found
}

func TestDocsNameEveryMetricAndLabel(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(metrics.New()); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	documented := documentedMetrics(t)
	for _, family := range families {
		name := family.GetName()
		labels, ok := documented[name]
		delete(documented, name)
		if !ok {
			t.Errorf("docs/operations.md does not name %s", name)
		}
		values := map[string][]string{}
		for _, series := range family.GetMetric() {
			for _, pair := range series.GetLabel() {
				if !slices.Contains(values[pair.GetName()], pair.GetValue()) {
					values[pair.GetName()] = append(values[pair.GetName()], pair.GetValue())
				}
			}
		}
		for label, from := range values {
			slices.Sort(from)
			for _, value := range from {
				if !slices.Contains(labels[label], value) {
					t.Errorf("docs/operations.md: %s, label %s: %q is missing, there are %q", name, label, value, labels[label])
				}
			}
			if label != "code" && len(from) != len(labels[label]) {
				t.Errorf("docs/operations.md: %s, label %s: got %q, want %q", name, label, labels[label], from)
			}
		}
		if len(values) != len(labels) {
			t.Errorf("docs/operations.md: %s has %d labels, the docs name %d", name, len(values), len(labels))
		}
	}
	for name := range documented {
		t.Errorf("docs/operations.md names %s, which does not exist", name)
	}
}
