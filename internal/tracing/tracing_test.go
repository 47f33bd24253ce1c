package tracing_test

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/caddy-tollgate/tollgate/internal/gatewaytest"
	"github.com/caddy-tollgate/tollgate/internal/redistest"
	"github.com/caddy-tollgate/tollgate/simulator"
)

func TestMain(m *testing.M) { gatewaytest.Main(m) }

const (
	scope       = "github.com/caddy-tollgate/tollgate"
	querySecret = "query-secret-of-the-operator"
)

// span is a span that the collector received, with its attributes as texts.
type span struct {
	*otlp.Span
	ours       bool
	attributes map[string]string
}

// collected is a collector: what Caddy's exporter sent to it.
type collected struct {
	mu    sync.Mutex // guards what follows
	raw   bytes.Buffer
	spans []span
}

// collect starts a collector for OTLP over HTTP, and points Caddy's exporter to it.
func collect(t *testing.T) *collected {
	t.Helper()
	c := &collected{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var sent collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &sent) != nil {
			t.Errorf("the exporter sent %s, which cannot be read: %v", r.URL.Path, err)
			return
		}
		c.add(body, &sent)
	}))
	t.Cleanup(server.Close)
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	return c
}

func (c *collected) add(body []byte, sent *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.Write(body)
	for _, resource := range sent.ResourceSpans {
		for _, of := range resource.ScopeSpans {
			for _, s := range of.Spans {
				attributes := map[string]string{}
				for _, a := range s.Attributes {
					attributes[a.Key] = cmp.Or(a.Value.GetStringValue(), strconv.FormatInt(a.Value.GetIntValue(), 10))
				}
				c.spans = append(c.spans, span{s, of.Scope.GetName() == scope, attributes})
			}
		}
	}
}

// ours are the spans of tollgate so far.
func (c *collected) ours() (found []span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.ours {
			found = append(found, s)
		}
	}
	return found
}

// parentPath is the path of the request whose span is the parent of s.
func (c *collected) parentPath(s span) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.spans {
		if bytes.Equal(other.SpanId, s.ParentSpanId) && bytes.Equal(other.TraceId, s.TraceId) && other.Kind == otlp.Span_SPAN_KIND_SERVER {
			return other.attributes["url.path"]
		}
	}
	return "none"
}

// secrets are the texts that no trace may have, by what they are.
type secrets struct {
	mu    sync.Mutex
	texts map[string]string
}

func (s *secrets) add(what, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text != "" {
		s.texts[text] = what
	}
}

// listen is a provider in front of the real one, which notes all that is secret. It says of each
// access token that it ends after two seconds, so that the gateway refreshes it soon. The real
// provider accepts it for longer, so that a slow machine causes no 401.
func (s *secrets) listen(t *testing.T, provider http.Handler) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		again := r.Clone(r.Context())
		again.Body = io.NopCloser(bytes.NewReader(body))
		again.ParseForm()
		for _, name := range []string{"code", "code_verifier", "client_secret", "refresh_token", "token", "state"} {
			s.add(name, again.Form.Get(name))
		}
		s.add("access token", strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		answer := httptest.NewRecorder()
		provider.ServeHTTP(answer, r)
		maps.Copy(w.Header(), answer.Header())
		w.Header().Del("Content-Length")
		w.WriteHeader(answer.Code)
		w.Write(expiresIn.ReplaceAll(answer.Body.Bytes(), []byte(`"expires_in":2`)))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

var expiresIn = regexp.MustCompile(`"expires_in": *[0-9]+`)

// traced runs a site with these lines before tollgate, and uses it: a sign-in, a refresh, a
// top-up, one that the provider fails, and a logout.
func traced(t *testing.T, before string) *secrets {
	t.Helper()
	known := &secrets{texts: map[string]string{gatewaytest.ClientSecret: "client secret", gatewaytest.Secret: "secret", gatewaytest.UserID: "user id", querySecret: "query"}}
	r := gatewaytest.Prepare(t, gatewaytest.RunOptions{
		InTollgate: "require /paid {\nbalance 0.01\nreserve\n}\nsession {\nstore redis {\naddress " + redistest.Start(t).Address() + "\n}\n}",
	})
	provider := known.listen(t, r.Provider)
	r.Caddyfile = strings.ReplaceAll(r.Caddyfile, r.ProviderURL, provider)
	r.Caddyfile = strings.Replace(r.Caddyfile, "provider aihubmix {", "provider aihubmix {\nrevocation_endpoint "+provider+simulator.RevokePath+
		"\nuserinfo_endpoint "+provider+simulator.UserInfoPath+"?key="+querySecret, 1)
	r.Caddyfile = strings.Replace(r.Caddyfile, "\ttollgate {", before+"\n\ttollgate {", 1)
	r.Start()

	b := r.NewBrowser()
	note := func() {
		for name, value := range b.Cookies() {
			known.add("cookie "+name, value)
		}
	}
	start := b.Visit("/oauth/start")
	note()
	b.Follow(start.Location())
	note()
	gatewaytest.Eventually(t, "a refresh", func() bool { b.Get("/page"); return r.Refreshes() > 0 })
	b.Get("/paid")
	note()
	if a := b.Visit("/oauth/topup"); a.StatusCode/100 != 3 {
		t.Fatalf("topup: status %d: %s", a.StatusCode, a.Text)
	}
	r.Provider.SetFault(simulator.TopUp, simulator.Fault{Status: http.StatusServiceUnavailable})
	b.Visit("/oauth/topup")
	note()
	if a := b.Send(http.MethodPost, "/oauth/logout", nil, "Origin: "+r.URL); a.StatusCode/100 != 3 {
		t.Fatalf("logout: status %d: %s", a.StatusCode, a.Text)
	}
	gatewaytest.Eventually(t, "the revocation", func() bool { return r.Provider.Count(simulator.Revoke) == 1 })
	noted := slices.Collect(maps.Values(known.texts))
	for _, what := range []string{"code", "code_verifier", "state", "refresh_token", "access token", "cookie tollgate"} {
		if !slices.Contains(noted, what) {
			t.Fatalf("the test has noted no %s: %q", what, noted)
		}
	}
	return known
}

func TestCallsHaveSpansUnderTheRequestThatStartedThem(t *testing.T) {
	c := collect(t)
	known := traced(t, "tracing")
	want := []string{ // name, and path of the request
		"POST token /oauth/callback", "GET userinfo /oauth/callback", "create redis /oauth/callback",
		"load redis /page", "lock redis /page", "reread redis /page", "POST token /page", "save redis /page",
		"admit redis /paid", "settle redis /paid",
		"GET topup /oauth/topup", "end redis /oauth/logout", "POST revocation /oauth/logout",
	}
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("got the spans:\n%s", strings.Join(got, "\n"))
		}
	}()
	gatewaytest.Eventually(t, "all spans were exported", func() bool {
		got = nil
		for _, s := range c.ours() {
			got = append(got, s.Name+" "+c.parentPath(s))
		}
		return !slices.ContainsFunc(want, func(name string) bool { return !slices.Contains(got, name) }) && !slices.ContainsFunc(got, func(name string) bool { return strings.HasSuffix(name, "none") })
	})
	failed := 0
	for _, s := range c.ours() {
		checkSpan(t, s)
		if s.attributes["error.type"] != "" {
			failed++
			if s.Name != "GET topup" || s.attributes["error.type"] != "503" || s.attributes["http.response.status_code"] != "503" || s.Status.GetCode() != otlp.Status_STATUS_CODE_ERROR || s.Status.GetMessage() != "" {
				t.Errorf("%s failed: %v, %v", s.Name, s.attributes, s.Status)
			}
		}
	}
	if failed != 1 {
		t.Errorf("got %d spans with an error, want the one of the failed top-up", failed)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for text, what := range known.texts {
		if bytes.Contains(c.raw.Bytes(), []byte(text)) {
			t.Errorf("the traces have the %s", what)
		}
	}
}

// checkSpan compares the kind and the attributes with the semantic conventions.
func checkSpan(t *testing.T, s span) {
	t.Helper()
	if s.Kind != otlp.Span_SPAN_KIND_CLIENT || s.EndTimeUnixNano < s.StartTimeUnixNano {
		t.Errorf("%s: kind %v, from %d to %d (%s)", s.Name, s.Kind, s.StartTimeUnixNano, s.EndTimeUnixNano, hex.EncodeToString(s.SpanId))
	}
	names := []string{"db.operation.name", "db.system.name"}
	first, _, _ := strings.Cut(s.Name, " ")
	if first == "GET" || first == "POST" {
		names = []string{"http.request.method", "http.response.status_code", "server.address", "server.port", "url.full"}
		if s.attributes["http.request.method"] != first || s.attributes["server.address"] != "127.0.0.1" ||
			!strings.HasPrefix(s.attributes["url.full"], "http://127.0.0.1:"+s.attributes["server.port"]+"/api/") || strings.Contains(s.attributes["url.full"], "?") {
			t.Errorf("%s: %v", s.Name, s.attributes)
		}
	} else if s.attributes["db.system.name"] != "redis" || s.attributes["db.operation.name"] != first {
		t.Errorf("%s: %v", s.Name, s.attributes)
	}
	var got []string
	for name := range s.attributes {
		if name != "error.type" {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, names) {
		t.Errorf("%s: attributes %v, want %v", s.Name, got, names)
	}
}

// TestRequestsWithoutTracingHaveNoSpans traces only one path, so that there is an exporter.
func TestRequestsWithoutTracingHaveNoSpans(t *testing.T) {
	c := collect(t)
	traced(t, "tracing /oauth/topup")
	gatewaytest.Eventually(t, "the top-up was exported", func() bool {
		return slices.ContainsFunc(c.ours(), func(s span) bool { return s.Name == "GET topup" })
	})
	for _, s := range c.ours() {
		if path := c.parentPath(s); path != "/oauth/topup" && path != "none" || strings.HasPrefix(s.Name, "POST") {
			t.Errorf("%s is under %s", s.Name, path)
		}
	}
}
